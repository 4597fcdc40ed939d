"""Interleaves the peers: one slice each, scenario by scenario, round after round."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from enum import Enum
from multiprocessing import Pipe
from pathlib import Path
from typing import Any

from .machine import Meter, SyscallCounter, Usage
from .peer import Peer
from .peers import find_peer
from .sample import Failure, Sample, Slice, Unsupported
from .scenarios import Scenario

# What a slice may take beyond its own time before its peer counts as stuck.
_PATIENCE = 20.0
# What a slice takes besides, in seconds: its first call, and the reading of figures.
_BESIDE = 0.02
# The longest slice for system calls to be counted in.
_COUNTED = 0.1
# Part of a slice that is spent before it.
WARM_UP = 0.2


BASELINE = "grpcio"
# Rounds in all, as a multiple of those that were asked for: disturbed ones are made again.
REPEATS = 2


class Placement(Enum):
    UNPINNED = "unpinned"
    ONE_CORE = "one-core"
    TWO_CORES = "two-cores"

    def cores(self) -> tuple[set[int], set[int]]:
        """The cores of server and client; ValueError if there are too few."""
        usable = sorted(os.sched_getaffinity(0))
        if self is Placement.UNPINNED:
            return set(usable), set(usable)
        if self is Placement.ONE_CORE:
            return {usable[-1]}, {usable[-1]}
        if len(usable) < 2:
            raise ValueError("two-cores needs two usable cores, and there is one")
        return {usable[-2]}, {usable[-1]}


@dataclass(frozen=True)
class Plan:
    """What to run. `budget` is seconds for all of it, start to end, or None.

    `services` are peers that find_peer() does not know, by name.
    """

    peers: tuple[str, ...]
    scenarios: tuple[Scenario, ...]
    rounds: int
    seconds: float
    placement: Placement = Placement.UNPINNED
    beside_busy: bool = False
    budget: float | None = None
    services: Mapping[str, Peer] = field(default_factory=dict)
    server_pid: int | None = None
    """Of a server that was running before."""
    baseline: str = BASELINE
    syscalls: bool = False

    @property
    def slices(self) -> int:
        return self.rounds * len(self.scenarios) * len(self.peers)

    def shortened(self, seconds: float) -> Plan:
        """This plan with slices so short that all rounds take about so many seconds."""
        each = seconds / self.slices / (1 + WARM_UP)
        return replace(self, seconds=min(self.seconds, max(0.02, each)))


@dataclass(frozen=True)
class Round:
    """One slice of each peer, back to back, with what the machine did in each."""

    samples: dict[str, Sample]
    usage: tuple[Usage, ...]

    @property
    def disturbed(self) -> bool:
        return any(usage.disturbed() for usage in self.usage)

    @property
    def others(self) -> float:
        """The largest part of the machine that others took in a slice, 0 to 1."""
        return max((usage.share for usage in self.usage), default=0.0)


@dataclass
class Results:
    """What was measured so far. `failures` has why, by peer and scenario (None: all).

    `unsupported` are peers that have nothing for a scenario to measure.
    """

    plan: Plan
    rounds: dict[str, list[Round]] = field(default_factory=dict)
    failures: dict[tuple[str, str | None], str] = field(default_factory=dict)
    unsupported: set[tuple[str, str]] = field(default_factory=set)
    syscalls: dict[tuple[str, str], float] = field(default_factory=dict)
    """For each call, both processes together, by peer and scenario."""
    seconds: float = 0.0
    interrupted: bool = False

    def clean(self, scenario: str) -> list[Round]:
        return [a for a in self.rounds.get(scenario, ()) if not a.disturbed]

    def kept(self, scenario: str) -> list[Round]:
        """The rounds that count: undisturbed ones, filled up with the least disturbed."""
        rounds = self.rounds.get(scenario, [])
        clean = self.clean(scenario)
        if len(clean) >= self.plan.rounds:
            return clean
        dirty = sorted((a for a in rounds if a.disturbed), key=lambda a: a.others)
        return clean + dirty[: self.plan.rounds - len(clean)]


class WorkerFailed(Exception):
    """The process is gone or does not answer; the text says what it left behind."""


class Worker:
    """A half of a peer in a process of its own, pinned to `cores`."""

    def __init__(self, role: str, peer: Peer, directory: Path, cores: set[int]) -> None:
        self._what = f"{peer.name}'s {role}"
        self._pipe, theirs = Pipe()
        self._errors = tempfile.TemporaryFile(mode="w+")  # noqa: SIM115 (closed with the worker)
        with theirs:
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-m", f"{__package__}.worker", role, peer.name),
                    *(str(directory), str(theirs.fileno()), ",".join(map(str, cores))),
                ],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=self._errors,
                stderr=self._errors,
                env={**os.environ, "LOCALRPC_RUNTIME_DIR": str(directory)},
                # Ctrl-C is for the runner, which then ends the others in order.
                start_new_session=True,
            )
        self.pid = self._process.pid
        self._pipe.send(peer)

    def ask(self, question: object, patience: float) -> Any:
        """Its answer, which may be a Failure; raises WorkerFailed."""
        try:
            self._pipe.send(question)
            return self.answer(patience)
        except OSError as error:
            raise WorkerFailed(f"{self._what} ended: {self._last_words()}") from error

    def answer(self, patience: float) -> Any:
        try:
            if self._pipe.poll(patience):
                return self._pipe.recv()
        except (EOFError, OSError) as error:
            raise WorkerFailed(f"{self._what} ended: {self._last_words()}") from error
        raise WorkerFailed(f"{self._what} gave no answer within {patience:.0f} s")

    def _last_words(self) -> str:
        try:
            code = self._process.wait(timeout=1)
        except subprocess.TimeoutExpired:
            return "its pipe is closed"
        self._errors.seek(0)
        lines = self._errors.read().strip().splitlines()
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        return f"{how}{': ' + lines[-1] if lines else ''}"

    def close(self) -> None:
        self._pipe.close()
        try:
            self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._errors.close()


@dataclass(frozen=True)
class Pair:
    """A peer's two running halves; a server that runs already is none of ours."""

    server: Worker | None
    client: Worker
    server_pid: int | None


