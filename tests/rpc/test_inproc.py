"""What inproc: alone has: names of one process, and nothing outside."""

from __future__ import annotations

import os
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc
import pytest

import localrpc
from localrpc.errors import ConnectError
from localrpc.options import Options
from localrpc.transports import parse_target
from localrpc.transports.inproc import InprocTransport
from tests.forks.children import Child
from tests.transports.helpers import AcceptingServer, dial, readable, run_python

from .house import PATIENCE, House

Code = grpc.StatusCode


def failure(channel: Any) -> Any:
    with pytest.raises(grpc.RpcError) as caught:
        channel.unary_unary("/house/echo")(b"", timeout=PATIENCE)
    return caught.value


def test_the_peer_is_this_process() -> None:
    seen = []

    def note(request: bytes, context: grpc.ServicerContext) -> bytes:
        seen.append((context.peer(), localrpc.peer_credentials(context)))
        return b""

    note_handler: Any = grpc.unary_unary_rpc_method_handler(note)
    handlers = grpc.method_handlers_generic_handler("t", {"note": note_handler})
    server = localrpc.server(futures.ThreadPoolExecutor(1), (handlers,))
    server.add_insecure_port("inproc:t")
    server.start()
    channel: Any = localrpc.insecure_channel("inproc:t")
    channel.unary_unary("/t/note")(b"", timeout=PATIENCE)
    channel.close()
    server.stop(None)
    ((peer, who),) = seen
    assert peer == f"unix:pid={os.getpid()}"
    assert (who.pid, who.uid, who.gid) == (os.getpid(), os.geteuid(), os.getegid())


def test_nothing_of_it_is_seen_outside(runtime_directory: str) -> None:
    with AcceptingServer("inproc:secret") as accepting:
        client = dial("inproc:secret")
        accepting.connection()
        assert "secret" not in Path("/proc/net/unix").read_text()
        assert not any("secret" in name for name in os.listdir(runtime_directory))
        client.close()


def test_another_process_has_names_of_its_own() -> None:
    script = "from tests.transports.helpers import dial; dial('inproc:ours')"
    with AcceptingServer("inproc:ours"), run_python(script, stderr=-1) as child:
        _, errors = child.communicate()
    assert "no server of this process listens on ours" in errors


def test_a_name_is_free_again_after_close() -> None:
    for _ in range(3):
        with AcceptingServer("inproc:again") as accepting:
            dial("inproc:again").close()
            accepting.connection()
    with pytest.raises(ConnectError, match="no server of this process"):
        dial("inproc:again")


def test_a_client_waiting_for_a_closing_server_gets_an_error() -> None:
    listener = InprocTransport().listen(parse_target("inproc:closing"), Options())
    with futures.ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(dial, "inproc:closing")
        assert readable(listener.fileno())
        listener.close()
        assert isinstance(waiting.exception(PATIENCE), ConnectError)


def test_a_forked_child_has_none_of_its_parents_servers_and_may_serve() -> None:
    with House("inproc:parents") as house:
        assert house.unary("echo")(b"x", timeout=PATIENCE) == b"x"

        def work() -> None:
            error = failure(house.channel)
            assert error.code() is Code.UNAVAILABLE
            assert "a parent or a forked child neither" in error.details()
            with House("inproc:parents") as own:
                assert own.unary("echo")(b"y", timeout=PATIENCE) == b"y"
                # The inherited channel dials here, as any channel would.
                assert house.unary("echo")(b"z", timeout=PATIENCE) == b"z"

        Child(work).join()
        assert house.unary("echo")(b"x", timeout=PATIENCE) == b"x"


def test_a_forked_child_does_not_hide_a_close() -> None:
    ends_r, ends_w = os.pipe()
    with House("inproc:shared") as house:
        call = house.unary("watch").future(b"")
        house.enter()
        child = Child(lambda: os.read(ends_r, 1))
        house.channel.close()
        assert house.ended.wait(PATIENCE)
        assert call.code() is Code.CANCELLED
        os.write(ends_w, b"x")
        child.join()
    os.close(ends_r)
    os.close(ends_w)


def test_calls_in_calls_do_not_wait_for_each_other() -> None:
    """Handlers that call their own server, as deep as there are workers."""
    channel: Any = localrpc.insecure_channel("inproc:deep")

    def dig(request: bytes, context: grpc.ServicerContext) -> bytes:
        depth = int(request)
        if depth == 0:
            return b""
        answer: bytes = channel.unary_unary("/t/dig")(b"%d" % (depth - 1), timeout=PATIENCE)
        return answer + b"."

    dig_handler: Any = grpc.unary_unary_rpc_method_handler(dig)
    handlers = grpc.method_handlers_generic_handler("t", {"dig": dig_handler})
    server = localrpc.server(futures.ThreadPoolExecutor(8), (handlers,))
    server.add_insecure_port("inproc:deep")
    server.start()
    assert channel.unary_unary("/t/dig")(b"7", timeout=PATIENCE) == b"." * 7
    channel.close()
    server.stop(None)
