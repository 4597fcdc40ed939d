"""What pipe:, mq: and sysvmq: share: names, and the identity of the peer."""

from __future__ import annotations

import errno
import gc
import os
import signal
import threading
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc
import pytest

import localrpc
from localrpc.errors import AddressInUse, ConnectError, ListenError
from localrpc.transports import PeerCredentials, records, sysv, sysvmq
from localrpc.transports.connect_requests import ConnectRequestListener, new_token
from tests.skips import root_only

from . import request_places
from .helpers import (
    DIAL,
    NOBODY,
    SERVE_ONE,
    AcceptingServer,
    as_ordinary_user,
    dial,
    listening,
    reachable,
    run_python,
    wait_until,
)
from .request_places import goes_on

target = request_places.target


def test_a_live_name_with_a_full_queue_of_requests_is_never_stolen(target: str) -> None:
    with listening(target) as holder:
        os.kill(holder.pid, signal.SIGSTOP)
        with request_places.place_of(target) as place:
            place.fill()
        with pytest.raises(AddressInUse):
            AcceptingServer(target)
        os.kill(holder.pid, signal.SIGCONT)
        holder.communicate()


def test_no_server_listens(target: str, runtime_directory: Path) -> None:
    runtime_directory.mkdir(mode=0o700)
    with pytest.raises(ConnectError, match=r"no server listens on .*start it, or check the name"):
        dial(target)
    assert not list(runtime_directory.iterdir())


def test_a_server_that_starts_under_its_clients_eyes_is_never_taken_for_dead(target: str) -> None:
    over = threading.Event()

    def look() -> None:
        while not over.is_set():
            try:
                dial(target, ("localrpc.connect_timeout_ms", 60_000)).close()
            except ConnectError:
                pass

    with futures.ThreadPoolExecutor(2) as pool:
        lookers = [pool.submit(look) for _ in range(2)]
        for _ in range(30):
            AcceptingServer(target).close()  # never a ListenError
        over.set()
        for looker in lookers:
            looker.result(20)


def test_only_its_user_may_send_requests(target: str, tmp_path: Path) -> None:
    with AcceptingServer(target):
        files = [path for path in tmp_path.rglob("*") if not path.is_dir()]
        assert [path.stat().st_mode & 0o777 for path in files] == [0o600]


@pytest.mark.parametrize("thing", ["file", "folder", "link", "socket"])
def test_another_thing_in_the_place_is_never_removed(thing: str, tmp_path: Path) -> None:
    path = tmp_path / "server"
    if thing == "file":
        path.write_text("precious")
    elif thing == "folder":
        path.mkdir()
    elif thing == "link":
        os.mkfifo(tmp_path / "other")
        path.symlink_to(tmp_path / "other")
    else:
        AcceptingServer(f"unix:{path}").listener.forget()  # type: ignore[attr-defined]
    before = path.lstat().st_ino
    with pytest.raises(ListenError, match="exists and is not a FIFO"):
        AcceptingServer(f"pipe:{path}")
    with pytest.raises(ConnectError):
        dial(f"pipe:{path}")
    assert path.lstat().st_ino == before


@pytest.mark.parametrize("kind", ["mq", "sysvmq"])
@pytest.mark.parametrize("text", ["", "x", "/localrpc-no-queue\n1", "1\n2\n3", "\xff\n\xff"])
def test_a_damaged_record_is_replaced(kind: str, text: str, runtime_directory: Path) -> None:
    runtime_directory.mkdir(mode=0o700)
    (runtime_directory / f"server.{kind}").write_text(text)
    with pytest.raises(ConnectError):
        dial(f"{kind}:server")
    with AcceptingServer(f"{kind}:server") as accepting:
        goes_on(accepting, f"{kind}:server")


@pytest.mark.parametrize("kind", ["mq", "sysvmq"])
def test_a_folder_in_a_records_place_is_left_alone(kind: str, runtime_directory: Path) -> None:
    (runtime_directory / f"server.{kind}").mkdir(parents=True)
    runtime_directory.chmod(0o700)
    with pytest.raises(ListenError):
        AcceptingServer(f"{kind}:server")
    assert (runtime_directory / f"server.{kind}").is_dir()


