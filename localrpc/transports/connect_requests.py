"""A well-known place for connect requests, and a pair of one-way channels for each client.

Unrelated processes connect in this way over mechanisms without accept(2): FIFOs, message
queues (queues.py) and files. The client makes its pair, sends a request with the token that
names it, and then its HELLO on it; both names are removed once both sides have opened them.
"""

from __future__ import annotations

import contextlib
import math
import os
import re
import select
import struct
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

from localrpc import _locks, _log
from localrpc.address import Address
from localrpc.errors import ConnectError, GreetingError
from localrpc.options import Options
from localrpc.transports.attempt import Attempt
from localrpc.transports.base import Admission, Greeting, Listener, PeerCredentials
from localrpc.transports.byte_channels import ByteChannel
from localrpc.transports.credentials import identified
from localrpc.transports.forks import forget_after_fork
from localrpc.transports.handshake_server import ServerGreeting, ServerSide

_logger = _log.logger("transports")

_MAGIC = b"localrpc"
_CONNECT_REQUEST = struct.Struct("=8s16s")
CONNECT_REQUEST_SIZE = _CONNECT_REQUEST.size
"""Bytes of a connect request: magic, token. Below PIPE_BUF, so writes of it are atomic."""

_PAUSE = 0.002
"""Seconds between two tries at a full place if there is no descriptor to wait for."""


def new_token() -> str:
    return os.urandom(8).hex()


def encode_connect_request(token: str) -> bytes:
    return _CONNECT_REQUEST.pack(_MAGIC, token.encode())


class ConnectRequestParser:
    """Extracts connect requests from bytes; other bytes are skipped."""

    def __init__(self) -> None:
        self._data = b""
        self.skipped = 0
        """The number of skipped bytes."""

    def feed(self, data: bytes) -> list[str]:
        """Return the tokens of the requests that are complete by now."""
        tokens = []
        self._data += data
        while len(self._data) >= CONNECT_REQUEST_SIZE:
            magic, token = _CONNECT_REQUEST.unpack_from(self._data)
            text = token.decode("ascii", "replace")
            if magic == _MAGIC and re.fullmatch("[0-9a-f]{16}", text):
                tokens.append(text)
                self._skip(CONNECT_REQUEST_SIZE)
                self.skipped -= CONNECT_REQUEST_SIZE
                continue
            at = self._data.find(_MAGIC, 1)
            # The beginning of a magic may stand at the end.
            self._skip(at if at > 0 else len(self._data) - len(_MAGIC) + 1)
        return tokens

    def _skip(self, size: int) -> None:
        self._data = self._data[size:]
        self.skipped += size


def send_connect_request(
    address: Address,
    send: Callable[[], object],
    attempt: Attempt,
    *,
    room: int | None = None,
    server: int | None = None,
) -> None:
    """Have `send` succeed while `attempt` lasts, or raise ConnectError.

    While the place is full, `room` is polled for writing if there is one, and
    `server`, a pidfd, for its death.
    """
    poller = select.poll()
    if room is not None:
        poller.register(room, select.POLLOUT)
    if server is not None:
        poller.register(server, select.POLLIN)
    while True:
        try:
            send()
            return
        except BlockingIOError:
            pass
        if not attempt.left():
            raise ConnectError(
                str(address),
                f"the server on {address.body} does not take connections: it is stopped or busy",
            )
        events = attempt.poll(poller, math.inf if room is not None else _PAUSE)
        if any(fd != room or what & select.POLLERR for fd, what in events):
            raise gone(address, passing=True)


def unreachable(address: Address, reason: str | None, *, passing: bool = False) -> ConnectError:
    return ConnectError(str(address), f"connect failed: {reason}", passing=passing)


def absent(address: Address, place: str = "") -> ConnectError:
    """Return the error for a missing server; `place` is the full name, if the target has less."""
    place = place or address.body
    return unreachable(address, f"no server listens on {place}: start it, or check the name")


