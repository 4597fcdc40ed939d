"""Rows as lines of text, as wide as there is room for."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from typing import NamedTuple

from localrpc.cli.processes import text
from localrpc.cli.processes.rows import Row, schemes_of


class Column(NamedTuple):
    name: str
    """Its heading."""
    cell: Callable[[Row], str]
    rank: int
    """The higher, the sooner it is left out of a narrow terminal."""
    right: bool = True
    """Adjusted to the right, as numbers are."""
    of_process: bool = False
    """The same for all rows of a process."""
    least: int | None = None
    """If its cells are cut where there is no room for all of them: to at least so many columns of
    a terminal, or half of a narrow one."""
    order: Callable[[Row], float | str | None] | None = None
    """What rows are sorted by, if not by the cell; None comes last."""
    exact: Callable[[Row], object] | None = None
    """What a pipe gets in place of the cell."""


def _optional(number: float | None) -> str:
    return text.NONE if number is None else text.count(number)


def _percent(share: float | None) -> str:
    return text.NONE if share is None else f"{100 * share:.0f}"


@cache
def _name_of(user: int) -> str:
    import pwd

    try:
        return text.escaped(pwd.getpwuid(user).pw_name)
    except KeyError:
        return str(user)


def _count(name: str, of: Callable[[Row], int], rank: int) -> Column:
    return Column(name, lambda row: text.count(of(row)), rank, order=of, exact=of)


def _percentile(name: str, percent: float, rank: int, *, recent: bool = False) -> Column:
    def of(row: Row) -> float | None:
        latency = row.recent if recent else row.endpoint.counts.latency
        return latency.percentile(percent)

    return Column(name, lambda row: text.duration(of(row)), rank, order=of)


_PID = Column(
    "PID",
    lambda row: str(row.process.pid),
    0,
    of_process=True,
    order=lambda row: row.process.pid,
)
_USER = Column("USER", lambda row: _name_of(row.process.uid), 17, right=False, of_process=True)
_STATE = Column("STATE", lambda row: row.state, 5, right=False, of_process=True)
_ROLE = Column(
    "ROLE",
    lambda row: text.escaped(row.endpoint.role) + ("" if row.endpoint.live else ", ended"),
    2,
    right=False,
)
_TARGET = Column("TARGET", lambda row: text.escaped(row.endpoint.target), 1, right=False, least=20)
_TRANSPORT = Column(
    "TRANSPORT", lambda row: text.escaped(schemes_of(row.endpoint)), 16, right=False
)
_CONNS = _count("CONNS", lambda row: row.endpoint.counts.connections, 10)
_FLIGHT = _count("FLIGHT", lambda row: row.endpoint.counts.in_flight, 4)
_WAIT = _count("WAIT", lambda row: row.endpoint.counts.waiting, 9)
_STREAMS = _count("STREAMS", lambda row: row.endpoint.counts.streams, 14)
_CALLS = _count("CALLS", lambda row: row.endpoint.counts.begun, 3)
_FAILED = _count("FAILED", lambda row: row.endpoint.counts.failed, 6)
_CALLS_RATE = Column(
    "CALLS/S",
    lambda row: _optional(row.calls_per_second),
    3,
    order=lambda row: row.calls_per_second,
)
_ERRORS_RATE = Column(
    "ERRORS/S",
    lambda row: _optional(row.errors_per_second),
    6,
    order=lambda row: row.errors_per_second,
)
_CPU = Column(
    "CPU%",
    lambda row: _percent(row.processor_share),
    8,
    order=lambda row: row.processor_share,
)
_MEMORY = Column(
    "MEMORY",
    lambda row: text.size(row.process.memory),
    13,
    of_process=True,
    order=lambda row: row.process.memory,
)
_THREADS = Column(
    "THREADS",
    lambda row: str(row.process.threads),
    15,
    of_process=True,
    order=lambda row: row.process.threads,
)
_AGE = Column("AGE", lambda row: text.age(row.age), 12, order=lambda row: row.age)
_NOTE = Column(
    "NOTE", lambda row: text.escaped(row.process.page.note), 18, right=False, of_process=True
)
_COMMAND = Column(
    "COMMAND",
    lambda row: text.escaped(row.process.command),
    19,
    right=False,
    of_process=True,
    least=12,
)

PS = (
    *(_PID, _USER, _STATE, _ROLE, _TARGET, _TRANSPORT, _CONNS, _FLIGHT, _WAIT, _STREAMS, _CALLS),
    *(_FAILED, _percentile("P50", 50, 11), _percentile("P99", 99, 7)),
    *(_MEMORY, _THREADS, _AGE, _NOTE, _COMMAND),
)
PS_WATCHING = tuple(
    column for each in PS for column in ((_CALLS_RATE, each) if each is _CALLS else (each,))
)
TOP = (
    *(_PID, _USER, _STATE, _ROLE, _TARGET, _CALLS_RATE, _FLIGHT, _WAIT, _ERRORS_RATE),
    *(_percentile("P50", 50, 11, recent=True), _percentile("P99", 99, 7, recent=True)),
    *(_CPU, _MEMORY, _CONNS, _STREAMS, _THREADS, _AGE, _NOTE, _COMMAND),
)


class Table(NamedTuple):
    columns: tuple[Column, ...]
    """Those for which there is room."""
    heading: str
    lines: list[str]
    starts: tuple[int, ...]
    """Where each column's heading begins in `heading`, its padding included."""


