"""Shared by the tests of this folder: AcceptingServer, targets, and child processes."""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent import futures
from pathlib import Path
from types import TracebackType
from typing import Any

import grpc

import localrpc
from localrpc.options import Options, parse_options
from localrpc.transports import Attempt, Connection, Greeting, parse_target, transport_for

ROOT = Path(__file__).parents[2]
PATIENCE = 20.0
NOBODY = 65534


def dial(target: str, *pairs: tuple[str, Any], deadline: float | None = None) -> Connection:
    address = parse_target(target)
    attempt = Attempt() if deadline is None else Attempt(deadline)
    return transport_for(address.scheme).dialer(address, parse_options(pairs)).dial(attempt)


def wait_until(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < until, "the condition did not come true in time"
        time.sleep(0.002)


def readable(fd: int, patience: float = PATIENCE) -> bool:
    poller = select.poll()
    poller.register(fd, select.POLLIN)
    return bool(poller.poll(patience * 1000))


class AcceptingServer:
    """Accepts connections on a thread, and keeps them and the errors."""

    def __init__(self, target: str, *pairs: tuple[str, Any]) -> None:
        address = parse_target(target)
        options: Options = parse_options(pairs)
        self.connections: list[Connection] = []
        self.errors: list[Exception] = []
        self.greetings: list[Greeting] = []
        self.listener = transport_for(address.scheme).listen(address, options)
        self._stop = stop = os.eventfd(0)
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, args=(stop,), name=f"accepting {target}")
        self._thread.start()

    def _run(self, stop: int) -> None:
        while True:
            poller = select.poll()
            poller.register(stop, select.POLLIN)
            listener = self.listener.fileno()
            if listener < 0:
                return  # the test has closed it
            poller.register(listener, select.POLLIN)
            for greeting in self.greetings:
                poller.register(greeting.fileno(), select.POLLIN)
            soonest = min((greeting.deadline for greeting in self.greetings), default=None)
            left = None if soonest is None else max(0.0, soonest - time.monotonic()) * 1000 + 1
            ready = {fd for fd, _ in poller.poll(left)}
            if stop in ready:
                return
            with self._changed:
                for greeting in list(self.greetings):
                    self._look_after(greeting, greeting.fileno() in ready)
                self.greetings += self.listener.accept()
                self._changed.notify_all()

    def _look_after(self, greeting: Greeting, ready: bool) -> None:
        try:
            connection = greeting.advance() if ready else None
        except Exception as error:
            self.errors.append(error)
            self.greetings.remove(greeting)
            return
        if connection is not None:
            self.connections.append(connection)
            self.greetings.remove(greeting)
        elif time.monotonic() >= greeting.deadline:
            self.errors.append(TimeoutError("no HELLO in time"))
            greeting.close()
            self.greetings.remove(greeting)

    def wait_for(self, condition: Callable[[], bool]) -> None:
        with self._changed:
            assert self._changed.wait_for(condition, PATIENCE), (self.connections, self.errors)

    def connection(self, number: int = 0) -> Connection:
        self.wait_for(lambda: len(self.connections) > number)
        return self.connections[number]

    def error(self, number: int = 0) -> Exception:
        self.wait_for(lambda: len(self.errors) > number)
        return self.errors[number]

    def close(self) -> None:
        stop, self._stop = self._stop, -1
        if stop < 0:
            return
        os.eventfd_write(stop, 1)
        self._thread.join()
        os.close(stop)
        self.listener.close()
        for greeting in self.greetings:
            greeting.close()
        for connection in self.connections:
            connection.close()

    def __enter__(self) -> AcceptingServer:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


@contextlib.contextmanager
def serving(target: str, *handlers: grpc.GenericRpcHandler) -> Iterator[None]:
    """A whole server, with the handlers."""
    before = pidfds()
    server = localrpc.server(futures.ThreadPoolExecutor(4), handlers)
    server.add_insecure_port(target)
    server.start()
    try:
        yield
    finally:
        server.stop(None).wait()
        # The server's thread lets the connections go a moment later.
        wait_until(lambda: pidfds() <= before)


def pidfds() -> int:
    count = 0
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # the listing's own
            count += os.readlink(f"/proc/self/fd/{number}") == "anon_inode:[pidfd]"
    return count


