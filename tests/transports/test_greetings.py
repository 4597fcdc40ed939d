"""Handshakes: clients, foreign peers, and clients that never finish their HELLO."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc
import pytest

from localrpc._core import links
from localrpc._core.links import make_bell
from localrpc.errors import ConnectError, GreetingError, ListenError
from localrpc.options import Options
from localrpc.transports import (
    Greeting,
    PeerCredentials,
    credentials,
    memory,
    parse_target,
    transport_for,
)
from localrpc.transports.credentials import refusal_of_client, refusal_of_server
from localrpc.transports.handshake import make_hello
from localrpc.wire.codec import Hello
from localrpc.wire.greeting import Greeter, Role, hello_frame
from tests import places
from tests.ports import free_port
from tests.skips import root_only

from . import request_places
from .helpers import (
    DIAL,
    HOLD,
    PATIENCE,
    ROOT,
    AcceptingServer,
    as_ordinary_user,
    dial,
    outcome,
    reachable,
    readable,
    run_python,
)

HELLO = hello_frame(make_hello(Options()))
RING = 1 << 20


def connect(target: str) -> socket.socket:
    """A plain socket connected to the target."""
    sock = places.visit(target)
    assert isinstance(sock, socket.socket)
    sock.settimeout(20)
    return sock


def send_with(sock: socket.socket, data: bytes, fds: list[int]) -> None:
    socket.send_fds(sock, [data], fds)
    for fd in fds:
        os.close(fd)


def read_hello(sock: socket.socket) -> Hello:
    greeter = Greeter(Role.CLIENT)
    while True:
        data = sock.recv(greeter.wanted)
        if not data:
            raise greeter.receive_eof()
        if hello := greeter.receive(data):
            return hello


def rings(size: int = RING) -> list[int]:
    return [make_bell(), memory.create_ring(size), memory.create_ring(size)]


def goes_on(accepting: AcceptingServer, target: str) -> None:
    """The server still takes clients."""
    number = len(accepting.connections)
    dial(target).close()
    accepting.connection(number)


# ---- friends ----


def test_both_sides_know_their_peer(target: str) -> None:
    with AcceptingServer(target) as accepting:
        client = dial(target, ("grpc.primary_user_agent", "me/1"))
        server = accepting.connection()
        own = PeerCredentials(os.getpid(), os.geteuid(), os.getegid())
        assert client.peer == server.peer == own
        assert server.hello.agent.startswith("me/1 ")
        if target.startswith("tcp:"):
            assert client.peer_name == target
            assert server.peer_name.startswith("ipv4:127.0.0.1:")
        else:
            assert client.peer_name.startswith("unix:")
            assert server.peer_name == f"unix:pid={os.getpid()}"
        client.close()


@pytest.mark.parametrize("wakeup", ["eventfd", "signal"])
def test_a_ring_is_what_the_client_asked_for(wakeup: str) -> None:
    with AcceptingServer("shm:server") as accepting:
        client = dial(f"shm:server?ring=256k&wakeup={wakeup}")
        server = accepting.connection()
        assert (client.facts.transport, client.facts.wakeup) == ("shm", wakeup)
        assert client.facts.fell_back is server.facts.fell_back is None
        assert client.facts.ring_size == server.facts.ring_size == 256 * 1024
        client.close()


def test_each_side_says_its_own_window(target: str) -> None:
    with AcceptingServer(target, ("localrpc.window", 1 << 20)) as accepting:
        client = dial(target, ("localrpc.window", 1 << 21))
        assert client.hello.window == 1 << 20
        assert accepting.connection().hello.window == 1 << 21
        client.close()


def test_many_clients_are_taken_at_once(target: str) -> None:
    with AcceptingServer(target) as accepting:
        with futures.ThreadPoolExecutor(8) as pool:
            clients = list(pool.map(lambda _: dial(target), range(40)))
        accepting.wait_for(lambda: len(accepting.connections) == 40)
        for client in clients:
            client.close()


# ---- memory that is not available ----


@pytest.mark.parametrize("side", ["client", "server"])
def test_without_memory_the_connection_stays_on_its_socket(
    side: str, caplog: pytest.LogCaptureFixture
) -> None:
    off = ("localrpc.shared_memory", 0)
    with AcceptingServer("shm:server", *([off] if side == "server" else [])) as accepting:
        for number in range(3):
            client = dial("shm:server", *([off] if side == "client" else []))
            server = accepting.connection(number)
            for facts in (client.facts, server.facts):
                assert (facts.transport, facts.wakeup, facts.ring_size) == ("shm", "socket", 0)
                assert facts.fell_back == f"the option localrpc.shared_memory is 0 on the {side}"
            client.close()
    assert caplog.text.count("calls travel on the socket") == 1
    assert "shm:server" in caplog.text


def _no_space(*_: int) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def _no_descriptor(*_: Any) -> int:
    raise OSError(errno.EMFILE, "Too many open files")


@pytest.mark.parametrize(
    ("module", "name", "failure", "reason"),
    [
        (os, "posix_fallocate", _no_space, "No space left on device"),
        (os, "memfd_create", _no_descriptor, "Too many open files"),
        (links, "make_bell", _no_descriptor, "Too many open files"),
    ],
    ids=["fallocate", "memfd", "bell"],
)
def test_a_connection_works_without_memory_for_rings(
    module: Any,
    name: str,
    failure: Callable[..., Any],
    reason: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with AcceptingServer("shm:server") as accepting:
        with monkeypatch.context() as patch:
            patch.setattr(module, name, failure)
            client = dial("shm:server")
        server = accepting.connection()
        assert client.facts.fell_back == server.facts.fell_back == f"on the client: {reason}"
        client.close()


def test_rings_beyond_the_servers_limit_are_not_taken() -> None:
    with AcceptingServer("shm:server?ring=256k") as accepting:
        client = dial("shm:server?ring=1M")
        assert "the server's ?ring= allows 262144" in str(client.facts.fell_back)
        assert accepting.connection().facts.fell_back == client.facts.fell_back
        client.close()


# ---- memory that must not be trusted ----


def _unsealed() -> int:
    fd = os.memfd_create("unsealed", os.MFD_ALLOW_SEALING)
    os.truncate(fd, memory.CONTROL_PAGE + RING)
    return fd


def _half_sealed() -> int:
    fd = _unsealed()
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_GROW)
    return fd


def _a_file() -> int:
    return os.open("/dev/null", os.O_RDWR)


@pytest.mark.parametrize(
    ("make", "size", "words"),
    [
        (
            lambda: [make_bell(), _unsealed(), memory.create_ring(RING)],
            RING,
            "not sealed",
        ),
        (
            lambda: [make_bell(), memory.create_ring(RING), _half_sealed()],
            RING,
            "not sealed",
        ),
        (lambda: [make_bell(), _a_file(), _a_file()], RING, "not sealed"),
        (lambda: [os.eventfd(0, os.EFD_SEMAPHORE), *rings()[1:]], RING, "without O_NONBLOCK"),
        (lambda: [_a_file(), *rings()[1:]], RING, "not an eventfd"),
        (lambda: [_unsealed(), *rings()[1:]], RING, "not an eventfd"),
        (lambda: rings(RING // 2), RING, "announced size"),
        (lambda: rings(RING), RING // 2, "announced size"),
        (rings, RING + 4096, "power of two"),
        (lambda: rings(65536), 65536, "below 131072"),
        (
            lambda: [make_bell(), memory.create_ring(RING)],
            RING,
            "2 descriptors instead of 3",
        ),
        (list, RING, "0 descriptors instead of 3"),
        (rings, 0, "descriptors without offering memory"),
    ],
)
def test_bad_memory_is_refused_and_the_server_goes_on(
    make: Callable[[], list[int]], size: int, words: str
) -> None:
    with AcceptingServer("shm:server") as accepting:
        fds = make()
        with connect("shm:server") as client:
            send_with(client, hello_frame(make_hello(Options(), ring_size=size)), fds)
            assert words in read_hello(client).refusal
        assert words in str(accepting.error())
        goes_on(accepting, "shm:server")


# TCP carries no descriptors.
@pytest.mark.parametrize("target", ["shm", "unix", "unix-abstract", "inproc"], indirect=True)
def test_more_descriptors_than_the_greeting_has_are_refused(target: str) -> None:
    with AcceptingServer(target) as accepting:
        with connect(target) as client:
            send_with(client, HELLO, [_a_file() for _ in range(9)])
            assert "more than 3 descriptors" in str(accepting.error())
        goes_on(accepting, target)


def test_a_socket_transport_takes_no_memory(tmp_path: Path) -> None:
    target = f"unix:{tmp_path}/socket"
    with AcceptingServer(target) as accepting:
        with connect(target) as client:
            send_with(client, hello_frame(make_hello(Options(), ring_size=RING)), rings())
            assert "offers memory to a unix: server" in read_hello(client).refusal
        goes_on(accepting, target)


# ---- foreign peers ----


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"\xde\xad\xbe\xef" * 64, "does not speak the localrpc protocol"),
        (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", "HTTP/1"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\t" + bytes(9), "grpcio client dialled"),
        (HELLO[:4] + b"\x03" + HELLO[5:], "does not speak the localrpc protocol"),
        (hello_frame(Hello(2, 9, 4096, agent="future/2")), "versions 2 to 9"),
        (hello_frame(Hello(1, 1, 0)), "window of 0 bytes"),
    ],
    ids=["random", "http1", "http2", "not-hello", "version", "window"],
)
def test_a_peer_with_another_protocol_is_refused_and_the_server_goes_on(
    target: str, data: bytes, words: str
) -> None:
    with AcceptingServer(target) as accepting:
        with connect(target) as client:
            client.sendall(data)
            error = accepting.error()
            assert isinstance(error, GreetingError)
            who = "a client" if target.startswith("tcp:") else f"pid {os.getpid()}"
            for word in (words, target, who):
                assert word in str(error)
            while _receive(client):
                pass
        goes_on(accepting, target)


def _receive(sock: socket.socket) -> bytes:
    try:
        return sock.recv(4096)
    except ConnectionResetError:
        return b""


@pytest.mark.parametrize("sent", [1, 15, 16, 17])
def test_half_a_hello_delays_no_other_client(target: str, sent: int) -> None:
    with AcceptingServer(target) as accepting, connect(target) as client:
        client.sendall(HELLO[:sent])
        accepting.wait_for(lambda: len(accepting.greetings) == 1)
        goes_on(accepting, target)
        client.close()
        assert f"after {sent} bytes" in str(accepting.error())


def test_half_a_hello_times_out(target: str) -> None:
    with AcceptingServer(target, ("localrpc.greeting_timeout_ms", 30)) as accepting:
        with connect(target) as client:
            client.sendall(HELLO[:7])
            assert isinstance(accepting.error(), TimeoutError)
            assert _receive(client) == b""
        goes_on(accepting, target)


def test_a_hello_in_two_pieces_is_a_hello(tmp_path: Path) -> None:
    target = f"unix:{tmp_path}/socket"
    with AcceptingServer(target) as accepting, connect(target) as client:
        client.sendall(HELLO[:20])
        accepting.wait_for(lambda: len(accepting.greetings) == 1)
        client.sendall(HELLO[20:])
        assert read_hello(client).refusal == ""
        accepting.connection()


def test_a_check_for_a_live_name_is_not_logged(target: str) -> None:
    with AcceptingServer(target) as accepting:
        connect(target).close()
        error = accepting.error()
        assert isinstance(error, GreetingError)
        assert error.quiet


def test_a_grpcio_client_is_recognised_and_the_server_goes_on(tmp_path: Path) -> None:
    target = f"unix:{tmp_path}/socket"
    with AcceptingServer(target) as accepting:
        with grpc.insecure_channel(target) as channel:
            echo: Any = channel.unary_unary("/t/echo")
            assert echo.future(b"", timeout=10).code() is grpc.StatusCode.UNIMPLEMENTED
        assert "a grpcio client dialled a localrpc server" in str(accepting.error())
        assert "localrpc.insecure_channel" in str(accepting.error())
        goes_on(accepting, target)


@pytest.fixture
def grpcio_server(tmp_path: Path) -> Iterator[str]:
    target = f"unix:{tmp_path}/grpcio"
    with futures.ThreadPoolExecutor(1) as pool:
        server = grpc.server(pool)
        server.add_insecure_port(target)
        server.start()
        yield target
        server.stop(None).wait()


@pytest.mark.parametrize("scheme", ["unix", "shm"])
def test_a_grpcio_server_is_recognised(grpcio_server: str, scheme: str) -> None:
    target = grpcio_server.replace("unix", scheme)
    with pytest.raises(ConnectError) as caught:
        dial(target)
    for word in (f"UNAVAILABLE: {target}", "this is a grpcio server", "grpc.insecure_channel"):
        assert word in str(caught.value)


# ---- servers that are not there, or not well ----


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("shm:absent", ["No such file or directory", "runtime directory", "rt does not exist"]),
        ("unix:/nowhere/at/all", ["No such file or directory", "start it, or check the name"]),
        ("unix-abstract:localrpc-absent", ["Connection refused", "start the server again"]),
        ("inproc:absent", ["no server of this process listens on absent: start it"]),
    ],
)
def test_a_missing_server_is_reported_with_target_and_reason(target: str, words: list[str]) -> None:
    with pytest.raises(ConnectError) as caught:
        dial(target)
    text = str(caught.value)
    assert text.startswith("failed to connect to all addresses; last error: UNAVAILABLE: " + target)
    for word in words:
        assert word in text


def test_a_dead_servers_name_is_reported(named_target: str) -> None:
    with run_python(HOLD, named_target) as child:
        child.line()
        child.kill()
    with pytest.raises(ConnectError, match=r"Connection refused .*start the server again"):
        dial(named_target)


def test_a_server_that_never_answers_is_given_up_in_time(tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(path)
        silent.listen(8)
        begun = time.monotonic()
        with pytest.raises(ConnectError, match="no HELLO from the server in time"):
            dial(f"unix:{path}", deadline=begun + 0.05)
        with pytest.raises(ConnectError, match="no HELLO from the server in time"):
            dial(f"unix:{path}", ("localrpc.connect_timeout_ms", 50))
        assert time.monotonic() - begun < 5


def test_a_swamped_server_is_given_up_in_time(tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    with socket.socket(socket.AF_UNIX) as swamped, socket.socket(socket.AF_UNIX) as first:
        swamped.bind(path)
        swamped.listen(0)
        first.connect(path)
        with pytest.raises(ConnectError, match="does not take connections"):
            dial(f"unix:{path}", deadline=time.monotonic() + 0.05)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"", "without a HELLO"),
        (HELLO[:9], "in the middle of its HELLO"),
        (b"\xff" * 30, "does not speak the localrpc protocol"),
        (hello_frame(Hello(7, 8, 4096, agent="next/7")), "versions 7 to 8"),
        (hello_frame(make_hello(Options(), refusal="not today")), "it refused: not today"),
        (hello_frame(make_hello(Options(), ring_size=4096)), "does not match the memory"),
        (hello_frame(make_hello(Options(), ring_size=RING)), "does not match the memory"),
    ],
    ids=["nothing", "half", "random", "version", "refusal", "size", "no-bell"],
)
def test_a_wrong_answer_is_a_connect_error(tmp_path: Path, answer: bytes, words: str) -> None:
    path = str(tmp_path / "socket")
    with socket.socket(socket.AF_UNIX) as wrong, futures.ThreadPoolExecutor(1) as pool:
        wrong.bind(path)
        wrong.listen(8)

        def serve() -> None:
            with wrong.accept()[0] as sock:
                socket.recv_fds(sock, 4096, 0)
                sock.sendall(answer)

        served = pool.submit(serve)
        with pytest.raises(ConnectError, match=words):
            dial(f"shm:{path}")
        served.result()


# ---- users ----


@pytest.mark.parametrize(
    ("own", "peer", "server_serves", "client_dials"),
    [(7, 7, True, True), (7, 0, True, True), (7, 8, False, False), (0, 7, False, True)],
)
def test_one_user_and_root(
    own: int, peer: int, server_serves: bool, client_dials: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: own)
    other = PeerCredentials(1, peer, peer)
    assert (refusal_of_client(other, Options()) is None) is server_serves
    assert (refusal_of_server(other, Options()) is None) is client_dials


@root_only
@pytest.mark.parametrize("scheme", ["unix-abstract", "tcp"])
def test_another_users_client_is_refused_before_it_is_believed(scheme: str, tmp_path: Path) -> None:
    body = f"127.0.0.1:{free_port()}" if scheme == "tcp" else str(tmp_path)
    target = f"{scheme}:{body}"
    with AcceptingServer(target) as accepting:
        said = as_ordinary_user(lambda: str(dial(target)))
        assert said.startswith("ConnectError")
        assert "serves only that user, not uid 65534" in said
        assert "not uid 65534" in str(accepting.error())
        goes_on(accepting, target)


@root_only
def test_a_socket_another_user_cannot_reach_is_reported(tmp_path: Path) -> None:
    target = f"unix:{reachable(tmp_path)}/socket"
    with AcceptingServer(target):
        said = as_ordinary_user(lambda: str(dial(target)))
    assert "Permission denied" in said
    assert "run client and server as the same user" in said


# ---- signals and descriptors ----


@pytest.fixture
def own_handler() -> Iterator[None]:
    old = signal.signal(signal.SIGURG, lambda *_: None)
    yield
    signal.signal(signal.SIGURG, old)


@pytest.mark.usefixtures("own_handler")
def test_a_programs_own_handler_is_not_replaced() -> None:
    handler = signal.getsignal(signal.SIGURG)
    with pytest.raises(ListenError, match=r"handler of the program's own.*\?wakeup=eventfd"):
        AcceptingServer("shm:server?wakeup=signal")
    with (
        AcceptingServer("shm:server"),
        pytest.raises(ConnectError, match="handler of the program's own"),
    ):
        dial("shm:server?wakeup=signal")
    assert signal.getsignal(signal.SIGURG) is handler


@pytest.mark.usefixtures("own_handler")
def test_each_side_chooses_a_signal_of_its_own() -> None:
    with pytest.raises(ListenError, match=r"SIGURG has a handler.*signo=SIGUSR1"):
        AcceptingServer("shm:server?wakeup=signal")
    with AcceptingServer("shm:server?wakeup=signal&signo=SIGRTMIN+5") as accepting:
        client = dial("shm:server?wakeup=signal&signo=SIGUSR2")
        assert client.facts == accepting.connection().facts
        client.close()


def test_a_server_without_descriptors_turns_clients_away_and_recovers(
    two_process_target: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with AcceptingServer(two_process_target) as accepting:
        sock = accepting.listener._sock  # type: ignore[attr-defined]
        monkeypatch.setattr(accepting.listener, "_sock", _Starving(sock))
        with pytest.raises(ConnectError, match="closed the connection"):
            dial(two_process_target)
        goes_on(accepting, two_process_target)
        monkeypatch.setattr(accepting.listener, "_sock", sock)
    assert "clients are refused" in caplog.text


class _Starving:
    """A listening socket without a free descriptor for the first client."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._starved = True

    def fileno(self) -> int:
        return self._sock.fileno()

    def accept(self) -> Any:
        if self._starved and readable(self._sock.fileno(), 0):
            self._starved = False
            raise OSError(errno.EMFILE, "Too many open files")
        return self._sock.accept()


