"""grpcio peers in separate processes, and a localrpc server that they can reach."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent import futures
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

import localrpc

from .grpcio_peers import Service

ROOT = Path(__file__).resolve().parents[2]
CERTIFICATE = Path(__file__).with_name("localhost.pem")
KEY = Path(__file__).with_name("localhost.key.pem")


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "tests.remote.grpcio_peers", *arguments]


@contextmanager
def grpcio_server(*arguments: str) -> Iterator[int]:
    """The port of a grpcio server."""
    with subprocess.Popen(
        command("serve", *arguments),
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        yield int(process.stdout.readline())
        process.stdin.close()
        assert process.wait() == 0


def grpcio_calls(target: str, *arguments: str) -> dict[str, Any]:
    """Return what a grpcio client reports of its calls."""
    done = subprocess.run(
        command("call", target, *arguments), cwd=ROOT, check=True, capture_output=True, text=True
    )
    story: dict[str, Any] = json.loads(done.stdout)
    return story


class Home:
    """A localrpc server with a Service; everything ends with the test."""

    def __init__(self, *, workers: int = 8, **named: Any) -> None:
        self.service = Service()
        self.pool = named.pop("pool", None) or futures.ThreadPoolExecutor(workers)
        self.server = localrpc.server(self.pool, [self.service.handlers()], **named)
        self._channels: list[grpc.Channel] = []

    def open(self, target: str = "grpc:127.0.0.1:0") -> str:
        """The target to dial."""
        port = self.server.add_insecure_port(target)
        return target.replace(":0", f":{port}") if target.endswith(":0") else target

    def dial(self, target: str, **named: Any) -> Any:
        channel = localrpc.insecure_channel(target, **named)
        self._channels.append(channel)
        return channel

    def method(self, target: str, name: str) -> Any:
        return self.dial(target).unary_unary(f"/stranger/{name}")

    def close(self) -> None:
        self.service.gate.set()
        for channel in self._channels:
            channel.close()
        self.server.stop(None)
        self.pool.shutdown()


@pytest.fixture
def make_home() -> Iterator[Callable[..., Home]]:
    homes: list[Home] = []

    def make(**named: Any) -> Home:
        homes.append(Home(**named))
        return homes[-1]

    yield make
    for home in homes:
        home.close()


@pytest.fixture
def home(make_home: Callable[..., Home]) -> Home:
    return make_home()
