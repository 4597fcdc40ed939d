"""Which workers there should be, without processes and with a clock of the test's own."""

from __future__ import annotations

import random

import pytest

from localrpc.workers.fleet import (
    BOOT_FAILED,
    Action,
    Drain,
    Dump,
    Exit,
    Fleet,
    Kill,
    Load,
    Say,
    Start,
    Unload,
)


class Drill:
    """A fleet whose orders are carried out when the test says so."""

    def __init__(self, wanted: int, **named: float) -> None:
        self.now = 1000.0
        self.fleet = Fleet(
            wanted,
            named.get("grace", 30.0),
            named.get("boot_timeout", 60.0),
            watchdog=named.get("watchdog", 0.0),
            preloads=bool(named.get("preloads")),
        )
        self.alive: set[int] = set()
        self.draining: set[int] = set()
        self.preloaders: set[int] = set()
        self.said: list[str] = []
        self.exit: int | None = None

    def decide(self) -> list[Action]:
        actions = self.fleet.decide(self.now)
        for action in actions:
            if isinstance(action, Start):
                assert action.number not in self.alive
                assert action.preloader in (self.preloaders or {0})
                self.alive.add(action.number)
            elif isinstance(action, Load):
                assert action.number not in self.preloaders
                self.preloaders.add(action.number)
            elif isinstance(action, Unload):
                assert action.number in self.preloaders
            elif isinstance(action, Drain):
                assert action.number in self.alive
                self.draining.add(action.number)
            elif isinstance(action, Kill | Dump):
                assert action.number in self.alive
            elif isinstance(action, Say):
                self.said.append(action.text)
            elif isinstance(action, Exit):
                self.exit = action.code
        return [action for action in actions if not isinstance(action, Say)]

    def ready(self, *numbers: int) -> None:
        for number in numbers:
            self.fleet.ready(number, self.now)

    def ended(self, number: int, how: str = "ended with exit code 1") -> None:
        self.alive.remove(number)
        self.draining.discard(number)
        self.fleet.ended(number, how, self.now)

    def preloader_ended(self, number: int, how: str = "was killed by SIGKILL") -> None:
        self.preloaders.remove(number)
        self.fleet.preloader_ended(number, how, self.now)

    def cannot_load(self, number: int) -> None:
        self.fleet.cannot_load(number)
        self.preloader_ended(number, "ended with exit code 1")

    def serving(self) -> Drill:
        self.decide()
        for number in self.preloaders:
            self.fleet.loaded(number)
            self.decide()
        self.ready(*self.alive)
        assert self.decide() == []
        return self


def starts(actions: list[Action]) -> list[int]:
    return [action.number for action in actions if isinstance(action, Start)]


def test_all_are_started_at_once_and_ended_together() -> None:
    drill = Drill(3)
    assert drill.decide() == [Start(1), Start(2), Start(3)]
    drill.ready(1, 2)
    assert drill.decide() == []
    assert not drill.fleet.settled
    drill.ready(3)
    assert drill.fleet.settled
    assert drill.fleet.next_time(drill.now) is None
    drill.fleet.stop()
    assert drill.decide() == [Drain(1), Drain(2), Drain(3)]
    for number in (1, 2, 3):
        assert drill.exit is None
        drill.ended(number)
        drill.decide()
    assert drill.exit == 0
    assert drill.said == []


def test_a_first_worker_that_cannot_start_ends_all() -> None:
    drill = Drill(2)
    drill.decide()
    drill.ready(1)
    drill.fleet.cannot_start(2)
    drill.ended(2)
    assert drill.decide() == [Drain(1)]
    assert drill.said == ["worker 2 ended with exit code 1 before it was ready"]
    drill.ended(1)
    assert drill.decide() == [Exit(BOOT_FAILED)]


def test_workers_that_end_together_are_one_failure() -> None:
    drill = Drill(4).serving()
    for pause in (0.0, 0.2, 0.4):
        for number in sorted(drill.alive):
            drill.ended(number, "was killed by SIGKILL")
        drill.decide()
        drill.now += pause - 0.01
        assert bool(drill.decide() or drill.alive) == (pause == 0)
        drill.now += 0.01
        drill.decide()
        assert drill.alive
        while len(drill.alive) < 4:  # one by one, once they keep failing
            drill.ready(*drill.alive)
            drill.decide()
        drill.ready(*drill.alive)


