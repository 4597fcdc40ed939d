"""The programs and units of the guide to deployment, at other paths and as other users."""

from __future__ import annotations

import configparser
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.guides.page import PATIENCE, Folder, files, wait_for
from tests.ports import free_port
from tests.skips import cannot, need, root_only
from tests.workers.served import children_of

PAGE = ".docs/guides/deploying.md"
UNITS = ("greeter.socket", "greeter.service")

# A service manager: the socket is descriptor 3, and exec keeps the pid.
ACTIVATE = """
import os, sys
os.dup2(int(sys.argv[1]), 3, inheritable=True)
os.environ |= {"LISTEN_FDS": "1", "LISTEN_PID": str(os.getpid()), "LISTEN_FDNAMES": sys.argv[2]}
os.execv(sys.executable, [sys.executable, sys.argv[3]])
"""

# Another user may not be able to read these files or the interpreter's, so all is read before.
AS_USER = """
import os, sys
uid, gid, program, folder, *passed = int(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:]
if passed:
    fd, name = passed
    os.dup2(int(fd), 3)
    os.environ |= {"LISTEN_FDS": "1", "LISTEN_PID": str(os.getpid()), "LISTEN_FDNAMES": name}
import localrpc
from localrpc.testing import serving
from greeter import greeter_localrpc, greeter_pb2

class Warm(greeter_localrpc.GreeterServicer):
    def Greet(self, request, context):
        return greeter_pb2.Greeting()

localrpc.transports()
target, options = f"shm:{folder}/{os.getpid()}", [("localrpc.allow_users", uid)]
with serving(Warm(), target=target, options=options) as channel:
    greeter_localrpc.GreeterStub(channel).Greet(greeter_pb2.Name())
import localrpc.drive.links, localrpc.drive.notify, localrpc.sync.signals, localrpc.transports.load
with open(program) as file:
    code = compile(file.read(), program, "exec")
os.setgroups([gid])
os.setgid(gid)
os.setuid(uid)
exec(code, {"__name__": "__main__"})
"""
SERVER, CLIENT, STRANGER, GROUP = 64001, 64002, 64003, 64010


@pytest.fixture
def place() -> Iterator[Path]:
    """The folder of the socket, which other users may enter: pytest's own are closed."""
    with tempfile.TemporaryDirectory(prefix="lrt") as folder:
        os.chmod(folder, 0o711)
        yield Path(folder)


def unit(name: str) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(files(PAGE)[name])
    return parser


def test_a_service_with_a_socket_unit_answers_at_its_path(greeter: Folder, place: Path) -> None:
    sockets = unit("greeter.socket")["Socket"]
    path = sockets["ListenStream"]
    # The group of the guide is none of this machine's.
    greeter.write(PAGE, "server.py", greeters="root")
    greeter.write(PAGE, "client.py", **{path: f"{place}/socket"})
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(f"{place}/socket")
        listening.listen()
        fd = listening.fileno()
        name = sockets["FileDescriptorName"]
        server = subprocess.Popen(
            [sys.executable, "-c", ACTIVATE, str(fd), name, "server.py"],
            cwd=greeter.path,
            env=greeter.environment,
            pass_fds=[fd],
        )
    with server:
        try:
            # It waits in the socket until the server has started.
            assert greeter.run("python client.py") == "Hello, Ada!\n"
        finally:
            server.terminate()
    assert server.returncode == 0


def test_units_belong_together() -> None:
    sockets, service = map(unit, UNITS)
    program = service["Service"]["ExecStart"].rpartition("/")[2]
    assert program == "python server.py"
    assert (
        f'add_insecure_port("fd:{sockets["Socket"]["FileDescriptorName"]}")'
        in (files(PAGE)["server.py"])
    )
    assert service["Unit"]["Requires"] == service["Unit"]["After"] == "greeter.socket"
    grace = re.search(r"stop_on_signals\(server, grace=(\d+)\)", files(PAGE)["server.py"])
    assert grace is not None
    assert int(grace[1]) < int(service["Service"]["TimeoutStopSec"])


