"""Rings in shared memory, which the two sides of a Unix socket agree on in their handshake.

A client of shm: offers them; servers at shm: and at a Unix socket that another process has opened
(fd:) accept them.
"""

from __future__ import annotations

import contextlib
import os
import re
from typing import Any

from localrpc._core import links
from localrpc._core.links import Link
from localrpc.address import Address
from localrpc.transports import memory
from localrpc.transports.base import Connection, ConnectionFacts, PeerCredentials
from localrpc.transports.byte_channels import Descriptors, SocketChannel
from localrpc.transports.credentials import open_peer_pidfd
from localrpc.transports.handshake import MemoryRefused, reachable_by_signal
from localrpc.transports.handshake_client import Memory
from localrpc.transports.handshake_server import ServerGreeting, stay
from localrpc.transports.memory import Segment
from localrpc.transports.targets import SPIN, SPIN_ALWAYS, TargetOption, choice
from localrpc.wire import frames
from localrpc.wire.codec import Hello

RING_MIN = 128 * 1024
"""The largest frame that cannot be cut, 64 KiB and its header, must fit."""
RING_MAX = 64 * 1024 * 1024

WAKEUP = choice(
    "wakeup",
    "eventfd",
    "futex",
    "signal",
    "spin",
    text="how a sleeping reader on this side is woken. `eventfd`: by an eventfd. `futex`: by a"
    " futex in the shared memory; an eventfd is used instead where the kernel is older than Linux"
    " 5.16, a sandbox refuses `futex_waitv`, or the server has other kinds of connections too."
    " `signal`: by a signal sent to its thread. `spin`: not at all, because it spins on a core of"
    " its own while a call is awaited; a server goes on until its connections have been silent"
    " for a second",
)


def _signo(text: str) -> int:
    import signal

    if text in ("SIGURG", "SIGUSR1", "SIGUSR2"):
        return int(signal.Signals[text])
    count = signal.SIGRTMAX - signal.SIGRTMIN
    match = re.fullmatch(r"SIGRTMIN(?:\+([0-9]{1,2}))?", text)
    if match is None or int(match[1] or 0) > count:
        raise ValueError(f"use SIGURG, SIGUSR1, SIGUSR2 or SIGRTMIN+n with n up to {count}")
    return int(signal.SIGRTMIN) + int(match[1] or 0)


SIGNO = TargetOption(
    "signo",
    0,
    _signo,
    values="`SIGURG`, `SIGUSR1`, `SIGUSR2`, `SIGRTMIN+n`",
    text="with `?wakeup=signal` the signal for this side; the other side may choose another. It is"
    " an error if the program handles that signal itself. SIGURG is harmless to a program that"
    " does not expect it; the others terminate such a program, so do not choose them if the"
    " process execs another program while calls are open",
    shown="`SIGURG`",
)


def _ring(text: str) -> int:
    match = re.fullmatch(r"([0-9]{1,9})(?:([kKmM])(?:i?[bB])?)?", text)
    size = 0
    if match:
        size = int(match[1]) << {"": 0, "k": 10, "m": 20}[(match[2] or "").lower()]
    if not RING_MIN <= size <= RING_MAX or size & (size - 1):
        raise ValueError("use a power of two from 128k to 64M, such as 256k or 4M")
    return size


RING = TargetOption(
    "ring",
    1024 * 1024,
    _ring,
    values="`128k` to `64M`",
    text="size of each of the two rings, a power of two",
    shown="`1M`",
)
MEMORY = choice(
    "memory",
    "memfd",
    "posix",
    "sysv",
    text="what the rings are made of. `memfd`: sealed memfds, which travel as descriptors and never"
    " have a name. For comparison, and only if both sides ask for it: POSIX shared memory"
    " (`shm_open`) or System V segments (`shmget`), accessible to this user alone, with a name or"
    " key that is removed as soon as both sides are attached. `posix` needs the package posix_ipc,"
    " as `mq:` does. These two are not sealed: a malicious process of the same user could shrink a"
    " POSIX segment while it is in use (SIGBUS), and System V memory counts against"
    " `kernel.shmall`",
)

OPTIONS = (WAKEUP, SIGNO, SPIN, RING, MEMORY)
"""What a target says of its rings."""


