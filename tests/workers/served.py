"""`localrpc serve`, or another command, as a process, with the lines of its log."""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest

import localrpc

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 30.0

APP = '''
import asyncio, os, sys, time
import grpc

VERSION = b"one"

def who(request, context):
    return b"%d %s" % (os.getpid(), VERSION)

def who_after_a_moment(request, context):
    time.sleep(0.003)
    return who(request, context)

def until_released(request, context):
    """Wait until there is a file of this name."""
    open(request.decode() + ".begun", "w").close()
    while not os.path.exists(request) and context.is_active():
        time.sleep(0.005)
    return b"%d" % os.getpid()

def ticks(request, context):
    while True:
        yield b"tick"
        time.sleep(0.01)

def inheritable(request, context):
    numbers = map(int, os.listdir("/proc/self/fd"))
    return repr([fd for fd in numbers if os.path.exists(f"/proc/self/fd/{fd}")
                 and os.get_inheritable(fd)]).encode()

KINDS = {
    "inheritable": grpc.unary_unary_rpc_method_handler(inheritable),
    "who": grpc.unary_unary_rpc_method_handler(who),
    "who_after_a_moment": grpc.unary_unary_rpc_method_handler(who_after_a_moment),
    "until_released": grpc.unary_unary_rpc_method_handler(until_released),
    "ticks": grpc.unary_stream_rpc_method_handler(ticks),
}

def setup(server):
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("demo.App", KINDS)])

async def async_who(request, context):
    return b"%d %s" % (os.getpid(), VERSION)

async def async_who_after_a_moment(request, context):
    await asyncio.sleep(0.005)
    return await async_who(request, context)

async def async_setup(server):
    handlers = {
        "who": grpc.unary_unary_rpc_method_handler(async_who),
        "who_after_a_moment": grpc.unary_unary_rpc_method_handler(async_who_after_a_moment),
    }
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("demo.App", handlers)])

class DemoServicer:
    def who(self, request, context):
        return who(request, context)

def add_DemoServicer_to_server(servicer, server):
    handlers = {"who": grpc.unary_unary_rpc_method_handler(servicer.who)}
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("demo.App", handlers)])

class Demo(DemoServicer):
    pass

class AsyncDemo(DemoServicer):
    async def who(self, request, context):
        return who(request, context)

demo = Demo()
a_number = 5

class Nothing:
    pass

def adds_nothing(server):
    pass

def fails(server):
    raise ValueError("no configuration")
'''


class Served:
    """The command, and the lines that it logs."""

    def __init__(
        self,
        folder: Path,
        *arguments: str,
        command: str = "serve",
        python: str = sys.executable,
        **environment: str,
    ) -> None:
        self.process = subprocess.Popen(
            [python, "-m", "localrpc", command, *arguments],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, sys.path)]),
                **environment,
            },
        )
        self.pid = self.process.pid
        self.lines: list[str] = []
        self._new: queue.Queue[str | None] = queue.Queue()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self._new.put(line.rstrip())
        self._new.put(None)

    def until(self, text: str, times: int = 1) -> str:
        """The line with this text, which comes next or later; with the last if several do."""
        while True:
            line = self._new.get(timeout=PATIENCE)
            assert line is not None, f"it has ended without saying {text!r}: {self.lines}"
            self.lines.append(line)
            if text in line:
                times -= 1
                if not times:
                    return line

    def ready(self, count: int = 1) -> list[int]:
        """The pids of the workers that become ready."""
        return [
            int(self.until("is ready (pid ").split("(pid ")[1].split(",")[0]) for _ in range(count)
        ]

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def ended(self) -> int:
        """Its exit code; `lines` are complete then."""
        code = self.process.wait(PATIENCE)
        self._thread.join(PATIENCE)
        while (line := self._new.get(timeout=PATIENCE)) is not None:
            self.lines.append(line)
        return code

    def stop(self) -> int:
        self.signal(signal.SIGTERM)
        return self.ended()

    def __enter__(self) -> Served:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        frames: TracebackType | None,
    ) -> None:
        for pid in self.workers():
            _kill(pid)
        self.process.kill()
        self.process.wait()
        self._thread.join(PATIENCE)
        assert self.process.stderr is not None
        self.process.stderr.close()
        while not self._new.empty():
            self.lines.append(str(self._new.get()))
        if kind is not None:
            print("\n".join(self.lines))

    def workers(self) -> list[int]:
        return children_of(self.pid)


def children_of(pid: int) -> list[int]:
    try:
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    except OSError:
        return []
    return [int(each) for each in text.split()]


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


def ask(channel: Any, method: str = "who", request: bytes = b"", **named: Any) -> bytes:
    named.setdefault("timeout", PATIENCE)
    answer: bytes = channel.unary_unary(f"/demo.App/{method}")(request, **named)
    return answer


def who(target: str, **named: Any) -> tuple[int, str]:
    """The pid of the worker that answers, and the version of its code."""
    with localrpc.insecure_channel(target) as channel:
        pid, version = ask(channel, **named).decode().split()
    return int(pid), version


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the application is."""
    (tmp_path / "app.py").write_text(APP)
    return tmp_path


@contextmanager
def serving(
    folder: Path,
    app: str,
    target: str,
    *more: str,
    workers: int = 1,
    python: str = sys.executable,
) -> Iterator[Served]:
    words = [app, "--target", target, "--workers", str(workers), *more]
    with Served(folder, *words, python=python) as served:
        served.ready(workers)
        yield served