def test_a_worker_is_replaced_at_once_and_later_if_it_keeps_failing() -> None:
    drill = Drill(2).serving()
    pauses = []
    for _ in range(9):
        drill.ended(1, "was killed by SIGKILL")
        drill.decide()
        pause = drill.fleet.next_time(drill.now) if 1 not in drill.alive else 0.0
        assert pause is not None
        pauses.append(pause)
        drill.now += pause
        drill.decide()
        assert 1 in drill.alive
        drill.ready(1)
    assert pauses == pytest.approx([0, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10, 10])
    assert drill.said[0] == "worker 1 was killed by SIGKILL; another is started"
    assert drill.said[1] == "worker 1 was killed by SIGKILL; another is started in 0.2 s"
    drill.now += 11  # it has settled
    drill.ended(1)
    assert starts(drill.decide()) == [1]


def test_a_crash_loop_starts_one_worker_at_a_time() -> None:
    drill = Drill(4).serving()
    for _ in range(2):
        for number in (1, 2, 3, 4):
            drill.ended(number)
        drill.now += 1
        begun = starts(drill.decide())
        drill.ready(*begun)
    (only,) = begun
    drill.ended(only)
    drill.now += 1
    assert len(starts(drill.decide())) == 1
    drill.now += 30
    assert starts(drill.decide()) == []
    drill.ready(*drill.alive)
    assert len(starts(drill.decide())) == 1


@pytest.mark.parametrize("wanted", [1, 2, 5])
def test_a_reload_keeps_as_many_ready_as_are_wanted(wanted: int) -> None:
    drill = Drill(wanted).serving()
    before = set(drill.alive)
    drill.fleet.reload()
    actions = drill.decide()
    while before:
        (new,) = starts(actions)
        assert len(drill.alive - drill.draining) == wanted + 1
        assert drill.decide() == []  # no other before this one is ready
        drill.ready(new)
        actions = drill.decide()
        (drained,) = [action.number for action in actions if isinstance(action, Drain)]
        before.remove(drained)
    assert starts(actions) == []
    assert drill.fleet.settled
    for number in list(drill.draining):
        drill.ended(number, "ended with exit code 0")
    assert drill.decide() == []
    assert drill.said == []


def test_a_replacement_that_fails_stops_the_reload() -> None:
    drill = Drill(3).serving()
    drill.fleet.reload()
    (first,) = starts(drill.decide())
    drill.ready(first)
    (drained, second) = drill.decide()
    assert isinstance(drained, Drain)
    assert isinstance(second, Start)
    drill.ended(drained.number, "ended with exit code 0")
    drill.fleet.cannot_start(second.number)
    drill.ended(second.number)
    assert drill.decide() == []
    assert drill.said == [
        f"worker {second.number} ended with exit code 1 before it was ready:"
        " the replacing stops, and the other workers serve on"
    ]
    assert drill.fleet.settled
    drill.fleet.reload()
    assert len(starts(drill.decide())) == 1


def test_a_reload_during_a_reload_replaces_the_new_ones_too() -> None:
    drill = Drill(2).serving()
    drill.fleet.reload()
    (first,) = starts(drill.decide())
    drill.fleet.reload()
    assert drill.decide() == []
    drill.ready(first)
    for _ in range(9):
        for number in starts(drill.decide()):
            drill.ready(number)
    assert drill.fleet.settled
    assert {drill.fleet.members[n].generation for n in drill.alive - drill.draining} == {2}


def test_workers_that_are_spent_are_replaced_one_after_another() -> None:
    drill = Drill(3).serving()
    for number in (1, 2):
        drill.fleet.spent(number, "it uses too much memory")
        drill.fleet.spent(number, "it uses too much memory")
    assert drill.decide() == [Start(4)]
    assert drill.said == [f"worker {n} is replaced: it uses too much memory" for n in (1, 2)]
    drill.ready(4)
    assert drill.decide() == [Drain(2), Start(5)]
    drill.ready(5)
    assert drill.decide() == [Drain(1)]
    assert drill.fleet.settled


def test_a_replacement_that_keeps_failing_is_tried_after_longer_and_longer_pauses() -> None:
    drill = Drill(1).serving()
    tried = 0
    for _ in range(60):  # seconds
        drill.fleet.spent(1, "it uses too much memory")
        for number in starts(drill.decide()):
            tried += 1
            drill.fleet.cannot_start(number)
            drill.ended(number)
        drill.now += 1
    assert 5 < tried < 20
    assert drill.alive == {1}


