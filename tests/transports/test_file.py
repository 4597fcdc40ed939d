"""What a spool alone has: files that come and go, a disk that fills, and signs of life."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import signal
import stat
import subprocess
import threading
from collections.abc import Iterator
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc
import pytest

import localrpc
from localrpc._core import lib
from localrpc._core.links import spool_bell
from localrpc.errors import AddressInUse, ConnectError, ListenError
from localrpc.options import Options
from localrpc.transports import parse_target, transport_for
from localrpc.transports import spool as spools
from tests.foreign import SpoolVisitor
from tests.links.kinds import End, Frame, Kind, pair
from tests.skips import cannot, root_only

from .helpers import (
    DIAL,
    SERVE_ONE,
    AcceptingServer,
    dial,
    listening,
    readable,
    run_python,
    serving,
    wait_until,
)
from .test_pid_namespaces import _in_a_namespace, unshared

APPEND, RENAME = "", "?write=rename"
BATCH = lib.LR_SPOOL_SEGMENT * lib.LR_SPOOL_SEGMENTS
MESSAGE = lib.LR_T_MESSAGE


@pytest.fixture
def spool(tmp_path: Path) -> str:
    return str(tmp_path / "spool")


def folders(path: str) -> list[str]:
    """The folders of connections."""
    return [f"{path}/{name}" for name in os.listdir(path) if len(name) == 16]


def used(path: str) -> int:
    """Bytes of all files below."""
    total = 0
    for folder, _, names in os.walk(path):
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                total += os.stat(f"{folder}/{name}").st_size
    return total


@contextlib.contextmanager
def echoing(target: str) -> Iterator[Any]:
    """A channel to a server that gives back what it gets."""

    class Handler(grpc.GenericRpcHandler):
        def service(self, details: Any) -> Any:
            if details.method == "/e/unary":
                return grpc.unary_unary_rpc_method_handler(lambda request, _: request)
            return grpc.stream_stream_rpc_method_handler(lambda requests, _: requests)

    with serving(target, Handler()), localrpc.insecure_channel(target) as channel:
        yield channel


# ---- modes ----


@pytest.mark.parametrize(
    "query",
    [
        "write=append",
        "write=rename",
        "watch=poll&interval=1",
        "watch=poll&interval=1&write=rename",
        "spin=off",
    ],
)
def test_calls_of_every_kind_and_size_pass(spool: str, query: str) -> None:
    with echoing(f"file:{spool}?{query}") as channel:
        unary, stream = channel.unary_unary("/e/unary"), channel.stream_stream("/e/stream")
        for size in (0, 1, 1000, lib.LR_SPOOL_SEGMENT, 3_000_000):
            sent = os.urandom(size)
            assert unary(sent, timeout=60) == sent
        messages = [os.urandom(20_000) for _ in range(400)]
        assert list(stream(iter(messages), timeout=60)) == messages
    assert not os.path.exists(spool)


def test_each_side_writes_in_its_own_way(spool: str) -> None:
    with AcceptingServer(f"file:{spool}?write=rename") as accepting:
        client = End(dial(f"file:{spool}?watch=poll&interval=1"))
        server = End(accepting.connection())
        for number in range(50):
            sent = Frame(MESSAGE, 1, number, bytes(60_000))
            for one, other in ((client, server), (server, client)):
                assert one.try_send(sent) == 1
                other.expect(sent)
        client.close()


def test_without_an_inotify_instance_files_are_polled(
    spool: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def bell(*args: Any, interval_ms: int, **more: Any) -> int:
        if not interval_ms:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return spool_bell(*args, interval_ms=interval_ms, **more)

    monkeypatch.setattr(spools, "spool_bell", bell)
    with echoing(f"file:{spool}?interval=1") as channel:
        assert channel.unary_unary("/e/unary")(b"x", timeout=60) == b"x"
        assert channel.facts.wakeup == "poll"
    assert caplog.text.count("max_user_instances") == 1


# ---- the directory ----


def test_the_directory_is_made_for_its_user_and_goes_with_the_last(spool: str) -> None:
    with AcceptingServer(f"file:{spool}") as accepting:
        assert stat.S_IMODE(os.stat(spool).st_mode) == 0o1700
        connection = dial(f"file:{spool}")
        accepting.connection()
    assert folders(spool)
    connection.close()
    assert not os.path.exists(spool)


def test_a_directory_that_a_killed_server_has_made_goes_with_the_next(spool: str) -> None:
    os.mkdir(spool, 0o1700)  # it had not got further, or had removed all else
    AcceptingServer(f"file:{spool}").close()
    assert not os.path.exists(spool)


def test_a_directory_of_the_users_stays(spool: str) -> None:
    os.mkdir(spool, 0o700)
    with AcceptingServer(f"file:{spool}"):
        dial(f"file:{spool}").close()
    assert os.listdir(spool) == []


def test_what_else_is_in_the_directory_stays(spool: str) -> None:
    os.mkdir(spool, 0o700)
    Path(spool, "notes.txt").write_text("mine")
    os.mkdir(f"{spool}/folder")
    with AcceptingServer(f"file:{spool}") as accepting:
        connection = dial(f"file:{spool}")
        accepting.connection()
        connection.close()
    assert sorted(os.listdir(spool)) == ["folder", "notes.txt"]


def test_a_directory_that_is_open_to_others_is_refused(spool: str) -> None:
    os.mkdir(spool)
    os.chmod(spool, 0o755)
    target = f"file:{spool}"
    with pytest.raises(ListenError, match=r"open to others .* chmod 700"):
        AcceptingServer(target)
    with pytest.raises(ConnectError, match="open to others"):
        dial(target)


@root_only
def test_a_directory_of_another_user_is_refused(spool: str) -> None:
    os.mkdir(spool, 0o700)
    os.chown(spool, 65534, 65534)
    with pytest.raises(ListenError, match="belongs to uid 65534"):
        AcceptingServer(f"file:{spool}")
    with pytest.raises(ConnectError, match="belongs to uid 65534"):
        dial(f"file:{spool}")


def test_a_name_has_one_server(spool: str) -> None:
    with AcceptingServer(f"file:{spool}"), pytest.raises(AddressInUse):
        AcceptingServer(f"file:{spool}")


def test_the_error_without_a_server_names_the_target(spool: str) -> None:
    with pytest.raises(ConnectError, match="no server listens on"):
        dial(f"file:{spool}")
    with listening(f"file:{spool}") as holder:
        holder.kill()
    with pytest.raises(ConnectError, match=r"no server listens on .* any longer"):
        dial(f"file:{spool}")
    AcceptingServer(f"file:{spool}").close()
    assert not os.path.exists(spool)


def test_a_client_waiting_at_a_closing_server_gets_an_error(spool: str) -> None:
    address = parse_target(f"file:{spool}")
    listener = transport_for("file").listen(address, Options())
    with futures.ThreadPoolExecutor(1) as pool:
        dialled = pool.submit(dial, f"file:{spool}")
        wait_until(lambda: any(name.endswith(".knock") for name in os.listdir(spool)))
        listener.close()
        assert isinstance(dialled.exception(), ConnectError)
    assert not os.path.exists(spool)


def test_a_connect_request_to_a_closed_server_gets_an_error(
    spool: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    listener = transport_for("file").listen(parse_target(f"file:{spool}"), Options())
    rename = os.rename

    def close_first(*names: str) -> None:
        listener.close()
        rename(*names)

    monkeypatch.setattr(os, "rename", close_first)
    with pytest.raises(ConnectError, match=r"no server listens on .* any longer"):
        dial(f"file:{spool}", ("localrpc.connect_timeout_ms", 60_000))
    assert not os.path.exists(spool)


def test_a_connect_request_before_the_server_watches_is_noticed(spool: str) -> None:
    os.mkdir(spool, 0o1700)
    Path(spool, f"{'a' * 16}.knock").touch()
    address = parse_target(f"file:{spool}")
    listener = transport_for("file").listen(address, Options())
    assert readable(listener.fileno())
    assert listener.accept() == []  # it has no folder
    assert os.listdir(spool) == ["door"]
    listener.close()


# ---- the disk ----


@pytest.mark.parametrize("query", [APPEND, RENAME])
def test_a_slow_reader_does_not_fill_the_disk(tmp_path: Path, query: str) -> None:
    with pair(Kind("file:{tmp}/spool" + query, wakeup="inotify"), tmp_path) as (client, server):
        (folder,) = folders(f"{tmp_path}/spool")
        sent = received = most = 0
        for size in itertools.cycle((100, 65536, 3000)):
            payload = bytes(size)
            if client.try_send(Frame(MESSAGE, 1, sent, payload)) == 1:
                sent += 1
                continue
            most = max(most, used(f"{folder}/up"))
            if sent > 2000:
                break
            got = server.receive()
            assert isinstance(got, Frame)
            assert got.call == received
            received += 1
        assert lib.LR_SPOOL_SEGMENT < most <= BATCH
        while received < sent:
            assert isinstance(server.receive(), Frame)
            received += 1
        # What was read is gone, but for the file that is being written.
        assert used(f"{folder}/up") <= lib.LR_SPOOL_SEGMENT


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[str]:
    """A directory on a disk of one MiB."""
    path = str(tmp_path / "disk")
    os.mkdir(path, 0o700)
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m,mode=700", "localrpc-test", path],
        capture_output=True,
    )
    if mounted.returncode:
        cannot("needs the right to mount a small disk, as root has it outside containers")
    try:
        yield path
    finally:
        subprocess.run(["umount", path], check=True)


@pytest.mark.parametrize("query", [APPEND, RENAME])
def test_a_full_disk_ends_the_call_and_says_so(small_disk: str, query: str) -> None:
    with echoing(f"file:{small_disk}{query}") as channel:
        unary = channel.unary_unary("/e/unary")
        assert unary(b"x", timeout=60) == b"x"
        taken = os.open(f"{small_disk}/filler", os.O_WRONLY | os.O_CREAT)
        with contextlib.suppress(OSError):
            while True:
                os.write(taken, bytes(4096))
        os.close(taken)
        with pytest.raises(grpc.RpcError) as caught:
            unary(bytes(200_000), timeout=60)
        error: Any = caught.value
        assert error.code() is grpc.StatusCode.UNAVAILABLE
        assert "No space left on device" in error.details()
        os.unlink(f"{small_disk}/filler")
        assert unary(b"x", timeout=60, wait_for_ready=True) == b"x"
    assert os.listdir(small_disk) == []


# ---- foreign files and peers ----


def test_a_foreign_file_named_door_is_left_alone(spool: str) -> None:
    os.mkdir(spool, 0o700)
    Path(spool, "door").write_text("oak")
    with pytest.raises(ListenError, match="exists and does not belong to a spool"):
        AcceptingServer(f"file:{spool}")
    with pytest.raises(ConnectError, match="does not belong to a spool"):
        dial(f"file:{spool}")
    assert Path(spool, "door").read_text() == "oak"


def test_a_server_killed_before_writing_its_record_blocks_no_other(spool: str) -> None:
    os.mkdir(spool, 0o700)
    Path(spool, "door").touch()
    with pytest.raises(ConnectError, match=r"no server listens on .* any longer"):
        dial(f"file:{spool}")
    with AcceptingServer(f"file:{spool}"):
        dial(f"file:{spool}").close()


def test_a_request_without_a_folder_and_a_damaged_record_do_no_harm(spool: str) -> None:
    with AcceptingServer(f"file:{spool}") as accepting:
        Path(spool, f"{'a' * 16}.knock").touch()
        stranger = SpoolVisitor(parse_target(f"file:{spool}"))
        Path(stranger.folder, "client").write_text("not\na\nrecord")
        with stranger:
            dial(f"file:{spool}").close()
            accepting.connection()
            wait_until(lambda: not any(name.endswith(".knock") for name in os.listdir(spool)))
    AcceptingServer(f"file:{spool}").close()
    assert not os.path.exists(spool)


def put_folder(path: str) -> None:
    os.mkdir(path)


def put_link(path: str) -> None:
    os.symlink("/etc/passwd", path)


@pytest.mark.parametrize("put", [put_folder, put_link, os.mkfifo])
def test_an_object_that_is_not_a_regular_file_ends_the_connection(tmp_path: Path, put: Any) -> None:
    kind = Kind("file:{tmp}/spool?write=rename", wakeup="inotify")
    with pair(kind, tmp_path) as (_, server):
        (folder,) = folders(f"{tmp_path}/spool")
        put(f"{folder}/up/1")
        assert server.receive() == lib.LR_CLOSED
        if put is put_folder:
            os.rmdir(f"{folder}/up/1")


@pytest.mark.parametrize("size", [1, 15, 16, 100])
def test_a_truncated_frame_is_not_delivered(tmp_path: Path, size: int) -> None:
    with pair(Kind("file:{tmp}/spool", wakeup="inotify"), tmp_path) as (client, server):
        (folder,) = folders(f"{tmp_path}/spool")
        header = (200).to_bytes(4, "little") + bytes([MESSAGE, 1]) + bytes(10)
        with open(f"{folder}/up/0", "ab") as segment:
            segment.write((header + bytes(200))[:size])
        assert server.receive(0.01) == lib.LR_TIMEOUT
        client.close()
        assert server.receive() == lib.LR_CLOSED


# ---- leftovers ----


def test_a_killed_client_leaves_nothing(spool: str) -> None:
    with AcceptingServer(f"file:{spool}") as accepting, run_python(DIAL, f"file:{spool}") as client:
        server = End(accepting.connection())
        assert server.connection.peer.pid == client.pid
        client.kill()
        assert server.receive() == lib.LR_CLOSED
        server.close()
        assert folders(spool) == []


def test_a_killed_servers_folder_goes_with_its_client_and_its_door_with_the_next(
    spool: str,
) -> None:
    with listening(f"file:{spool}", SERVE_ONE) as server:
        client = End(dial(f"file:{spool}"))
        assert client.connection.peer.pid == server.pid
        server.kill()
        assert client.receive() == lib.LR_CLOSED
        with AcceptingServer(f"file:{spool}"):
            assert folders(spool)  # its client lives
        client.close()
    assert not os.path.exists(spool)


def test_when_both_are_killed_the_next_server_clears_up(spool: str) -> None:
    target = f"file:{spool}"
    with listening(target, SERVE_ONE) as server, run_python(DIAL, target) as client:
        for one in (server, client):
            assert one.line().startswith("connected")
        # Stopped first, so that neither sees the other's death.
        for one in (server, client):
            one.send_signal(signal.SIGSTOP)
        for one in (server, client):
            one.kill()
    assert folders(spool)
    AcceptingServer(f"file:{spool}").close()
    assert not os.path.exists(spool)


DIE = """
import os, signal, sys
from localrpc.transports import parse_target
from localrpc.options import Options
from localrpc.transports import Attempt, records, transport_for

