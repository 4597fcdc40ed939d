"""Which rows `ps` and `top` show, what they say, and how they fit: from readings made here."""

from __future__ import annotations

import json

import grpc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from localrpc.cli.processes import text
from localrpc.cli.processes.detail import detail_of, histogram
from localrpc.cli.processes.document import CODES, processes_of
from localrpc.cli.processes.rows import (
    Reading,
    Wanted,
    callable_targets,
    live_targets,
    rows_of,
    schemes_of,
    targets_of,
)
from localrpc.cli.processes.table import PS, PS_WATCHING, TOP, table_of
from localrpc.observe import Latency
from localrpc.observe.latency import BUCKETS

from .readings import EVERYTHING, counts, endpoint, process, rows

# ---- which rows ----


def test_servers_come_before_channels_and_lower_pids_first() -> None:
    found = rows(
        process(endpoint(role="channel", target="a:"), endpoint(target="b:"), pid=7),
        process(endpoint(target="c:"), pid=9),
    )
    assert [(row.process.pid, row.endpoint.target) for row in found] == [
        (7, "b:"),
        (7, "a:"),
        (9, "c:"),
    ]


def test_what_has_ended_is_shown_only_if_wanted() -> None:
    made = process(endpoint(live=False), endpoint(target="shm:other"))
    assert [row.endpoint.target for row in rows(made, wanted=Wanted())] == ["shm:other"]
    assert len(rows(made, wanted=EVERYTHING)) == 2
    assert rows(process(endpoint(live=False)), wanted=Wanted()) == []


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ("shm:greeter", True),
        ("shm://greeter", True),
        ("unix:/run/x.sock", True),
        ("unix:///run/x.sock", True),
        ("shm:greeter?ring=4M", True),
        ("shm:greeter?ring=2M", False),
        ("shm:greet", False),
        ("unix:/run/x.sock?spin=off", False),
        ("", False),
    ],
)
def test_a_target_is_found_whatever_its_options(asked: str, found: bool) -> None:
    made = process(endpoint(target="shm:greeter?ring=4M unix:/run/x.sock"))
    assert bool(rows(made, wanted=Wanted(asked))) is found


def test_rows_of_other_processes_are_left_out() -> None:
    made = [process(endpoint(), pid=pid) for pid in (1, 2, 3)]
    assert [row.process.pid for row in rows(*made, wanted=Wanted(pids=(3, 1)))] == [1, 3]


def test_targets_are_told_apart_although_a_path_has_spaces() -> None:
    assert targets_of("unix:/a b/c.sock shm:x tcp:[::1]:5") == [
        "unix:/a b/c.sock",
        "shm:x",
        "tcp:[::1]:5",
    ]
    assert targets_of("") == []
    assert schemes_of(endpoint(target="unix:/a shm:x unix:/b")) == "unix,shm"


def test_only_targets_that_another_process_can_call_are_completed() -> None:
    reachable = "unix:/x unix-abstract:n tcp:127.0.0.1:5 pipe:/f file:/d shm:/p"
    others = "unix:x inproc:i fd:3 pipe: pipe:f file:d shm:n mq:q sysvmq:s"
    made = [
        process(endpoint(target=f"{reachable}?spin=off {others}")),
        process(endpoint(role="channel", target="unix:/channel")),
        process(endpoint(live=False, target="unix:/ended")),
    ]
    assert callable_targets(made) == set(reachable.split())
    assert {"unix:/channel", "inproc:i", "shm:n"} <= live_targets(made)
    assert "unix:/ended" not in live_targets(made)


# ---- between two readings ----


def test_rates_are_those_of_the_interval() -> None:
    before = Reading(10.0, (process(endpoint(counts(100, failed=4)), processor=1.0),))
    now = Reading(12.0, (process(endpoint(counts(150, failed=14, bucket=50)), processor=2.0),))
    (row,) = rows_of(now, before, EVERYTHING)
    assert (row.calls_per_second, row.errors_per_second, row.processor_share) == (30.0, 5.0, 0.5)
    assert row.recent.calls == 164  # all those of the other bucket
    (alone,) = rows_of(now, None, EVERYTHING)
    assert (alone.calls_per_second, alone.errors_per_second) == (None, None)


def test_all_calls_of_a_new_endpoint_are_of_the_interval() -> None:
    before = Reading(10.0, (process(endpoint(target="a:")),))
    new = endpoint(counts(20), target="b:", since=11.0)
    now = Reading(12.0, (process(endpoint(target="a:"), new), process(new, pid=1001)))
    rates = [row.calls_per_second for row in rows_of(now, before, EVERYTHING)]
    assert rates == [0.0, 10.0, 10.0]