def test_workers_serve_the_socket_of_the_unit_and_are_replaced(
    greeter: Folder, place: Path
) -> None:
    service = unit("workers.service")["Service"]
    program, *words = service["ExecStart"].replace("=greeters", "=root").split()
    assert program.rpartition("/")[2] == "localrpc"
    assert float(words[words.index("--grace") + 1]) < int(service["TimeoutStopSec"])
    greeter.write(PAGE, "service.py")
    greeter.write(PAGE, "client.py", **{"/run/greeter/socket": f"{place}/socket"})
    script = ACTIVATE.replace("sys.argv[3]]", "*sys.argv[3:]]")
    with (
        socket.socket(socket.AF_UNIX) as listening,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager,
    ):
        listening.bind(f"{place}/socket")
        listening.listen()
        manager.bind(f"{place}/notify")
        manager.settimeout(PATIENCE)
        fd = listening.fileno()
        server = subprocess.Popen(
            [sys.executable, "-c", script, str(fd), "greeter", "-m", "localrpc", *words],
            cwd=greeter.path,
            env={
                **greeter.environment,
                "NOTIFY_SOCKET": f"{place}/notify",
                "WATCHDOG_USEC": str(int(service["WatchdogSec"]) * 1_000_000),
            },
            pass_fds=[fd],
        )

        def until(state: bytes) -> None:
            while not manager.recv(1000).startswith(state):
                pass

        with server:
            try:
                until(b"READY=1")
                before = greeter.run("python client.py")
                assert before.startswith("Hello, Ada, from process ")
                server.send_signal(signal.SIGHUP)
                until(b"RELOADING=1")
                until(b"READY=1")
                assert greeter.run("python client.py") != before
            finally:
                server.terminate()
        until(b"STOPPING=1")
    assert server.returncode == 0


def test_a_port_in_front_of_the_socket_is_for_grpc_clients(greeter: Folder, place: Path) -> None:
    service = unit("port.service")["Service"]
    program, *words = service["ExecStart"].split()
    assert program.rpartition("/")[2] == "localrpc"
    assert float(words[words.index("--grace") + 1]) < int(service["TimeoutStopSec"])
    port, socket_path = "50051", "/run/greeter/socket"
    chosen = str(free_port())
    greeter.write(PAGE, "service.py")
    greeter.write(PAGE, "network_client.py", **{port: chosen})
    moved = [word.replace(port, chosen).replace(socket_path, f"{place}/socket") for word in words]
    with (
        greeter.serving(
            f"localrpc serve service:Greeter --target shm:{place}/socket", f"{place}/socket"
        ),
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager,
    ):
        manager.bind(f"{place}/notify")
        manager.settimeout(PATIENCE)
        with subprocess.Popen(
            [sys.executable, "-m", "localrpc", *moved],
            cwd=greeter.path,
            env={**greeter.environment, "NOTIFY_SOCKET": f"{place}/notify"},
        ) as proxy:
            try:
                assert manager.recv(1000).startswith(b"READY=1")
                said = greeter.run("python network_client.py")
                assert said.startswith("Hello, Ada, from process ")
            finally:
                proxy.terminate()
        assert proxy.returncode == 0


