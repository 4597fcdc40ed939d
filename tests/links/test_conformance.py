"""The behaviour of every link, of any kind.

Invariant: frames come out in the order and with the content they went in, once
each, and nothing else comes out; then the end, once the sender is gone.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from localrpc._core import lib

from .kinds import KINDS, PATIENCE, TWO_PROCESSES, End, Frame, child, pair

MESSAGE, DATA, STATUS = lib.LR_T_MESSAGE, lib.LR_T_DATA, lib.LR_T_STATUS


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def ends(kind: str, tmp_path: Path) -> Iterator[tuple[End, End]]:
    with pair(KINDS[kind], tmp_path) as both:
        yield both


@pytest.fixture(params=TWO_PROCESSES)
def two_process_kind(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


def frame(number: int, size: int = 64) -> Frame:
    return Frame(MESSAGE, 1, number, number.to_bytes(8, "little") * (size // 8))


def test_a_frame_arrives_whole(ends: tuple[End, End]) -> None:
    for sender, receiver in (ends, ends[::-1]):
        sent = Frame(STATUS, 5, (7 << 32) | 3, b"payload")
        assert sender.try_send(sent) == 1
        receiver.expect(sent)


@pytest.mark.parametrize("size", [0, 1, 7, 8, 9, 4095, 4096, 32768, 65535, 65536])
def test_every_length_arrives_whole(ends: tuple[End, End], size: int) -> None:
    client, server = ends
    for number in range(5):
        for sent in (
            Frame(MESSAGE, 1, number, os.urandom(size)),
            Frame(DATA, 0, number, os.urandom(size)),
        ):
            assert client.try_send(sent) == 1
            server.expect(sent)


def test_a_full_link_takes_no_more_and_loses_nothing(ends: tuple[End, End]) -> None:
    client, server = ends
    sent: deque[Frame] = deque()
    while client.try_send(next_frame := frame(len(sent), 4096)):
        sent.append(next_frame)
    assert sum(len(queued.payload) for queued in sent) < 64 << 20
    for more in range(len(sent), 2 * len(sent)):
        # Room for one more after some have been taken, and nothing out of order.
        while not client.try_send(frame(more, 4096)):
            server.expect(sent.popleft())
        sent.append(frame(more, 4096))
    _drain(client, server, sent)


def _drain(client: End, server: End, sent: deque[Frame]) -> None:
    """Receive all that was sent, and one more."""
    last = frame(1 << 40)
    while not client.try_send(last):
        server.expect(sent.popleft())
    for expected in (*sent, last):
        server.expect(expected)


def test_both_directions_at_once_are_independent(ends: tuple[End, End]) -> None:
    client, server = ends
    while client.try_send(frame(1, 32768)):
        pass
    for number in range(100):
        assert server.try_send(frame(number)) == 1
        client.expect(frame(number))


def test_a_waiting_reader_is_woken_each_time(ends: tuple[End, End]) -> None:
    client, server = ends
    rounds = 300

    def echo() -> None:
        for _ in range(rounds):
            got = server.receive(None)
            assert isinstance(got, Frame)
            assert server.try_send(got) == 1

    echoing = threading.Thread(target=echo)
    echoing.start()
    for number in range(rounds):
        assert client.try_send(frame(number)) == 1
        client.expect(frame(number))
        if number % 50 == 0:
            # A quiet moment, so that both sides really sleep.
            assert client.receive(0.002) == lib.LR_TIMEOUT
    echoing.join()


def test_a_waiting_reader_uses_no_processor_time(ends: tuple[End, End]) -> None:
    client, server = ends
    # Once woken, it has no reason to wake again.
    assert client.receive(0.01) == lib.LR_TIMEOUT
    assert server.try_send(frame(1)) == 1
    client.expect(frame(1))
    before = time.thread_time()
    assert client.receive(0.3) == lib.LR_TIMEOUT
    assert time.thread_time() - before < 0.15


def test_a_wait_ends_at_its_deadline(ends: tuple[End, End]) -> None:
    client, _ = ends
    begun = time.monotonic()
    assert client.receive(0.02) == lib.LR_TIMEOUT
    assert 0.02 <= time.monotonic() - begun < 5


_SIZES = st.one_of(st.integers(0, 200), st.sampled_from([4096, 32768, 65536]))
_STEPS = st.lists(st.tuples(st.integers(0, 1), st.one_of(st.none(), _SIZES)), max_size=30)


# The steps are drawn before the first is taken: the ends are shared by all examples.
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=_STEPS)
def test_any_mix_of_frames_comes_out_as_it_went_in(
    ends: tuple[End, End], steps: list[tuple[int, int | None]]
) -> None:
    queues: tuple[deque[Frame], deque[Frame]] = (deque(), deque())
    for number, (side, size) in enumerate(steps):
        sender, receiver, queue = ends[side], ends[1 - side], queues[side]
        if size is not None:
            sent = Frame(MESSAGE, 1, number, bytes([number]) * size)
            while not sender.try_send(sent):
                receiver.expect(queue.popleft())
            queue.append(sent)
        elif queue:
            receiver.expect(queue.popleft())
    for side in (0, 1):
        _drain(ends[side], ends[1 - side], queues[side])


# ---- the end ----


def test_what_was_sent_before_the_end_comes_first(ends: tuple[End, End]) -> None:
    client, server = ends
    for number in range(20):
        assert client.try_send(frame(number)) == 1
    for number in range(20):
        if not client.closed and client.flush():
            client.close()
        server.expect(frame(number))
    assert server.receive() == lib.LR_CLOSED
    assert server.receive() == lib.LR_CLOSED


HOLDING_BACK = ("mq", "sysvmq")


@pytest.mark.parametrize("kind", HOLDING_BACK)
def test_a_rest_is_sent_after_the_end_to_a_side_that_reads(kind: str, tmp_path: Path) -> None:
    """Not to one that pauses: what has come is a beginning, and with some attempt it is all."""

    def attempt() -> int:
        with pair(KINDS[kind], tmp_path) as (client, server):
            for number in range(20):
                assert client.try_send(frame(number)) == 1
            closing = threading.Thread(target=client.close)
            closing.start()
            taken = 0
            while (got := server.receive()) != lib.LR_CLOSED:
                assert got == frame(taken)
                taken += 1
            closing.join()
            return taken

    assert any(attempt() == 20 for _ in range(10))


def test_a_call_that_comes_after_the_end_can_be_made_elsewhere(ends: tuple[End, End]) -> None:
    client, server = ends
    server.hang_up()
    server.receive(0)  # as a thread of the server may that does not know of the end yet
    # The link refuses the call, or knows that the peer has not read it.
    if client.try_send(Frame(lib.LR_T_OPEN, 0, 1, bytes(64))) == 1:
        assert client.receive() == lib.LR_CLOSED
        assert client.unseen()


def test_a_call_that_the_peer_has_read_is_not_made_again(ends: tuple[End, End]) -> None:
    client, server = ends
    call = Frame(lib.LR_T_OPEN, 0, 1, bytes(64))
    assert client.try_send(call) == 1
    assert server.receive() == call
    server.hang_up()
    assert client.receive() == lib.LR_CLOSED
    assert not client.unseen()


TELLS = [name for name in TWO_PROCESSES if KINDS[name].wakeup not in ("socket", "inotify", "poll")]
"""The kinds that tell what a dead peer has left unread; a socket's kernel discards it."""