def test_who_is_still_starting_is_not_waited_for() -> None:
    drill = Drill(2)
    drill.decide()
    drill.ready(1)
    drill.fleet.stop()
    assert drill.decide() == [Drain(1), Kill(2, "it was still starting", False)]
    drill.ended(1)
    drill.ended(2, "was killed by SIGKILL")
    assert drill.decide() == [Exit(0)]


def test_calls_of_a_worker_that_is_not_ready_yet_have_the_grace() -> None:
    drill = Drill(2, grace=2.0)
    drill.decide()
    drill.fleet.opens(2)
    drill.fleet.stop()
    assert drill.decide() == [Kill(1, "it was still starting", False), Drain(2)]
    drill.ended(1, "was killed by SIGKILL")
    assert drill.fleet.next_time(drill.now) == 7.0
    drill.ready(2)  # too late
    assert drill.decide() == []
    drill.ended(2, "ended with exit code 0")
    assert drill.decide() == [Exit(0)]


def test_a_patient_fleet_waits_for_a_change() -> None:
    drill = Drill(1)
    drill.fleet.patient = True
    drill.decide()
    drill.fleet.cannot_start(1)
    drill.ended(1)
    assert drill.decide() == []
    assert drill.said == [
        "worker 1 ended with exit code 1 before it was ready; waiting for a change"
    ]
    assert drill.fleet.next_time(drill.now) is None
    drill.fleet.reload()
    assert drill.decide() == [Start(1)]
    drill.ready(1)
    assert drill.fleet.settled


def test_a_change_while_a_first_worker_starts_is_tried_once_that_has_failed() -> None:
    drill = Drill(2)
    drill.fleet.patient = True
    drill.decide()
    drill.fleet.cannot_start(1)
    drill.ended(1)
    assert drill.decide() == []
    drill.fleet.reload()
    assert drill.decide() == [Start(1)]
    drill.fleet.cannot_start(2)  # with the code of before the change
    drill.ended(2)
    assert drill.decide() == [Start(2)]
    assert "; what has changed meanwhile is tried" in drill.said[-1]
    drill.ready(1, 2)
    assert drill.fleet.settled


def test_workers_are_added_and_removed() -> None:
    drill = Drill(1).serving()
    drill.fleet.more()
    assert drill.decide() == [Start(2)]
    drill.ready(2)
    drill.fleet.fewer()
    assert drill.decide() == [Drain(2)]
    drill.fleet.fewer()
    assert drill.fleet.wanted == 1
    assert drill.decide() == []


def test_a_ready_worker_that_says_nothing_is_left_alone() -> None:
    """Kludex/uvicorn#2506: a worker that computes was taken for dead, and killed."""
    drill = Drill(1).serving()
    drill.now += 1e6
    assert drill.decide() == []
    assert drill.fleet.next_time(drill.now) is None


def beat(drill: Drill, seconds: int, *numbers: int) -> list[Action]:
    """Let time pass in which these workers report."""
    actions = []
    for _ in range(seconds):
        drill.now += 1
        for number in numbers:
            drill.fleet.runs(number, drill.now)
        actions += drill.decide()
    return actions


def test_a_watched_worker_that_no_longer_reports_is_killed_and_replaced() -> None:
    drill = Drill(2, watchdog=8.0).serving()
    assert drill.fleet.next_time(drill.now) is None  # none has reported yet
    assert beat(drill, 20, 1, 2) == []
    assert drill.fleet.next_time(drill.now) == 2.0
    assert beat(drill, 7, 2) == []
    assert beat(drill, 1, 2) == [Dump(1, "it has run no Python code for 8 s"), Start(3)]
    drill.ready(3)
    assert beat(drill, 1, 2, 3) == []
    assert beat(drill, 1, 2, 3) == [Kill(1, "it has not written its tracebacks and ended")]
    drill.ended(1, "was killed by SIGKILL")
    assert beat(drill, 20, 2, 3) == []
    assert drill.said == []
    assert drill.fleet.settled


def test_a_worker_that_has_never_reported_is_not_watched() -> None:
    """As one of a supervisor without a watchdog, which this one has replaced."""
    drill = Drill(1, watchdog=8.0).serving()
    assert beat(drill, 100) == []


