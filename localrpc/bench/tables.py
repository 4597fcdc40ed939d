"""A document as tables for other programs: CSV, and Markdown for a README."""

from __future__ import annotations

import csv
from typing import Any, TextIO

from .document import Document, Section, form, times
from .measures import MEASURES


def write_csv(document: Document, file: TextIO) -> None:
    """Write a line for each peer in each scenario: seconds, bytes, and counts per call."""
    base = document.baseline
    names = sorted({name for section in document.sections for name in section.parameters})
    writer = csv.writer(file)
    header = ["scenario", "title", "unit", *names, "peer"]
    for key in MEASURES:
        header += [key, f"{key}_low", f"{key}_high"]
    writer.writerow([*header, *(f"{key}_ratio" for key in MEASURES), "rounds", "failure"])
    for section in document.sections:
        for peer, measured in section.peers.items():
            line: list[Any] = [section.name, section.title, section.unit]
            line += [section.parameters.get(name, "") for name in names]
            line.append(peer)
            for key in MEASURES:
                figure = measured.figures.get(key)
                line += ["", "", ""] if figure is None else [figure.median, figure.low, figure.high]
            for key in MEASURES:
                ratio = section.ratio(peer, base, key)
                line.append("" if ratio is None else ratio)
            line.append(len(measured.rounds.get("rate", ())))
            writer.writerow([*line, measured.failure or ""])


def write_markdown(document: Document, file: TextIO) -> None:
    """Write the summary of the report: one line for each scenario."""
    peers = document.peers
    print("|", " | ".join(["", *peers]), "|", file=file)
    print("|---|" + "---:|" * len(peers), file=file)
    for section in document.sections:
        cells = [_cell(section, peer, document.baseline) for peer in peers]
        title = f"{section.title}: {MEASURES[section.main].title}"
        print("|", " | ".join([title, *cells]), "|", file=file)


def _cell(section: Section, peer: str, base: str) -> str:
    key = section.main
    measured = section.peers.get(peer)
    median = measured.median(key) if measured is not None else None
    if median is None:
        return "failed" if measured is not None and measured.failure else ""
    ratio = section.ratio(peer, base, key) if peer != base else None
    return form(key, median) + (f" ({times(ratio)})" if ratio is not None else "")
