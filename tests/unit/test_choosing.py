"""Which connection of a group gets a call, with a clock of the test's own."""

from __future__ import annotations

import pytest

from localrpc.calls.choosing import _TRIED_AFTER, Chooser, Load

MS = 1_000_000


class Workers:
    """Workers that each make one call at a time, of a length of their own."""

    def __init__(self, *lengths: int) -> None:
        self.now = 10_000 * MS
        self.loads = [Load() for _ in lengths]
        self.lengths = lengths
        self.ends: list[list[int]] = [[] for _ in lengths]
        self.chooser = Chooser()

    def call(self) -> tuple[int, bool]:
        position, busy = self.chooser.for_call(self.loads, self.now)
        self.loads[position].calls.append(None)
        begin = max([self.now, *self.ends[position]])
        self.ends[position].append(begin + self.lengths[position])
        return position, busy

    def one_ends(self) -> None:
        """Go to the next moment at which a call ends."""
        self.now, position = min((min(ends), at) for at, ends in enumerate(self.ends) if ends)
        self.ends[position].remove(self.now)
        self.loads[position].calls.pop()
        self.loads[position].completed(self.now)


def test_an_idle_one_gets_a_call_and_the_first_of_several() -> None:
    workers = Workers(MS, MS, MS)
    assert [workers.call() for _ in range(3)] == [(0, False), (1, False), (2, False)]
    assert workers.call()[1]
    while any(workers.ends):
        workers.one_ends()
    assert workers.call() == (0, False)


@pytest.mark.parametrize("slow", [0, 1])
def test_a_slow_one_gets_fewer_calls(slow: int) -> None:
    lengths = [MS, MS]
    lengths[slow] = 10 * MS
    workers = Workers(*lengths)
    chosen = [0, 0]
    for _ in range(8):
        workers.call()
    for _ in range(1000):
        workers.one_ends()
        chosen[workers.call()[0]] += 1
    assert chosen[1 - slow] > 5 * chosen[slow] > 0
    # Neither waits much longer than the other.
    waits = [len(ends) * length for ends, length in zip(workers.ends, lengths, strict=True)]
    assert max(waits) <= 10 * MS + 3 * min(waits)


def test_one_that_does_not_answer_gets_no_calls_while_the_other_does() -> None:
    workers = Workers(MS, 3_600_000 * MS)
    for _ in range(2):
        workers.call()
    others = []
    for _ in range(1000):
        others.append(workers.call()[0])
        workers.one_ends()
    assert others.count(1) <= 2


def test_what_was_before_a_pause_does_not_count() -> None:
    workers = Workers(MS, MS)
    for load in workers.loads:
        load.calls.append(None)
    workers.loads[1].completed(workers.now)
    workers.now += 60_000 * MS
    workers.loads[0].completed(workers.now)
    assert workers.call()[1]
    chosen = {workers.call()[0] for _ in range(4)}
    assert chosen == {0, 1}


def test_streams_stay_with_the_one_that_has_fewest() -> None:
    loads = [Load(), Load(), Load()]
    chooser = Chooser()
    placed = []
    for _ in range(6):
        position, busy = chooser.for_stream(loads)
        loads[position].streams.append(None)
        placed.append((position, busy))
    assert placed == [(0, False), (1, False), (2, False), (0, True), (1, True), (2, True)]
    loads[0].calls.append(None)
    loads[1].calls.append(None)
    assert chooser.for_stream(loads)[0] == 2


def test_idle_streams_do_not_matter_to_calls() -> None:
    loads = [Load(), Load()]
    loads[0].streams += [None] * 30
    assert Chooser().for_call(loads, 1) == (0, False)


def test_calls_of_other_clients_count() -> None:
    now = 10_000 * MS
    mine, theirs = Load(shown=[0, 0, MS, now]), Load(shown=[1, 0, MS, now])
    assert Chooser().for_call([theirs, mine], now) == (1, False)
    mine.shown = [2, 0, MS, now]
    assert Chooser().for_call([theirs, mine], now) == (0, True)
    slow = Load(shown=[1, 0, 10 * MS, now])
    assert Chooser().for_call([slow, mine], now) == (1, True)
    stopped = Load(shown=[1, 0, MS, now - 1000 * MS])
    assert Chooser().for_call([stopped, slow], now) == (1, True)


def test_streams_of_other_clients_count() -> None:
    few, many = Load(shown=[9, 1, 0, 0]), Load(shown=[0, 2, 0, 0])
    assert Chooser().for_stream([many, few]) == (1, True)
    few.streams += [None, None]
    assert Chooser().for_stream([many, few]) == (0, True)


def choices(chooser: Chooser, loads: list[Load], begin: int, end: int) -> set[int]:
    return {chooser.for_call(loads, now)[0] for now in range(begin, end, 10 * MS)}


def test_one_that_shows_a_long_call_is_tried_because_it_may_only_wait() -> None:
    now = 10_000_000 * MS
    quick, waits = Load(shown=[2, 0, MS, 0]), Load(shown=[1, 0, 0, now - 3_600_000 * MS])
    chooser, loads = Chooser(), [quick, waits]
    assert choices(chooser, loads, now, now + _TRIED_AFTER) == {0}
    now += _TRIED_AFTER
    assert chooser.for_call(loads, now) == (1, True)
    waits.calls.append(None)
    assert choices(chooser, loads, now, now + 3 * _TRIED_AFTER) == {0}, "it has not answered"
    waits.calls.pop()
    waits.shown = [1, 0, MS, 0]
    assert chooser.for_call(loads, now) == (1, True), "it has: its age says nothing now"


def test_one_that_others_try_is_not_tried() -> None:
    now = 10_000_000 * MS
    quick, stuck = Load(shown=[2, 0, MS, 0]), Load(shown=[1, 0, 0, 1])
    chooser, loads = Chooser(), [quick, stuck]
    for calls in range(2, 6):
        stuck.shown = [calls, 0, 0, 1]
        assert choices(chooser, loads, now, now + _TRIED_AFTER) == {0}
        now += _TRIED_AFTER
    assert choices(chooser, loads, now, now + MS) == {1}


def test_one_that_does_not_answer_is_tried_less_and_less_often() -> None:
    begin = 10_000_000 * MS
    quick, stopped = Load(shown=[2, 0, MS, 0]), Load(shown=[1, 0, MS, 1])
    chooser, loads = Chooser(), [quick, stopped]
    tries = [
        now - begin
        for now in range(begin, begin + 100 * _TRIED_AFTER, 10 * MS)
        if chooser.for_call(loads, now)[0] == 1
    ]
    assert 5 <= len(tries) <= 7
    stopped.shown = [1, 0, 2 * MS, 1]
    now = begin + 100 * _TRIED_AFTER
    assert 1 in choices(chooser, loads, now, now + 3 * _TRIED_AFTER), "it has answered one"