def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)

if sys.argv[2] == "half made":
    records.make = die
elif sys.argv[2] == "before the request":
    os.rename = die
else:
    rename = os.rename
    os.rename = lambda *names: (rename(*names), die())
address = parse_target(sys.argv[1])
transport_for(address.scheme).dialer(address, Options()).dial(Attempt())
"""


@pytest.mark.parametrize("where", ["half made", "before the request", "after the request"])
def test_a_server_clears_up_after_killed_clients_when_the_next_one_comes(
    spool: str, where: str
) -> None:
    with serving(f"file:{spool}"):
        with run_python(DIE, f"file:{spool}", where) as client:
            client.communicate()
            assert client.returncode == -signal.SIGKILL
        dial(f"file:{spool}").close()
        wait_until(lambda: os.listdir(spool) == ["door"])
    assert not os.path.exists(spool)


def test_clients_of_other_kernels_are_spared(spool: str, monkeypatch: pytest.MonkeyPatch) -> None:
    address = parse_target(f"file:{spool}")
    listener = transport_for("file").listen(address, Options())
    monkeypatch.setattr(spools, "own_world", lambda: spools.World("another", "pid:[1]"))
    stranger = SpoolVisitor(address)
    stranger.record.close()  # so does its lock look from here
    assert listener.tidy()
    assert os.path.exists(stranger.folder)
    with stranger:
        listener.close()


# ---- signs of life ----


@pytest.fixture
def strange_worlds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every record of this process is of another PID namespace."""
    boot, _ = spools.own_world()
    numbers = itertools.count()
    monkeypatch.setattr(spools, "own_world", lambda: spools.World(boot, f"pid:[{next(numbers)}]"))


