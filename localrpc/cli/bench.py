"""`localrpc bench`: how fast each transport is here, beside grpcio."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click
from rich.console import Console, RenderableType
from rich.progress import BarColumn, TextColumn
from rich.progress import Progress as Bar

from localrpc.bench import machine, report
from localrpc.bench.peers import default_peers, find_peer
from localrpc.bench.runner import Placement, Plan, Progress, Results, Runner
from localrpc.bench.scenarios import SCENARIOS

# Of the 60 seconds that --quick promises: what the planned rounds may take, and
# what all of it may, with repeated rounds. The rest is for starting and ending.
_QUICK_ROUNDS = 40.0
_QUICK_TOTAL = 52.0
# What the table needs: lines that a narrow terminal wraps say more than columns cut off.
_WIDTH = 140


@click.command()
@click.option("--quick", is_flag=True, help="All of it in less than a minute.")
@click.option("--rounds", type=click.IntRange(1), default=5, show_default=True)
@click.option(
    "--seconds",
    type=click.FloatRange(0.01),
    default=1.0,
    show_default=True,
    help="Length of one slice: one peer, one scenario, one round. --quick chooses its own.",
)
@click.option(
    "--placement",
    type=click.Choice([placement.value for placement in Placement]),
    default="unpinned",
    show_default=True,
    help="Where server and client run.",
)
@click.option("--beside-busy", is_flag=True, help="Keep one busy process on each core beside.")
@click.option(
    "--transport",
    "--peer",
    "peers",
    multiple=True,
    metavar="NAME",
    help="Only this peer: a transport, with options if any (shm?wakeup=signal), or grpcio. "
    "May be repeated.",
)
@click.option(
    "--scenario", "scenarios", multiple=True, metavar="NAME", help="Only this one. May be repeated."
)
@click.option(
    "--json",
    "json_file",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write every round to FILE too.",
)
def bench(
    *,
    quick: bool,
    rounds: int,
    seconds: float,
    placement: str,
    beside_busy: bool,
    peers: tuple[str, ...],
    scenarios: tuple[str, ...],
    json_file: Path | None,
) -> None:
    """Measure calls over every transport and over grpcio's Unix socket, side by side.

    Every peer gets a server process and a client process. Rounds in which other
    processes used the machine are dropped and repeated.
    """
    if unknown := [name for name in scenarios if name not in SCENARIOS]:
        raise click.UsageError(f"unknown scenario {unknown[0]!r}; there are {', '.join(SCENARIOS)}")
    chosen = list(dict.fromkeys(peers)) or default_peers()
    try:
        for name in chosen:
            find_peer(name)
        Placement(placement).cores()
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    plan = Plan(
        peers=tuple(chosen),
        scenarios=tuple(s for s in SCENARIOS.values() if not scenarios or s.name in scenarios),
        rounds=rounds,
        seconds=seconds,
        placement=Placement(placement),
        beside_busy=beside_busy,
        budget=_QUICK_TOTAL if quick else None,
    )
    if quick:
        plan = plan.shortened(_QUICK_ROUNDS)
    results = _run(plan)
    facts = machine.describe()
    _print(report.render(results, facts))
    if json_file is not None:
        text = json.dumps(report.as_json(results, facts, sys.argv), indent=1)
        json_file.write_text(text + "\n", encoding="utf-8")
    if results.interrupted:
        sys.exit(130)
    if results.failures:
        sys.exit(1)


def _run(plan: Plan) -> Results:
    bar = Bar(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[left]}"),
        console=Console(stderr=True),
        transient=True,
        # Drawing costs the processor that is being measured.
        refresh_per_second=2,
        disable=not sys.stderr.isatty(),
    )
    with bar:
        task = bar.add_task("starting", total=1.0, left="")

        def show(progress: Progress) -> None:
            left = f"{int(progress.left // 60)}:{int(progress.left % 60):02d} left"
            bar.update(task, description=progress.what, completed=progress.share, left=left)

        return Runner(plan, show).run()


def _print(what: RenderableType) -> None:
    Console(width=max(_WIDTH, Console().width)).print(what)
