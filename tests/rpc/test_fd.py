"""fd:, sockets from another process: by number, by name, listening and connected."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from concurrent import futures
from contextlib import contextmanager, suppress
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import grpc
import pytest

import localrpc
from localrpc.errors import AddressError, ListenError
from tests.forks.children import Child
from tests.peers.journal import Journal
from tests.peers.station import Station
from tests.transports.helpers import run_python

from .house import House, await_that

Code = grpc.StatusCode
PATIENCE = 40.0
"""Seconds: an interpreter has to start in most of these calls."""

SERVE = """
import os, sys
from concurrent import futures
import grpc, localrpc

def who(request, context):
    peer = localrpc.peer_credentials(context)
    return repr((peer.pid, peer.uid, peer.gid)).encode()

def fork(request, context):
    if (heir := os.fork()) == 0:
        import signal
        signal.alarm(60)  # in case the test does not end it
        signal.pause()
    return b"%d" % heir

methods = {
    "pid": lambda request, context: b"%d" % os.getpid(),
    "who": who,
    "fork": fork,
    "hold": lambda request, context: sys.stdin.read().encode(),
}
handler = grpc.method_handlers_generic_handler(
    "fd", {name: grpc.unary_unary_rpc_method_handler(do) for name, do in methods.items()}
)
server = localrpc.server(futures.ThreadPoolExecutor(4), (handler,))
for target in sys.argv[1:]:
    print(server.add_insecure_port(target), flush=True)
# Before it serves a client: a client that has its answer may send a signal at once.
localrpc.stop_on_signals(server)
server.start()
print("serving", flush=True)
server.wait_for_termination()
"""

# As a service manager does it: the sockets from 3 on, then exec, which keeps the pid.
ACTIVATE = """
import fcntl, os, sys
fds = [fcntl.fcntl(int(fd), fcntl.F_DUPFD, 100) for fd in sys.argv[1].split(",")]
for number, fd in enumerate(fds, 3):
    os.dup2(fd, number, inheritable=True)
os.environ["LISTEN_FDS"] = str(len(fds))
os.environ["LISTEN_PID"] = str(os.getpid())
os.execv(sys.executable, [sys.executable, "-c", *sys.argv[2:]])
"""


def call(target: str, method: str = "pid") -> bytes:
    with localrpc.insecure_channel(target) as channel:
        return ask(channel, method)


def ask(channel: Any, method: str = "pid", **named: Any) -> bytes:
    answer: bytes = channel.unary_unary(f"/fd/{method}")(b"", timeout=PATIENCE, **named)
    return answer


def failure(channel: Any, **named: Any) -> Any:
    with pytest.raises(grpc.RpcError) as caught:
        ask(channel, **named)
    return caught.value


def lines(child: subprocess.Popen[str], count: int) -> list[str]:
    assert child.stdout is not None
    return [child.stdout.readline().strip() for _ in range(count)]


@contextmanager
def activated(
    sockets: list[socket.socket], *targets: str, **environment: str
) -> Iterator[subprocess.Popen[str]]:
    fds = [sock.fileno() for sock in sockets]
    numbers = ",".join(map(str, fds))
    child = run_python(ACTIVATE, numbers, SERVE, *targets, pass_fds=fds, env=environment)
    with ended(child):
        yield child


@contextmanager
def ended(child: subprocess.Popen[str]) -> Iterator[None]:
    try:
        yield
    finally:
        child.kill()
        child.communicate()


@contextmanager
def serving(target: str) -> Iterator[Station]:
    station = Station(target, Journal())
    yield station
    station.stop()


@pytest.fixture
def folder() -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="lrt") as one:
        yield one


KINDS = ("unix", "shm", "unix-abstract", "tcp")


@pytest.fixture(params=KINDS)
def listening(request: pytest.FixtureRequest, folder: str) -> Iterator[tuple[socket.socket, str]]:
    """A socket that listens, and where clients dial it."""
    if request.param == "tcp":
        sock = socket.create_server(("127.0.0.1", 0))
        target = f"tcp:127.0.0.1:{sock.getsockname()[1]}"
    else:
        place = f"{folder}/socket"
        sock = socket.socket(socket.AF_UNIX)
        sock.bind(f"\0{place}" if request.param == "unix-abstract" else place)
        sock.listen()
        target = f"{request.param}:{place}"
    with sock:
        yield sock, target


@pytest.fixture(params=["unix", "tcp"])
def pair(request: pytest.FixtureRequest) -> Iterator[tuple[socket.socket, socket.socket]]:
    """Two ends of a connection."""
    if request.param == "unix":
        one, other = socket.socketpair()
    else:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            one = socket.create_connection(listener.getsockname())
            other, _ = listener.accept()
    with one, other:
        yield one, other


# ---- listening sockets ----


def test_a_listening_socket_is_served_and_outlives_its_server(
    listening: tuple[socket.socket, str],
) -> None:
    sock, target = listening
    port = target.rpartition(":")[2] if target.startswith("tcp:") else "1"
    for _ in range(2):
        with activated([sock], "fd:3") as server:
            assert lines(server, 2) == [port, "serving"]
            assert call(target) == b"%d" % server.pid
            server.send_signal(signal.SIGTERM)
            assert server.wait(PATIENCE) == 0
        if target.startswith(("unix:", "shm:")):
            assert os.path.exists(target.partition(":")[2])


def test_a_client_that_dials_before_the_server_starts_is_served_later(
    listening: tuple[socket.socket, str],
) -> None:
    sock, target = listening
    with futures.ThreadPoolExecutor(1) as pool:
        early = pool.submit(call, target)
        assert wait([sock], PATIENCE)
        with activated([sock], "fd:3") as server:
            assert early.result(PATIENCE) == b"%d" % server.pid


def test_the_peers_are_known_on_both_sides(listening: tuple[socket.socket, str]) -> None:
    sock, target = listening
    with activated([sock], "fd:3") as server:
        assert call(target, "who") == repr((os.getpid(), os.geteuid(), os.getegid())).encode()
        with localrpc.insecure_channel(target) as channel:
            ask(channel)
            session = channel._connector.peek()
            assert session is not None
            assert session.connection.peer.pid == server.pid


# ---- rings over a listening socket ----


@pytest.fixture
def at_path(folder: str) -> Iterator[tuple[socket.socket, str]]:
    """A Unix socket that listens, and its path."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(f"{folder}/socket")
        sock.listen()
        yield sock, f"{folder}/socket"


