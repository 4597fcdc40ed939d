"""The tables of a run and of a comparison: they fit the terminal, and leave nothing out."""

from __future__ import annotations

import io
from functools import cache

import pytest
from rich.console import Console, RenderableType

from localrpc.bench import compare, report
from localrpc.bench.document import parse
from tests.bench.documents import EVERY_KIND, MACHINE, document, results

PEERS = ("shm", "shm?wakeup=futex", "multiprocessing", "grpcio")


@cache
def a_run() -> RenderableType:
    run = results(peers=PEERS, slower={"grpcio": 50.0}, calls=200)
    return report.render(run, MACHINE)


@cache
def a_comparison() -> RenderableType:
    runs = [parse(document(peers=PEERS, seed=seed, calls=200)) for seed in (1, 2)]
    return compare.render(compare.compare(*runs))


def printed(what: RenderableType, width: int) -> list[str]:
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)
    with console.capture() as capture:
        console.print(what)
    return capture.get().splitlines()


@pytest.mark.parametrize("what", [a_run, a_comparison])
@pytest.mark.parametrize("width", [80, 140, 200])
def test_nothing_is_wider_than_the_terminal_or_left_out(what: object, width: int) -> None:
    assert callable(what)
    lines = printed(what(), width)
    assert max(map(len, lines)) <= width
    text = "\n".join(lines)
    assert "…" not in text
    for scenario in EVERY_KIND:
        assert scenario.title in text
    for peer in PEERS:
        assert any(peer in line for line in lines)


def test_a_narrow_terminal_has_each_figure_above_its_spread() -> None:
    run = report.render(results(peers=PEERS, scenarios=EVERY_KIND[:1], calls=200), MACHINE)
    wide, narrow = (printed(run, width) for width in (200, 80))
    words = [" ".join(lines).replace("│", " ").split() for lines in (wide, narrow)]
    spreads = [{word for word in each if word.startswith("(")} for each in words]
    assert spreads[0] == spreads[1]
