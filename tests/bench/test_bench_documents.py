"""A run's document: read back, as CSV, and refused if it is something else."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path
from typing import Any

import pytest

from localrpc.bench.document import (
    CLIENTS,
    SIZE,
    UnreadableDocument,
    amount,
    duration,
    load,
    parse,
)
from localrpc.bench.history import History
from localrpc.bench.measures import MEASURES
from localrpc.bench.report import PERCENTILES, percentiles, rows
from localrpc.bench.sample import Latencies
from localrpc.bench.scenarios import clients_of
from localrpc.bench.tables import write_csv, write_markdown
from tests.bench.documents import document, results

SMALL: dict[str, Any] = {"peers": ("shm", "grpcio"), "rounds": 3, "calls": 300}


def test_what_is_read_back_is_what_was_measured(tmp_path: Path) -> None:
    file = tmp_path / "results.json"
    file.write_text(json.dumps(document(**SMALL)))
    measured = results(**SMALL)
    read = load(file)
    assert [section.name for section in read.sections] == [s.name for s in measured.plan.scenarios]
    for section, scenario in zip(read.sections, measured.plan.scenarios, strict=True):
        for row in rows(measured, scenario):
            again = section.peers[row.peer]
            # Tails are of all rounds together.
            for key in MEASURES.keys() - {"p90", "p99", "p999", "max"}:
                assert again.figures.get(key) == row.figures.get(key), key
            assert again.median("p99") == row.p99


def test_only_rounds_that_count_are_read_back() -> None:
    raw = document(**SMALL)
    assert [r["kept"] for r in raw["scenarios"]["unary"]["rounds"]] == [True, False, True, True]
    shm = parse(raw).sections[0].peers["shm"]
    # 300 calls are too few for a p99.9 of each round.
    expected = MEASURES.keys() - {"p999"}
    assert {key: len(values) for key, values in shm.rounds.items()} == dict.fromkeys(expected, 3)
    assert shm.rounds["memory"] == [
        sum(r["samples"]["shm"][f"{side}_memory"] for side in ("client", "server"))
        for r in raw["scenarios"]["unary"]["rounds"]
        if r["kept"]
    ]


def test_every_figure_has_its_spread_over_rounds_and_its_ratio() -> None:
    section = parse(document(**{**SMALL, "calls": 2000})).sections[0]
    shm = section.peers["shm"]
    assert shm.figures.keys() == MEASURES.keys()
    for key, figure in shm.figures.items():
        assert figure.low < figure.high, key
        assert section.ratio("shm", "grpcio", key) is not None, key


def test_the_percentile_axis_ends_with_the_maximum() -> None:
    shm = parse(document(**SMALL)).sections[0].peers["shm"]
    percents = [percent for percent, _ in shm.percentiles]
    seconds = [seconds for _, seconds in shm.percentiles]
    assert percents[0] == 0.0
    assert percents[-1] == 100.0
    # No call of 900 is above the 99.9th.
    assert 99.85 in percents
    assert 99.9 not in percents
    assert seconds == sorted(seconds)


@pytest.mark.parametrize("calls", [0, 1, 99, 1000, 12_345])
def test_many_percentiles_are_those_that_are_asked_for_one_by_one(calls: int) -> None:
    latencies = Latencies(i * i % 1009 for i in range(calls))
    percents = (*PERCENTILES, 100.0)
    expected = [latencies.percentile(percent) for percent in percents]
    assert percentiles(latencies, percents) == expected


def test_scenarios_that_differ_in_size_or_threads_only_are_families() -> None:
    read = parse(document(**SMALL))
    sizes = {f.title: [value for value, _ in f.members] for f in read.families(SIZE)}
    assert sizes == {"unary": [64, 4096, 65536, 1048576], "unary, raw bytes": [64, 1048576]}
    assert [[v for v, _ in f.members] for f in read.families(CLIENTS)] == [[1, 2, 4, 8, 16]]


def test_a_family_of_several_is_named_in_the_plural() -> None:
    scenarios = tuple(map(clients_of, (1, 4)))
    (family,) = parse(document(**SMALL, scenarios=scenarios)).families(CLIENTS)
    assert family.title == "unary, 64 B, clients in turn"


def test_csv_has_one_line_for_each_peer_and_scenario() -> None:
    read = parse(document(**SMALL))
    out = io.StringIO()
    write_csv(read, out)
    lines = list(csv.DictReader(io.StringIO(out.getvalue())))
    assert len(lines) == len(read.sections) * 2
    assert list(lines[0])[:7] == ["scenario", "title", "unit", "dress", "size", "threads", "peer"]
    first = lines[0]
    assert (first["scenario"], first["peer"], first["size"]) == ("unary", "shm", "64")
    shm = read.sections[0].peers["shm"]
    assert float(first["p50"]) == shm.median("p50")
    assert float(first["rate_high"]) == shm.figures["rate"].high
    for key in ("memory", "switches", "syscalls", "server_cpu"):
        assert float(first[key]) == shm.median(key)
        assert float(first[f"{key}_ratio"]) == read.sections[0].ratio("shm", "grpcio", key)
    assert float(first["p50_ratio"]) == pytest.approx(
        read.sections[0].ratio("shm", "grpcio", "p50")
    )
    assert first["failure"] == ""


def test_a_failure_is_a_line_too() -> None:
    measured = document(**SMALL)
    peers = measured["scenarios"]["unary"]["peers"]
    peers["shm"] = {"failure": "its server ended"}
    out = io.StringIO()
    write_csv(parse(measured), out)
    first = next(csv.DictReader(io.StringIO(out.getvalue())))
    assert first["failure"] == "its server ended"
    assert first["p50"] == ""


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("nothing", "is not JSON"),
        ("[1]", "is not a result of"),
        ('{"scenarios": {}}', "is not a result of"),
        ('{"format": "localrpc-bench", "version": 99}', "has version 99; this localrpc reads 1"),
        ('{"format": "localrpc-bench", "version": 1}', "is damaged"),
    ],
)
def test_other_files_are_refused_with_a_reason(tmp_path: Path, text: str, why: str) -> None:
    file = tmp_path / "results.json"
    file.write_text(text)
    with pytest.raises(UnreadableDocument, match=f"results.json {why}"):
        load(file)


def test_fields_of_a_later_version_are_ignored() -> None:
    raw = document(**SMALL)
    raw["scenarios"]["unary"]["peers"]["shm"]["phase_of_moon"] = {"median": 1}
    raw["doctor"] = {"anything": []}
    assert parse(raw).sections[0].peers["shm"].median("p50")


def test_the_newest_of_a_baseline_counts(tmp_path: Path) -> None:
    history = History(tmp_path, "main")
    for rounds in (3, 4, 5):
        history.save({**document(**{**SMALL, "rounds": rounds}), "ended": "2026-01-02T03:04:05"})
    assert history.newest().raw["rounds"] == 5
    assert len(list((tmp_path / "main").iterdir())) == 3


def test_a_missing_baseline_lists_the_existing_ones(tmp_path: Path) -> None:
    History(tmp_path, "before-rings").save(document(**SMALL))
    with pytest.raises(
        UnreadableDocument, match=r"no baseline 'main'.*the baselines are before-rings"
    ):
        History(tmp_path, "main").newest()


@pytest.mark.parametrize("name", ["", "..", "a/b", "-x"])
def test_a_baseline_is_never_outside_its_folder(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="baseline's name"):
        History(tmp_path, name)


def test_figures_have_three_digits_and_a_unit() -> None:
    assert [duration(s) for s in (7.0e-6, 671e-6, 1.234e-3, 85e-9, 12.34)] == [
        *("7.00 µs", "671 µs", "1.23 ms", "85.0 ns", "12.3 s"),
    ]
    assert [amount(v, "/s") for v in (95.0, 9123.0, 91_400.0, 1.2e6)] == [
        *("95.0 /s", "9.12 k/s", "91.4 k/s", "1.20 M/s"),
    ]


def test_markdown_has_figures_with_their_ratios() -> None:
    out = io.StringIO()
    write_markdown(parse(document(**SMALL)), out)
    head, rule, first, *_, last = out.getvalue().splitlines()
    assert head == "|  | shm | grpcio |"
    assert rule == "|---|---:|---:|"
    assert re.fullmatch(r"\| unary, 64 B: p50 \| 7\.\d\d µs \(9\d\.\d×\) \| \d{3} µs \|", first)
    assert last.startswith("| server streaming, 64 B: per second | ")