def test_a_supervisor_that_was_stopped_itself_kills_no_worker() -> None:
    drill = Drill(2, watchdog=8.0).serving()
    assert beat(drill, 3, 1, 2) == []
    drill.now += 3600
    assert drill.decide() == []
    assert beat(drill, 7, 1) == []
    assert [type(action) for action in beat(drill, 1, 1)] == [Dump, Start]


def test_a_worker_that_ends_is_not_watched() -> None:
    drill = Drill(1, watchdog=8.0, grace=60.0).serving()
    assert beat(drill, 1, 1) == []
    drill.fleet.stop()
    assert drill.decide() == [Drain(1)]
    assert beat(drill, 60) == []


def test_a_worker_that_leaves_by_itself_is_replaced_at_once() -> None:
    drill = Drill(2).serving()
    drill.fleet.leaving(1, drill.now)
    assert drill.decide() == [Start(3)]
    drill.ended(1, "ended with exit code 0")
    assert drill.decide() == []
    assert drill.said == []


def test_who_does_not_end_or_start_in_time_is_killed() -> None:
    drill = Drill(1, grace=2.0, boot_timeout=3.0).serving()
    drill.fleet.reload()
    assert drill.decide() == [Start(2)]
    assert drill.fleet.next_time(drill.now) == 3.0
    drill.now += 3
    assert drill.decide() == [Kill(2, "it was not ready within 3 s")]
    drill.ended(2, "was killed by SIGKILL")
    assert drill.decide() == []
    assert "the replacing stops" in drill.said[0]
    drill.fleet.stop()
    assert drill.decide() == [Drain(1)]
    assert drill.fleet.next_time(drill.now) == 7.0
    drill.now += 7
    assert drill.decide() == [Kill(1, "it did not end within 7 s")]
    assert drill.fleet.next_time(drill.now) is None
    drill.ended(1, "was killed by SIGKILL")
    assert drill.decide() == [Exit(0)]


def test_stopping_at_once_waits_for_the_processes_alone() -> None:
    drill = Drill(2).serving()
    drill.fleet.stop()
    drill.decide()
    drill.fleet.stop_at_once(143)
    assert drill.decide() == []
    drill.ended(1)
    drill.ended(2)
    assert drill.decide() == [Exit(143)]


def test_a_worker_of_another_supervisor_is_replaced() -> None:
    drill = Drill(1)
    drill.alive.add(1)
    drill.fleet.adopt(1, "ready", drill.now)
    drill.fleet.served = True
    drill.fleet.reload()
    assert drill.decide() == [Start(2)]
    drill.fleet.cannot_start(2)
    drill.ended(2)
    assert drill.decide() == []  # it has served: no boot has failed


# ---- preloaders ----


def preloading(wanted: int, **named: float) -> Drill:
    return Drill(wanted, preloads=True, **named)


def test_workers_are_started_once_the_application_is_loaded() -> None:
    drill = preloading(2)
    assert drill.decide() == [Load(1)]
    assert drill.decide() == []
    assert drill.fleet.next_time(drill.now) == 60.0  # it may take so long
    drill.fleet.loaded(1)
    assert drill.decide() == [Start(1, 1), Start(2, 1)]
    drill.ready(1, 2)
    assert drill.fleet.settled
    drill.ended(2, "was killed by SIGKILL")
    assert drill.decide() == [Start(2, 1)]
    drill.fleet.more()
    drill.ready(2)
    assert drill.decide() == [Start(3, 1)]


def test_a_stop_ends_the_preloader_and_waits_for_that() -> None:
    drill = preloading(1).serving()
    drill.fleet.stop()
    assert drill.decide() == [Drain(1), Unload(1)]
    drill.ended(1, "ended with exit code 0")
    assert drill.decide() == []
    drill.preloader_ended(1)
    assert drill.decide() == [Exit(0)]
    assert drill.said == []


def test_an_application_that_cannot_be_loaded_ends_all() -> None:
    drill = preloading(2)
    drill.decide()
    drill.cannot_load(1)
    assert drill.decide() == [Exit(BOOT_FAILED)]
    assert drill.said == [
        "the preloader ended with exit code 1 before it had loaded the application"
    ]


