"""shm:, a ring in shared memory per direction, greeted over a Unix socket."""

from __future__ import annotations

import contextlib
import os
import re
from functools import partial
from typing import Any

from localrpc._core import links
from localrpc._core.links import Link
from localrpc.address import Address
from localrpc.errors import ConnectError, ListenError
from localrpc.options import Options
from localrpc.transports import memory, names
from localrpc.transports.attempt import Attempt
from localrpc.transports.base import (
    EVERYBODY,
    Admission,
    Connection,
    ConnectionFacts,
    Dialer,
    Listener,
    PeerCredentials,
    Redialer,
    Transport,
)
from localrpc.transports.byte_channels import Descriptors, SocketChannel
from localrpc.transports.credentials import open_peer_pidfd
from localrpc.transports.handshake import MemoryRefused, make_hello, reachable_by_signal
from localrpc.transports.handshake_client import Memory
from localrpc.transports.handshake_server import ServerGreeting
from localrpc.transports.memory import Segment
from localrpc.transports.scheme import Kind, Scope, what_is_missing
from localrpc.transports.sockets import SocketListener, dial_socket, unix_side
from localrpc.transports.targets import (
    SPIN,
    SPIN_ALWAYS,
    SUN_PATH_MAX,
    TargetOption,
    choice,
    plain_name,
    socket_path,
)
from localrpc.wire.codec import Hello
from localrpc.wire.greeting import hello_frame

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

_SWITCHED_OFF = "the option localrpc.shared_memory is 0"


def _wake(address: Address) -> int:
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


class _Rings(Memory):
    """A client's two rings and its bell."""

    def __init__(self, address: Address) -> None:
        self.ring_size = RING.of(address)
        self.page_size = memory.CONTROL_PAGE
        self.kind = MEMORY.of(address)
        self.wakeup = _wakeup_fact(address)
        self._address = address
        self._wake = _wake(address)
        self._owned = Descriptors()
        self._segments: list[Segment] = []
        try:
            bell = self._owned.add(links.make_bell())
            memory.sweep(self.kind)
            for _ in range(2):
                self._segments.append(memory.create(self.kind, self.ring_size))
        except (OSError, MemoryError) as error:
            self.close()
            raise MemoryRefused(_reason(error)) from None
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
            raise MemoryRefused(_reason(error)) from None

    def close(self) -> None:
        self._owned.close()
        for segment in self._segments:
            segment.close()


def _reason(error: BaseException) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def _welcome(
    client: ServerGreeting[SocketChannel], peer: PeerCredentials, hello: Hello
) -> Connection:
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
        wake = _wake(client.address)
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
            raise MemoryRefused(f"{_SWITCHED_OFF} on the server")
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
            raise MemoryRefused(f"on the server: {_reason(error)}") from None
    try:
        answer = make_hello(client.options, ring_size=hello.ring_size)
        client.channel.send(hello_frame(answer), [bell])
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


def _try_memory() -> None:
    try:
        os.close(memory.create_ring(RING_MIN))
    except OSError as error:
        reason = (
            f"no sealed memory (memfd_create: {error.strerror}): calls stay on the socket, as with"
            " unix:; the kernel needs CONFIG_MEMFD_CREATE, a container room in its memory"
        )
        raise OSError(error.errno, reason) from None


def _limits() -> dict[str, int]:
    from localrpc.transports import limits

    return {
        "ring bytes, least": RING_MIN,
        "ring bytes, default": RING.default,
        "ring bytes, most": RING_MAX,
        "name bytes": SUN_PATH_MAX,
        "RLIMIT_NOFILE": limits.rlimit("RLIMIT_NOFILE"),
    }


class ShmTransport(Transport):
    scheme = "shm"
    options = (WAKEUP, SIGNO, SPIN, RING, MEMORY)
    kinds = (
        Kind(
            form="NAME",
            spellings={
                "shm:NAME": "letters, digits, `.`, `-` and `_`; a socket `NAME.shm` in the runtime"
                " directory, over which both sides exchange the memory",
                "shm:/PATH": "the same, with the socket at this absolute path",
            },
            scope=Scope.MACHINE,
            direction="two one-way rings",
            technique="rings in shared memory, one each way",
            credentials="pid, uid, gid, groups: SO_PEERCRED, SO_PEERGROUPS",
            zero_copy=True,
            limits=_limits,
            missing=lambda: what_is_missing(_try_memory),
        ),
    )
    quality = (
        "Both processes run as one user of one machine. Each connection has two rings of memory,"
        " and falls back to its socket where shared memory is refused."
    )

    def check(self, name: str) -> str:
        name = name.removeprefix("//")
        if name.startswith("/"):
            return socket_path(name)
        return plain_name(name, " (a path must be absolute: shm:/run/me/socket)")

    def combine(self, options: dict[str, Any]) -> None:
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

    def closed_to_others(self, address: Address) -> str | None:
        if address.body.startswith("/"):
            return None
        return (
            "the runtime directory is closed to other users, and the options allow some; name a"
            " socket where they can get to it: shm:/PATH"
        )

    def listen(
        self, address: Address, options: Options, admission: Admission = EVERYBODY
    ) -> Listener:
        try:
            _wake(address)
            memory.sweep(MEMORY.of(address))
            path = _path(address, create=True)
        except (OSError, ValueError) as error:
            raise ListenError(str(address), _reason(error)) from None
        sock, identity = names.take(path, str(address), others=options.access.others)
        sides = partial(unix_side, welcome=_welcome)
        return SocketListener(address, options, admission, sock, sides, path, identity)

    def dialer(self, address: Address, options: Options) -> Dialer:
        return Redialer(partial(_dial, address, options))


def _dial(address: Address, options: Options, attempt: Attempt) -> Connection:
    try:
        _wake(address)
        path = _path(address, create=False)
    except FileNotFoundError as error:
        raise ConnectError(
            str(address),
            "connect failed: No such file or directory (no server of this user has been"
            f" started: its runtime directory {error.filename} does not exist)",
        ) from None
    except (OSError, ValueError) as error:
        raise ConnectError(str(address), _reason(error)) from None
    if not options.shared_memory:
        return dial_socket(path, address, options, attempt, None, f"{_SWITCHED_OFF} on the client")
    try:
        return dial_socket(path, address, options, attempt, _Rings(address))
    except MemoryRefused as refusal:
        return dial_socket(path, address, options, attempt, None, f"on the client: {refusal}")


def _path(address: Address, *, create: bool) -> str:
    """Return the socket's path, in a runtime directory that can be trusted."""
    if not address.body.startswith("/"):
        names.check_runtime_directory(create=create)
    path = names.shm_path(address.body)
    names.check_path(path)
    return path
