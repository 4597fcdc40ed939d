"""Sends connect requests to pipe:, mq: and sysvmq:, and lists what these leave behind."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import posix_ipc
import pytest

from localrpc._core import lib
from localrpc.transports import PeerCredentials, mq, parse_target, pipe, sysv, sysvmq
from localrpc.transports.connect_requests import encode_connect_request, new_token

from .helpers import AcceptingServer, dial

KINDS = ("pipe", "mq", "sysvmq")


def target_of(kind: str, folder: Path) -> str:
    return f"pipe:{folder}/server" if kind == "pipe" else f"{kind}:server"


@pytest.fixture(params=KINDS)
def target(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """For a module of tests to take by its name."""
    return target_of(request.param, tmp_path)


class RequestPlace(NamedTuple):
    """`push` puts a message there, and raises BlockingIOError when it is full."""

    push: Callable[[bytes], object]

    def fill(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                self.push(encode_connect_request(new_token()))

    def send_request(self, token: str) -> None:
        self.push(encode_connect_request(token))


@contextlib.contextmanager
def place_of(target: str) -> Iterator[RequestPlace]:
    address = parse_target(target)
    if address.scheme == "pipe":
        fd = os.open(address.body, os.O_WRONLY | os.O_NONBLOCK)
        try:
            yield RequestPlace(lambda data: os.write(fd, data))
        finally:
            os.close(fd)
    elif address.scheme == "mq":
        queue = posix_ipc.MessageQueue(mq.registered.find(address)[0])
        queue.block = False

        def send(data: bytes) -> None:
            try:
                queue.send(data)
            except posix_ipc.BusyError:
                raise BlockingIOError from None

        try:
            yield RequestPlace(send)
        finally:
            queue.close()
    else:
        number = sysv.find(int(sysvmq.registered.find(address)[0]))
        yield RequestPlace(lambda data: sysv.send(number, data))


def entries(target: str, folder: Path) -> set[str]:
    """Every file, and every queue that its records name."""
    files = {str(path) for path in folder.rglob("*") if not path.is_dir()}
    found = set(files)
    for path in files:
        with contextlib.suppress(OSError, ValueError):
            if not re.search(r"\.(mq|sysvmq|made)", path):
                continue
            for line in Path(path).read_text().split("\n"):
                if line.startswith("/localrpc-"):
                    with contextlib.suppress(posix_ipc.ExistentialError):
                        posix_ipc.MessageQueue(line).close()
                        found.add(line)
                elif target.startswith("sysvmq") and lib.lr_msgget(int(line or 0), 0) >= 0:
                    found.add(f"key {line}")
    return found


def fifo_ends(target: str, token: str) -> pipe.Ends:
    return pipe.ends(parse_target(target).body, token)


def goes_on(accepting: AcceptingServer, target: str) -> None:
    """One more client connects, and each side identifies the other."""
    number = len(accepting.connections)
    client = dial(target)
    server = accepting.connection(number)
    assert client.peer == server.peer == PeerCredentials(os.getpid(), os.geteuid(), os.getegid())
    client.close()
