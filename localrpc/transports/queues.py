"""How clients of message queues find their servers: mq: and sysvmq: share all but the queues.

A queue is not a file that a client could find, so its name is in the runtime
directory, as a record. A record is written before what it names is made, and
removed once that is gone, so every process that is killed in between leaves a record.
"""

from __future__ import annotations

import contextlib
import errno
import glob
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Generic, TypeVar

from localrpc.address import Address
from localrpc.errors import AddressInUse, ConnectError, GreetingError, LimitReached, ListenError
from localrpc.options import Options
from localrpc.transports import names, records
from localrpc.transports.attempt import Attempt
from localrpc.transports.base import Connection, Dialer, PeerCredentials, Redialer
from localrpc.transports.byte_channels import ByteChannel
from localrpc.transports.connect_requests import (
    absent,
    encode_connect_request,
    gone,
    new_token,
    send_connect_request,
    unreachable,
)
from localrpc.transports.credentials import identified
from localrpc.transports.handshake_client import ClientSide, dial
from localrpc.transports.handshake_server import ServerSide
from localrpc.wire.codec import Hello

Q = TypeVar("Q")
"""How one kind of queue is represented."""
C = TypeVar("C", bound=ByteChannel)


UNSEEN = (
    "the other process is not visible here, and only its end shows that a queue is dead:"
    " both have to be in one PID namespace (a container without its own, such as with docker"
    " run --pid=host); pipe: and unix: work without that"
)


def identified_with_pidfd(
    peer: PeerCredentials, pid: int, open_pidfd: Callable[[int], int]
) -> tuple[PeerCredentials, int]:
    """As identified(), for a channel that does not end with its peer. Raises GreetingError."""
    peer, pidfd = identified(peer, pid, open_pidfd)
    if pidfd < 0:
        raise GreetingError(UNSEEN)
    return peer, pidfd


def server_side_with_pidfd(
    owner: PeerCredentials, open_pidfd: Callable[[int], int]
) -> ServerSide[ByteChannel]:
    """As server_side(), for such a channel."""
    return ServerSide(
        identify=lambda channel: owner,
        watch=lambda channel, peer, hello: identified_with_pidfd(peer, hello.pid, open_pidfd),
    )


@dataclass(frozen=True)
class ServerQueue(Generic[Q]):
    """A server's queue that a client has found."""

    queue: Q
    place: str
    pidfd: int
    """A pidfd of the server."""