@root_only
def test_another_users_record_is_not_trusted(tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    os.mkfifo(mine)
    planted = tmp_path / f"server.{new_token()}{records.SUFFIX}"
    planted.write_text(str(mine))
    os.chown(planted, NOBODY, NOBODY)
    with AcceptingServer(f"pipe:{tmp_path}/server"):
        assert mine.is_fifo()
    assert planted.exists()


@root_only
def test_the_error_for_another_user_names_the_owner(target: str, tmp_path: Path) -> None:
    reachable(tmp_path)
    with AcceptingServer(target):
        said = as_ordinary_user(lambda: str(dial(target)))
    assert said.startswith("ConnectError")
    if target.startswith("pipe:"):
        assert "run client and server as the same user" in said
    else:
        assert "belongs to uid 0, not to 65534" in said


@root_only
def test_a_fifo_of_another_user_open_to_all_is_refused(tmp_path: Path) -> None:
    path = reachable(tmp_path) / "server"
    os.mkfifo(path)
    path.chmod(0o666)
    os.chown(path, NOBODY + 1, NOBODY + 1)
    fd = os.open(path, os.O_RDWR)
    try:
        said = as_ordinary_user(lambda: str(dial(f"pipe:{path}")))
    finally:
        os.close(fd)
    assert "the server belongs to uid 65535" in said


# ---- the identity of the peer ----


def test_each_knows_the_others_process(target: str) -> None:
    with AcceptingServer(target) as accepting, run_python(DIAL, target) as child:
        assert child.line().startswith("connected")
        own = PeerCredentials(child.pid, os.geteuid(), os.getegid())
        assert accepting.connection().peer == own
        assert accepting.connection().peer_name == f"unix:pid={child.pid}"
        child.communicate()


def test_a_client_knows_its_servers_process(target: str) -> None:
    with listening(target, SERVE_ONE) as child:
        client = dial(target)
        assert client.peer == PeerCredentials(child.pid, os.geteuid(), os.getegid())
        assert child.line() == f"connected {os.getpid()} None\n"
        client.close()
        child.communicate()


def test_handlers_know_their_client(target: str) -> None:
    seen = []

    def note(request: bytes, context: grpc.ServicerContext) -> bytes:
        seen.append(localrpc.peer_credentials(context))
        return request

    handler: Any = grpc.unary_unary_rpc_method_handler(note)
    handlers = grpc.method_handlers_generic_handler("s", {"note": handler})
    with futures.ThreadPoolExecutor(1) as pool:
        server = localrpc.server(pool, (handlers,))
        server.add_insecure_port(target)
        server.start()
        with localrpc.insecure_channel(target) as channel:
            note_it: Any = channel.unary_unary("/s/note")
            note_it(b"", timeout=20)
        server.stop(None)
    assert seen == [PeerCredentials(os.getpid(), os.geteuid(), os.getegid())]


def test_a_folder_that_a_client_cannot_write_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    target = f"pipe:{tmp_path}/server"
    with AcceptingServer(target):
        monkeypatch.setattr(records, "make", refuse)
        with pytest.raises(ConnectError, match=f"directory {tmp_path} cannot be written"):
            dial(target)


def test_a_removed_queue_is_reported(caplog: pytest.LogCaptureFixture) -> None:
    with AcceptingServer("sysvmq:server") as accepting:
        listener = accepting.listener
        assert isinstance(listener, ConnectRequestListener)
        assert isinstance(listener._place, sysvmq._SysvPlace)
        sysv.drop(listener._place._queue)
        wait_until(lambda: "its queue has been removed" in caplog.text)
        with pytest.raises(ConnectError, match="connect failed"):
            dial("sysvmq:server")
    assert caplog.text.count("its queue has been removed") == 1


def test_connections_leave_no_descriptor(target: str) -> None:
    with AcceptingServer(target) as accepting:
        dial(target).close()
        accepting.connection(0).close()
        before = len(os.listdir("/proc/self/fd"))
        for number in range(1, 20):
            dial(target).close()
            accepting.connection(number).close()
        gc.collect()
        assert len(os.listdir("/proc/self/fd")) <= before
