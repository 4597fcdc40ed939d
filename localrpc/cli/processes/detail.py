"""One endpoint in detail: status codes, percentiles, and how long its calls have lasted."""

from __future__ import annotations

from localrpc.cli.processes import text
from localrpc.cli.processes.document import CODES
from localrpc.cli.processes.rows import Row, targets_of
from localrpc.observe import Latency
from localrpc.observe.latency import BITS, BUCKETS, bound

_PERCENTS = (50, 90, 99, 99.9)
_EIGHTHS = " ▏▎▍▌▋▊▉"

Lines = list[tuple[str, bool]]
"""Lines of text, each with True if it is a heading."""


def detail_of(row: Row, width: int) -> Lines:
    """Return lines of at most `width` columns."""
    lines = [
        *_facts(row, width),
        ("", False),
        *_codes(row),
        ("", False),
        *_percentiles(row),
        ("", False),
        *histogram(row.endpoint.counts.latency, width),
    ]
    return [(text.cut(line, width), heading) for line, heading in lines]


def _facts(row: Row, width: int) -> Lines:
    process, endpoint, counts = row.process, row.endpoint, row.endpoint.counts
    ended = sum(counts.ended)
    mean = text.duration(counts.seconds / ended if ended else None)
    facts = [
        _fact(
            "process",
            f"{process.pid}, {row.state}, {text.size(process.memory)} of memory,"
            f" {process.threads} threads, {_percent(row.processor_share)} CPU",
            width,
        ),
        _fact("command", text.escaped(process.command), width),
        _fact("note", text.escaped(process.page.note), width),
        [(text.escaped(endpoint.role) + ("" if endpoint.live else ", ended"), True)],
        *(_fact("target", text.escaped(each), width) for each in targets_of(endpoint.target)),
        _fact("age", text.age(row.age), width),
        _fact("connections", f"{counts.connections} now, {counts.connected} in all", width),
        _fact(
            "calls",
            f"{counts.begun} in all, {_rate(row.calls_per_second)}/s; {counts.in_flight} in"
            f" flight, {counts.waiting} waiting, {counts.streams} streams",
            width,
        ),
        _fact("refused", str(counts.refused), width),
        _fact("received", f"{counts.bytes_in} bytes in {counts.frames_in} frames", width),
        _fact("sent", f"{counts.bytes_out} bytes in {counts.frames_out} frames", width),
        _fact("mean", f"{mean} a call", width),
    ]
    return [line for lines in facts for line in lines]


def _fact(name: str, value: str, width: int) -> Lines:
    """Nothing for an empty value; as many lines as a long one takes."""
    parts = text.wrapped(value, max(1, width - 13)) if value else []
    names = [name, *[""] * len(parts)]
    return [(f"{name:<13}{part}", False) for name, part in zip(names, parts, strict=False)]


def _codes(row: Row) -> Lines:
    lines = [(f"{'STATUS':<19}{'CALLS':>9}{'CALLS/S':>9}", True)]
    ended = row.endpoint.counts.ended
    recent = row.interval.counts.ended if row.interval else None
    for number, name in enumerate(CODES):
        if ended[number]:
            rate = text.NONE
            if row.interval and recent and row.interval.seconds > 0:
                rate = text.count(recent[number] / row.interval.seconds)
            lines.append((f"{name:<19}{text.count(ended[number]):>9}{rate:>9}", False))
    if len(lines) == 1:
        lines.append(("no call has ended", False))
    return lines


def _percentiles(row: Row) -> Lines:
    lines = [(f"{'LASTED AT MOST':<15}{'ALL CALLS':>10}{'LAST':>10}", True)]
    recent = row.interval.counts.latency if row.interval else None
    for percent in _PERCENTS:
        name = f"{percent:g} %"
        whole = text.duration(row.endpoint.counts.latency.percentile(percent))
        last = text.duration(recent.percentile(percent) if recent else None)
        lines.append((f"{name:<15}{whole:>10}{last:>10}", False))
    return lines


def histogram(latency: Latency, width: int) -> Lines:
    """Return a bar for each power of two of the time, from the shortest call to the longest."""
    groups = _groups(latency)
    lines = [(f"{'LASTED LESS THAN':<17}{'CALLS':>6}", True)]
    if not groups:
        return [*lines, ("no call has ended", False)]
    most = max(calls for _, calls in groups)
    room = max(1, width - 25)
    for end, calls in groups:
        name = text.duration(end) if end is not None else "longer"
        lines.append((f"{name:<17}{text.count(calls):>6}  {_bar(calls / most, room)}", False))
    return lines


def _groups(latency: Latency) -> list[tuple[float | None, int]]:
    """Return ends of powers of two, in seconds, with the calls before; None for the open one."""
    size = 1 << BITS
    found: list[tuple[float | None, int]] = [(bound(1), latency.counted[0])]
    for first in range(1, BUCKETS, size):
        end = first + size
        calls = sum(latency.counted[first:end])
        found.append((bound(end) if end < BUCKETS else None, calls))
    used = [at for at, (_, calls) in enumerate(found) if calls]
    return found[used[0] : used[-1] + 1] if used else []


def _bar(share: float, room: int) -> str:
    """At least an eighth of a column, for any call at all."""
    eighths = round(share * room * 8)
    if share > 0:
        eighths = max(1, eighths)
    whole, part = divmod(eighths, 8)
    return "█" * whole + _EIGHTHS[part].strip()


def _rate(number: float | None) -> str:
    return text.NONE if number is None else text.count(number)


def _percent(share: float | None) -> str:
    return text.NONE if share is None else f"{100 * share:.0f} %"