def facts_of(target: str, options: Any = None) -> localrpc.ConnectionFacts:
    with localrpc.insecure_channel(target, options=options) as channel:
        grpc.channel_ready_future(channel).result(PATIENCE)
        assert channel.facts is not None
        return channel.facts


def test_clients_of_shm_and_of_unix_share_a_socket(
    at_path: tuple[socket.socket, str], caplog: pytest.LogCaptureFixture
) -> None:
    sock, path = at_path
    with serving(f"fd:{os.dup(sock.fileno())}"):
        rings = facts_of(f"shm:{path}?ring=256k")
        plain = facts_of(f"unix:{path}")
        assert not caplog.records  # who never asked for memory is not warned of its absence
        without = facts_of(f"shm:{path}", [("localrpc.shared_memory", 0)])
    assert (rings.memory, rings.ring_size, rings.fell_back) == ("memfd", 256 << 10, None)
    assert (plain.memory, plain.fell_back) == ("", None)
    assert without.ring_size == 0
    assert "localrpc.shared_memory is 0 on the client" in str(without.fell_back)


@pytest.mark.parametrize("wakeup", ["eventfd", "futex", "signal", "spin"])
@pytest.mark.parametrize("of_server", ["", "?wakeup=futex", "?wakeup=signal", "?wakeup=spin"])
def test_rings_of_a_passed_socket_wake_like_others(
    at_path: tuple[socket.socket, str], wakeup: str, of_server: str
) -> None:
    """The kernel names the socket's creator as the server, which signals must not reach."""
    sock, path = at_path
    with (
        activated([sock], f"fd:3{of_server}") as server,
        localrpc.insecure_channel(f"shm:{path}?wakeup={wakeup}") as channel,
    ):
        for _ in range(20):
            assert ask(channel) == b"%d" % server.pid
        assert channel.facts is not None
        assert channel.facts.memory == "memfd"


def test_the_server_limits_the_rings_of_a_passed_socket(
    at_path: tuple[socket.socket, str],
) -> None:
    sock, path = at_path
    with activated([sock], "fd:3?ring=256k"):
        assert facts_of(f"shm:{path}?ring=256k").ring_size == 256 << 10
        assert "?ring= allows 262144" in str(facts_of(f"shm:{path}").fell_back)