def gone(address: Address, place: str = "", *, passing: bool = False) -> ConnectError:
    """Return the error for a server that has gone; `passing` if it has gone just now."""
    place = place or address.body
    reason = f"no server listens on {place} any longer: start the server again"
    return unreachable(address, reason, passing=passing)


def server_side(
    owner: PeerCredentials, open_pidfd: Callable[[int], int]
) -> ServerSide[ByteChannel]:
    """Return the server's half of a handshake with a client whose pair `owner` made."""
    return ServerSide(
        identify=lambda channel: owner,
        watch=lambda channel, peer, hello: identified(peer, hello.pid, open_pidfd),
    )


class Place(ABC):
    """Where connect requests arrive, and clients' pairs are found. Its methods never block."""

    @abstractmethod
    def fileno(self) -> int:
        """Readable when read() has something."""

    @abstractmethod
    def read(self) -> bytes:
        """Return the bytes that have arrived. Raises BlockingIOError if there are none."""

    @abstractmethod
    def enter(self, token: str) -> tuple[ByteChannel, ServerSide[Any]]:
        """Open that client's pair. Raises OSError or GreetingError."""

    @abstractmethod
    def sweep(self) -> bool:
        """Remove what killed clients have left. Return True if live clients are connecting.

        Raises TimeoutError at once if another process has the directory's lock, or OSError.
        """

    @abstractmethod
    def release_name(self) -> None:
        """Remove the name if it is still ours; requests that have come can still be read."""

    @abstractmethod
    def close(self) -> None:
        """Close the descriptors only."""


class ConnectRequestListener(Listener):
    """Accepts connect requests at a place, which it owns."""

    def __init__(
        self, address: Address, options: Options, admission: Admission, place: Place
    ) -> None:
        self.address = address
        self._options = options
        self._admission = admission
        self._place = place
        self._requests = ConnectRequestParser()
        self._lock = _locks.Lock()
        self._closed = False
        forget_after_fork(self)

    def fileno(self) -> int:
        return self._place.fileno()

    def accept(self) -> list[Greeting]:
        with self._lock:
            return [] if self._closed else self._accept()

    def _accept(self) -> list[Greeting]:
        greetings: list[Greeting] = []
        try:
            data = self._place.read()
        except BlockingIOError:
            return greetings
        for token in self._requests.feed(data):
            try:
                greetings.append(self._enter(token))
            except FileNotFoundError:
                # The client has given up, or has been killed.
                _logger.debug("%s: the client %s is gone", self.address, token)
            except (OSError, GreetingError) as error:
                reason = getattr(error, "strerror", None) or error
                _logger.warning("%s: a client was refused: %s", self.address, reason)
        if self._requests.skipped:
            _logger.warning(
                "%s: %d bytes that are not a connect request", self.address, self._requests.skipped
            )
            self._requests.skipped = 0
        return greetings

    def tidy(self) -> bool:
        with self._lock:
            if self._closed:
                return False
            try:
                return self._place.sweep()
            except TimeoutError:
                return True  # another process is cleaning up, or is stopped: try again later
            except OSError:
                return False

    def close(self) -> None:
        with self._lock:
            if self._closed:
                return
            with contextlib.suppress(OSError):
                self._place.sweep()
            self._place.release_name()
            # A client that was not accepted has to see an end instead of waiting.
            while (data := self._read_last()) is not None:
                for token in self._requests.feed(data):
                    with contextlib.suppress(OSError, GreetingError):
                        self._enter(token).dismiss()
            self._closed = True
            self._place.close()

    def forget(self) -> None:
        """Close without giving back the name: in a forked child it is the parent's."""
        self._lock = _locks.Lock()
        if not self._closed:
            self._closed = True
            self._place.close()

    def _read_last(self) -> bytes | None:
        try:
            return self._place.read()
        except OSError:
            return None

    def _enter(self, token: str) -> Greeting:
        channel, side = self._place.enter(token)
        return ServerGreeting(channel, side, self.address, self._options, self._admission)