@pytest.mark.parametrize("kind", TELLS)
def test_a_call_that_a_dead_peer_has_left_is_made_again(kind: str, tmp_path: Path) -> None:
    with child(kind, tmp_path, "sys.stdin.read()") as (process, end):
        assert end.try_send(Frame(lib.LR_T_OPEN, 0, 1, bytes(64))) == 1
        process.kill()
        assert end.receive() == lib.LR_CLOSED
        assert end.unseen()


def test_a_waiting_reader_sees_the_end(ends: tuple[End, End]) -> None:
    client, server = ends
    result: list[Frame | int] = []
    waiting = threading.Thread(target=lambda: result.append(server.receive(None)))
    waiting.start()
    client.close()
    waiting.join(PATIENCE)
    assert result == [lib.LR_CLOSED]


KILLED = """
sent = 0
while sent < 50 and end.try_send(Frame(4, 1, sent, b"x" * 100)) == 1 and end.flush():
    sent += 1
print(sent, flush=True)
sys.stdin.read()
"""


def test_a_killed_peers_last_frames_come_first(two_process_kind: str, tmp_path: Path) -> None:
    with child(two_process_kind, tmp_path, KILLED) as (process, end):
        assert process.stdout is not None
        sent = int(process.stdout.readline())
        assert sent > 1
        process.kill()
        for number in range(sent):
            end.expect(Frame(MESSAGE, 1, number, b"x" * 100))
        assert end.receive() == lib.LR_CLOSED


FORKED = """
import os
if os.fork() == 0:
    import time
    print(os.getpid(), flush=True)
    time.sleep(60)
sys.stdin.read()
"""


def test_a_killed_peers_child_does_not_hide_its_death(
    two_process_kind: str, tmp_path: Path
) -> None:
    with child(two_process_kind, tmp_path, FORKED) as (process, end):
        assert process.stdout is not None
        heir = int(process.stdout.readline())
        try:
            process.kill()
            begun = time.monotonic()
            assert end.receive() == lib.LR_CLOSED
            assert time.monotonic() - begun < 5
        finally:
            os.kill(heir, 9)


STOPPED = """
import os, signal
os.kill(os.getpid(), signal.SIGSTOP)
assert end.try_send(Frame(4, 1, 9, b"late")) == 1
sys.stdin.read()
"""


def test_a_stopped_peer_is_late_and_not_dead(two_process_kind: str, tmp_path: Path) -> None:
    with child(two_process_kind, tmp_path, STOPPED) as (process, end):
        assert os.WIFSTOPPED(os.waitpid(process.pid, os.WUNTRACED)[1])
        assert end.receive(0.02) == lib.LR_TIMEOUT
        os.kill(process.pid, 18)  # SIGCONT
        end.expect(Frame(MESSAGE, 1, 9, b"late"))


def test_sending_to_a_dead_peer_eventually_fails(ends: tuple[End, End]) -> None:
    client, server = ends
    server.close()
    until = time.monotonic() + PATIENCE
    while client.try_send(frame(1, 4096)) == 1:
        assert time.monotonic() < until
    assert client.receive() == lib.LR_CLOSED
