"""`localrpc bench`: measures each transport on this machine, beside grpcio."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
from rich.table import Table

from localrpc.bench import checks, machine
from localrpc.bench import compare as comparing
from localrpc.bench import report as rendering
from localrpc.bench.document import Document, UnreadableDocument, parse
from localrpc.bench.history import DEFAULT, DIRECTORY, History
from localrpc.bench.output import Outputs
from localrpc.bench.peers import default_peers, find_peer, known_peers
from localrpc.bench.plan import BASELINE, Placement, Plan
from localrpc.bench.scenarios import (
    KNOWN,
    SCENARIOS,
    SWEEPS,
    Scenario,
    clients_of,
    distinct,
    find_scenarios,
    is_of_one_request,
    parse_size,
    rate_of,
    threads_of,
    unary_of,
)
from localrpc.bench.service import ServicePeer, load_request

from .live import describe, watched
from .outcome import (
    color_option,
    comparison_options,
    console,
    fails,
    output_options,
    ready,
    show,
    write,
)

# Seconds of a slice, if there is time for it.
_SLICE = 1.0
# Seconds that the planned rounds may take, and that a run may take with repeated rounds. The
# rest of the minute, or of the ten minutes, is for starting and ending.
_QUICK_ROUNDS, _QUICK_TOTAL = 36.0, 44.0
_ROUNDS, _TOTAL = 480.0, 570.0


@click.group(invoke_without_command=True, subcommand_metavar="[COMMAND ...]")
@click.option("--quick", is_flag=True, help="Finish in less than a minute.")
@click.option(
    "--rounds",
    type=click.IntRange(1),
    default=5,
    show_default=True,
    help="How often each peer is measured in each scenario, in turn.",
)
@click.option(
    "--seconds",
    type=click.FloatRange(0.01),
    help="Length of one slice: one peer, one scenario, one round. Default: the longest, up to a"
    " second, with which the run takes less than ten minutes (with --quick: one).",
)
@click.option(
    "--placement",
    type=click.Choice([placement.value for placement in Placement]),
    default="unpinned",
    show_default=True,
    help="The cores for server and client.",
)
@click.option("--beside-busy", is_flag=True, help="Run a busy process on each core meanwhile.")
@click.option(
    "--transport",
    "--peer",
    "peers",
    multiple=True,
    metavar="NAME",
    help="Measure this peer only: a transport, perhaps with options (shm?wakeup=signal), grpcio,"
    " or a peer of --list. May be repeated.",
)
@click.option(
    "--scenario",
    "scenarios",
    multiple=True,
    metavar="NAME",
    help="Measure this scenario or sweep of --list only. May be repeated.",
)
@click.option(
    "--list",
    "--peers",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=lambda context, _, asked: _list(context) if asked else None,
    help="Show the known peers and scenarios, and exit.",
)
@click.option(
    "--size",
    "sizes",
    multiple=True,
    metavar="SIZE",
    help="Measure unary calls of this size, 8 to 16M (64, 16k, 1M). May be repeated.",
)
@click.option(
    "--threads",
    multiple=True,
    type=click.IntRange(1, 1024),
    metavar="N",
    help="Use this many threads, or asyncio tasks, on one channel. May be repeated.",
)
@click.option(
    "--rate",
    "rates",
    multiple=True,
    type=click.FloatRange(1, 1_000_000),
    metavar="N",
    help="Make this many calls a second, each timed from when it is due. May be repeated.",
)
@click.option(
    "--clients",
    multiple=True,
    type=click.IntRange(1, 4096),
    metavar="N",
    help="Use this many clients that call in turn. May be repeated.",
)
@click.option(
    "--syscalls",
    is_flag=True,
    help="Count system calls as well, in slices of their own at the end (needs perf).",
)
@click.option(
    "--baseline",
    metavar="PEER",
    help="The peer to compare others with. Default: grpcio, or the first --target.",
)
@click.option(
    "--target",
    "targets",
    multiple=True,
    metavar="TARGET",
    help="Measure your own service, which is running there; grpc:TARGET if grpcio serves it."
    " May be repeated.",
)
@click.option(
    "--proto",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="The file that defines --method.",
)
@click.option(
    "-I",
    "--include",
    multiple=True,
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    metavar="DIR",
    help="Where --proto and its imports are searched; default: its folder. May be repeated.",
)
@click.option("--method", metavar="/PKG.SERVICE/METHOD", help="The unary method to call.")
@click.option("--data", default="{}", metavar="JSON", help="The request.", show_default=True)
@click.option(
    "--server-pid",
    type=click.IntRange(1),
    metavar="PID",
    help="The server process at --target, to measure its processor time and memory, too.",
)
@click.option(
    "--json",
    "json_file",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write every round to FILE, for `report` and `compare`.",
)
@output_options
@click.option(
    "--save-baseline",
    is_flag=False,
    flag_value=DEFAULT,
    metavar="[NAME]",
    help=f"Save this run in the project's history, as the newest of that name ({DEFAULT}).",
)
@click.option(
    "--against-baseline",
    is_flag=False,
    flag_value=DEFAULT,
    metavar="[NAME]",
    help=f"Compare with the newest run that was saved under that name ({DEFAULT}).",
)
@click.option(
    "--baseline-dir",
    type=click.Path(file_okay=False, path_type=Path),
    default=DIRECTORY,
    show_default=True,
    help="The folder of the history.",
)
@comparison_options
@color_option
@click.pass_context
def bench(
    context: click.Context,
    *,
    quick: bool,
    rounds: int,
    seconds: float | None,
    placement: str,
    beside_busy: bool,
    peers: tuple[str, ...],
    scenarios: tuple[str, ...],
    sizes: tuple[str, ...],
    threads: tuple[int, ...],
    rates: tuple[float, ...],
    clients: tuple[int, ...],
    syscalls: bool,
    baseline: str | None,
    targets: tuple[str, ...],
    proto: Path | None,
    include: tuple[Path, ...],
    method: str | None,
    data: str,
    server_pid: int | None,
    json_file: Path | None,
    csv: Path | None,
    markdown: Path | None,
    report: Path | None,
    plots: Path | None,
    save_baseline: str | None,
    against_baseline: str | None,
    baseline_dir: Path,
    fail_on: str,
    threshold: float,
    confidence: float,
) -> None:
    """Measure calls over every transport and over grpcio's Unix socket, side by side.

    Each peer has a server process and a client process. Rounds in which other processes used
    the machine are dropped and repeated.
    """
    if context.invoked_subcommand is not None:
        _refuse_options(context, context.invoked_subcommand)
        return
    try:
        chosen = [
            *(one for name in scenarios for one in find_scenarios(name)),
            *(unary_of(parse_size(size)) for size in sizes),
            *map(threads_of, threads),
            *map(rate_of, rates),
            *map(clients_of, clients),
        ]
        Placement(placement).cores()
        if syscalls and (why := machine.why_no_syscalls()):
            raise ValueError(why)
        if targets:
            if peers or sizes:
                raise ValueError("--target measures one request: omit --peer and --size")
            services = _services(targets, proto, include, method, data)
            names = list(services)
            chosen = _own(chosen or [SCENARIOS["unary"]], services[names[0]])
            baseline = baseline or names[0]
        else:
            services = {}
            names = list(dict.fromkeys(peers)) or default_peers()
            for name in names:
                find_peer(name)
        if baseline is not None and baseline not in names:
            raise ValueError(
                f"the baseline {baseline!r} is not measured; the peers are {', '.join(names)}"
            )
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    outputs = ready(Outputs(json_file, csv, markdown, report, plots))
    saved, against = _histories(baseline_dir, save_baseline, against_baseline)
    plan = Plan(
        peers=tuple(names),
        # A scenario that two options ask for is measured once.
        scenarios=distinct(chosen or SCENARIOS.values()),
        rounds=rounds,
        seconds=_SLICE if seconds is None else seconds,
        placement=Placement(placement),
        beside_busy=beside_busy,
        services=services,
        server_pid=server_pid,
        baseline=baseline or BASELINE,
        syscalls=syscalls,
    )
    plan = timed(plan, quick=quick, asked=seconds is not None)
    click.echo(describe(plan), err=True)
    results = watched(plan, console(stderr=True))
    facts = machine.describe()
    show(rendering.render(results, facts))
    document = rendering.as_json(results, facts, ["localrpc", *sys.argv[1:]])
    document["doctor"] = checks.as_json(checks.examine())
    write(outputs, document)
    if saved is not None and not results.interrupted:
        click.echo(f"Saved {saved.save(document)}", err=True)
    failed = results.failed
    if against is not None:
        comparison = comparing.compare(
            against, parse(document), confidence=confidence, threshold=threshold / 100
        )
        show(comparing.render(comparison))
        failed = failed or fails(comparison, fail_on)
    if results.interrupted:
        sys.exit(130)
    if failed:
        sys.exit(1)


def timed(plan: Plan, *, quick: bool, asked: bool) -> Plan:
    """Return the plan with slices that fit the time, unless their length was `asked` for."""
    if quick:
        return replace(plan.fitted(_QUICK_ROUNDS), budget=_QUICK_TOTAL)
    if not asked:
        plan = plan.fitted(_ROUNDS)
    return replace(plan, budget=_TOTAL) if plan.cost <= _ROUNDS else plan


def _services(
    targets: tuple[str, ...],
    proto: Path | None,
    include: tuple[Path, ...],
    method: str | None,
    data: str,
) -> dict[str, ServicePeer]:
    if proto is None or method is None:
        raise ValueError("--target needs --proto FILE and --method /PKG.SERVICE/METHOD")
    request = load_request(proto, include, method, data)
    return {target: ServicePeer(target, request) for target in targets}


def _own(chosen: list[Scenario], peer: ServicePeer) -> list[Scenario]:
    """Return the scenarios that can use the user's request in place of an echo, with it."""
    fit = [one for one in chosen if is_of_one_request(one)]
    if not fit:
        names = ", ".join(one.name for one in chosen)
        raise ValueError(f"--target measures unary calls of one request, which excludes {names}")

    def changes(one: Scenario) -> dict[str, Any]:
        title = one.title.replace("64 B", peer.request.method)
        return {"title": title, "size": peer.request_size}

    return [replace(one, **changes(one)) for one in fit]