@dataclass(frozen=True)
class Progress:
    """What is being done, and how many seconds are behind and, most likely, ahead."""

    what: str
    spent: float
    left: float

    @property
    def share(self) -> float:
        return self.spent / (self.spent + self.left) if self.left > 0 else 1.0


class Clock:
    """Reckons the time that is left.

    By what slices of the same scenario have taken, and by how many rounds of all
    were disturbed, which are made again.
    """

    def __init__(self, plan: Plan) -> None:
        self._begun = time.monotonic()
        self._plan = plan
        self._guess = (plan.seconds + warm_up(plan.seconds) + _BESIDE) * len(plan.peers)
        self._clean = {scenario.name: 0 for scenario in plan.scenarios}
        self._made = dict(self._clean)
        self._taken: dict[str, float] = {}

    @property
    def spent(self) -> float:
        return time.monotonic() - self._begun

    def note(self, scenario: str, seconds: float, *, disturbed: bool) -> None:
        """A round has taken so long."""
        self._taken[scenario] = seconds
        self._made[scenario] += 1
        self._clean[scenario] += not disturbed

    def cost(self, scenario: str) -> float:
        """Seconds that the next round of it takes."""
        return self._taken.get(scenario, self._guess)

    def _rounds(self, scenario: str) -> float:
        """How many more of it there are to be."""
        wanted = self._plan.rounds - self._clean[scenario]
        # As if a few had been clean before: one disturbed round says little.
        share = (sum(self._clean.values()) + 5) / (sum(self._made.values()) + 5)
        return min(wanted / share, REPEATS * self._plan.rounds - self._made[scenario])

    def progress(self, what: str, start: float = 0.0) -> Progress:
        """`start` is seconds that starting still takes."""
        left = sum(self._rounds(scenario) * self.cost(scenario) for scenario in self._clean)
        spent = self.spent
        if self._plan.budget is not None:
            left = min(left, max(0.0, self._plan.budget - spent))
        return Progress(what, spent, left + start)