def test_a_process_without_free_descriptors_is_identified(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full(pid: int) -> int:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(os, "pidfd_open", full)
    with pytest.raises(OSError, match="Too many open files"):
        credentials.open_pidfd_of_holder(os.getpid(), 0, 0)


def test_a_client_of_another_process_is_known_by_its_pid(two_process_target: str) -> None:
    with (
        AcceptingServer(two_process_target) as accepting,
        run_python(DIAL, two_process_target) as child,
    ):
        assert child.line().startswith("connected")
        assert accepting.connection().peer.pid == child.pid
        child.communicate()


CONNECT_OFTEN = """
import os, sys
sys.path.insert(0, sys.argv[1])
from tests.transports.helpers import AcceptingServer, dial
from tests.transports.test_greetings import connect

def descriptors():
    return len(os.listdir("/proc/self/fd"))

with AcceptingServer(sys.argv[2]) as accepting:
    dial(sys.argv[2]).close()
    accepting.connection(0).close()
    before = descriptors()
    for number in range(1, 20):
        dial(sys.argv[2]).close()
        dial(sys.argv[2], ("localrpc.shared_memory", 0)).close()
        connect(sys.argv[2]).close()
        accepting.connection(2 * number).close()
        accepting.connection(2 * number - 1).close()
        accepting.error(number - 1)
    print(descriptors() - before)
"""


def test_connections_leave_no_descriptor(target: str) -> None:
    assert outcome(CONNECT_OFTEN, str(ROOT), target) == "0"


# ---- a server that stops ----


@pytest.mark.parametrize("come", ["waiting", "accepted"])
def test_a_stopping_server_notifies_waiting_clients(any_target: str, come: str) -> None:
    """In the backlog, or let in and not yet greeted: nothing is wrong with that client."""
    address = parse_target(any_target)
    listener = transport_for(address.scheme).listen(address, Options())
    with futures.ThreadPoolExecutor(1) as pool:
        dialling = pool.submit(dial, any_target)
        if come == "accepted":
            arrived: list[Greeting] = []
            while not arrived:
                assert readable(listener.fileno())
                arrived += listener.accept()
            arrived[0].dismiss()
        else:
            assert readable(listener.fileno())
        listener.close()
        with pytest.raises(ConnectError) as caught:
            dialling.result(PATIENCE).close()
    assert caught.value.passing
    if come == "accepted" and address.scheme not in request_places.KINDS:
        # The client looks once more, and may find the server gone before it reads the answer.
        assert "it refused: the server is stopping" in str(caught.value)


def test_a_socket_shared_with_other_processes_keeps_its_backlog(tmp_path: Path) -> None:
    """A service manager's: its next server is to find them."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(f"{tmp_path}/s")
        sock.listen()
        first = fcntl.fcntl(sock.fileno(), fcntl.F_DUPFD_CLOEXEC, 50)
        address = parse_target(f"fd:{first}")
        listener = transport_for("fd").listen(address, Options())
        with futures.ThreadPoolExecutor(1) as pool:
            dialling = pool.submit(dial, f"unix:{tmp_path}/s")
            assert readable(listener.fileno())
            listener.close()
            with AcceptingServer(f"fd:{sock.detach()}") as accepting:
                dialling.result(PATIENCE).close()
                accepting.connection()


def test_a_process_without_descriptors_and_clients_goes_on(tmp_path: Path) -> None:
    """Without a free descriptor accept() fails before it checks whether there is a client."""
    done = run_python(
        """
import os, resource, socket, sys
from localrpc.transports import parse_target
from localrpc.options import Options
from localrpc.transports import transport_for
listener = transport_for("unix").listen(parse_target(sys.argv[1]), Options())
clients = [socket.socket(socket.AF_UNIX) for _ in range(2)]
for client in clients:
    client.connect(sys.argv[1].partition(":")[2])
free = os.dup(0)
os.close(free)
resource.setrlimit(resource.RLIMIT_NOFILE, (free, 4096))
print(listener.accept(), [client.recv(1) for client in clients])
""",
        f"unix:{tmp_path}/s",
    )
    with done:
        assert done.stdout is not None
        assert done.stdout.read() == "[] [b'', b'']\n"
