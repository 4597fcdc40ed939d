"""What only TCP has: ports, other machines, and peers that the kernel identifies by their uid."""

from __future__ import annotations

import os
import socket
import struct
from concurrent import futures
from typing import Any

import grpc
import pytest

import localrpc
from localrpc._core import lib
from localrpc.errors import AddressInUse, ConnectError, GreetingError, ListenError
from localrpc.options import Options
from localrpc.transports import handshake, parse_target, transport_for
from localrpc.transports.credentials import open_pidfd_of_holder
from localrpc.transports.sockdiag import holder_of_other_end
from localrpc.wire.greeting import hello_frame
from tests import places
from tests.links.kinds import End
from tests.ports import free_port
from tests.skips import cannot

from .helpers import AcceptingServer, dial

HELLO = hello_frame(handshake.make_hello(Options()))


@pytest.fixture
def target() -> str:
    return f"tcp:127.0.0.1:{free_port()}"


def connected() -> tuple[socket.socket, socket.socket, socket.socket]:
    """A listener and the two ends of a connection to it."""
    listener = socket.create_server(("127.0.0.1", 0))
    client = socket.create_connection(listener.getsockname())
    return listener, client, listener.accept()[0]


def test_a_server_at_port_0_learns_its_port() -> None:
    server = localrpc.server(futures.ThreadPoolExecutor(1))
    port = server.add_insecure_port("tcp:127.0.0.1:0")
    server.start()
    try:
        channel: Any = localrpc.insecure_channel(f"tcp:127.0.0.1:{port}")
        with channel, pytest.raises(grpc.RpcError) as caught:
            channel.unary_unary("/no/method")(b"", timeout=10)
        error: Any = caught.value
        assert error.code() is grpc.StatusCode.UNIMPLEMENTED
    finally:
        server.stop(None)


@pytest.mark.parametrize("host", ["localhost", "[::1]", "127.0.0.2"])
def test_this_machine_has_many_names(host: str) -> None:
    address = parse_target(f"tcp:{host}:0")
    try:
        listener = transport_for("tcp").listen(address, Options())
    except ListenError as error:
        cannot(f"{host} is not a name of this machine: {error}")
    port = listener.port
    listener.close()
    with AcceptingServer(f"tcp:{host}:{port}") as accepting:
        client = dial(f"tcp:{host}:{port}")
        assert accepting.connection().peer.pid == os.getpid()
        kind = "ipv6:%5B::1%5D:" if host == "[::1]" else "ipv4:127."
        assert accepting.connection().peer_name.startswith(kind)
        client.close()


def test_a_port_in_use_is_refused(target: str) -> None:
    with (
        AcceptingServer(target),
        pytest.raises(AddressInUse, match="a live server already listens there"),
    ):
        AcceptingServer(target)


def test_no_server_listens(target: str) -> None:
    with pytest.raises(ConnectError, match=r"Connection refused .*no server listens on ipv4:127"):
        dial(target)


def test_a_socket_that_has_met_itself_leaves_the_port_to_the_server(
    target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Unlucky(socket.socket):
        def connect_ex(self, place: Any) -> int:
            self.bind(place)  # as TCP does once in some ten thousand times
            return super().connect_ex(place)

    with monkeypatch.context() as patched:
        patched.setattr(socket, "socket", Unlucky)
        with pytest.raises(ConnectError, match="Connection refused"):
            dial(target)
    with AcceptingServer(target):
        pass


@pytest.mark.parametrize("host", ["0.0.0.0", "[::]", "192.0.2.1"])
def test_other_machines_need_an_option(host: str) -> None:
    with pytest.raises(ListenError, match=r"add \?interfaces=any if that is meant"):
        AcceptingServer(f"tcp:{host}:0")
    with pytest.raises(ConnectError, match=r"add \?interfaces=any if that is meant"):
        dial(f"tcp:{host}:1")


def test_a_server_open_to_all_still_knows_this_machines_users() -> None:
    port = free_port()
    with AcceptingServer(f"tcp:0.0.0.0:{port}?interfaces=any") as accepting:
        client = dial(f"tcp:127.0.0.1:{port}")
        assert accepting.connection().peer.uid == os.geteuid()
        client.close()


def test_the_host_has_to_exist() -> None:
    with pytest.raises(ListenError, match="the host is not known"):
        AcceptingServer("tcp:no-such-host.invalid:0")
    with pytest.raises(ConnectError, match="the host is not known"):
        dial("tcp:no-such-host.invalid:1")


def test_a_closed_socket_has_no_owner() -> None:
    listener, client, server = connected()
    with listener, server:
        assert holder_of_other_end(server) is not None
        client.close()
        assert holder_of_other_end(server) is None


def test_a_socket_that_is_not_accepted_has_no_owner() -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    with listener, socket.create_connection(listener.getsockname()) as client:
        assert holder_of_other_end(client) is None
        accepted, _ = listener.accept()
        holder = holder_of_other_end(client)
        assert holder is not None
        assert holder.uid == os.geteuid()
        accepted.close()


def test_a_client_that_closes_after_its_hello_does_no_harm(target: str) -> None:
    with AcceptingServer(target) as accepting:
        with places.connect(target) as stranger:
            stranger.sendall(HELLO)
        # Either it was gone before it could be identified, or is accepted and ends.
        accepting.wait_for(lambda: bool(accepting.errors or accepting.connections))
        assert [type(error) for error in accepting.errors] in ([], [GreetingError])
        number = len(accepting.connections)
        client = dial(target)
        assert accepting.connection(number).peer.pid == os.getpid()
        client.close()


def test_a_false_pid_is_not_trusted() -> None:
    listener, client, server = connected()
    with listener, client, server:
        holder = holder_of_other_end(server)
        assert holder is not None
        device = os.fstat(server.fileno()).st_dev
        assert open_pidfd_of_holder(os.getppid(), device, holder.inode) == -1
        assert open_pidfd_of_holder(1 << 22, device, holder.inode) == -1
        pidfd = open_pidfd_of_holder(os.getpid(), device, holder.inode)
        assert pidfd >= 0
        os.close(pidfd)


def test_a_reset_connection_ends(target: str) -> None:
    with AcceptingServer(target) as accepting:
        client = places.connect(target)
        client.sendall(HELLO)
        connection = accepting.connection()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()
        assert End(connection).receive() == lib.LR_CLOSED
