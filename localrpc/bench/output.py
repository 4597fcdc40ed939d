"""Where results are written: JSON, tables, an HTML report, plots."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .document import parse
from .tables import write_csv, write_markdown


@dataclass(frozen=True)
class Outputs:
    json: Path | None = None
    csv: Path | None = None
    markdown: Path | None = None
    report: Path | None = None
    plots: Path | None = None

    def __bool__(self) -> bool:
        return any((self.json, self.csv, self.markdown, self.report, self.plots))

    def lacks(self) -> str | None:
        """The package that is needed and not installed."""
        wanted = [("jinja2", self.report), ("matplotlib", self.plots)]
        return next(
            (
                name
                for name, file in wanted
                if file is not None and importlib.util.find_spec(name) is None
            ),
            None,
        )

    def check(self) -> None:
        """Raise OSError before the run if a file has no folder to be in."""
        for file in (self.json, self.csv, self.markdown, self.report):
            if file is not None and not file.absolute().parent.is_dir():
                raise FileNotFoundError(f"{file}: the folder {file.parent} does not exist")
        if self.plots is not None:
            self.plots.mkdir(parents=True, exist_ok=True)

    def write(self, raw: dict[str, Any]) -> Iterator[Path]:
        """Write all of them, and yield each file."""
        document = parse(raw)
        if self.json is not None:
            self.json.write_text(json.dumps(raw, indent=1) + "\n", encoding="utf-8")
            yield self.json
        if self.csv is not None:
            with self.csv.open("w", encoding="utf-8", newline="") as file:
                write_csv(document, file)
            yield self.csv
        if self.markdown is not None:
            with self.markdown.open("w", encoding="utf-8") as file:
                write_markdown(document, file)
            yield self.markdown
        if self.report is not None:
            from .html import render

            self.report.write_text(render(document), encoding="utf-8")
            yield self.report
        if self.plots is not None:
            from .plots import draw

            yield from draw(document, self.plots)