class Registered:
    """The places of one kind of queue, and the queues that clients make for themselves.

    `suffix` is that of the kind's places; `remove` removes what a record's
    lines name.
    """

    def __init__(self, suffix: str, remove: Callable[[list[str]], None]) -> None:
        self._suffix = suffix
        self._remove = remove

    def _path(self, address: Address, *, create: bool) -> str:
        directory = names.check_runtime_directory(create=create)
        return os.path.join(directory, address.body + self._suffix)

    def take(self, address: Address, place: str) -> records.Record:
        """Register `place`, which is still to be made. Raises ListenError, AddressInUse."""
        try:
            path = self._path(address, create=True)
            directory = os.path.dirname(path)
            with names.locked(directory):
                self.sweep(directory)
                try:
                    return records.make(path, place, str(os.getpid()))
                except FileExistsError:
                    raise AddressInUse(str(address), names.IN_USE) from None
        except OSError as error:
            raise ListenError(str(address), error.strerror or str(error)) from error

    def make_place(
        self, address: Address, place: str, make: Callable[[str], Q]
    ) -> tuple[Q, records.Record]:
        """Register `place`, then have it made. Raises ListenError, AddressInUse."""
        record = self.take(address, place)
        try:
            return make(place), record
        except OSError as error:
            record.remove()
            raise ListenError(str(address), error.strerror or str(error)) from None

    def served(self) -> list[str]:
        """Return the names of this user's places that have a live server."""
        directory = names.runtime_directory()
        found = []
        with contextlib.suppress(OSError), names.locked(directory, patience=0):
            for name in os.listdir(directory):
                if name.endswith(self._suffix):
                    with contextlib.suppress(OSError):
                        if records.read(os.path.join(directory, name))[1]:
                            found.append(name.removesuffix(self._suffix))
        return found

    def give_up(self, address: Address, record: records.Record) -> None:
        """Hide the place: clients no longer find it by `record`, which stays until it is gone."""
        path = self.client_record(address, new_token())
        with contextlib.suppress(OSError):
            os.rename(record.path, path)
            record.path = path

    def sweep(self, directory: str) -> None:
        """Clear up after every dead server and client of this kind; `directory` is locked."""
        records.sweep(directory, f"*{self._suffix}", self._remove)
        records.sweep(directory, f"*{self._suffix}.*{records.SUFFIX}", self._remove)

    def clear(self, path: str) -> None:
        """As sweep(), for one record. Raises OSError."""
        records.clear(path, self._remove)

    def sweep_clients(self, address: Address) -> bool:
        """As sweep(), for the clients of one place, without waiting. Raises OSError."""
        path = self._path(address, create=False)
        directory, name = os.path.split(path)
        with names.locked(directory, patience=0):
            return records.sweep(directory, f"{glob.escape(name)}.*{records.SUFFIX}", self._remove)

    def find(self, address: Address) -> tuple[str, int]:
        """Return the place, and the server's pid. Raises ConnectError."""
        try:
            path = self._path(address, create=False)
            with names.locked(os.path.dirname(path)):
                lines, lives = records.read(path)
            place, pid = lines
        except FileNotFoundError:
            raise absent(address) from None
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or "its record is damaged"
            raise unreachable(address, reason) from None
        if not lives:
            raise gone(address)
        return place, int(pid)

    def confirm(self, address: Address, place: str) -> None:
        """Raise ConnectError if the server has given up `place`, after a request was sent to it.

        SYNC no-lost-request: the client sends a request, then looks at the record; the
        server, in close(), removes the record, then looks for requests.
        """
        try:
            if self.find(address)[0] == place:
                return
        except ConnectError:
            pass
        raise gone(address, passing=True)

    def client_record(self, address: Address, token: str) -> str:
        """Return the path of a client's record."""
        return f"{self._path(address, create=False)}.{token}{records.SUFFIX}"

    def announce(self, address: Address, token: str, *lines: str) -> records.Record:
        """Write a client's record of what it is about to make. Raises OSError."""
        path = self.client_record(address, token)
        with names.locked(os.path.dirname(path)):
            return records.make(path, *lines)

    def make_pair(
        self, address: Address, token: str, pair: Sequence[str], make: Callable[[str], Q]
    ) -> tuple[list[Q], records.Record]:
        """Announce a client's queues, then have them made. Raises LimitReached, OSError."""
        record = self.announce(address, token, *pair)
        made: list[Q] = []
        try:
            for name in pair:
                made.append(make(name))
        except OSError as error:
            self._remove([*pair[: len(made)]])
            record.remove()
            if error.errno == errno.ENOSPC:
                raise LimitReached(str(address), error.strerror or "") from None
            raise
        return made, record

    def send_connect_request(
        self,
        address: Address,
        server_queue: ServerQueue[Q],
        token: str,
        send: Callable[[bytes], object],
        attempt: Attempt,
        *,
        room: int | None = None,
    ) -> None:
        """As send_connect_request(), for a place that the server has not given up by then."""
        send_connect_request(
            address,
            lambda: send(encode_connect_request(token)),
            attempt,
            room=room,
            server=server_queue.pidfd,
        )
        self.confirm(address, server_queue.place)


class QueueDialing(ABC, Generic[Q, C]):
    """Dials registered queues; a subclass opens them and finds their owner."""

    registered: Registered

    def dialer(self, address: Address, options: Options) -> Dialer:
        return Redialer(partial(self.dial, address, options))

    def dial(self, address: Address, options: Options, attempt: Attempt) -> Connection:
        place, pid = self.registered.find(address)
        with contextlib.ExitStack() as stack:
            try:
                queue = self._open(place, stack)
            except OSError as error:
                raise unreachable(address, error.strerror) from None
            server = self._pidfd_of(queue, pid)
            if server < 0:
                raise unreachable(address, UNSEEN)
            stack.callback(os.close, server)
            server_queue = ServerQueue(queue, place, server)
            side = ClientSide(
                connect=lambda attempt: self._connect(address, server_queue, stack, attempt),
                identify=lambda channel: self._owner(queue),
                peer_name=f"unix:{address.body}",
                watch=self._watch,
                alive=lambda: server,
            )
            return dial(side, address, options, attempt)

    @abstractmethod
    def _open(self, place: str, stack: contextlib.ExitStack) -> Q:
        """Open a server's queue, which `stack` closes. Raises OSError."""

    @abstractmethod
    def _pidfd_of(self, queue: Q, pid: int) -> int:
        """Return a pidfd of the server with that pid by its record; or -1."""

    @abstractmethod
    def _owner(self, queue: Q) -> PeerCredentials:
        """Return its owner."""

    @abstractmethod
    def _connect(
        self,
        address: Address,
        server_queue: ServerQueue[Q],
        stack: contextlib.ExitStack,
        attempt: Attempt,
    ) -> C:
        """Make a pair of queues, and send the server a connect request; `stack` closes what the
        channel does not own."""

    @abstractmethod
    def _watch(
        self, channel: C, peer: PeerCredentials, hello: Hello
    ) -> tuple[PeerCredentials, int]:
        """As identified_with_pidfd(), for the server that answers. Raises GreetingError."""
