"""A ring's peer that writes what it should not: its connection ends, we do not.

Invariant: whatever the peer's page and ring contain, receive() and send() give
a checked frame, "nothing yet", LR_PROTOCOL or LR_CLOSED, and touch nothing else.
"""

from __future__ import annotations

import itertools
import mmap
import os
import resource
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from localrpc._core import Io, lib
from localrpc._core.links import Link, make_bell, open_ring
from localrpc.transports.memory import CONTROL_PAGE, create_ring
from tests.peers import seccomp
from tests.skips import only_where

from .kinds import ROOT

SIZE = 131072
TAIL, BELL, HEAD, EPOCH, WAKE = 0, 32, 64, 128, 136


class HandMade:
    """A ring link, and its peer made by hand."""

    def __init__(self, peer_pid: int = 0, pidfd: int = -1, bell: int | None = None) -> None:
        tx, rx = create_ring(SIZE), create_ring(SIZE)
        self.memory = mmap.mmap(rx, CONTROL_PAGE + SIZE)
        self.ours = mmap.mmap(tx, CONTROL_PAGE + SIZE, prot=mmap.PROT_READ)
        self.bell = make_bell() if bell is None else bell
        ours, self.sock = socket.socketpair()
        self.link: Link = open_ring(
            tx_fd=tx,
            rx_fd=rx,
            ring_size=SIZE,
            bell_fd=make_bell(),
            peer_bell_fd=os.dup(self.bell),
            sock_fd=ours.detach(),
            pidfd=pidfd,
            peer_pid=peer_pid,
            wake=0,
            spin_us=0,
        )
        self.io = Io()

    def put(self, at: int, value: int, size: int = 8) -> None:
        self.memory[at : at + size] = value.to_bytes(size, "little")

    def write(self, data: bytes, tail: int | None = None) -> None:
        self.memory[CONTROL_PAGE : CONTROL_PAGE + len(data)] = data
        self.put(TAIL, -(-len(data) // 8) * 8 if tail is None else tail)

    def receive(self) -> int:
        return int(lib.lr_link_recv(self.link.raw, self.io.raw, 1))

    def send(self, size: int = 8) -> int:
        return int(lib.lr_link_send(self.link.raw, lib.LR_T_MESSAGE, 1, 1, b"x" * size, size))

    def rung(self) -> int:
        """How often since it was asked for the last time: that much is missing in the bell."""
        for times in itertools.count():
            try:
                os.eventfd_write(self.bell, 1)
            except BlockingIOError:
                return times
        raise AssertionError

    def close(self) -> None:
        self.link.close()
        self.memory.close()
        self.ours.close()
        self.sock.close()
        os.close(self.bell)


@pytest.fixture
def ring() -> Iterator[HandMade]:
    made = HandMade()
    yield made
    made.close()


def header(length: int, kind: int = 4) -> bytes:
    return struct.pack("<IBBHQ", length, kind, 1, 0, 7)


def test_the_layout_is_that_of_the_protocol(ring: HandMade) -> None:
    ring.write(header(5) + b"hello")
    assert ring.receive() == 1
    assert (ring.io.raw.kind, ring.io.raw.call, ring.io.buf[:5]) == (4, 7, b"hello")
    assert int.from_bytes(ring.ours[HEAD : HEAD + 8], "little") == 24
    ring.put(EPOCH, 1)
    assert ring.send() == 1
    assert int.from_bytes(ring.ours[TAIL : TAIL + 8], "little") == 24
    assert ring.rung() == 1
    assert ring.ours[CONTROL_PAGE + 16 : CONTROL_PAGE + 24] == b"x" * 8


def test_a_sleeper_is_rung_once_per_epoch(ring: HandMade) -> None:
    ring.put(EPOCH, 1)
    for _ in range(3):
        assert ring.send() == 1
    assert ring.rung() == 1
    ring.put(EPOCH, 3)
    assert ring.send() == 1
    assert ring.rung() == 1


def test_a_thread_that_cannot_be_signalled_gets_its_bell(ring: HandMade) -> None:
    ring.put(EPOCH, 1)
    ring.put(WAKE, 23 << 24 | 1, 4)
    assert ring.send() == 1
    assert ring.rung() == 1


def test_no_bell_makes_its_ringer_wait() -> None:
    """An empty one, without O_NONBLOCK: that is a flag of the description, which both have."""
    ring = HandMade(bell=os.eventfd(0, os.EFD_NONBLOCK | os.EFD_SEMAPHORE))
    os.set_blocking(ring.bell, True)
    ring.put(EPOCH, 1)
    assert ring.send() == 1
    ring.sock.setblocking(False)
    with pytest.raises(BlockingIOError):  # nor is that an end
        ring.sock.recv(1)
    ring.close()


@only_where(seccomp.SUPPORTED, "the numbers of this machine's system calls are not known here")
def test_a_bell_that_can_only_be_read_with_waiting_ends_its_connection_first() -> None:
    """Before Linux 5.8 a read of an eventfd always blocks unless the eventfd is non-blocking."""
    script = """
import os
from tests.links.test_hostile_ring import EPOCH, HandMade
ring = HandMade()
os.set_blocking(ring.bell, True)
ring.put(EPOCH, 1)
sent = ring.send()
os.set_blocking(ring.bell, False)
print(sent, ring.rung(), ring.sock.recv(1))
"""
    command = [sys.executable, "-m", "tests.peers.seccomp", "--refuse", "preadv2=EOPNOTSUPP"]
    done = subprocess.run([*command, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "1 0 b''\n", done.stderr


def test_a_sleeper_on_a_futex_is_rung_on_the_ringers_own_page(ring: HandMade) -> None:
    ring.put(WAKE, lib.LR_WAKE_FUTEX << 24, 4)
    for epoch, rung in ((1, 1), (1, 1), (3, 2)):
        ring.put(EPOCH, epoch)
        assert ring.send() == 1
        assert int.from_bytes(ring.ours[BELL : BELL + 4], "little") == rung
    assert ring.rung() == 0


@pytest.fixture
def own_ring() -> Iterator[HandMade]:
    """Its peer is this process, with every signal in question pending at worst."""
    asked = {signal.SIGURG, signal.SIGUSR1, signal.SIGTERM, signal.SIGRTMIN + 2}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, asked)
    made = HandMade(os.getpid(), os.pidfd_open(os.getpid()))
    yield made
    made.close()
    for signo in signal.sigpending() & asked:
        signal.sigwait({signo})
    signal.pthread_sigmask(signal.SIG_SETMASK, before)


def ask(ring: HandMade, signo: int, tid: int, epoch: int = 1) -> bool:
    """Sleep as the peer and be woken; true if by the bell."""
    ring.put(WAKE, signo << 24 | tid, 4)
    ring.put(EPOCH, epoch)
    assert ring.send() == 1
    return bool(ring.rung())


@pytest.mark.parametrize("signo", [signal.SIGURG, signal.SIGUSR1, signal.SIGRTMIN + 2])
def test_a_thread_is_woken_by_the_signal_it_asks_for(own_ring: HandMade, signo: int) -> None:
    assert not ask(own_ring, signo, threading.get_native_id())
    assert signo in signal.sigpending()


@pytest.mark.parametrize("signo", [signal.SIGTERM, signal.SIGKILL, signal.SIGSTOP, 32, 33, 65, 254])
def test_no_other_signal_is_sent_whatever_the_peer_asks_for(own_ring: HandMade, signo: int) -> None:
    assert ask(own_ring, signo, threading.get_native_id())
    assert signo not in signal.sigpending()


def test_no_thread_of_another_process_is_signalled(own_ring: HandMade) -> None:
    with subprocess.Popen(["sleep", "1000"]) as other:
        assert ask(own_ring, signal.SIGUSR1, other.pid)
        other.kill()
    assert other.returncode == -signal.SIGKILL


def test_a_signal_that_finds_no_room_in_the_queue_rings_the_bell(own_ring: HandMade) -> None:
    """EAGAIN, for a real-time signal beyond RLIMIT_SIGPENDING."""
    before = resource.getrlimit(resource.RLIMIT_SIGPENDING)
    resource.setrlimit(resource.RLIMIT_SIGPENDING, (0, before[1]))
    try:
        assert ask(own_ring, signal.SIGRTMIN + 2, threading.get_native_id())
    finally:
        resource.setrlimit(resource.RLIMIT_SIGPENDING, before)
    assert not ask(own_ring, signal.SIGRTMIN + 2, threading.get_native_id(), epoch=3)


def test_a_dead_peers_pid_gets_no_signal_that_could_end_its_next_owner() -> None:
    dead = subprocess.Popen(["true"])
    pidfd = os.pidfd_open(dead.pid)
    dead.wait()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    ring = HandMade(os.getpid(), pidfd)  # as if this process had got the dead one's pid
    assert ask(ring, signal.SIGUSR1, threading.get_native_id())
    assert signal.SIGUSR1 not in signal.sigpending()
    ring.close()
    signal.pthread_sigmask(signal.SIG_SETMASK, before)


@pytest.mark.parametrize(
    ("data", "tail"),
    [
        (header(0), 8),
        (header(8), 16),
        (header(0), 20),
        (header(0), SIZE + 8),
        (header(0), 1 << 63),
        (header(lib.LR_MAX_FRAME), 24),
        (header(0xFFFFFFFF), SIZE),
        (header(SIZE), SIZE),
    ],
    ids=[
        "half-a-header",
        "beyond-tail",
        "unaligned",
        "overfull",
        "far-away",
        "too-long",
        "longest",
        "larger-than-the-ring",
    ],
)
def test_a_false_frame_length_ends_the_connection(ring: HandMade, data: bytes, tail: int) -> None:
    ring.write(data, tail)
    assert ring.receive() == lib.LR_PROTOCOL


def test_a_tail_that_goes_back_ends_the_connection(ring: HandMade) -> None:
    ring.write(header(0) * 4)
    assert ring.receive() == 1
    assert ring.receive() == 1
    ring.put(TAIL, 16)
    assert ring.receive() == lib.LR_PROTOCOL


@pytest.mark.parametrize("head", [1 << 62, 1 << 17, (1 << 64) - 8])
def test_a_head_that_was_never_reached_ends_the_connection(ring: HandMade, head: int) -> None:
    ring.put(HEAD, head)
    # Check once the ring, of two frames less a header, seems full.
    assert ring.send(65536) == 1
    assert ring.send(65536) == lib.LR_CLOSED


@settings(
    max_examples=200,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(page=st.binary(min_size=160, max_size=160), data=st.binary(max_size=200))
def test_any_memory_gives_a_frame_nothing_or_an_error(page: bytes, data: bytes) -> None:
    made = HandMade()
    try:
        made.memory[:160] = page
        made.memory[CONTROL_PAGE : CONTROL_PAGE + len(data)] = data
        for _ in range(4):
            assert made.receive() in (1, lib.LR_TIMEOUT, lib.LR_PROTOCOL)
            assert made.send(4096) in (0, 1, lib.LR_CLOSED)
    finally:
        made.close()


@given(tail=st.integers(0, SIZE // 8).map(lambda n: n * 8), data=st.binary(max_size=400))
@settings(max_examples=200)
def test_any_ring_content_gives_frames_or_an_error(tail: int, data: bytes) -> None:
    made = HandMade()
    try:
        made.write(data, tail)
        while (result := made.receive()) == 1:
            assert made.io.raw.size <= lib.LR_MAX_FRAME
        assert result in (lib.LR_TIMEOUT, lib.LR_PROTOCOL, lib.LR_TOO_LARGE)
    finally:
        made.close()
