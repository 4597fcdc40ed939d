"""`localrpc top`: watches servers and channels at work."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import click

from localrpc.cli.processes import choice
from localrpc.cli.processes.ps import INTERRUPTED, nothing, read, say, width_of_output
from localrpc.cli.processes.rows import Reading, Wanted, rows_of
from localrpc.cli.processes.table import TOP, table_of
from localrpc.cli.processes.terminal import Closed, Ended, Terminal
from localrpc.cli.processes.view import Line, Style, View

_STYLES = {
    Style.PLAIN: "",
    Style.HEADING: "\x1b[1m",
    Style.SELECTED: "\x1b[7m",
    Style.FAINT: "\x1b[2m",
}
_SORTS = {column.name.lower(): column.name for column in TOP}


@click.command()
@click.option(
    "--interval",
    type=click.FloatRange(0.1),
    default=1.0,
    show_default=True,
    metavar="SECONDS",
    help="How long it takes to the next reading.",
)
@click.option(
    "--sort",
    type=click.Choice(list(_SORTS), case_sensitive=False),
    default="calls/s",
    show_default=True,
    metavar="COLUMN",
    help="The column that sorts at first, by its heading.",
)
@click.option("--reverse", is_flag=True, help="The smallest numbers first.")
@choice.options
def top(
    *,
    interval: float,
    sort: str,
    reverse: bool,
    target: str | None,
    pids: tuple[int, ...],
    ended: bool,
) -> None:
    """Watch the servers and channels of this user's processes; as root, of all.

    \b
        localrpc top
        localrpc top --target shm:greeter --interval 0.5
        localrpc top --sort p99 | head

    Calls, errors, P50 and P99 are those of the last interval, and CPU% is the share of one
    core that the process has used. `localrpc ps --help` explains the other columns.

    \b
    left, right   the column that sorts
    r             reverse the order
    up, down      select a line
    Enter         its status codes and latencies; Esc returns
    a             also what has ended
    q             quit

    Without a terminal it prints one table, after one interval.

    The exit code is 130 after Ctrl-C, 143 after SIGTERM, and 1 if there is no terminal and
    nothing matches --target or --pid.
    """
    wanted = Wanted(target, pids, ended)
    view = View(_SORTS[sort.lower()])
    view.reverse, view.ended = reverse, ended
    try:
        if sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb":
            _watch(view, wanted, interval)
        elif not _print(view, wanted, interval) and wanted.narrows:
            sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except Ended as ended_by:
        sys.exit(ended_by.code)
    except Closed:
        sys.exit(1)


def _print(view: View, wanted: Wanted, interval: float) -> bool:
    """Print what happens in one interval. Return True if there was anything."""
    before = read()
    time.sleep(interval)
    rows = rows_of(read(), before, wanted)
    if not rows:
        click.echo(nothing(wanted), err=True)
        return False
    view.show(rows)
    table = table_of(TOP, view.rows, width_of_output(), grouped=False)
    for line in (table.heading, *table.lines):
        say(line)
    return True


def _watch(view: View, wanted: Wanted, interval: float) -> None:
    """Draw until the user quits. Raises Ended, Closed."""
    screen, encoding = sys.stdout.fileno(), sys.stdout.encoding
    with _keyboard() as keys, Terminal(keys, screen, encoding) as terminal:
        before: Reading | None = None
        now = read()
        while not view.quit:
            if time.monotonic() >= now.time + interval:
                before, now = now, read()
            view.show(rows_of(now, before, wanted._replace(ended=view.ended)))
            width, height = terminal.size()
            lines = view.draw(width, height, nothing(wanted))
            terminal.draw(map(_styled, lines))
            for key in terminal.wait(now.time + interval - time.monotonic()):
                view.press(key)


def _styled(line: Line) -> str:
    begin = _STYLES[line.style]
    if line.marked is None:
        return begin + line.text
    start, end = line.marked
    marked = f"\x1b[4m{line.text[start:end]}\x1b[24m"
    return begin + line.text[:start] + marked + line.text[end:]


@contextmanager
def _keyboard() -> Iterator[int]:
    """Yield a descriptor for keys: stdin, or the terminal itself if stdin is something else."""
    if sys.stdin.isatty():
        yield sys.stdin.fileno()
        return
    try:
        keys = os.open("/dev/tty", os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise click.ClickException(
            f"no keys can be read: stdin is not a terminal, and /dev/tty: {error.strerror}; for"
            " a table without a terminal write localrpc top | cat"
        ) from None
    try:
        yield keys
    finally:
        os.close(keys)
