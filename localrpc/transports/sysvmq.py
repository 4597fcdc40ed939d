"""sysvmq:, System V message queues: one for connect requests, and a pair for each connection.

A queue is found by its key, belongs to one user (mode 0600), and outlives its
processes: keys are written in records before the queues are made, a link removes
its queues, and the next server what killed ones have left. Such a queue is not a
descriptor: a thread waits for it in msgrcv(2). See sysvipc(7), svipc(7).
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable
from typing import Any

from localrpc import _log
from localrpc._core import links
from localrpc._core.links import Link
from localrpc.address import Address
from localrpc.errors import GreetingError
from localrpc.options import Options
from localrpc.transports import limits, records, sysv
from localrpc.transports.attempt import Attempt
from localrpc.transports.base import (
    EVERYBODY,
    Admission,
    Dialer,
    Listener,
    PeerCredentials,
    Transport,
)
from localrpc.transports.byte_channels import ByteChannel
from localrpc.transports.connect_requests import (
    CONNECT_REQUEST_SIZE,
    ConnectRequestListener,
    Place,
    gone,
    new_token,
)
from localrpc.transports.handshake_server import ServerSide
from localrpc.transports.queues import (
    QueueDialing,
    Registered,
    ServerQueue,
    identified_with_pidfd,
)
from localrpc.transports.scheme import Kind, Scope, what_is_missing
from localrpc.transports.targets import SPIN, plain_name
from localrpc.wire.codec import Hello

_logger = _log.logger("transports")

registered = Registered(".sysvmq", sysv.remove)


class SysvChannel(ByteChannel):
    """Two queues by their ids; `sent` is called once the second has a message."""

    kind = "sysvmq"

    def __init__(
        self,
        rx: int,
        tx: int,
        record: tuple[int, str],
        *,
        sent: Callable[[], None] | None = None,
        waits: bool,
    ) -> None:
        self._rx, self._tx = rx, tx
        self._record: tuple[int, str] | None = record
        self._sent = sent
        self._waits = waits
        self._receiver = sysv.ReceiverThread(rx, rung=not waits)
        self._rest = b""
        self._has_sent = False

    @property
    def rx(self) -> int:
        return self._rx

    def fileno(self) -> int:
        return self._receiver.bell

    def receive(self, size: int) -> tuple[bytes, list[int]]:
        if not self._rest:
            came = self._receiver.take()
            if came:
                self._rest = b"".join(came)
            elif self._waits and not self._receiver.queue_removed:
                self._receiver.start(once=True)
                raise BlockingIOError(errno.EAGAIN, "nothing has come yet")
            else:
                self._rest = sysv.receive(self._rx, wait=False) or b""
        data, self._rest = self._rest[:size], self._rest[size:]
        return data, []

    def send(self, frame: bytes, fds: list[int]) -> None:
        largest = sysv.largest_message()
        for at in range(0, len(frame), largest):
            sysv.send(self._tx, frame[at : at + largest])
        self._has_sent = True
        if self._sent is not None:
            self._sent()

    def open_link(self, pidfd: int, address: Address) -> Link:
        record, self._record = self._record, None
        self._receiver.close()
        size = sysv.largest_message()
        with contextlib.suppress(OSError):  # already removed: the link will report it
            size = min(size, sysv.Facts(self._tx).bytes // 2)
        return links.open_sysv(
            rx_id=self._rx,
            tx_id=self._tx,
            size=size,
            pidfd=pidfd,
            record=record,
            spin_us=SPIN.of(address),
        )

    def close(self) -> None:
        if self._record is not None:
            sysv.drop(self._rx)
            # The peer has to read what was sent, and removes the queue; or the next server does.
            if self._sent is not None or not self._has_sent:
                sysv.drop(self._tx)
                with contextlib.suppress(OSError):
                    os.unlink(self._record[1])
        self.forget()

    def forget(self) -> None:
        record, self._record = self._record, None
        if record is not None and record[0] >= 0:
            os.close(record[0])
        self._receiver.close()


class _SysvPlace(Place):
    def __init__(self, address: Address, queue: int, record: records.Record) -> None:
        self._address = address
        self._queue = queue
        self._record = record
        self._receiver = sysv.ReceiverThread(queue)
        self._receiver.start(once=False)

    def fileno(self) -> int:
        return self._receiver.bell

    def read(self) -> bytes:
        came = [request for request in self._receiver.take() if request]  # empty: the queue is gone
        if not came:
            if self._receiver.queue_removed and self._record.fd >= 0:
                _logger.error(
                    "%s: its queue has been removed: no client can connect", self._address
                )
            raise BlockingIOError(errno.EAGAIN, "no connect request")
        return b"".join(request.ljust(CONNECT_REQUEST_SIZE, b"\0") for request in came)

    def enter(self, token: str) -> tuple[ByteChannel, ServerSide[Any]]:
        path = registered.client_record(self._address, token)
        lines, _ = records.read(path)
        try:
            up, down = map(int, lines)
        except ValueError:
            raise OSError(errno.EINVAL, "its record is damaged") from None
        rx = sysv.find(up)
        owner = sysv.owner_of(rx)
        channel = SysvChannel(rx, sysv.find(down), (-1, path), waits=False)
        side = ServerSide[SysvChannel](
            identify=lambda channel: owner,
            # The kernel's pid, which is right across PID namespaces, not the one in its HELLO.
            watch=lambda channel, peer, hello: identified_with_pidfd(
                peer, sysv.sender_of(channel.rx), sysv.open_pidfd
            ),
        )
        return channel, side

    def sweep(self) -> bool:
        return registered.sweep_clients(self._address)

    def release_name(self) -> None:
        registered.give_up(self._address, self._record)
        self._receiver.receive_rest()
        sysv.drop(self._queue)
        self._receiver.join()
        self._record.remove()

    def close(self) -> None:
        self._record.close()
        self._receiver.close()


class _Dialing(QueueDialing[int, SysvChannel]):
    registered = registered

    def _open(self, place: str, stack: contextlib.ExitStack) -> int:
        return sysv.find(int(place))

    def _pidfd_of(self, queue: int, pid: int) -> int:
        return sysv.open_pidfd(pid)

    def _owner(self, queue: int) -> PeerCredentials:
        try:
            return sysv.owner_of(queue)
        except OSError as error:
            if error.errno in sysv.GONE:
                raise GreetingError("its queue is gone", passing=True) from None
            raise

    def _connect(
        self,
        address: Address,
        server_queue: ServerQueue[int],
        stack: contextlib.ExitStack,
        attempt: Attempt,
    ) -> SysvChannel:
        """The link owns the pair and its record; the connect request follows the HELLO, which
        the server therefore finds."""
        token = new_token()
        keys = [str(sysv.new_key()), str(sysv.new_key())]
        (up, down), record = registered.make_pair(address, token, keys, sysv.make_at)

        def send(data: bytes) -> None:
            try:
                sysv.send(server_queue.queue, data)
            except OSError as error:
                if error.errno in sysv.GONE:
                    raise gone(address, passing=True) from None
                raise

        def sent() -> None:
            registered.send_connect_request(address, server_queue, token, send, attempt)

        return SysvChannel(down, up, record.take(), sent=sent, waits=True)

    def _watch(
        self, channel: SysvChannel, peer: PeerCredentials, hello: Hello
    ) -> tuple[PeerCredentials, int]:
        return identified_with_pidfd(peer, sysv.sender_of(channel.rx), sysv.open_pidfd)


_QUEUES = _Dialing()


class SysvMqTransport(Transport):
    scheme = "sysvmq"
    options = (SPIN,)
    kinds = (
        Kind(
            form="NAME",
            spellings={"sysvmq:NAME": "as for `shm:`; System V message queues"},
            scope=Scope.USER,
            direction="two one-way channels",
            technique="System V message queues, one each way",
            credentials="uid, gid: the queues' owner; pid: who sent last",
            limits=lambda: {
                **limits.settings("kernel", "msgmax", "msgmnb", "msgmni"),
                "RLIMIT_NOFILE": limits.rlimit("RLIMIT_NOFILE"),
            },
            served=registered.served,
            missing=lambda: what_is_missing(lambda: sysv.drop(sysv.make(sysv.new_key()))),
        ),
    )
    quality = "System V message queues: the system's limits on their number and size apply."

    def check(self, name: str) -> str:
        return plain_name(name)

    def listen(
        self, address: Address, options: Options, admission: Admission = EVERYBODY
    ) -> Listener:
        queue, record = registered.make_place(address, str(sysv.new_key()), sysv.make_at)
        place = _SysvPlace(address, queue, record)
        return ConnectRequestListener(address, options, admission, place)

    def dialer(self, address: Address, options: Options) -> Dialer:
        return _QUEUES.dialer(address, options)