def test_a_rate_is_unknown_if_an_earlier_reading_lacks_an_older_endpoint() -> None:
    now = Reading(12.0, (process(endpoint(counts(20), since=3.0)),))
    (row,) = rows_of(now, Reading(10.0, ()), EVERYTHING)
    assert row.calls_per_second is None


def test_another_process_of_the_same_number_has_rates_of_its_own() -> None:
    before = Reading(10.0, (process(endpoint(counts(1000)), processor=50.0),))
    now = Reading(12.0, (process(endpoint(counts(1004), since=11.0), processor=0.5),))
    (row,) = rows_of(now, before, EVERYTHING)
    assert (row.calls_per_second, row.processor_share) == (502.0, 0.25)


def test_an_age_is_never_negative() -> None:
    (row,) = rows(process(endpoint(since=200.0)), time=100.0)
    assert row.age == 0.0


# ---- text ----


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (text.count(0), "0"),
        (text.count(99_999), "99999"),
        (text.count(100_000), "100k"),
        (text.count(1_234_567), "1.23M"),
        (text.count(0.26), "0.3"),
        (text.count(2**64 - 1), "18447P"),
        (text.size(1023), "1023"),
        (text.size(19_611_648), "18.7M"),
        (text.size(2**64 - 1), "16384P"),
        (text.duration(None), "-"),
        (text.duration(2.56e-7), "256ns"),
        (text.duration(0.00117), "1.17ms"),
        (text.duration(0.9999), "1.00s"),
        (text.duration(240.0), "240s"),
        (text.age(59.9), "59s"),
        (text.age(61), "1m01s"),
        (text.age(3 * 3600 + 120), "3h02m"),
        (text.age(86400 * 12), "12d00h"),
    ],
)
def test_numbers_are_short(shown: str, expected: str) -> None:
    assert shown == expected


def test_control_characters_and_those_that_reorder_are_escaped() -> None:
    shown = text.escaped("a\x1b[2J\nb\x9bc\u202ed\ud800é日")
    assert shown == "a\\x1b[2J\\x0ab\\x9bc\\u202ed\\ud800é日"


def test_text_is_cut_by_columns_of_the_terminal() -> None:
    assert text.cut("日本語", 5) == "日本…"
    assert text.cut("日本語", 4) == "日…"
    assert text.cut("abc", 3) == "abc"
    assert text.cut("abc", 0) == ""
    assert text.cut_inside("shm:greeter unix:/run/greeter.sock", 16) == "shm:g…eeter.sock"


@given(st.text(st.characters(exclude_categories=["Cs"])), st.integers(1, 30))
def test_wrapped_text_fits_and_loses_only_spaces(value: str, columns: int) -> None:
    shown = text.escaped(value)
    lines = text.wrapped(shown, columns)
    assert "".join(lines).replace(" ", "") == shown.replace(" ", "")
    assert all(text.columns_of(line) <= max(columns, 2) for line in lines)


# ---- tables ----

HOSTILE = st.text(max_size=40)


@settings(max_examples=40)
@given(target=HOSTILE, command=HOSTILE, note=HOSTILE, role=HOSTILE, width=st.integers(1, 250))
def test_any_text_of_another_process_fits_and_reaches_no_terminal_raw(
    target: str, command: str, note: str, role: str, width: int
) -> None:
    one = endpoint(target=target, role=role)
    made = rows(process(one, one, command=command, note=note, uid=2**32 - 2))
    for columns in (PS, PS_WATCHING, TOP):
        table = table_of(columns, made, width, grouped=True)
        for line in (table.heading, *table.lines):
            assert line.isprintable()
            assert text.columns_of(line) <= width
        whole = table_of(columns, made, None, grouped=False)
        assert all(line.isprintable() for line in whole.lines)
    for line, _ in detail_of(made[0], width):
        assert line.isprintable()
        assert text.columns_of(line) <= width


def test_a_wider_terminal_shows_more_and_a_pipe_all() -> None:
    made = rows(process(endpoint(counts(1_234_567))))
    shown = {
        width: [column.name for column in table_of(PS, made, width, grouped=True).columns]
        for width in (20, 40, 60, 80, 120, 200, None)
    }
    assert shown[20] == ["PID", "TARGET"]
    assert {"PID", "STATE", "ROLE", "TARGET", "FLIGHT", "CALLS", "FAILED", "P99"} <= {*shown[80]}
    for narrow, wide in ((20, 40), (40, 60), (60, 80), (80, 120), (120, 200), (200, None)):
        assert {*shown[narrow]} <= {*shown[wide]}
    assert shown[None] == [column.name for column in PS if column.name not in ("USER", "NOTE")]
    assert "1.23M" in table_of(PS, made, 80, grouped=True).lines[0]
    assert "1234567" in table_of(PS, made, None, grouped=True).lines[0]