def usable(columns: Sequence[Column], rows: Sequence[Row]) -> list[Column]:
    """Return the columns without those that would say the same of each row, or nothing."""
    left_out = set()
    if all(row.process.uid == os.geteuid() for row in rows):
        left_out.add("USER")
    if not any(row.process.page.note for row in rows):
        left_out.add("NOTE")
    return [column for column in columns if column.name not in left_out]


def table_of(
    columns: Sequence[Column], rows: Sequence[Row], width: int | None, *, grouped: bool
) -> Table:
    """Return the rows as lines of at most `width` columns; None is for a pipe, where all columns
    are whole, and counts exact.

    `grouped` leaves out what the line above says of the same process.
    """
    left = usable(columns, rows)
    cells = {column.name: _cells(column, rows, width is None) for column in left}
    if width is None:
        return _drawn(left, cells, rows, {}, "  ", grouped)
    widest = {
        column.name: max(map(text.columns_of, [column.name, *cells[column.name]]))
        for column in left
    }
    needed = dict(widest)
    for column in left:
        if column.least is not None:
            least = min(column.least, max(8, width // 2))
            needed[column.name] = min(widest[column.name], least)
    gap = "  " if _room(left, needed, "  ", width) >= 0 else " "
    while len(left) > 1 and _room(left, needed, gap, width) < 0:
        left.remove(max(left, key=lambda column: column.rank))
    room = max(0, _room(left, needed, gap, width))
    widths = {}
    for column in left:
        if column.least is not None:
            more = min(room, widest[column.name] - needed[column.name])
            widths[column.name] = min(width, needed[column.name] + more)
            room -= more
    return _drawn(left, cells, rows, widths, gap, grouped, width)


def _cells(column: Column, rows: Iterable[Row], exact: bool) -> list[str]:
    if exact and column.exact is not None:
        return [str(column.exact(row)) for row in rows]
    return [column.cell(row) for row in rows]


def _room(columns: Sequence[Column], needed: dict[str, int], gap: str, width: int) -> int:
    """Return how many columns of the terminal are left; negative if there are too few."""
    taken = sum(needed[column.name] for column in columns)
    return width - taken - len(gap) * (len(columns) - 1)


def _drawn(
    columns: list[Column],
    cells: dict[str, list[str]],
    rows: Sequence[Row],
    widths: dict[str, int],
    gap: str,
    grouped: bool,
    width: int | None = None,
) -> Table:
    parts = []
    for column in columns:
        shown = [column.name, *cells[column.name]]
        limit = widths.get(column.name, width)
        if limit is not None:
            shorten = text.cut_inside if column.name == "TARGET" else text.cut
            shown = [shorten(each, limit) for each in shown]
        if grouped and column.of_process:
            for at in range(len(rows) - 1, 0, -1):
                if rows[at].process.pid == rows[at - 1].process.pid:
                    shown[at + 1] = ""
        wide = max(map(text.columns_of, shown))
        parts.append([text.padded(each, wide, right=column.right) for each in shown])
    lines = [gap.join(line).rstrip() for line in zip(*parts, strict=True)]
    starts, at = [], 0
    for part in parts:
        starts.append(at)
        at += len(part[0]) + len(gap)
    return Table(tuple(columns), lines[0], lines[1:], tuple(starts))
