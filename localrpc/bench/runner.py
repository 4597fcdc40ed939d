"""Interleaves the peers: one slice each, scenario by scenario, round after round."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from .halves import Pair, Worker, WorkerFailed
from .machine import Meter, SyscallCounter, Usage
from .peer import Peer
from .peers import find_peer
from .plan import COUNTED, REPEATS, Clock, Plan, Progress, warm_up
from .results import Results, Round
from .sample import Failure, Sample, Slice, Unsupported
from .scenarios import Scenario

# Seconds that a slice may take beyond its own time before its peer counts as stuck.
_PATIENCE = 20.0


class Runner:
    def __init__(self, plan: Plan, progress: Callable[[Progress], None]) -> None:
        self.results = Results(plan)
        """What has been measured so far; run() fills it."""
        self._plan = plan
        self._progress = progress
        self._pairs: dict[str, Pair] = {}
        self._busy: list[subprocess.Popen[bytes]] = []

    def run(self) -> Results:
        """Measure everything in the plan; return what was measured, even after Ctrl-C."""
        results = self.results
        clock = Clock(self._plan)
        try:
            with ExitStack() as stack:
                directory = Path(tempfile.mkdtemp(prefix="localrpc-bench-"))
                stack.callback(shutil.rmtree, directory, ignore_errors=True)
                self._start(stack, directory, clock)
                self._rounds(clock)
                if self._plan.syscalls and not results.interrupted:
                    self._count_syscalls(clock)
        except KeyboardInterrupt:
            results.interrupted = True
        results.seconds = clock.spent
        return results

    def _start(self, stack: ExitStack, directory: Path, clock: Clock) -> None:
        """Start all servers at once, then all clients: most of the time is Python's own start."""
        plan = self._plan
        server_cores, client_cores = plan.placement.cores()
        peers: dict[str, Peer] = {}
        for name in plan.peers:
            try:
                peer = plan.services.get(name) or find_peer(name)
            except ValueError as error:
                self.results.failures[name, None] = str(error)
                continue
            if peer.missing:
                self.results.failures[name, None] = peer.missing
            else:
                peers[name] = peer
        servers = self._start_halves("server", peers, server_cores, stack, directory, clock)
        clients = self._start_halves("client", peers, client_cores, stack, directory, clock)
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
        clock: Clock,
    ) -> dict[str, Worker]:
        """Yield the halves that are ready; drop a peer that is not from `peers`."""
        workers = {}
        for name, peer in peers.items():
            if role == "server" and not peer.has_server:
                continue
            workers[name] = Worker(role, peer, directory, cores)
            stack.callback(workers[name].close)
        others = len(peers) if role == "server" else 0
        for number, (name, worker) in enumerate(list(workers.items())):
            halves = len(workers) - number + others
            self._progress(clock.progress(f"starting {name}", halves))
            try:
                failure = worker.answer(_PATIENCE)
                if isinstance(failure, Failure):
                    raise WorkerFailed(failure)
            except WorkerFailed as error:
                self.results.failures[name, None] = str(error)
                del workers[name], peers[name]
        return workers

    def _rounds(self, clock: Clock) -> None:
        """Measure a scenario, repeating disturbed rounds, up to as many as were asked for."""
        plan, results = self._plan, self.results
        for number in range(REPEATS * plan.rounds):
            wanting = [s for s in plan.scenarios if len(results.clean(s.name)) < plan.rounds]
            for scenario in wanting:
                measured = results.rounds.setdefault(scenario.name, [])
                if measured and not clock.allows(scenario.name):
                    return
                clock.begin(scenario.name)
                round_, failing = self._round(scenario, number, clock)
                measured.append(round_)
                results.latest = scenario.name
                # What failed is not tried again.
                clock.end(disturbed=round_.disturbed, once=failing)
                if results.interrupted:
                    return

    def _round(self, scenario: Scenario, number: int, clock: Clock) -> tuple[Round, float]:
        """Measure a round; return it, and the seconds that it spent on failures.

        Ctrl-C ends it early: what it has until then counts.
        """
        failing = 0.0
        samples: dict[str, Sample] = {}
        usage: list[Usage] = []
        again = " again (disturbed)" if number >= self._plan.rounds else ""
        what = f"round {number + 1}{again}: {scenario.title}"
        try:
            for peer in self._turns(scenario, number):
                self._progress(clock.progress(f"{what}, {peer}"))
                meter = Meter(self._pids)
                before = clock.spent
                sample = self._measure(peer, scenario)
                if sample is not None:
                    samples[peer] = sample
                    usage.append(meter.usage(sample.switches or 0))
                else:
                    failing += clock.spent - before
        except KeyboardInterrupt:
            self.results.interrupted = True
        return Round(samples, tuple(usage)), failing

    def _turns(self, scenario: Scenario, number: int) -> Iterator[str]:
        """Return the peers that are still to be measured, rotated from round to round."""
        order = list(self._pairs)
        # The first peer pays for what the previous scenario left in the caches.
        turn = number % max(1, len(order))
        for peer in order[turn:] + order[:turn]:
            out = self.results.failures.keys() | self.results.unsupported
            if peer in self._pairs and (peer, scenario.name) not in out:
                yield peer

    def _count_syscalls(self, clock: Clock) -> None:
        """Count in slices of their own, one for each round, because counting costs time."""
        seconds = min(COUNTED, self._plan.seconds)
        for number in range(self._plan.rounds):
            for scenario in self._plan.scenarios:
                for peer in self._turns(scenario, number):
                    what = f"system calls, round {number + 1}: {scenario.title}, {peer}"
                    self._progress(clock.progress(what))
                    pair = self._pairs[peer]
                    pids = [pair.client.pid, *([pair.server_pid] if pair.server_pid else [])]
                    with SyscallCounter(pids) as counter:
                        sample = self._measure(peer, scenario, Slice(0, seconds, None))
                    clock.note_counted()
                    if sample is not None and counter.count is not None:
                        counts = self.results.syscalls.setdefault((peer, scenario.name), [])
                        counts.append(counter.count / sample.calls)

    def _measure(self, peer: str, scenario: Scenario, slice_: Slice | None = None) -> Sample | None:
        pair = self._pairs[peer]
        seconds = self._plan.seconds
        slice_ = slice_ or Slice(warm_up(seconds), seconds, pair.server_pid)
        patience = slice_.warm_up + slice_.seconds + _PATIENCE
        try:
            answer = pair.client.ask((scenario, slice_), patience)
        except WorkerFailed as error:
            self.results.failures[peer, None] = str(error)
            del self._pairs[peer]
            return None
        if isinstance(answer, Unsupported):
            self.results.unsupported.add((peer, scenario.name))
            return None
        if isinstance(answer, Failure):
            self.results.failures[peer, scenario.name] = answer
            return None
        sample: Sample = answer
        return sample

    def _pids(self) -> list[int]:
        pairs = self._pairs.values()
        clients = [pair.client.pid for pair in pairs]
        servers = [pair.server_pid for pair in pairs if pair.server_pid is not None]
        return clients + servers + [process.pid for process in self._busy]


@contextmanager
def busy_processes() -> Iterator[list[subprocess.Popen[bytes]]]:
    """Run one process per usable core that never sleeps."""
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
