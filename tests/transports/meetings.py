"""Knocking at pipe:, mq: and sysvmq: by hand, and what such places leave behind."""

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
from localrpc.transports.meeting import encode_knock, new_token

from .doors import Doorman, dial

KINDS = ("pipe", "mq", "sysvmq")


def target_of(kind: str, folder: Path) -> str:
    return f"pipe:{folder}/door" if kind == "pipe" else f"{kind}:door"


@pytest.fixture(params=KINDS)
def target(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """For a module of tests to take by its name."""
    return target_of(request.param, tmp_path)


class Door(NamedTuple):
    """`push` puts a message there, and raises BlockingIOError when it is full."""

    push: Callable[[bytes], object]

    def fill(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                self.push(encode_knock(new_token()))

    def knock(self, token: str) -> None:
        self.push(encode_knock(token))


@contextlib.contextmanager
def door_of(target: str) -> Iterator[Door]:
    address = parse_target(target)
    if address.scheme == "pipe":
        fd = os.open(address.body, os.O_WRONLY | os.O_NONBLOCK)
        try:
            yield Door(lambda data: os.write(fd, data))
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
            yield Door(send)
        finally:
            queue.close()
    else:
        number = sysv.find(int(sysvmq.registered.find(address)[0]))
        yield Door(lambda data: sysv.send(number, data))


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


def goes_on(doorman: Doorman, target: str) -> None:
    """One more client is let in, and each knows the other."""
    number = len(doorman.connections)
    client = dial(target)
    server = doorman.connection(number)
    assert client.peer == server.peer == PeerCredentials(os.getpid(), os.geteuid(), os.getegid())
    client.close()
