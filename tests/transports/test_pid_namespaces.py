"""Peers in other PID namespaces: containers that share the directory."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from localrpc._core import lib
from localrpc.errors import ConnectError
from localrpc.transports import PeerCredentials
from localrpc.transports.credentials import open_peer_pidfd
from tests.links.kinds import End

from .helpers import DIAL, ROOT, SERVE_ONE, AcceptingServer, Child, dial, readable

unshared = pytest.mark.usefixtures("pid_namespaces")


def _in_a_namespace(script: str, target: str) -> Child:
    return Child(
        ["unshare", "-p", "-f", "--kill-child", sys.executable, "-c", script, target],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=dict(os.environ, PYTHONPATH=str(ROOT)),
    )


@unshared
def test_a_client_in_an_inner_namespace_connects_and_its_death_is_seen(
    two_process_target: str,
) -> None:
    with (
        AcceptingServer(two_process_target) as accepting,
        _in_a_namespace(DIAL, two_process_target) as child,
    ):
        assert child.line().startswith("connected")
        assert accepting.connection().facts.fell_back is None
        # The pid that it says by TCP has no meaning here.
        assert (accepting.connection().peer.pid > 0) is not two_process_target.startswith("tcp:")
        child.kill()


@unshared
def test_a_server_in_an_inner_namespace_sees_pid_0_and_serves(named_target: str) -> None:
    with _in_a_namespace(SERVE_ONE, named_target) as child:
        assert child.line() == "listening\n"
        connection = dial(named_target)
        assert connection.facts.fell_back is None
        assert child.line() == "connected 0 None\n"
        connection.close()
        child.communicate()


OUTSIDER = """
import os, socket, sys
from localrpc.transports.credentials import open_peer_pidfd, peer_credentials
sock = socket.socket(fileno=0)
peer = peer_credentials(sock)
pidfd = open_peer_pidfd(sock, peer)
print(peer.pid, pidfd >= 0, flush=True)
"""


@unshared
def test_a_peer_outside_the_namespace_has_pid_0() -> None:
    inner, outer = socket.socketpair()
    with inner, outer:
        printed = subprocess.run(
            ["unshare", "-p", "-f", sys.executable, "-c", OUTSIDER],
            stdin=inner.fileno(),
            stdout=subprocess.PIPE,
            text=True,
            check=True,
            env=dict(os.environ, PYTHONPATH=str(ROOT)),
        ).stdout
    pid, watched = printed.split()
    assert pid == "0"
    assert (watched == "True") is _kernel_has_peerpidfd()


def _kernel_has_peerpidfd() -> bool:
    one, other = socket.socketpair()
    with one, other:
        try:
            os.close(one.getsockopt(socket.SOL_SOCKET, 77))
        except OSError:
            return False
    return True


def test_without_pid_and_peerpidfd_the_sockets_end_alone_tells(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("localrpc.transports.credentials._SO_PEERPIDFD", 9999)
    one, other = socket.socketpair()
    with one, other:
        assert open_peer_pidfd(one, PeerCredentials(0, 0, 0)) == -1
        assert open_peer_pidfd(one, PeerCredentials(1 << 22, 0, 0)) == -1
        pidfd = open_peer_pidfd(one, PeerCredentials(os.getpid(), 0, 0))
        assert pidfd >= 0
        os.close(pidfd)


def test_a_pidfd_tells_of_the_peers_death(tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(1)
        script = (
            "import socket, sys; s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); input()"
        )
        with subprocess.Popen([sys.executable, "-c", script, path], stdin=subprocess.PIPE) as child:
            sock, _ = listener.accept()
            with sock:
                pidfd = open_peer_pidfd(sock, PeerCredentials(child.pid, 0, 0))
                assert not readable(pidfd, 0)
                child.kill()
                assert readable(pidfd)
                os.close(pidfd)


@unshared
def test_a_fifos_client_in_an_inner_namespace_connects_and_its_end_is_seen(tmp_path: Path) -> None:
    target = f"pipe:{tmp_path}/server"
    with AcceptingServer(target) as accepting, _in_a_namespace(DIAL, target) as child:
        assert child.line().startswith("connected")
        # The pid that it says has no meaning here.
        assert accepting.connection().peer == PeerCredentials(0, os.geteuid(), os.getegid())
        child.kill()
        assert End(accepting.connection()).receive() == lib.LR_CLOSED


@unshared
@pytest.mark.parametrize("kind", ["mq", "sysvmq"])
def test_a_queues_client_in_an_inner_namespace_is_refused_with_the_reason(kind: str) -> None:
    with (
        AcceptingServer(f"{kind}:server") as accepting,
        _in_a_namespace(DIAL, f"{kind}:server") as child,
    ):
        said = child.line()
        child.communicate()
        assert said.startswith("refused")
        assert "both have to be in one PID namespace" in said
        assert not accepting.connections


@unshared
@pytest.mark.parametrize("kind", ["mq", "sysvmq"])
def test_a_client_outside_a_servers_namespace_is_refused_with_the_reason(kind: str) -> None:
    with _in_a_namespace(SERVE_ONE, f"{kind}:server") as child:
        assert child.line() == "listening\n"
        with pytest.raises(ConnectError, match="both have to be in one PID namespace"):
            dial(f"{kind}:server")
        child.kill()
