"""No exit hangs, whatever is left open, and none prints anything."""

from __future__ import annotations

import textwrap

import pytest

from tests.conftest import spread
from tests.exits.conftest import KINDS
from tests.exits.programs import Program, in_fresh_interpreter

EXITS = {
    "forgotten stop": """
        server = serve(futures.ThreadPoolExecutor(4))
        assert call(b'x') == b'x'
        """,
    "forgotten stop without a call": """
        server = serve(futures.ThreadPoolExecutor(4))
        """,
    "server dropped": """
        serve(futures.ThreadPoolExecutor(4))
        """,
    "never started": """
        server = localrpc.server(futures.ThreadPoolExecutor(4), (HANDLERS,))
        server.add_insecure_port(target)
        """,
    "pool as context around a live server": """
        with futures.ThreadPoolExecutor(4) as pool:
            server = serve(pool)
            assert call(b'x') == b'x'
        """,
    "pool as context around a call": """
        with futures.ThreadPoolExecutor(4) as pool:
            server = serve(pool)
            future = channel.unary_unary('/s/until_over').future(b'x')
            assert call(b'x') == b'x'
            future.cancel()
        """,
    "daemon thread in a call": """
        server = serve(futures.ThreadPoolExecutor(4))
        wait = channel.unary_unary('/s/wait')
        server.stop(None)
        connect = lambda: call(b'', wait_for_ready=True)
        threading.Thread(target=connect, daemon=True).start()
        """,
    "daemon thread in a stream": """
        pool = futures.ThreadPoolExecutor(4)
        server = serve(pool)
        def read():
            try:
                for message in produce(b'x' * 1000):
                    pass
            except grpc.RpcError:
                pass
        threading.Thread(target=read, daemon=True).start()
        assert call(b'x') == b'x'
        server.stop(None)
        """,
    "in the middle of a stream": """
        server = serve(futures.ThreadPoolExecutor(4))
        messages = produce(b'x' * 1000)
        for _ in range(100):
            next(messages)
        server.stop(None)
        """,
    "requests in flight": """
        server = serve(futures.ThreadPoolExecutor(4))
        def requests():
            while not ever.is_set():
                yield b'x' * 1000
        future = consume.future(requests())
        assert call(b'x') == b'x'
        future.cancel()
        """,
    "future left behind": """
        server = serve(futures.ThreadPoolExecutor(4))
        future = call.future(b'x')
        future.add_done_callback(lambda future: None)
        """,
    "subscriber left behind": """
        channel.subscribe(lambda state: None, try_to_connect=True)
        """,
    "connected subscriber left behind": """
        server = serve(futures.ThreadPoolExecutor(4))
        channel.subscribe(lambda state: None, try_to_connect=True)
        grpc.channel_ready_future(channel).result(10)
        """,
    "waiting for a server that never comes": """
        future = call.future(b'x', wait_for_ready=True)
        """,
    "a limit of concurrent calls": """
        server = localrpc.server(
            futures.ThreadPoolExecutor(4), (HANDLERS,), maximum_concurrent_rpcs=2
        )
        server.add_insecure_port(target)
        server.start()
        assert call(b'x') == b'x'
        """,
    "an exit before a thread has called": """
        server = serve(futures.ThreadPoolExecutor(4))
        def late():
            try:
                call(b"x")
            except grpc.RpcError:
                pass
        thread = threading.Thread(target=late)
        thread.start()
        """,
    "a forked child that leaves by itself": """
        server = serve(futures.ThreadPoolExecutor(4))
        assert call(b'x') == b'x'
        pid = os.fork()
        if pid == 0:
            assert call(b'y') == b'y'
            sys.exit()
        assert os.waitpid(pid, 0)[1] == 0
        assert call(b'z') == b'z'
        """,
}


@pytest.mark.parametrize(("target", "name"), spread(KINDS, EXITS), indirect=["target"])
def test_no_exit_hangs_or_complains(target: str, name: str) -> None:
    fresh = in_fresh_interpreter(target)
    with Program(target, textwrap.dedent(EXITS[name]), fresh=fresh) as program:
        code, out, err = program.finish()
    assert (code, err) == (0, ""), out


def test_a_client_that_exits_in_a_call_ends_it_at_the_server(target: str) -> None:
    server = """
    def end(request, context):
        over = end_of(context)
        say("held")
        assert over.wait(60)
        say("over")
        return b""
    handler = grpc.unary_unary_rpc_method_handler(end)
    HANDLERS = grpc.method_handlers_generic_handler("s", {"end": handler})
    server = serve(futures.ThreadPoolExecutor(4))
    say("up")
    sys.stdin.read()
    """
    client = """
    future = channel.unary_unary("/s/end").future(b"", wait_for_ready=True)
    say("begun")
    """
    with Program(target, textwrap.dedent(server)) as serving:
        serving.hear("up")
        with Program(target, textwrap.dedent(client)) as calling:
            calling.hear("begun")
            code, _, err = calling.finish()
        assert (code, err) == (0, "")
