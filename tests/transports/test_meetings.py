"""Where clients knock: what pipe:, mq: and sysvmq: share of names, knocks and ends."""

from __future__ import annotations

import errno
import gc
import os
import signal
import threading
import time
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc
import pytest

import localrpc
from localrpc._core import lib
from localrpc.address import parse_target
from localrpc.errors import AddressInUse, ConnectError, GreetingError, ListenError
from localrpc.options import Options
from localrpc.transports import PeerCredentials, records, sysvmq, transport_for
from localrpc.transports.meeting import KNOCK_SIZE, Knocks, encode_knock, new_token
from tests.links.kinds import End, Frame
from tests.peers import census

from . import meetings
from .doors import (
    DIAL,
    HOLD,
    NOBODY,
    SERVE_ONE,
    Doorman,
    as_ordinary_user,
    dial,
    outcome,
    reachable,
    readable,
    run_python,
    serving,
    wait_until,
)

root_only = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")


@pytest.fixture(params=meetings.KINDS)
def target(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return meetings.target_of(request.param, tmp_path)


def goes_on(doorman: Doorman, target: str) -> None:
    number = len(doorman.connections)
    client = dial(target)
    server = doorman.connection(number)
    assert client.peer == server.peer == PeerCredentials(os.getpid(), os.geteuid(), os.getegid())
    client.close()


# ---- knocks ----


def test_knocks_are_found_in_any_run_of_bytes() -> None:
    tokens = [new_token() for _ in range(4)]
    noise = [b"", b"x", b"localrp", b"localrpc" * 2]
    run = b"".join(a + encode_knock(b) for a, b in zip(noise, tokens, strict=True))
    for size in (1, 7, KNOCK_SIZE, len(run)):
        knocks = Knocks()
        found = [
            token for at in range(0, len(run), size) for token in knocks.feed(run[at : at + size])
        ]
        assert found == tokens
        assert knocks.skipped == sum(map(len, noise))


@pytest.mark.parametrize(
    "data",
    [b"", b"x", bytes(KNOCK_SIZE), b"\xff" * 24, b"localrpc" + b"../../etc/passwd", b"localrpc"],
    ids=["empty", "short", "zeros", "random", "path", "torn"],
)
def test_what_is_no_knock_is_skipped(target: str, data: bytes) -> None:
    with Doorman(target) as doorman:
        with meetings.door_of(target) as door:
            door.push(data)
        goes_on(doorman, target)


def test_a_knock_of_nobody_is_skipped(target: str, caplog: pytest.LogCaptureFixture) -> None:
    with Doorman(target) as doorman:
        with meetings.door_of(target) as door:
            for _ in range(3):
                door.knock(new_token())
        goes_on(doorman, target)
        assert not doorman.greetings
    assert "turned away" not in caplog.text


def test_a_flood_of_knocks_keeps_nobody_out_for_good(target: str) -> None:
    with Doorman(target) as doorman:
        with meetings.door_of(target) as door:
            for _ in range(20):
                door.fill()
        goes_on(doorman, target)


def test_a_message_beyond_any_knock_is_cut(tmp_path: Path) -> None:
    target = "sysvmq:door"
    with Doorman(target) as doorman:
        with meetings.door_of(target) as door:
            door.push(bytes(8192))
        goes_on(doorman, target)


# ---- doors that are full, stopped or closing ----


def test_a_full_door_is_waited_for_until_the_deadline(target: str) -> None:
    address = parse_target(target)
    with run_python(HOLD, target) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "listening\n"
        os.kill(holder.pid, signal.SIGSTOP)
        with meetings.door_of(target) as door:
            door.fill()
            with pytest.raises(ConnectError, match="it is stopped or swamped"):
                dial(target, deadline=time.monotonic() + 0.05)
        holder.kill()
    with Doorman(str(address)) as doorman:
        goes_on(doorman, target)


@pytest.mark.parametrize("full", [False, True], ids=["waiting", "full"])
def test_a_server_that_dies_under_a_waiting_client_is_noticed(target: str, full: bool) -> None:
    with run_python(HOLD, target) as holder, futures.ThreadPoolExecutor(1) as pool:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "listening\n"
        os.kill(holder.pid, signal.SIGSTOP)
        if full:
            with meetings.door_of(target) as door:
                door.fill()
        waiting = pool.submit(dial, target, ("localrpc.connect_timeout_ms", 60_000))
        holder.kill()
        error = waiting.exception(20)
        assert isinstance(error, ConnectError)
        assert "in time" not in str(error)
    with Doorman(target):
        pass


def test_a_listener_that_closes_ends_who_has_knocked(target: str) -> None:
    address = parse_target(target)
    listener = transport_for(address.scheme).listen(address, Options())
    with futures.ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(dial, target, ("localrpc.connect_timeout_ms", 60_000))
        assert readable(listener.fileno())
        listener.close()
        assert isinstance(waiting.exception(20), ConnectError)


def test_servers_that_come_and_go_leave_no_client_waiting(target: str) -> None:
    over = threading.Event()

    def knock_on() -> int:
        met = 0
        while not over.is_set():
            try:
                dial(target, ("localrpc.connect_timeout_ms", 60_000)).close()
                met += 1
            except ConnectError as error:
                if "in time" in str(error):
                    raise
        return met

    with futures.ThreadPoolExecutor(3) as pool:
        clients = [pool.submit(knock_on) for _ in range(3)]
        for _ in range(20):
            Doorman(target).close()
        with Doorman(target) as doorman:
            doorman.connection()
            over.set()
            for client in clients:
                client.result(20)


# ---- names ----


def test_a_live_name_is_never_stolen(target: str) -> None:
    with Doorman(target) as doorman:
        with pytest.raises(AddressInUse, match="a live server already listens there"):
            Doorman(target)
        goes_on(doorman, target)


def test_a_live_name_whose_door_is_full_is_never_stolen(target: str) -> None:
    with run_python(HOLD, target) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "listening\n"
        os.kill(holder.pid, signal.SIGSTOP)
        with meetings.door_of(target) as door:
            door.fill()
        with pytest.raises(AddressInUse):
            Doorman(target)
        os.kill(holder.pid, signal.SIGCONT)
        holder.communicate()


def test_a_dead_name_is_reclaimed(target: str, tmp_path: Path) -> None:
    with run_python(HOLD, target) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "listening\n"
        holder.kill()
    with pytest.raises(ConnectError, match=r"nobody listens on .*start the server again"):
        dial(target)
    with Doorman(target) as doorman:
        goes_on(doorman, target)
    assert meetings.entries(target, tmp_path) == set()


def test_nobody_listens(target: str, runtime_directory: Path) -> None:
    runtime_directory.mkdir(mode=0o700)
    with pytest.raises(ConnectError, match=r"no server listens on .*start it, or check the name"):
        dial(target)
    assert not list(runtime_directory.iterdir())


@pytest.mark.parametrize("stale", [False, True], ids=["free", "stale"])
def test_of_servers_that_start_at_once_one_wins(target: str, stale: bool) -> None:
    if stale:
        with run_python(HOLD, target) as dead:
            assert dead.stdout is not None
            dead.stdout.readline()
            dead.kill()
    children = [run_python(HOLD, target) for _ in range(4)]
    try:
        said = []
        for child in children:
            assert child.stdout is not None
            said.append(child.stdout.readline().split()[0])
        assert sorted(said) == ["AddressInUse"] * 3 + ["listening"]
    finally:
        for child in children:
            child.communicate()


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
            Doorman(target).close()  # never a ListenError
        over.set()
        for looker in lookers:
            looker.result(20)


def test_nothing_is_left_after_close(target: str, tmp_path: Path) -> None:
    with Doorman(target) as doorman:
        dial(target).close()
        doorman.connection()
    assert meetings.entries(target, tmp_path) == set()


def test_only_its_user_may_knock(target: str, tmp_path: Path) -> None:
    with Doorman(target):
        files = [path for path in tmp_path.rglob("*") if not path.is_dir()]
        assert [path.stat().st_mode & 0o777 for path in files] == [0o600]


@pytest.mark.parametrize("thing", ["file", "folder", "link", "socket"])
def test_another_thing_in_the_place_is_never_removed(thing: str, tmp_path: Path) -> None:
    path = tmp_path / "door"
    if thing == "file":
        path.write_text("precious")
    elif thing == "folder":
        path.mkdir()
    elif thing == "link":
        os.mkfifo(tmp_path / "other")
        path.symlink_to(tmp_path / "other")
    else:
        Doorman(f"unix:{path}").listener.forget()  # type: ignore[attr-defined]
    before = path.lstat().st_ino
    with pytest.raises(ListenError, match="exists and is not a FIFO"):
        Doorman(f"pipe:{path}")
    with pytest.raises(ConnectError):
        dial(f"pipe:{path}")
    assert path.lstat().st_ino == before


@pytest.mark.parametrize("kind", ["mq", "sysvmq"])
@pytest.mark.parametrize("text", ["", "x", "/localrpc-no-queue\n1", "1\n2\n3", "\xff\n\xff"])
def test_a_damaged_record_is_replaced(kind: str, text: str, runtime_directory: Path) -> None:
    runtime_directory.mkdir(mode=0o700)
    (runtime_directory / f"door.{kind}").write_text(text)
    with pytest.raises(ConnectError):
        dial(f"{kind}:door")
    with Doorman(f"{kind}:door") as doorman:
        goes_on(doorman, f"{kind}:door")


@pytest.mark.parametrize("kind", ["mq", "sysvmq"])
def test_a_folder_in_a_records_place_is_left_alone(kind: str, runtime_directory: Path) -> None:
    (runtime_directory / f"door.{kind}").mkdir(parents=True)
    runtime_directory.chmod(0o700)
    with pytest.raises(ListenError):
        Doorman(f"{kind}:door")
    assert (runtime_directory / f"door.{kind}").is_dir()


@root_only
def test_another_users_record_is_not_believed(tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    os.mkfifo(mine)
    planted = tmp_path / f"door.{new_token()}{records.SUFFIX}"
    planted.write_text(str(mine))
    os.chown(planted, NOBODY, NOBODY)
    with Doorman(f"pipe:{tmp_path}/door"):
        assert mine.is_fifo()
    assert planted.exists()


@root_only
def test_another_user_is_told_whose_it_is(target: str, tmp_path: Path) -> None:
    reachable(tmp_path)
    with Doorman(target):
        said = as_ordinary_user(lambda: str(dial(target)))
    assert said.startswith("ConnectError")
    if target.startswith("pipe:"):
        assert "run client and server as the same user" in said
    else:
        assert "belongs to uid 0, not to 65534" in said


@root_only
def test_a_fifo_that_another_user_opened_to_all_is_not_talked_to(tmp_path: Path) -> None:
    path = reachable(tmp_path) / "door"
    os.mkfifo(path)
    path.chmod(0o666)
    os.chown(path, NOBODY + 1, NOBODY + 1)
    fd = os.open(path, os.O_RDWR)
    try:
        said = as_ordinary_user(lambda: str(dial(f"pipe:{path}")))
    finally:
        os.close(fd)
    assert "the server belongs to uid 65535" in said


# ---- what killed ones leave ----

DIE = """
import os, signal, sys
from localrpc.address import parse_target
from localrpc.options import Options
from localrpc.transports import mq, pipe, records, sysvmq, transport_for
from localrpc.transports import meeting, queues

def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)

def patch(where):
    if where == "record made":  # nothing else yet
        make = records.make
        def made(*args):
            make(*args)
            die()
        records.make = made
    elif where == "half made":
        os.mkfifo, mkfifo = (lambda path, mode: (mkfifo(path, mode), die())), os.mkfifo
        queue = mq._Queue
        def one(name, **how):
            made = queue(name, **how)
            if how:
                die()
            return made
        mq._Queue = one
        make = sysvmq._make
        sysvmq._make = lambda key: (make(key), die())
    elif where == "before the knock":
        pipe.knock = queues.knock = die
    elif where == "after the knock":
        knock = meeting.knock
        def knocked(*args, **how):
            knock(*args, **how)
            die()
        pipe.knock = queues.knock = knocked

address = parse_target(sys.argv[1])
patch(sys.argv[2])
transport_for(address.scheme).dial(address, Options(), None)
"""
STEPS = ["record made", "half made", "before the knock", "after the knock"]


@pytest.mark.parametrize("where", STEPS)
def test_what_a_killed_client_leaves_is_swept_by_the_next_start(
    target: str, where: str, tmp_path: Path
) -> None:
    with run_python(HOLD, target) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "listening\n"
        with run_python(DIE, target, where) as client:
            client.communicate()
            assert client.returncode == -signal.SIGKILL
        assert len(meetings.entries(target, tmp_path)) > 1
        holder.kill()
    Doorman(target).close()
    assert meetings.entries(target, tmp_path) == set()


@pytest.mark.parametrize("where", STEPS)
def test_a_server_clears_up_after_killed_clients_when_the_next_one_comes(
    target: str, where: str, tmp_path: Path
) -> None:
    with serving(target):
        before = meetings.entries(target, tmp_path)
        with run_python(DIE, target, where) as client:
            client.communicate()
            assert client.returncode == -signal.SIGKILL
        dial(target).close()
        wait_until(lambda: meetings.entries(target, tmp_path) == before)
    assert meetings.entries(target, tmp_path) == set()


@pytest.mark.parametrize("where", STEPS)
def test_a_server_that_stops_clears_up_after_killed_clients(
    target: str, where: str, tmp_path: Path
) -> None:
    listener = transport_for(parse_target(target).scheme).listen(parse_target(target), Options())
    with run_python(DIE, target, where) as client:
        client.communicate()
        assert client.returncode == -signal.SIGKILL
    listener.close()
    assert meetings.entries(target, tmp_path) == set()


def test_a_server_spares_who_is_on_the_way_in(target: str) -> None:
    address = parse_target(target)
    listener = transport_for(address.scheme).listen(address, Options())
    with futures.ThreadPoolExecutor(1) as pool:
        dialled = pool.submit(dial, target)
        assert readable(listener.fileno())
        assert listener.tidy()
        (greeting,) = listener.accept()
        while (connection := greeting.advance()) is None:
            assert readable(greeting.fileno())
        dialled.result(20).close()
    connection.close()
    assert not listener.tidy()
    listener.close()


def test_a_client_that_is_killed_before_its_hello_harms_nobody(target: str, tmp_path: Path) -> None:
    with Doorman(target, ("localrpc.greeting_timeout_ms", 50)) as doorman:
        outcome_of = run_python(DIE, target, "after the knock")
        with outcome_of as client:
            client.communicate()
        # Of a System V queue's client the HELLO has come before the knock.
        doorman.wait_for(lambda: bool(doorman.errors or doorman.connections))
        goes_on(doorman, target)
    Doorman(target).close()
    assert meetings.entries(target, tmp_path) == set()


DIE_CLOSING = """
import os, signal, sys
from localrpc.address import parse_target
from localrpc.options import Options
from localrpc.transports import records, sysvmq, transport_for

def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)

address = parse_target(sys.argv[1])
listener = transport_for(address.scheme).listen(address, Options())
steps = iter(range(int(sys.argv[2])))
for owner, name in ((os, "unlink"), (os, "rename"), (sysvmq, "_drop"), (records.Record, "remove")):
    def step(*args, call=getattr(owner, name)):
        if next(steps, None) is None:
            die()
        return call(*args)
    setattr(owner, name, step)
listener.close()
"""


@pytest.mark.parametrize("steps", range(4))
def test_a_server_that_is_killed_while_it_closes_leaves_nothing_to_the_next_but_one(
    target: str, steps: int, tmp_path: Path
) -> None:
    before = census.take().sysv_queues
    with run_python(DIE_CLOSING, target, str(steps)) as server:
        server.communicate()
        assert server.returncode in (0, -signal.SIGKILL)
    Doorman(target).close()
    assert meetings.entries(target, tmp_path) == set()
    assert census.take().sysv_queues == before


def test_what_a_client_has_left_to_its_server_to_read_goes_with_the_next(
    target: str, tmp_path: Path
) -> None:
    before = census.take().sysv_queues
    with run_python(SERVE_ONE, target) as server:
        assert server.stdout is not None
        assert server.stdout.readline() == "listening\n"
        client = End(dial(target))
        assert server.stdout.readline().startswith("connected")
        assert client.try_send(Frame(lib.LR_T_MESSAGE, 1, 0, b"never read")) == 1
        client.close()
        server.kill()
    Doorman(target).close()
    assert meetings.entries(target, tmp_path) == set()
    assert census.take().sysv_queues == before


def test_killed_servers_and_clients_leave_nothing_for_long(target: str, tmp_path: Path) -> None:
    with run_python(SERVE_ONE, target) as server:
        assert server.stdout is not None
        assert server.stdout.readline() == "listening\n"
        with run_python(DIAL, target) as client:
            assert server.stdout.readline().startswith(f"connected {client.pid} ")
            server.kill()
            client.kill()
    Doorman(target).close()
    assert meetings.entries(target, tmp_path) == set()


def test_a_sweep_leaves_the_living_alone(target: str) -> None:
    with run_python(HOLD, target) as holder, futures.ThreadPoolExecutor(1) as pool:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "listening\n"
        waiting = pool.submit(dial, target, ("localrpc.connect_timeout_ms", 60_000))
        with pytest.raises(AddressInUse):
            Doorman(target)
        holder.kill()
        assert isinstance(waiting.exception(20), ConnectError)
    Doorman(target).close()


# ---- tokens ----


@pytest.mark.parametrize("thing", ["file", "link", "folder", "one of two"])
def test_a_token_of_anything_but_fifos_is_refused(
    thing: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    target = f"pipe:{tmp_path}/door"
    token = new_token()
    os.mkfifo(tmp_path / "fifo")
    for end in meetings.fifo_ends(target, token):
        if thing == "file":
            Path(end).write_text("precious")
        elif thing == "link":
            Path(end).symlink_to(tmp_path / "fifo")
        elif thing == "folder":
            Path(end).mkdir()
        elif end.endswith("up"):
            os.mkfifo(end)
    with Doorman(target) as doorman:
        with meetings.door_of(target) as door:
            door.knock(token)
        goes_on(doorman, target)
        assert not doorman.connections[1:]
    assert ("a client was turned away" in caplog.text) is (thing != "one of two")


def test_a_knock_without_a_hello_is_given_up_in_time(tmp_path: Path) -> None:
    target = f"pipe:{tmp_path}/door"
    token = new_token()
    ends = meetings.fifo_ends(target, token)
    with Doorman(target, ("localrpc.greeting_timeout_ms", 30)) as doorman:
        for end in ends:
            os.mkfifo(end)
        reading = os.open(ends.down, os.O_RDONLY | os.O_NONBLOCK)
        with meetings.door_of(target) as door:
            door.knock(token)
        assert isinstance(doorman.error(), TimeoutError)
        os.close(reading)
        goes_on(doorman, target)


def test_a_client_that_hangs_up_before_its_hello_is_noticed(tmp_path: Path) -> None:
    target = f"pipe:{tmp_path}/door"
    token = new_token()
    ends = meetings.fifo_ends(target, token)
    with Doorman(target) as doorman:
        for end in ends:
            os.mkfifo(end)
        reading = os.open(ends.down, os.O_RDONLY | os.O_NONBLOCK)
        up = os.open(ends.up, os.O_RDWR | os.O_NONBLOCK)
        with meetings.door_of(target) as door:
            door.knock(token)
        doorman.wait_for(lambda: bool(doorman.greetings))
        os.close(up)
        os.close(reading)
        error = doorman.error()
        assert isinstance(error, GreetingError)
        assert error.quiet


# ---- who it is ----


def test_each_knows_the_others_process(target: str) -> None:
    with Doorman(target) as doorman, run_python(DIAL, target) as child:
        assert child.stdout is not None
        assert child.stdout.readline().startswith("connected")
        own = PeerCredentials(child.pid, os.geteuid(), os.getegid())
        assert doorman.connection().peer == own
        assert doorman.connection().peer_name == f"unix:pid={child.pid}"
        child.communicate()


def test_a_client_knows_its_servers_process(target: str) -> None:
    with run_python(SERVE_ONE, target) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "listening\n"
        client = dial(target)
        assert client.peer == PeerCredentials(child.pid, os.geteuid(), os.getegid())
        assert child.stdout.readline() == f"connected {os.getpid()} None\n"
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

    target = f"pipe:{tmp_path}/door"
    with Doorman(target):
        monkeypatch.setattr(records, "make", refuse)
        with pytest.raises(ConnectError, match=f"directory {tmp_path} cannot be written"):
            dial(target)


def test_a_queue_that_somebody_has_removed_is_told(caplog: pytest.LogCaptureFixture) -> None:
    with Doorman("sysvmq:door") as doorman:
        assert isinstance(doorman.listener, sysvmq._SysvListener)
        sysvmq._drop(doorman.listener._queue)
        wait_until(lambda: "somebody has removed its queue" in caplog.text)
        with pytest.raises(ConnectError, match="connect failed"):
            dial("sysvmq:door")
    assert caplog.text.count("somebody has removed") == 1


def test_connections_leave_no_descriptor(target: str) -> None:
    with Doorman(target) as doorman:
        dial(target).close()
        doorman.connection(0).close()
        before = len(os.listdir("/proc/self/fd"))
        for number in range(1, 20):
            dial(target).close()
            doorman.connection(number).close()
        gc.collect()
        assert len(os.listdir("/proc/self/fd")) <= before


def test_a_name_in_use_names_the_target(target: str) -> None:
    with run_python(HOLD, target) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "listening\n"
        expected = f"AddressInUse Failed to bind to address {target}: "
        assert outcome(HOLD, target).startswith(expected)
        child.communicate()
