"""Tables that fit: a wide one or, if there is no room for it, one for each scenario."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from rich import box
from rich.console import Console, ConsoleOptions, RenderableType
from rich.table import Table

# More than any table needs.
_ROOM = 1 << 16


@dataclass(frozen=True)
class Fitting:
    """Shows the result of `make`, which is called with True if narrow tables are needed."""

    make: Callable[[bool], RenderableType]

    def __rich_console__(
        self, console: Console, options: ConsoleOptions
    ) -> Iterator[RenderableType]:
        wide = self.make(False)
        needed = console.measure(wide, options=options.update(max_width=_ROOM)).maximum
        yield wide if needed <= options.max_width else self.make(True)


def scenario_table(scenario: str | None, *columns: str, left: int = 1) -> Table:
    """Return a table of one scenario, or with None a wide one with the scenarios as first column.

    `left` columns contain text, the others figures.
    """
    wide = scenario is None
    table = Table(
        title=scenario,
        title_justify="left",
        header_style="bold",
        pad_edge=False,
        box=box.HEAVY_HEAD if wide else None,
        padding=(0, 1) if wide else (0, 1, 0, 0),
    )
    if wide:
        table.add_column("scenario")
    for number, column in enumerate(columns):
        justify: Literal["left", "right"] = "right" if number >= left else "left"
        table.add_column(column, justify=justify, no_wrap=wide, overflow="fold")
    return table