class Runner:
    def __init__(self, plan: Plan, progress: Callable[[Progress], None]) -> None:
        self._plan = plan
        self._progress = progress
        self._pairs: dict[str, Pair] = {}
        self._busy: list[subprocess.Popen[bytes]] = []

    def run(self) -> Results:
        """Everything that the plan asks for, or what was measured until Ctrl-C."""
        results = Results(self._plan)
        clock = Clock(self._plan)
        try:
            with ExitStack() as stack:
                directory = Path(tempfile.mkdtemp(prefix="localrpc-bench-"))
                stack.callback(shutil.rmtree, directory, ignore_errors=True)
                self._start(stack, directory, results, clock)
                self._rounds(results, clock)
                if self._plan.syscalls:
                    self._count_syscalls(results, clock)
        except KeyboardInterrupt:
            results.interrupted = True
        results.seconds = clock.spent
        return results

    def _start(self, stack: ExitStack, directory: Path, results: Results, clock: Clock) -> None:
        """All servers at once, then all clients: most of it is Python's own start."""
        plan = self._plan
        server_cores, client_cores = plan.placement.cores()
        peers: dict[str, Peer] = {}
        for name in plan.peers:
            try:
                peer = plan.services.get(name) or find_peer(name)
            except ValueError as error:
                results.failures[name, None] = str(error)
                continue
            if peer.missing:
                results.failures[name, None] = peer.missing
            else:
                peers[name] = peer
        servers = self._start_halves(
            "server", peers, server_cores, stack, directory, results, clock
        )
        clients = self._start_halves(
            "client", peers, client_cores, stack, directory, results, clock
        )
        for name, client in clients.items():
            server = servers.get(name)
            self._pairs[name] = Pair(server, client, server.pid if server else plan.server_pid)
        if plan.beside_busy:
            self._busy = stack.enter_context(busy_processes())

    def _start_halves(
        self,
        role: str,
        peers: dict[str, Peer],
        cores: set[int],
        stack: ExitStack,
        directory: Path,
        results: Results,
        clock: Clock,
    ) -> dict[str, Worker]:
        """Those that are ready; a peer that is not is left out of `peers` from now on."""
        workers = {}
        for name, peer in peers.items():
            if role == "server" and not peer.has_server:
                continue
            workers[name] = Worker(role, peer, directory, cores)
            stack.callback(workers[name].close)
        more = 2 if role == "server" else 1
        for number, (name, worker) in enumerate(list(workers.items())):
            start = 0.3 * (more * len(peers) - number)
            self._progress(clock.progress(f"starting {name}", start))
            try:
                failure = worker.answer(_PATIENCE)
                if isinstance(failure, Failure):
                    raise WorkerFailed(failure)
            except WorkerFailed as error:
                results.failures[name, None] = str(error)
                del workers[name], peers[name]
        return workers

    def _rounds(self, results: Results, clock: Clock) -> None:
        """Disturbed rounds are repeated, up to as many as were asked for."""
        plan = self._plan
        for number in range(REPEATS * plan.rounds):
            wanting = [s for s in plan.scenarios if len(results.clean(s.name)) < plan.rounds]
            for scenario in wanting:
                measured = results.rounds.setdefault(scenario.name, [])
                more = 1.2 * clock.cost(scenario.name)
                if measured and plan.budget is not None and clock.spent + more > plan.budget:
                    return
                again = " again (disturbed)" if number >= plan.rounds else ""
                what = f"round {number + 1}{again}: {scenario.title}"
                self._progress(clock.progress(what))
                before = clock.spent
                round_ = self._round(scenario, results, number)
                measured.append(round_)
                clock.note(scenario.name, clock.spent - before, disturbed=round_.disturbed)

    def _round(self, scenario: Scenario, results: Results, number: int) -> Round:
        samples: dict[str, Sample] = {}
        usage: list[Usage] = []
        order = list(self._pairs)
        # Whoever goes first pays for what the previous scenario left in the caches.
        turn = number % max(1, len(order))
        for peer in order[turn:] + order[:turn]:
            if (peer, scenario.name) in results.failures.keys() | results.unsupported:
                continue
            meter = Meter(self._pids)
            answer = self._measure(peer, scenario, results)
            if isinstance(answer, Sample):
                samples[peer] = answer
                usage.append(meter.usage())
        return Round(samples, tuple(usage))

    def _count_syscalls(self, results: Results, clock: Clock) -> None:
        """In slices of their own: being counted costs time."""
        seconds = min(_COUNTED, self._plan.seconds)
        for scenario in self._plan.scenarios:
            for peer, pair in list(self._pairs.items()):
                if (peer, scenario.name) in results.failures.keys() | results.unsupported:
                    continue
                self._progress(clock.progress(f"system calls: {peer}, {scenario.title}"))
                pids = [pair.client.pid, *([pair.server_pid] if pair.server_pid else [])]
                with SyscallCounter(pids) as counter:
                    sample = self._measure(peer, scenario, results, Slice(0, seconds, None))
                if sample is not None and counter.count is not None:
                    results.syscalls[peer, scenario.name] = counter.count / sample.calls

    def _measure(
        self, peer: str, scenario: Scenario, results: Results, slice_: Slice | None = None
    ) -> Sample | None:
        pair = self._pairs[peer]
        seconds = self._plan.seconds
        slice_ = slice_ or Slice(warm_up(seconds), seconds, pair.server_pid)
        patience = slice_.warm_up + slice_.seconds + _PATIENCE
        try:
            answer = pair.client.ask((scenario, slice_), patience)
        except WorkerFailed as error:
            results.failures[peer, None] = str(error)
            del self._pairs[peer]
            return None
        if isinstance(answer, Unsupported):
            results.unsupported.add((peer, scenario.name))
            return None
        if isinstance(answer, Failure):
            results.failures[peer, scenario.name] = str(answer)
            return None
        sample: Sample = answer
        return sample

    def _pids(self) -> list[int]:
        pairs = self._pairs.values()
        clients = [pair.client.pid for pair in pairs]
        servers = [pair.server_pid for pair in pairs if pair.server_pid is not None]
        return clients + servers + [process.pid for process in self._busy]


def warm_up(seconds: float) -> float:
    return min(0.3, WARM_UP * seconds)


@contextmanager
def busy_processes() -> Iterator[list[subprocess.Popen[bytes]]]:
    """One process per usable core that never rests."""
    running: list[subprocess.Popen[bytes]] = []
    try:
        for core in sorted(os.sched_getaffinity(0)):
            script = f"import os; os.sched_setaffinity(0, {{{core}}})\nwhile True: pass"
            running.append(subprocess.Popen([sys.executable, "-c", script]))
        yield running
    finally:
        for process in running:
            process.kill()
            process.wait()