def test_what_is_the_same_for_all_rows_of_a_process_is_printed_once() -> None:
    made = rows(process(endpoint(), endpoint(target="shm:b")), process(endpoint(), pid=1001))
    grouped = table_of(PS, made, 200, grouped=True).lines
    assert [line[:4].strip() for line in grouped] == ["1000", "", "1001"]
    whole = table_of(PS, made, 200, grouped=False).lines
    assert [line[:4] for line in whole] == ["1000", "1000", "1001"]


def test_users_and_notes_are_shown_if_there_are_any() -> None:
    made = rows(process(endpoint(), uid=12345, note="worker 2"))
    (line,) = table_of(PS, made, None, grouped=True).lines
    assert "12345" in line
    assert "worker 2" in line


@pytest.mark.parametrize(
    ("letter", "word"),
    [("R", "running"), ("S", "sleeping"), ("T", "stopped"), ("D", "disk"), ("?", "?")],
)
def test_a_state_is_a_word(letter: str, word: str) -> None:
    assert rows(process(endpoint(), state=letter))[0].state == word


# ---- details ----


def test_a_histogram_has_a_bar_for_each_power_of_two_between_the_first_and_the_last() -> None:
    lasted = [0] * BUCKETS
    lasted[0], lasted[9], lasted[16], lasted[25] = 1, 4, 4, 1
    lines = [line for line, heading in histogram(Latency(tuple(lasted)), 41) if not heading]
    assert [line.split()[:2] for line in lines] == [
        ["256ns", "1"],
        ["512ns", "0"],
        ["1.02us", "8"],
        ["2.05us", "0"],
        ["4.10us", "1"],
    ]
    assert [line.count("█") for line in lines] == [2, 0, 16, 0, 2]


def test_every_bucket_is_in_a_histogram() -> None:
    lines = histogram(Latency((1,) * BUCKETS), 80)[1:]
    assert sum(int(line.split()[1]) for line, _ in lines) == BUCKETS
    assert lines[-1][0].startswith("longer")


def test_a_single_call_among_many_is_visible() -> None:
    lasted = [0] * BUCKETS
    lasted[0], lasted[1] = 1, 10**9
    (_, rare, _) = histogram(Latency(tuple(lasted)), 80)
    assert rare[0].endswith("▏")


def test_details_have_codes_and_percentiles_in_40_columns() -> None:
    before = Reading(98.0, (process(endpoint(counts(10))),))
    now = Reading(100.0, (process(endpoint(counts(30, failed=6, code=8))),))
    (row,) = rows_of(now, before, EVERYTHING)
    lines = [" ".join(line.split()) for line, _ in detail_of(row, 40)]
    assert "OK 30 10" in lines
    assert "RESOURCE_EXHAUSTED 6 3" in lines
    assert "mean 250ms a call" in lines
    assert any(line.startswith("99.9 % ") for line in lines)


def test_details_of_an_endpoint_without_calls_say_so() -> None:
    (row,) = rows(process(endpoint()))
    assert [line for line, _ in detail_of(row, 80)].count("no call has ended") == 2


# ---- JSON ----


def test_json_has_every_count() -> None:
    made = process(endpoint(counts(8, failed=2, code=14, in_flight=3, waiting=1)), state="T")
    (document,) = processes_of(rows(made))
    assert json.loads(json.dumps(document)) == document
    assert {name: document[name] for name in ("pid", "state", "threads", "memory")} == {
        "pid": 1000,
        "state": "stopped",
        "threads": 3,
        "memory": 20 << 20,
    }
    (shown,) = document["endpoints"]
    assert shown["codes"] == {"OK": 8, "UNAVAILABLE": 2}
    assert (shown["calls"], shown["in_flight"], shown["waiting"]) == (13, 3, 1)
    assert shown["p50"] == shown["p99"] == shown["p99.9"] == counts(1).latency.percentile(50)
    assert "interval" not in shown


def test_status_codes_are_grpcs() -> None:
    assert CODES[:-1] == tuple(
        code.name for code in sorted(grpc.StatusCode, key=lambda code: code.value[0])
    )
    assert len(CODES) == len(counts().ended)