def combine(options: dict[str, Any]) -> None:
    """Complete the options of a target. Raises ValueError if two contradict each other."""
    wakeup = options.get(WAKEUP.key)
    if SIGNO.key in options and wakeup != "signal":
        raise ValueError(
            "signo= chooses the signal of ?wakeup=signal, which the target does not say; add"
            " wakeup=signal or leave signo= out"
        )
    if wakeup == "signal":
        options.setdefault(SIGNO.key, _signo("SIGURG"))
    if wakeup == "spin":
        if SPIN.key in options:
            raise ValueError(
                "wakeup=spin never stops to spin while a call is awaited; leave spin= out, or"
                " choose another wakeup="
            )
        options[SPIN.key] = SPIN_ALWAYS


SWITCHED_OFF = "the option localrpc.shared_memory is 0"


def claim_wakeup(address: Address) -> int:
    """Return what wakes this process's sleepers: a signal, WAKE_FUTEX, or 0 for the eventfd.

    Raises ValueError if the program handles that signal itself.
    """
    wakeup = WAKEUP.of(address)
    if wakeup == "futex":
        return links.WAKE_FUTEX
    if wakeup != "signal":
        return 0
    signo = SIGNO.of(address)
    links.claim_signal(signo)
    return signo


def _wakeup_fact(address: Address) -> str:
    """Return how this process's sleepers are really woken."""
    wakeup = WAKEUP.of(address)
    return "eventfd" if wakeup == "futex" and not links.futexes_work() else wakeup


def prepare_server(address: Address) -> None:
    """Raises ValueError or OSError if a server cannot have the rings that its target asks for."""
    claim_wakeup(address)
    memory.sweep(MEMORY.of(address))


class Rings(Memory):
    """A client's two rings and its bell."""

    def __init__(self, address: Address) -> None:
        self.ring_size = RING.of(address)
        self.page_size = memory.CONTROL_PAGE
        self.kind = MEMORY.of(address)
        self.wakeup = _wakeup_fact(address)
        self._address = address
        self._wake = claim_wakeup(address)
        self._owned = Descriptors()
        self._segments: list[Segment] = []
        try:
            bell = self._owned.add(links.make_bell())
            memory.sweep(self.kind)
            for _ in range(2):
                self._segments.append(memory.create(self.kind, self.ring_size))
        except (OSError, MemoryError) as error:
            self.close()
            raise MemoryRefused(reason_of(error)) from None
        except BaseException:
            self.close()
            raise
        self.fds = [bell]
        if self.kind == "memfd":
            self.fds += [segment.handle for segment in self._segments]
        self.names = tuple(segment.name for segment in self._segments if segment.name)

    def open(self, sock_fd: int, pidfd: int, peer: PeerCredentials, bell: int) -> Link:
        (own_bell,) = self._owned.take()
        to_server, to_client = (segment.take() for segment in self._segments)
        try:
            return links.open_ring(
                memory=memory.KINDS[self.kind],
                tx_fd=to_server,
                rx_fd=to_client,
                ring_size=self.ring_size,
                bell_fd=own_bell,
                peer_bell_fd=bell,
                sock_fd=sock_fd,
                pidfd=pidfd,
                peer_pid=peer.pid,
                wake=self._wake,
                spin_us=SPIN.of(self._address),
            )
        except (OSError, ValueError, MemoryError) as error:
            raise MemoryRefused(reason_of(error)) from None

    def close(self) -> None:
        self._owned.close()
        for segment in self._segments:
            segment.close()


def reason_of(error: BaseException) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def welcome_any(
    client: ServerGreeting[SocketChannel], peer: PeerCredentials, hello: Hello
) -> Connection:
    """Welcome clients of unix: and of shm:, who dial the same socket."""
    offers = hello.ring_size or hello.memory_refusal or len(client.fds)
    return (welcome if offers else stay)(client, peer, hello)