BEAT = "?heartbeat=50"


@pytest.mark.usefixtures("strange_worlds")
def test_a_heartbeat_shows_that_a_silent_peer_lives(tmp_path: Path) -> None:
    kind = Kind("file:{tmp}/spool" + BEAT, wakeup="inotify")
    with pair(kind, tmp_path) as (client, server):
        assert client.connection.peer.pid == server.connection.peer.pid == 0
        # For longer than a silence may last.
        (folder,) = folders(f"{tmp_path}/spool")
        for name in ("client", "server") * 6:
            record = Path(folder, name)
            before = record.stat().st_mtime_ns
            wait_until(lambda record=record, before=before: record.stat().st_mtime_ns > before)  # type: ignore[misc]
        sent = Frame(MESSAGE, 1, 1, b"still here")
        assert client.try_send(sent) == 1
        server.expect(sent)


@pytest.mark.usefixtures("strange_worlds")
def test_a_killed_peers_lock_tells_of_its_death(spool: str) -> None:
    # The heartbeats could be missed for an hour.
    target = f"file:{spool}?heartbeat=100"
    with (
        AcceptingServer(target) as accepting,
        run_python(DIAL, f"file:{spool}?heartbeat=60000") as client,
    ):
        server = End(accepting.connection())
        client.kill()
        assert server.receive() == lib.LR_CLOSED
        server.close()
        assert folders(spool) == []