class Child(subprocess.Popen[str]):
    """Killed where a test fails: it might wait forever for what does not come."""

    def line(self) -> str:
        """What it prints next."""
        assert self.stdout is not None
        return self.stdout.readline()

    def __exit__(self, kind: Any, *details: Any) -> None:
        if kind is not None:
            self.kill()
        super().__exit__(kind, *details)


def run_python(script: str, *arguments: str, **kwargs: Any) -> Child:
    """A child with pipes for stdin and stdout, and this checkout on its path."""
    environment = dict(os.environ, **kwargs.pop("env", {}))
    environment["PYTHONPATH"] = os.pathsep.join(
        [str(ROOT), *filter(None, [environment.get("PYTHONPATH")])]
    )
    return Child(
        [sys.executable, "-c", script, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
        **kwargs,
    )


def outcome(script: str, *arguments: str, **kwargs: Any) -> str:
    """What such a child prints."""
    with run_python(script, *arguments, **kwargs) as child:
        printed, _ = child.communicate(timeout=PATIENCE)
    assert child.returncode == 0, printed
    return printed.strip()


def as_ordinary_user(
    action: Callable[[], str], uid: int = NOBODY, groups: tuple[int, ...] = ()
) -> str:
    """What `action` returns in a forked child that is not root, or the error it raises.

    Forked and not exec'd: this interpreter may be where only root can read it.
    """
    ours, childs = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            if os.geteuid() == 0:
                os.setgroups(groups)
                os.setgid(uid)
                os.setuid(uid)
            said = action()
        except BaseException as error:
            said = f"{type(error).__name__} {error}"
        os.write(childs, said.encode())
        os._exit(0)
    os.close(childs)
    with os.fdopen(ours) as stream:
        said = stream.read()
    os.waitpid(child, 0)
    return said


def reachable(path: Path) -> Path:
    """Let every user walk to a folder of a test's."""
    assert not any(parent.name.startswith("pytest-of-") for parent in path.parents), (
        "the next run of pytest would make the folder private again"
    )
    for parent in (path, *path.parents):
        facts = parent.stat()
        if facts.st_uid == os.geteuid() and parent != Path("/"):
            parent.chmod(facts.st_mode | 0o755)
    return path


HOLD = """
import sys
from localrpc.transports import parse_target
from localrpc.errors import ListenError
from localrpc.options import Options
from localrpc.transports import transport_for
address = parse_target(sys.argv[1])
try:
    listener = transport_for(address.scheme).listen(address, Options())
except ListenError as error:
    print(type(error).__name__, error, flush=True)
else:
    print("listening", flush=True)
    sys.stdin.read()
    listener.close()
"""
"""Listens on argv[1] until its stdin ends, or is killed; accepts no client."""

SERVE_ONE = """
import sys
from multiprocessing.connection import wait
from localrpc.transports import parse_target
from localrpc.options import Options
from localrpc.transports import transport_for
address = parse_target(sys.argv[1])
listener = transport_for(address.scheme).listen(address, Options())
print("listening", flush=True)
while not (greetings := listener.accept()):
    wait([listener.fileno()])
greeting, = greetings
while (connection := greeting.advance()) is None:
    wait([greeting.fileno()])
print("connected", connection.peer.pid, connection.facts.fell_back, flush=True)
sys.stdin.read()
listener.close()
"""
"""Takes one client in on argv[1] and stays until its stdin ends, or is killed."""

DIAL = """
import sys
from localrpc.transports import parse_target
from localrpc.errors import ConnectError
from localrpc.options import Options
from localrpc.transports import Attempt, transport_for
address = parse_target(sys.argv[1])
try:
    connection = transport_for(address.scheme).dialer(address, Options()).dial(Attempt())
except ConnectError as error:
    print("refused", error, flush=True)
else:
    print("connected", connection.facts, flush=True)
    sys.stdin.read()
"""
"""Dials argv[1] and stays until its stdin ends, or is killed."""


@contextlib.contextmanager
def listening(target: str, script: str = HOLD, **kwargs: Any) -> Iterator[Child]:
    """A child that listens there."""
    with run_python(script, target, **kwargs) as child:
        assert child.line() == "listening\n"
        yield child
