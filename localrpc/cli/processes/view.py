"""What `top` shows, and what each key does to it. No terminal, no clock: keys in, lines out."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from typing import NamedTuple

from localrpc.cli.processes import text
from localrpc.cli.processes.detail import detail_of
from localrpc.cli.processes.rows import Key, Row
from localrpc.cli.processes.table import TOP, Column, table_of, usable


class Style(enum.Enum):
    """How a line is drawn."""

    PLAIN = enum.auto()
    HEADING = enum.auto()
    SELECTED = enum.auto()
    FAINT = enum.auto()


class Line(NamedTuple):
    text: str
    style: Style = Style.PLAIN
    marked: tuple[int, int] | None = None
    """From where to where it is underlined: the heading of the column that sorts."""


_HELP = "q quit  ←→ sort by  r reverse  ↑↓ select  Enter detail  a also ended"
_HELP_OF_DETAIL = "q quit  Esc back  ↑↓ scroll"
_FAR = 1_000_000
_QUIT = ("q", "Q")
_BACK = ("escape", "enter", "backspace", "left", "h")


class View:
    """The table, or one endpoint in detail. Not thread-safe."""

    def __init__(self, sort: str = "CALLS/S") -> None:
        self.sort = sort
        """The heading of the column that sorts."""
        self.reverse = False
        """True if what would be first comes last."""
        self.selected: Key | None = None
        self.detail = False
        self.ended = False
        """Endpoints that have ended are shown as well."""
        self.quit = False
        self._rows: list[Row] = []
        self._scroll = 0
        self._page = 1

    @property
    def rows(self) -> list[Row]:
        """In the order in which they are shown."""
        return self._rows

    # ---- what changes it ----

    def show(self, rows: Sequence[Row]) -> None:
        """Take the rows of a new reading."""
        self._rows = sorted_by(_column(self.sort), rows, reverse=self.reverse)
        if self.selected is not None and self._at() is None and not self.detail:
            self.selected = None

    def press(self, key: str) -> None:
        if key in _QUIT:
            self.quit = True
        elif self.detail:
            self._press_in_detail(key)
        elif key == "enter":
            if self._at() is None:
                self._select(0)
            self.detail, self._scroll = self._at() is not None, 0
        elif key in ("left", "<", "h"):
            self._sort_by_next(-1)
        elif key in ("right", ">", "l"):
            self._sort_by_next(1)
        elif key in ("r", "R"):
            self.reverse = not self.reverse
            self.show(self._rows)
        elif key == "a":
            self.ended = not self.ended
        elif key == "escape":
            self.selected = None
        else:
            self._move(key)

    def _press_in_detail(self, key: str) -> None:
        if key in _BACK:
            self.detail, self._scroll = False, 0
        else:
            self._scroll = max(0, self._scroll + self._step(key))

    def _step(self, key: str) -> int:
        steps = {
            "up": -1,
            "k": -1,
            "down": 1,
            "j": 1,
            "page up": -self._page,
            "page down": self._page,
            "home": -_FAR,
            "end": _FAR,
        }
        return steps.get(key, 0)

    def _move(self, key: str) -> None:
        step = self._step(key)
        if step:
            at = self._at()
            self._select((-1 if at is None else at) + step)

    def _select(self, at: int) -> None:
        if self._rows:
            self.selected = self._rows[max(0, min(at, len(self._rows) - 1))].key

    def _at(self) -> int | None:
        found = (at for at, row in enumerate(self._rows) if row.key == self.selected)
        return next(found, None)

    def _sort_by_next(self, step: int) -> None:
        columns = [column.name for column in usable(TOP, self._rows)]
        at = columns.index(self.sort) if self.sort in columns else 0
        self.sort = columns[(at + step) % len(columns)]
        self.show(self._rows)

    # ---- what is drawn ----

    def draw(self, width: int, height: int, empty: str = "") -> list[Line]:
        """Return `height` lines of at most `width` columns."""
        body = self._draw_detail if self.detail else self._draw_table
        lines = [Line(text.cut(self._summary(), width))]
        room = height - len(lines) - 1
        if room < 1:
            return (lines + [Line("")] * height)[:height]
        self._page = max(1, room - 2)
        lines += body(width, room, empty)
        lines += [Line("")] * (height - 1 - len(lines))
        lines.append(Line(text.cut(_HELP_OF_DETAIL if self.detail else _HELP, width), Style.FAINT))
        return lines

    def _summary(self) -> str:
        processes = len({row.process.pid for row in self._rows})
        servers = sum(row.endpoint.role == "server" for row in self._rows)
        # The two sides of a call are two endpoints: it is counted where it is served, if it is.
        counted = [row for row in self._rows if row.endpoint.role == "server"] or self._rows
        calls = sum(row.calls_per_second or 0.0 for row in counted)
        errors = sum(row.errors_per_second or 0.0 for row in counted)
        return (
            f"localrpc top  {text.count(calls)} calls/s  {text.count(errors)} errors/s"
            f"  {_plural(processes, 'process', 'processes')}  {_plural(servers, 'server')}"
            f"  {_plural(len(self._rows) - servers, 'channel')}"
        )

    def _draw_table(self, width: int, room: int, empty: str) -> list[Line]:
        if not self._rows:
            return [Line(""), Line(text.cut(empty, width))][:room]
        kept = [column._replace(rank=-1) if column.name == self.sort else column for column in TOP]
        table = table_of(kept, self._rows, width, grouped=False)
        marked = None
        for column, start in zip(table.columns, table.starts, strict=True):
            if column.name == self.sort:
                at = table.heading.find(column.name, start)
                marked = (at, at + len(column.name)) if at >= 0 else None
        lines = [Line(table.heading, Style.HEADING, marked)]
        chosen, room = self._at(), room - 1
        # Scroll no further than is needed to see the selected row.
        first = min(self._scroll, max(0, len(table.lines) - room))
        if chosen is not None:
            first = max(min(first, chosen), chosen - room + 1)
        self._scroll = first
        for number, line in enumerate(table.lines[first : first + room], first):
            if number == chosen:
                lines.append(Line(text.padded(line, width), Style.SELECTED))
            else:
                lines.append(Line(line))
        return lines

    def _draw_detail(self, width: int, room: int, empty: str) -> list[Line]:
        at = self._at()
        if at is None:
            return [Line(""), Line(text.cut("It has ended, and is no longer listed.", width))][
                :room
            ]
        lines = detail_of(self._rows[at], width)
        self._scroll = max(0, min(self._scroll, len(lines) - room))
        shown = lines[self._scroll : self._scroll + room]
        return [Line(line, Style.HEADING if heading else Style.PLAIN) for line, heading in shown]


def sorted_by(column: Column, rows: Sequence[Row], *, reverse: bool) -> list[Row]:
    """Return the rows with the largest number, or the first text, first; with `reverse` last.

    What has no value is last, either way. Rows that are equal stay as they were by key.
    """
    order = column.order or column.cell
    keyed = [(order(row), row) for row in sorted(rows, key=lambda row: row.key)]
    known = [(value, row) for value, row in keyed if value is not None]
    numbers = column.order is not None and column.name != "PID"
    known.sort(key=lambda pair: pair[0], reverse=numbers != reverse)
    return [row for _, row in known] + [row for value, row in keyed if value is None]


def _column(name: str) -> Column:
    return next(column for column in TOP if column.name == name)


def _plural(number: int, one: str, more: str = "") -> str:
    return f"{number} {one if number == 1 else more or one + 's'}"
