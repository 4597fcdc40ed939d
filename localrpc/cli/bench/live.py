"""What a terminal shows during a run: the last round, and the time left."""

from __future__ import annotations

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, TextColumn
from rich.progress import Progress as Bar
from rich.table import Table

from localrpc.bench.measures import MEASURES
from localrpc.bench.plan import Plan, Progress
from localrpc.bench.report import count, microseconds
from localrpc.bench.results import Results
from localrpc.bench.runner import Runner

_SHOWN = {"p50": microseconds, "rate": count, "cpu": microseconds}


def describe(plan: Plan) -> str:
    """Return a description of a run before it starts, with the time it takes."""
    about = min(plan.cost, plan.budget or plan.cost)
    longest = f", at most {clock_text(plan.budget)}" if plan.budget is not None else ""
    return (
        f"{_many(len(plan.peers), 'peer')}, {_many(len(plan.scenarios), 'scenario')}, "
        f"{_many(plan.rounds, 'round')} of slices of {plan.seconds * 1000:.0f} ms: "
        f"about {clock_text(about)}{longest}"
    )


def clock_text(seconds: float) -> str:
    """Return minutes and seconds, as 9:05."""
    whole = round(seconds)
    return f"{whole // 60}:{whole % 60:02d}"


def _many(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def watched(plan: Plan, console: Console) -> Results:
    """Run a plan, and show its progress in the console."""
    bar = Bar(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[left]} left"),
        console=console,
    )
    task = bar.add_task("starting", total=1.0, left=clock_text(plan.cost))
    # Drawn between slices only, because it uses the processor that is being measured.
    with Live(console=console, auto_refresh=False, transient=True) as live:

        def draw(progress: Progress) -> None:
            if not console.is_terminal:
                return
            left = clock_text(progress.left)
            bar.update(task, description=progress.what, completed=progress.share, left=left)
            live.update(Group(*_last_round(runner.results), bar), refresh=True)

        runner = Runner(plan, draw)
        return runner.run()


def _last_round(results: Results) -> list[Table]:
    scenario = next((s for s in results.plan.scenarios if s.name == results.latest), None)
    if scenario is None:
        return []
    last = results.rounds[scenario.name][-1]
    clean = f"{len(results.clean(scenario.name))} of {_many(results.plan.rounds, 'round')}"
    table = Table(
        title=f"{scenario.title}: {clean}{', the last disturbed' if last.disturbed else ''}",
        title_justify="left",
        header_style="bold",
        pad_edge=False,
    )
    table.add_column("peer")
    for column in ("p50 us", "per second", "CPU us"):
        table.add_column(column, justify="right")
    for peer, sample in last.samples.items():
        values = [(MEASURES[key].of(sample), form) for key, form in _SHOWN.items()]
        table.add_row(peer, *(form(v) if v is not None else "-" for v, form in values))
    return [table]