def test_sockets_that_have_no_rings_refuse_options_of_rings(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    number = pair[0].fileno()
    for option in ("ring=1M", "wakeup=futex", "memory=posix", "wakeup=signal&signo=SIGUSR1"):
        for text in refusals(f"fd:{number}?{option}"):
            assert "a connected socket has no rings in shared memory; leave " in text
    with socket.create_server(("127.0.0.1", 0)) as sock:
        server = localrpc.server(futures.ThreadPoolExecutor(1))
        with pytest.raises(localrpc.ListenError, match=r"a TCP socket has no rings .* ring= out"):
            server.add_insecure_port(f"fd:{os.dup(sock.fileno())}?ring=1M")


def test_the_end_of_the_sockets_creator_is_not_the_servers_end(folder: str) -> None:
    script = """
import socket, subprocess, sys
sock = socket.socket(socket.AF_UNIX)
sock.bind(sys.argv[2])
sock.listen()
argv = [sys.executable, "-c", sys.argv[1], f"fd:{sock.fileno()}"]
print(subprocess.Popen(argv, pass_fds=[sock.fileno()], stdin=subprocess.DEVNULL).pid, flush=True)
sys.stdin.read()
"""
    target = f"unix:{folder}/socket"
    maker = run_python(script, SERVE, f"{folder}/socket")
    pid = int(lines(maker, 1)[0])
    try:
        with localrpc.insecure_channel(target) as channel:
            assert ask(channel) == b"%d" % pid
            facts = channel._connector.peek()
            maker.kill()
            maker.wait()
            for _ in range(5):
                assert ask(channel) == b"%d" % pid
            assert channel._connector.peek() is facts
    finally:
        os.kill(pid, signal.SIGKILL)
        maker.communicate()


def test_the_servers_death_is_seen_though_its_child_holds_the_connection(
    listening: tuple[socket.socket, str],
) -> None:
    sock, target = listening
    with activated([sock], "fd:3") as server, localrpc.insecure_channel(target) as channel:
        heir = int(ask(channel, "fork"))
        try:
            method: Any = channel.unary_unary("/fd/hold")
            held = method.future(b"")
            server.kill()
            assert held.code() is Code.UNAVAILABLE
        finally:
            os.kill(heir, signal.SIGKILL)


def test_a_server_has_several_by_their_names(folder: str) -> None:
    sockets = []
    for name in ("one", "two"):
        sock = socket.socket(socket.AF_UNIX)
        sock.bind(f"{folder}/{name}")
        sock.listen()
        sockets.append(sock)
    names = "web.socket:admin"
    with activated(sockets, "fd:admin", "fd:web.socket", LISTEN_FDNAMES=names) as server:
        assert lines(server, 3) == ["1", "1", "serving"]
        for name in ("one", "two"):
            assert call(f"unix:{folder}/{name}") == b"%d" % server.pid
    for sock in sockets:
        sock.close()


def test_a_listening_socket_open_to_others_needs_an_option() -> None:
    server = localrpc.server(futures.ThreadPoolExecutor(1))
    number = socket.create_server(("0.0.0.0", 0)).detach()
    with pytest.raises(ListenError, match=r"add \?interfaces=any if that is meant"):
        server.add_insecure_port(f"fd:{number}")
    assert server.add_insecure_port(f"fd:{number}?interfaces=any") > 1  # it is still there


# ---- connected sockets ----


def test_both_ends_of_a_connection(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    number = theirs.fileno()
    server = run_python(SERVE, f"fd:{number}", pass_fds=[number])
    with ended(server):
        theirs.close()
        with localrpc.insecure_channel(f"fd:{ours.detach()}") as channel:
            assert ask(channel) == b"%d" % server.pid
            me = repr((os.getpid(), os.geteuid(), os.getegid())).encode()
            assert ask(channel, "who") == me
            session = channel._connector.peek()
            assert session is not None
            assert session.connection.peer.pid == server.pid
        # Its only client has gone, and no other can come.
        assert server.wait(PATIENCE) == 0


def test_a_channel_dials_once(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    with serving(f"fd:{theirs.detach()}") as station:
        channel: Any = localrpc.insecure_channel(f"fd:{ours.detach()}")
        assert channel.unary_unary("/station/echo")(b"x", timeout=PATIENCE) == b"x"
        station.server.stop(None)
        for wait in (False, True):
            error = failure(channel, wait_for_ready=wait)
            assert error.code() is Code.UNAVAILABLE
            assert "a channel on a descriptor cannot dial again" in error.details()
        channel.close()


def test_a_subscriber_of_a_lost_channel_gets_no_further_calls(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    ours, theirs = pair
    theirs.close()
    failed = threading.Event()

    def hear(state: grpc.ChannelConnectivity) -> None:
        if state is grpc.ChannelConnectivity.TRANSIENT_FAILURE:
            failed.set()

    channel = localrpc.insecure_channel(f"fd:{ours.detach()}")
    channel.subscribe(hear, try_to_connect=True)
    assert failed.wait(PATIENCE)
    for thread in threading.enumerate():
        if thread.name == "localrpc-connect":
            thread.join(PATIENCE)
            assert not thread.is_alive()
    channel.close()


def test_a_deadline_does_not_take_the_connection_with_it(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    ours, theirs = pair
    with localrpc.insecure_channel(f"fd:{ours.detach()}") as channel:
        early: Any = channel.unary_unary("/station/echo")
        with pytest.raises(grpc.RpcError) as caught:
            early(b"", timeout=0.02)
        error: Any = caught.value
        assert error.code() is Code.DEADLINE_EXCEEDED
        with serving(f"fd:{theirs.detach()}"):
            assert early(b"x", timeout=PATIENCE) == b"x"


def test_a_channel_closed_before_it_was_used_hangs_up(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    ours, theirs = pair
    localrpc.insecure_channel(f"fd:{ours.detach()}").close()
    theirs.settimeout(PATIENCE)
    while theirs.recv(4096):
        pass


def test_a_forked_child_cannot_use_its_parents_connection(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    ours, theirs = pair
    number = ours.detach()
    channel: Any = localrpc.insecure_channel(f"fd:{number}")
    with serving(f"fd:{theirs.detach()}"):
        echo = channel.unary_unary("/station/echo")
        assert echo(b"x", timeout=PATIENCE) == b"x"

        def work() -> None:
            error = failure(channel, wait_for_ready=True)
            assert "of the process from which this one was forked" in error.details()
            channel.close()

        Child(work).join()
        assert echo(b"x", timeout=PATIENCE) == b"x"
    channel.close()


def test_a_child_forked_before_the_first_call_holds_nothing_of_the_connection(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    ours, theirs = pair
    inode = os.fstat(ours.fileno()).st_ino
    channel: Any = localrpc.insecure_channel(f"fd:{ours.detach()}")
    dialer = channel._connector._dialer

    def work() -> None:
        for number in map(int, os.listdir("/proc/self/fd")):
            with suppress(OSError):  # the folder itself
                assert os.fstat(number).st_ino != inode

    with serving(f"fd:{theirs.detach()}"):
        await_that(lambda: dialer._connection is not None, "the handshake")
        Child(work).join()
        assert channel.unary_unary("/station/echo")(b"x", timeout=PATIENCE) == b"x"
    channel.close()


def test_a_descriptor_is_taken_over() -> None:
    ours, theirs = socket.socketpair()
    number = ours.detach()
    os.set_inheritable(number, True)
    channel = localrpc.insecure_channel(f"fd:{number}")
    assert not os.get_inheritable(number)
    with pytest.raises(AddressError, match=f"descriptor {number} is taken"):
        localrpc.insecure_channel(f"fd:{number}")
    theirs.close()
    channel.close()


# ---- what is not available ----


@pytest.fixture
def open_file(tmp_path: Path) -> Iterator[int]:
    with open(tmp_path / "file", "w") as file:
        yield file.fileno()


def refusals(target: str) -> tuple[str, str]:
    """What a server and a channel say of it."""
    server = localrpc.server(futures.ThreadPoolExecutor(1))
    with pytest.raises(ListenError) as no_server:
        server.add_insecure_port(target)
    with pytest.raises(AddressError) as no_channel:
        localrpc.insecure_channel(target)
    for caught in (no_server, no_channel):
        assert target in str(caught.value)
    return str(no_server.value), str(no_channel.value)


def test_a_descriptor_that_is_not_a_socket_is_named(open_file: int) -> None:
    reader, writer = os.pipe()
    for number, what in ((open_file, "a file"), (reader, "a pipe")):
        for text in refusals(f"fd:{number}"):
            assert f"descriptor {number} is {what}; fd: takes a listening or connected" in text
        os.fstat(number)
    os.close(reader)
    os.close(writer)


def test_a_closed_descriptor_is_reported_with_the_fix(monkeypatch: pytest.MonkeyPatch) -> None:
    for text in refusals("fd:999999"):
        assert "descriptor 999999 is not open in this process; the starting program has to" in text
    monkeypatch.setenv("LISTEN_FDS", "2")
    for text in refusals("fd:999999"):
        assert f"LISTEN_PID is not set and this process is {os.getpid()}" in text
    monkeypatch.setenv("LISTEN_PID", str(os.getpid()))
    for text in refusals("fd:999999"):
        assert "LISTEN_FDS=2 passes 3 to 4" in text


@pytest.mark.parametrize(
    ("family", "kind", "words"),
    [
        (socket.AF_UNIX, socket.SOCK_DGRAM, "is a datagram socket; fd: takes"),
        (socket.AF_INET, socket.SOCK_DGRAM, "protocol 17"),
        (socket.AF_UNIX, socket.SOCK_SEQPACKET, "is a sequential-packet socket"),
        (socket.AF_NETLINK, socket.SOCK_RAW, "is a socket of family"),
        (socket.AF_UNIX, socket.SOCK_STREAM, "neither listens nor is connected"),
        (socket.AF_INET, socket.SOCK_STREAM, "neither listens nor is connected"),
    ],
)
def test_another_kind_of_socket_is_named(family: int, kind: int, words: str) -> None:
    with socket.socket(family, kind) as sock:
        for text in refusals(f"fd:{sock.fileno()}"):
            assert f"descriptor {sock.fileno()}" in text
            assert words in text
        sock.getsockname()


def test_a_channel_on_a_listening_socket_gets_an_explanation() -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        with pytest.raises(AddressError, match=r"it is for a server's add_insecure_port\(\)"):
            localrpc.insecure_channel(f"fd:{sock.fileno()}")
        server = localrpc.server(futures.ThreadPoolExecutor(1))
        assert server.add_insecure_port(f"fd:{sock.detach()}") > 1


def test_names_need_a_service_manager(monkeypatch: pytest.MonkeyPatch) -> None:
    for text in refusals("fd:web"):
        assert "LISTEN_FDS is not set; start the program by its .socket unit" in text
    monkeypatch.setenv("LISTEN_FDS", "3")
    monkeypatch.setenv("LISTEN_PID", "1")
    for text in refusals("fd:web"):
        assert f"LISTEN_PID is 1 and this process is {os.getpid()}; let the service run" in text
    monkeypatch.setenv("LISTEN_PID", str(os.getpid()))
    for text in refusals("fd:web"):
        assert "LISTEN_FDNAMES has none" in text
    monkeypatch.setenv("LISTEN_FDNAMES", "admin:twice:twice:web")
    for text in refusals("fd:web"):
        assert "no descriptor is called 'web': LISTEN_FDNAMES has admin, twice, twice" in text
    for text in refusals("fd:twice"):
        assert "the descriptors 4 and 5 are all called 'twice'; give a number" in text


# ---- readiness ----


@pytest.fixture(params=["path", "abstract"])
def manager(
    request: pytest.FixtureRequest, folder: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[socket.socket]:
    place = f"{folder}/notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(place if request.param == "path" else f"\0{place}")
        sock.settimeout(PATIENCE)
        monkeypatch.setenv("NOTIFY_SOCKET", place if request.param == "path" else f"@{place}")
        yield sock


def test_a_manager_is_notified_of_ready_and_stopping(
    manager: socket.socket,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock, activated([sock], "fd:3") as server:
        assert manager.recv(100) == b"READY=1"
        assert call(f"tcp:127.0.0.1:{sock.getsockname()[1]}") == b"%d" % server.pid
        server.send_signal(signal.SIGTERM)
        assert manager.recv(100) == b"STOPPING=1"


def test_a_manager_is_notified_of_each_once(manager: socket.socket) -> None:
    server = localrpc.server(futures.ThreadPoolExecutor(1))
    server.add_insecure_port("inproc:first")
    server.start()
    for _ in range(2):
        number = socket.create_server(("127.0.0.1", 0)).detach()
        server.add_insecure_port(f"fd:{number}")
    server.stop(1)
    server.stop(None)
    assert localrpc.sd_notify("STATUS=done")
    told = [manager.recv(100) for _ in range(3)]
    assert told == [b"READY=1", b"STOPPING=1", b"STATUS=done"]


def test_a_manager_that_passed_no_socket_is_not_notified(manager: socket.socket) -> None:
    with House("inproc:unmanaged"):
        pass
    localrpc.sd_notify("STATUS=done")
    assert manager.recv(100) == b"STATUS=done"


def test_a_missing_manager_does_no_harm(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert not localrpc.sd_notify("READY=1")
    for place in ("/nonexistent/notify", "@", "relative", "/" + "x" * 200):
        monkeypatch.setenv("NOTIFY_SOCKET", place)
        assert not localrpc.sd_notify("READY=1")
        assert f"cannot send READY=1 to NOTIFY_SOCKET={place}" in caplog.text
    number = socket.create_server(("127.0.0.1", 0)).detach()
    server = localrpc.server(futures.ThreadPoolExecutor(1))
    server.add_insecure_port(f"fd:{number}")
    server.start()
    server.stop(None)