def test_a_patient_fleet_loads_what_has_changed() -> None:
    drill = preloading(1)
    drill.fleet.patient = True
    drill.decide()
    drill.cannot_load(1)
    assert drill.decide() == []
    assert drill.said[-1].endswith("waiting for a change")
    assert drill.fleet.next_time(drill.now) is None
    drill.fleet.reload()
    assert drill.decide() == [Load(2)]
    drill.fleet.loaded(2)
    assert drill.decide() == [Start(1, 2)]


def test_loading_may_take_as_long_as_starting() -> None:
    drill = preloading(1, boot_timeout=3.0)
    drill.decide()
    drill.now += 3
    assert drill.decide() == [Unload(1, "it had not loaded the application within 3 s")]
    drill.preloader_ended(1)
    assert drill.decide() == [Exit(BOOT_FAILED)]


def test_a_reload_loads_new_code_and_ends_the_old_preloader_once_that_has_served() -> None:
    drill = preloading(2).serving()
    drill.fleet.reload()
    assert drill.decide() == [Load(2)]
    assert not drill.fleet.settled
    drill.fleet.loaded(2)
    assert drill.decide() == [Start(3, 2)]
    drill.ready(3)
    assert drill.decide() == [Drain(2), Start(4, 2), Unload(1)]
    drill.preloader_ended(1)
    drill.ready(4)
    assert drill.decide() == [Drain(1)]
    assert drill.fleet.settled
    assert drill.decide() == []
    assert drill.said == []


@pytest.mark.parametrize("when", ["loading", "starting"])
def test_new_code_that_fails_leaves_the_old_code_for_later_workers_too(when: str) -> None:
    drill = preloading(2).serving()
    drill.fleet.reload()
    drill.decide()
    if when == "loading":
        drill.cannot_load(2)
        assert drill.decide() == []
    else:
        drill.fleet.loaded(2)
        assert drill.decide() == [Start(3, 2)]
        drill.fleet.cannot_start(3)
        drill.ended(3)
        assert drill.decide() == [Unload(2)]
        drill.preloader_ended(2)
    assert "the replacing stops, and the other workers serve on" in drill.said[-1]
    assert drill.fleet.settled
    drill.now += 20
    drill.ended(1, "was killed by SIGKILL")
    assert drill.decide() == [Start(1, 1)]
    drill.ready(1)
    drill.fleet.reload()
    assert drill.decide() == [Load(3)]


def test_code_that_has_served_once_stays_when_a_later_worker_fails() -> None:
    drill = preloading(2).serving()
    drill.fleet.reload()
    drill.decide()
    drill.fleet.loaded(2)
    drill.decide()
    drill.ready(3)
    assert drill.decide() == [Drain(2), Start(4, 2), Unload(1)]
    drill.preloader_ended(1)
    drill.fleet.cannot_start(4)
    drill.ended(4)
    assert drill.decide() == []
    assert drill.fleet.settled
    drill.now += 20
    drill.ended(1, "was killed by SIGKILL")
    assert drill.decide() == [Start(1, 2)]


def test_a_preloader_that_is_killed_is_replaced_when_a_worker_is_needed() -> None:
    drill = preloading(1).serving()
    drill.preloader_ended(1)
    assert drill.decide() == []
    assert drill.fleet.settled
    assert drill.said == [
        "the preloader was killed by SIGKILL; another is started for the next worker"
    ]
    drill.ended(1, "was killed by SIGKILL")
    assert drill.decide() == [Load(2)]
    drill.fleet.loaded(2)
    assert drill.decide() == [Start(1, 2)]


def test_a_preloader_that_keeps_failing_is_tried_after_longer_and_longer_pauses() -> None:
    drill = preloading(1).serving()
    drill.preloader_ended(1)
    drill.ended(1, "was killed by SIGKILL")
    pauses = []
    for number in range(2, 8):
        assert drill.decide() == [Load(number)]
        if number % 2:  # before it has forked a worker
            drill.fleet.loaded(number)
            drill.preloader_ended(number)
        else:
            drill.cannot_load(number)
        drill.decide()
        pauses.append(drill.fleet.next_time(drill.now))
        drill.now += pauses[-1] or 0.0
    assert pauses == pytest.approx([0.2, 0.4, 0.8, 1.6, 3.2, 6.4])


def test_a_change_during_a_load_makes_that_needless() -> None:
    drill = preloading(1).serving()
    drill.fleet.reload()
    assert drill.decide() == [Load(2)]
    drill.fleet.reload()
    assert drill.decide() == [Load(3), Unload(2)]
    drill.preloader_ended(2)
    drill.fleet.loaded(3)
    assert drill.decide() == [Start(2, 3)]
    drill.ready(2)
    assert drill.decide() == [Drain(1), Unload(1)]
    assert drill.said == []


