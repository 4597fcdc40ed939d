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
from .plan import REPEATS, Clock, Plan, Progress, warm_up
from .results import Results, Round
from .sample import Failure, Sample, Slice, Unsupported
from .scenarios import Scenario

# What a slice may take beyond its own time before its peer counts as stuck.
_PATIENCE = 20.0
# The longest slice for system calls to be counted in.
_COUNTED = 0.1


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
                    results.syscalls[peer, scenario.name] = [counter.count / sample.calls]

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
