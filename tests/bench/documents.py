"""Documents as a run would write them, made without running anything."""

from __future__ import annotations

import random
from typing import Any

from localrpc.bench.machine import Usage
from localrpc.bench.plan import Plan
from localrpc.bench.report import as_json
from localrpc.bench.results import Results, Round
from localrpc.bench.sample import Latencies, Sample
from localrpc.bench.scenarios import KIB, MIB, SCENARIOS, Raw, Scenario, Threads, Unary

QUIET = Usage(seconds=1.0, cores=2, own=1.0, others=0.01)
NOISY = Usage(seconds=1.0, cores=2, own=1.0, others=0.5)
# Nanoseconds of a small call, and what a KiB more costs.
COSTS = {
    "shm": (7_000, 450),
    "unix": (17_000, 1_300),
    "pipe": (19_000, 1_250),
    "mq": (24_000, 9_000),
    "sysvmq": (23_000, 8_000),
    "tcp": (32_000, 1_100),
    "shm?wakeup=futex": (8_200, 455),
    "multiprocessing": (14_000, 800),
    "pyzmq": (52_000, 900),
    "grpcio": (671_000, 4_300),
}
MACHINE = {
    "processor": "AMD EPYC",
    "cores": "2 usable of 2",
    "kernel": "Linux 6.18",
    "python": "CPython 3.11.7",
    "localrpc": "0.1.0",
    "grpcio": "1.85.3",
}
EVERY_KIND: tuple[Scenario, ...] = (
    SCENARIOS["unary"],
    Unary("unary-4kib", "unary, 4 KiB protobuf", 4 * KIB),
    Unary("unary-64kib", "unary, 64 KiB protobuf", 64 * KIB),
    SCENARIOS["unary-1mib"],
    SCENARIOS["unary-full"],
    SCENARIOS["raw"],
    Raw("raw-1mib", "unary, 1 MiB raw bytes", MIB),
    *(Threads(f"threads-{n}", f"unary, 64 B, {n} threads", 64, n) for n in (1, 2, 4, 8, 16)),
    SCENARIOS["download"],
)


def results(
    *,
    seed: int = 1,
    peers: tuple[str, ...] = tuple(COSTS),
    scenarios: tuple[Scenario, ...] = EVERY_KIND,
    rounds: int = 5,
    calls: int = 2000,
    slower: dict[str, float] | None = None,
) -> Results:
    """Rounds that vary by about a percent; `slower` multiplies a peer's times."""
    draw = random.Random(seed)
    measured = Results(Plan(peers, scenarios, rounds=rounds, seconds=1.0), seconds=60.0)
    for scenario in scenarios:
        measured.rounds[scenario.name] = [
            Round(
                {
                    peer: _sample(draw, peer, scenario, calls, (slower or {}).get(peer, 1.0))
                    for peer in peers
                },
                (NOISY if number == 1 else QUIET,),
            )
            for number in range(rounds + 1)
        ]
        for peer in peers:
            measured.syscalls[peer, scenario.name] = [draw.gauss(6.0, 0.1) for _ in range(rounds)]
    return measured


def _sample(
    draw: random.Random, peer: str, scenario: Scenario, calls: int, factor: float
) -> Sample:
    base, per_kib = COSTS[peer]
    threads = getattr(scenario, "threads", 1)
    size = getattr(scenario, "size", 64)
    cost = (base * (1 + 0.35 * (threads - 1)) + per_kib * size / KIB) * factor
    cost *= draw.gauss(1.0, 0.01)
    taken = [int(cost * (0.9 + 0.1 * draw.paretovariate(2.2))) for _ in range(calls)]
    seconds = sum(taken) / 1e9 / threads
    streams = scenario.unit == "message"
    if streams:
        seconds /= 8
    cpu = sum(taken) / 1e9 * 0.8 / (8 if streams else 1)
    latencies = Latencies() if streams else Latencies(taken)
    return Sample(
        calls,
        seconds,
        cpu * 0.55,
        cpu * 0.45,
        latencies,
        client_memory=int(draw.gauss(20, 0.1) * MIB),
        server_memory=int(draw.gauss(18, 0.1) * MIB),
        client_switches=int(draw.gauss(1.0, 0.01) * calls),
        server_switches=int(draw.gauss(1.0, 0.01) * calls),
        size=size,
    )


def document(**how: Any) -> dict[str, Any]:
    return as_json(results(**how), MACHINE, ["localrpc", "bench", "--json", "results.json"])