def test_a_preloader_that_is_forking_is_not_ended() -> None:
    drill = preloading(2)
    drill.decide()
    drill.fleet.loaded(1)
    drill.decide()
    drill.fleet.reload()
    assert drill.decide() == []
    drill.ready(1)
    assert drill.decide() == []
    drill.ready(2)
    assert drill.decide() == [Load(2)]


def test_stopping_at_once_waits_for_preloaders_too() -> None:
    drill = preloading(1).serving()
    drill.fleet.stop_at_once(130)
    drill.ended(1)
    assert drill.decide() == []
    drill.preloader_ended(1)
    assert drill.decide() == [Exit(130)]


@pytest.mark.parametrize("preloads", [False, True])
@pytest.mark.parametrize("seed", range(200))
def test_whatever_happens_the_wanted_number_serves_in_the_end(seed: int, preloads: bool) -> None:
    """And before: a worker is drained only if enough others are ready, or it stops."""
    dice = random.Random(seed)
    drill = Drill(dice.randint(1, 4), grace=5.0, boot_timeout=5.0, preloads=preloads).serving()
    events = ["ready", "ended", "fail", "leave", "reload", "more", "fewer", "wait"]
    events += ["loaded", "cannot load", "preloader ended"] if preloads else []
    for _ in range(dice.randint(1, 60)):
        event = dice.choice(events)
        loading = [n for n, p in drill.fleet.preloaders.items() if p.stage.value == "starting"]
        starting = [n for n in drill.alive if drill.fleet.members[n].stage.value == "starting"]
        if event == "ready" and starting:
            drill.ready(dice.choice(starting))
        elif event == "ended" and drill.alive:
            drill.ended(dice.choice(sorted(drill.alive)))
        elif event == "fail" and starting:
            number = dice.choice(starting)
            drill.fleet.cannot_start(number)
            drill.ended(number)
        elif event == "leave" and drill.alive:
            drill.fleet.leaving(dice.choice(sorted(drill.alive)), drill.now)
        elif event == "reload":
            drill.fleet.reload()
        elif event == "more" and drill.fleet.wanted < 6:
            drill.fleet.more()
        elif event == "fewer":
            drill.fleet.fewer()
        elif event == "loaded" and loading:
            drill.fleet.loaded(dice.choice(loading))
        elif event == "cannot load" and loading:
            drill.cannot_load(dice.choice(loading))
        elif event == "preloader ended" and drill.preloaders:
            drill.preloader_ended(dice.choice(sorted(drill.preloaders)))
        elif event == "wait":
            drill.now += dice.choice([0.1, 1.0, 20.0])
        ready = {n for n, m in drill.fleet.members.items() if m.stage.value == "ready"}
        for action in drill.decide():
            if isinstance(action, Drain):
                ready.discard(action.number)
                assert len(ready) >= drill.fleet.wanted
        assert len(drill.alive - drill.draining) <= 2 * drill.fleet.wanted + 6
        present = [p for p in drill.fleet.preloaders.values() if p.stage.value != "killed"]
        forking = {m.preloader for m in drill.fleet.members.values() if m.stage.value == "starting"}
        assert len([p for p in present if p.number not in forking]) <= 2
    for _ in range(200):
        for number in list(drill.alive):
            stage = drill.fleet.members[number].stage.value
            if stage == "starting":
                drill.ready(number)
            elif stage != "ready":
                drill.ended(number, "ended with exit code 0")
        for number in list(drill.preloaders):
            stage = drill.fleet.preloaders[number].stage.value
            if stage == "starting":
                drill.fleet.loaded(number)
            elif stage == "killed":
                drill.preloader_ended(number)
        drill.decide()
        pause = drill.fleet.next_time(drill.now)
        if pause is None:
            break
        drill.now += pause
    assert drill.fleet.settled
    assert len(drill.alive) == drill.fleet.wanted
    assert drill.exit is None
    drill.fleet.stop()
    drill.decide()
    for number in list(drill.alive):
        drill.ended(number, "ended with exit code 0")
    for number in list(drill.preloaders):
        drill.preloader_ended(number)
    drill.decide()
    assert drill.exit == 0