def _list(context: click.Context) -> None:
    peers = Table("peer", "what", "here", title="Peers", header_style="bold", title_justify="left")
    for name in known_peers():
        peer = find_peer(name)
        peers.add_row(name, peer.what, peer.missing or "yes")
    what = Table("scenario", "what", title="Scenarios", header_style="bold", title_justify="left")
    for scenario in KNOWN.values():
        what.add_row(scenario.name, scenario.title)
    for name, sweep in SWEEPS.items():
        what.add_row(name, "all of " + ", ".join(one.name for one in sweep))
    console().print(peers, what)
    context.exit()


def _refuse_options(context: click.Context, command: str) -> None:
    """Raise an error for `bench --quick compare`, which would measure nothing."""
    given = click.core.ParameterSource.COMMANDLINE
    for parameter in context.command.params:
        if context.get_parameter_source(parameter.name or "") is given:
            raise click.UsageError(
                f"{parameter.opts[0]} has to come after {command}, or to be used without it"
            )


def _histories(
    directory: Path, save: str | None, against: str | None
) -> tuple[History | None, Document | None]:
    """Return where to save, and the document to compare with, which is read before it is saved."""
    try:
        return (
            History(directory, save) if save is not None else None,
            History(directory, against).newest() if against is not None else None,
        )
    except (UnreadableDocument, ValueError) as error:
        raise click.ClickException(str(error)) from None