def started(
    folder: Folder, uid: int, gid: int, program: str, place: Path, *passed: object
) -> subprocess.Popen[str]:
    """`passed` are the number and the name of a listening socket."""
    words = [*map(str, (uid, gid, program, place, *passed))]
    return subprocess.Popen(
        [sys.executable, "-c", AS_USER, *words],
        pass_fds=[int(word) for word in words[4:5]],
        cwd=folder.path,
        env=folder.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def hello_and_refusal(greeter: Folder, program: str, place: Path) -> tuple[str, str]:
    """What a user of the group hears from the server, and what another one is told."""
    client = started(greeter, CLIENT, GROUP, program, place)
    stranger = started(greeter, STRANGER, STRANGER, program, place)
    return client.communicate(timeout=PATIENCE)[0], stranger.communicate(timeout=PATIENCE)[1]


@root_only
def test_a_group_of_users_calls_another_users_server(greeter: Folder, place: Path) -> None:
    path = f"{place}/socket"
    os.chown(place, SERVER, SERVER)
    # None of the guide's users is on this machine: numbers do as well.
    greeter.write(PAGE, "own_socket.py", greeters=str(GROUP), **{"/run/greeter/socket": path})
    greeter.write(
        PAGE,
        "client_of_another_user.py",
        **{'"greeter"': f'"{SERVER}"', "/run/greeter/socket": path},
    )
    server = started(greeter, SERVER, SERVER, "own_socket.py", place)
    try:
        wait_for(Path(path), server)
        hello, refusal = hello_and_refusal(greeter, "client_of_another_user.py", place)
    finally:
        server.terminate()
        _, said = server.communicate(timeout=PATIENCE)
    assert hello == "Hello, Ada!\n"
    assert f"do not allow uid {STRANGER}" in refusal
    assert server.returncode == 0, said


@root_only
def test_a_group_of_users_calls_workers_that_pyproject_describes(
    greeter: Folder, place: Path
) -> None:
    path = f"{place}/socket"
    greeter.write(PAGE, "service.py")
    greeter.write(PAGE, "pyproject.toml", greeters=str(GROUP), **{"/run/greeter/socket": path})
    greeter.write(
        PAGE, "client_of_another_user.py", **{'"greeter"': '"root"', "/run/greeter/socket": path}
    )
    with greeter.serving("localrpc serve", path):
        hello, refusal = hello_and_refusal(greeter, "client_of_another_user.py", place)
    assert hello.startswith("Hello, Ada, from process ")
    assert "Permission denied" in refusal


@root_only
def test_a_group_of_users_calls_at_the_socket_of_the_unit(greeter: Folder, place: Path) -> None:
    sockets = unit("greeter.socket")["Socket"]
    path = f"{place}/socket"
    greeter.write(PAGE, "server.py", greeters=str(GROUP))
    greeter.write(PAGE, "client.py", **{sockets["ListenStream"]: path})
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(path)
        os.chown(path, 0, GROUP)
        os.chmod(path, int(sockets["SocketMode"], 8))
        listening.listen()
        passed = listening.fileno(), sockets["FileDescriptorName"]
        server = started(greeter, SERVER, SERVER, "server.py", place, *passed)
    try:
        hello, refusal = hello_and_refusal(greeter, "client.py", place)
    finally:
        server.terminate()
        _, said = server.communicate(timeout=PATIENCE)
    assert hello == "Hello, Ada!\n", said
    assert "Permission denied" in refusal
    assert server.returncode == 0, said


@pytest.fixture
def container() -> list[str]:
    """What starts a program in namespaces of its own: mounts, processes, IPC, network."""
    command = [need("unshare"), "--mount", "--ipc", "--net", "--pid", "--fork", "--kill-child"]
    if subprocess.run([*command, "true"], capture_output=True).returncode:
        cannot("needs the right to have namespaces, as root has it outside containers")
    return command


def test_containers_that_share_a_folder_share_memory(
    greeter: Folder, place: Path, container: list[str]
) -> None:
    compose = files(PAGE)["compose.yaml"]
    serve, call = (line.split() for line in re.findall(r"command: (.+)", compose))
    (health,) = (line.split() for line in re.findall(r"test: (.+)", compose))
    assert compose.count("sockets:/run/greeter") == 2
    greeter.write(PAGE, "service.py", call[1])
    # A folder of its own that hides the other's names, as another file system would.
    private = ["sh", "-c", f'mount -t tmpfs none {greeter.runtime} && exec "$@"', "sh"]

    def run(words: list[str]) -> subprocess.Popen[str]:
        """In a container, as its first process."""
        words = [word.replace("/run/greeter/socket", f"{place}/socket") for word in words]
        programs = {"python": [sys.executable], "localrpc": [sys.executable, "-m", "localrpc"]}
        return subprocess.Popen(
            [*container, *private, *programs[words[0]], *words[1:]],
            cwd=greeter.path,
            env=greeter.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    server = run(serve)
    client = run(call)
    try:
        said, _ = client.communicate(timeout=PATIENCE)
        assert client.returncode == 0, said
        assert re.fullmatch(r"Hello, Ada, from process \d+!\nshm\n", said)
        healthy = run(health)
        assert healthy.communicate(timeout=PATIENCE)[0] == "SERVING\n"
        assert healthy.returncode == 0
        # What starts the container is not its first process.
        (first,) = children_of(server.pid)
        os.kill(first, signal.SIGTERM)
        said, _ = server.communicate(timeout=PATIENCE)
        assert "stopped" in said
        assert server.returncode == 0, said
    finally:
        server.kill()
        server.communicate()
