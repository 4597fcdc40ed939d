"""`localrpc ps`: lists the servers and channels of this machine's processes."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from typing import Any

import click

from localrpc.cli.processes import choice, document
from localrpc.cli.processes.rows import Reading, Row, Wanted, rows_of
from localrpc.cli.processes.table import PS, PS_WATCHING, table_of
from localrpc.cli.processes.text import cut, escaped
from localrpc.observe import processes
from localrpc.transports.leftovers import Leftover, leftovers, remove_leftovers

INTERRUPTED = 130


@click.command()
@choice.options
@click.option(
    "--watch",
    type=click.FloatRange(0.1),
    metavar="SECONDS",
    help="List again after so many seconds, with the calls per second between the two lists.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON: all numbers, exactly.")
@click.option(
    "--clean",
    is_flag=True,
    help="Remove the names that processes have left that have ended, and list these instead.",
)
def ps(
    *,
    target: str | None,
    pids: tuple[int, ...],
    ended: bool,
    watch: float | None,
    as_json: bool,
    clean: bool,
) -> None:
    """List the servers and channels of this user's processes; as root, of all.

    \b
        localrpc ps
        localrpc ps --target shm:greeter --watch 2
        localrpc ps --json | jq '.processes[].pid'
        localrpc ps --clean

    No process is asked, so that one which is stopped or busy is listed as well. A line is a
    server, or a connection of a channel. A narrow terminal leaves columns out; a pipe gets all.

    \b
    FLIGHT    calls in progress
    WAIT      those that no thread of the server has taken up
    STREAMS   those in which messages are streamed
    P50, P99  how long 50 % of all calls lasted, at most; 99 %
    MEMORY    of the process, without what it shares

    Names that are left over in the runtime directory follow: sockets, FIFOs and queues of
    processes that have ended. --clean never removes the name of a live server.

    The exit code is 1 if nothing matches --target or --pid, or if a name could not be removed.
    """
    wanted = Wanted(target, pids, ended)
    if clean:
        if watch is not None or ended or wanted.narrows:
            raise click.UsageError(
                "--clean removes all that is left over: give it alone, or with --json"
            )
        sys.exit(_clean(as_json))
    try:
        found = _show(wanted, watch, as_json)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    if wanted.narrows and not found:
        sys.exit(1)


def read() -> Reading:
    return Reading(time.monotonic(), tuple(processes()))


def width_of_output() -> int | None:
    """Return the columns of the terminal; None for a pipe, unless COLUMNS says how wide it is."""
    wraps = sys.stdout.isatty() or os.environ.get("COLUMNS")
    return shutil.get_terminal_size().columns if wraps else None


def nothing(wanted: Wanted) -> str:
    """Return what stands in place of an empty table."""
    if not wanted.narrows:
        return "No process has a server or a channel."
    asked = [f"target {wanted.target}"] if wanted.target is not None else []
    asked += [f"process {' or '.join(map(str, wanted.pids))}"] if wanted.pids else []
    return escaped(f"No server or channel of {' and '.join(asked)}.")


def say(line: str) -> None:
    """Print to stdout, also where its encoding lacks a character."""
    encoding = sys.stdout.encoding or "utf-8"
    click.echo(line.encode(encoding, "replace").decode(encoding))
    sys.stdout.flush()


# ---- the list ----


def _show(wanted: Wanted, watch: float | None, as_json: bool) -> bool:
    """Print once, or until it is interrupted. Return True if there was anything."""
    before: Reading | None = None
    while True:
        now = read()
        rows = rows_of(now, before, wanted)
        left = _left_of(wanted)
        if as_json:
            _print_json(rows, left, None if watch else 1)
        else:
            if before is not None:
                say("")
            _print_table(rows, left, wanted, watching=watch is not None)
        if watch is None:
            return bool(rows or left)
        before = now
        time.sleep(max(0.0, now.time + watch - time.monotonic()))


def _left_of(wanted: Wanted) -> list[Leftover]:
    if wanted.pids:
        return []
    try:
        return [each for each in leftovers() if wanted.has_target([each.target])]
    except OSError as error:
        click.echo(f"Warning: names that are left over are not listed: {_reason(error)}", err=True)
        return []


def _print_json(rows: list[Row], left: list[Leftover], indent: int | None) -> None:
    shown = {
        "processes": document.processes_of(rows),
        "stale": [document.leftover_of(each) for each in left],
    }
    say(json.dumps(shown, indent=indent))


def _print_table(rows: list[Row], left: list[Leftover], wanted: Wanted, *, watching: bool) -> None:
    width = width_of_output()
    if rows:
        columns = PS_WATCHING if watching else PS
        table = table_of(columns, rows, width, grouped=sys.stdout.isatty())
        say(click.style(table.heading, bold=True))
        for line in table.lines:
            say(line)
    elif not left:
        click.echo(nothing(wanted), err=True)
    if left:
        if rows:
            say("")
        say(_cut("Left over (localrpc ps --clean removes them):", width))
        for each in left:
            say(_cut(f"  {_described(each)}", width))


def _cut(line: str, width: int | None) -> str:
    return line if width is None else cut(line, width)


def _described(left: Leftover) -> str:
    what = f"{left.target}  {left.kind}  {left.place}" if left.target else ""
    return escaped(what or f"{left.kind}  {left.place}")


# ---- what is left over ----


def _clean(as_json: bool) -> int:
    """Remove it, say what was removed, and return the exit code."""
    try:
        done = remove_leftovers()
    except OSError as error:
        raise click.ClickException(_reason(error)) from None
    if as_json:
        documents: dict[str, list[dict[str, Any]]] = {"removed": [], "failed": []}
        for left, failure in done:
            if failure is None:
                documents["removed"].append(document.leftover_of(left))
            else:
                failed = document.leftover_of(left) | {"error": _reason(failure)}
                documents["failed"].append(failed)
        say(json.dumps(documents, indent=1))
    else:
        for left, failure in done:
            if failure is None:
                say(f"removed {_described(left)}")
            else:
                click.echo(f"Error: {_described(left)}: {_reason(failure)}", err=True)
        if not done:
            click.echo("Nothing is left over.", err=True)
    return int(any(failure for _, failure in done))


def _reason(error: OSError) -> str:
    return escaped(error.strerror or str(error))