@pytest.mark.usefixtures("strange_worlds")
def test_silence_tells_of_a_death_that_no_lock_tells_of(spool: str) -> None:
    with (
        AcceptingServer(f"file:{spool}{BEAT}") as accepting,
        run_python(DIAL, f"file:{spool}{BEAT}") as peer,
    ):
        server = End(accepting.connection())
        peer.send_signal(signal.SIGSTOP)
        assert server.receive() == lib.LR_CLOSED
        server.close()
        peer.kill()
    assert not os.path.exists(spool) or os.listdir(spool)


@pytest.fixture
def no_pidfds(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where a sandbox refuses them: what is left is the lock."""
    monkeypatch.setattr(spools.SpoolChannel, "open_pidfd", lambda self, record, pid: -1)
    monkeypatch.setattr(spools.SpoolChannel, "open_server_pidfd", lambda self: -1)


@pytest.mark.usefixtures("no_pidfds")
@pytest.mark.parametrize("hasty", ["client", "server"])
def test_silence_is_no_death_where_the_lock_can_be_seen(spool: str, hasty: str) -> None:
    slow, quick = f"file:{spool}?heartbeat=60000", f"file:{spool}?heartbeat=10"
    server_target, client_target = (slow, quick) if hasty == "client" else (quick, slow)
    with AcceptingServer(server_target) as accepting:
        client = End(dial(client_target))
        server = End(accepting.connection())
        # The hasty side has looked ten times while the other was silent.
        (folder,) = folders(spool)
        record = Path(folder, hasty)
        for _ in range(10):
            before = record.stat().st_mtime_ns
            wait_until(lambda before=before: record.stat().st_mtime_ns > before)  # type: ignore[misc]
        sent = Frame(MESSAGE, 1, 1, b"still here")
        assert client.try_send(sent) == 1
        server.expect(sent)
        assert server.try_send(sent) == 1
        client.expect(sent)
        client.close()
        server.close()


@pytest.mark.usefixtures("no_pidfds")
def test_a_lock_that_goes_is_a_death_without_a_pidfd(spool: str) -> None:
    with (
        AcceptingServer(f"file:{spool}{BEAT}") as accepting,
        run_python(DIAL, f"file:{spool}?heartbeat=60000") as client,
    ):
        server = End(accepting.connection())
        client.kill()
        assert server.receive() == lib.LR_CLOSED
        server.close()


@unshared
def test_a_client_in_an_inner_namespace_is_served_and_its_death_is_seen(spool: str) -> None:
    target = f"file:{spool}{BEAT}"
    with AcceptingServer(target) as accepting, _in_a_namespace(DIAL, target) as child:
        assert child.line().startswith("connected")
        server = End(accepting.connection())
        assert server.connection.peer.pid == 0
        assert server.connection.peer.uid == os.geteuid()
        child.kill()
        assert server.receive() == lib.LR_CLOSED


# ---- forks ----


def test_a_forked_child_disturbs_neither_files_nor_locks(tmp_path: Path) -> None:
    with pair(Kind("file:{tmp}/spool", wakeup="inotify"), tmp_path) as (client, server):
        child = os.fork()
        if child == 0:
            client.close()
            server.close()
            os._exit(0)
        os.waitpid(child, 0)
        sent = Frame(MESSAGE, 1, 1, b"still here")
        assert client.try_send(sent) == 1
        server.expect(sent)


def test_a_waiting_reader_sleeps_until_something_comes(tmp_path: Path) -> None:
    kind = Kind("file:{tmp}/spool?spin=off", wakeup="inotify")
    with pair(kind, tmp_path) as (client, server):
        got: list[Frame | int] = []
        reading = threading.Thread(target=lambda: got.append(server.receive(None)))
        reading.start()
        sent = Frame(MESSAGE, 1, 1, b"x")
        assert client.try_send(sent) == 1
        reading.join()
        assert got == [sent]