def welcome(
    client: ServerGreeting[SocketChannel], peer: PeerCredentials, hello: Hello
) -> Connection:
    """Welcome clients of shm:, with rings if possible."""
    if not hello.ring_size:
        if len(client.fds):
            raise client.refuse("it sends descriptors without offering memory")
        reason = hello.memory_refusal or "the client offered none"
        return client.connect_stream(peer, hello, reason)
    fds, names = (1, 2) if hello.memory else (3, 0)
    if len(client.fds) != fds:
        raise client.refuse(f"it offers memory with {len(client.fds)} descriptors instead of {fds}")
    if len(hello.memory_names) != names:
        raise client.refuse(
            f"it offers memory with {len(hello.memory_names)} names instead of {names}"
        )
    if hello.ring_size < RING_MIN:
        raise client.refuse(f"it offers rings of {hello.ring_size} bytes, below {RING_MIN}")
    try:
        wake = claim_wakeup(client.address)
    except ValueError as error:
        raise client.refuse(f"the server cannot be woken: {error}") from None
    try:
        return _connect_ring(client, peer, hello, wake)
    except MemoryRefused as refusal:
        return client.connect_stream(peer, hello, str(refusal))
    except ValueError as error:
        raise client.refuse(f"its memory cannot be used: {error}") from None


def _connect_ring(
    client: ServerGreeting[SocketChannel], peer: PeerCredentials, hello: Hello, wake: int
) -> Connection:
    """Raises MemoryRefused, the client's descriptors closed, or ValueError for bad memory."""
    kind = hello.memory or "memfd"
    limit = client.address.options.get(RING.key, RING_MAX)
    sock = client.channel.sock
    with Descriptors() as fds, contextlib.ExitStack() as stack:
        peer_bell, *rings = client.fds.take()
        fds.add(peer_bell)
        segments = [Segment(kind, ring) for ring in rings]
        for segment in segments:
            stack.callback(segment.close)
        if not client.options.shared_memory:
            raise MemoryRefused(f"{SWITCHED_OFF} on the server")
        if hello.ring_size > limit:
            raise MemoryRefused(
                f"rings of {hello.ring_size} bytes, and the server's ?ring= allows {limit}"
            )
        if hello.page_size not in (0, memory.CONTROL_PAGE):
            raise MemoryRefused(
                f"the client's pages have {hello.page_size} bytes, the server's"
                f" {memory.CONTROL_PAGE}"
            )
        if hello.memory:
            _consent(client.address, kind, peer)
        try:
            for name in hello.memory_names:
                segments.append(memory.attach(kind, name))
                stack.callback(segments[-1].close)
            # The link closes what it gets even when it fails: the socket must survive that.
            fds.add(os.dup(sock.fileno()))
            fds.add(open_peer_pidfd(sock, peer))
            bell = links.make_bell()
            peer_bell, sock_fd, pidfd = fds.take()
            to_server, to_client = (segment.take() for segment in segments)
            link = links.open_ring(
                memory=memory.KINDS[kind],
                tx_fd=to_client,
                rx_fd=to_server,
                ring_size=hello.ring_size,
                bell_fd=bell,
                peer_bell_fd=peer_bell,
                sock_fd=sock_fd,
                pidfd=pidfd,
                peer_pid=reachable_by_signal(peer, hello).pid,
                wake=wake,
                spin_us=SPIN.of(client.address),
            )
        except (OSError, MemoryError) as error:
            raise MemoryRefused(f"on the server: {reason_of(error)}") from None
    try:
        client.answer(hello, [bell], frames.COUNTS_BEGUN, ring_size=hello.ring_size)
    except BaseException:
        link.close()
        raise
    facts = ConnectionFacts(
        client.address.scheme, _wakeup_fact(client.address), None, hello.ring_size, kind
    )
    return client.connection(link, facts, peer, hello)


def _consent(address: Address, kind: str, peer: PeerCredentials) -> None:
    """Raises MemoryRefused unless both sides have asked for memory without seals.

    A client could shrink it, and the server's next access would raise SIGBUS.
    """
    if kind != MEMORY.of(address):
        raise MemoryRefused(
            f"{kind} memory is not sealed; a server accepts it only with ?memory={kind}"
            if kind in memory.KINDS
            else f"the server does not know memory of the kind {kind!r}"
        )
    if peer.uid != os.geteuid():
        raise MemoryRefused(f"{kind} memory is for processes of one user")
