"""Advice from the figures of a run: which transport to choose for which purpose."""

from __future__ import annotations

from dataclasses import dataclass

from localrpc.transports import schemes

from .document import Document, Measured, Section, form, size, times
from .measures import MEASURES

# Differences that a measurement does not show, but that may decide a choice.
QUALITIES = {name: scheme.quality for name, scheme in schemes().items() if scheme.quality} | {
    "grpcio": "HTTP/2: other machines and other languages can call.",
}


@dataclass(frozen=True)
class Advice:
    when: str
    choose: str
    why: str


def advise(document: Document) -> list[Advice]:
    """Return a piece of advice for each question that the document's figures answer."""
    base = document.baseline
    calls = [s for s in document.sections if s.kind == "unary" and s.parameters.get("size")]
    calls = [s for s in calls if s.parameters.get("dress", "plain") == "plain"]
    calls.sort(key=lambda section: section.parameters["size"])
    crowds = [(s.clients, s) for s in document.sections if s.clients > 1]
    streams = [s for s in document.sections if s.unit == "message"]
    found = []
    if calls:
        small, large = calls[0], calls[-1]
        what = f"{size(small.parameters['size'])} calls, one after the other"
        found.append(_best(small, "p50", f"Small messages: {what}", base))
        found.append(_best(small, "p99", f"The slowest of a hundred: {what}", base))
        found.append(_best(small, "cpu", f"Least processor time: {what}", base))
        if large is not small:
            big = f"{size(large.parameters['size'])} calls"
            found.append(_best(large, "p50", f"Large messages: {big}", base))
    if crowds:
        number, section = max(crowds, key=lambda crowd: crowd[0])
        found.append(_best(section, "rate", f"Many callers: {number} at once", base))
    found += [_best(section, "rate", f"Streams: {section.title}", base) for section in streams]
    return [advice for advice in found if advice is not None]


def _best(section: Section, key: str, when: str, base: str) -> Advice | None:
    better = -1 if MEASURES[key].more_is_better else 1
    ranked = sorted(
        ((peer, measured) for peer, measured in section.peers.items() if key in measured.figures),
        key=lambda pair: better * pair[1].figures[key].median,
    )
    if len(ranked) < 2:
        return None
    (first, best), (second, next_) = ranked[:2]
    said = _saying(key, best)
    ratio = section.ratio(first, base, key)
    if ratio is not None and first != base:
        said += f", {times(ratio)} better than {base}"
    level = [peer for peer, measured in ranked[1:] if _overlap(best, measured, key)]
    if level:
        said += f". {_list(level)} {'is' if len(level) == 1 else 'are'} within the spread of "
        said += "the rounds: decide by other criteria"
    else:
        said += f"; next is {second} with {form(key, next_.figures[key].median)}"
    return Advice(when, _list([first, *level][:3]), said + ".")


def _saying(key: str, measured: Measured) -> str:
    value = form(key, measured.figures[key].median)
    return {
        "p50": f"half of the calls take at most {value}",
        "p99": f"99 of 100 calls take at most {value}",
        "rate": value,
        "cpu": f"{value} of processor time for each call, both sides together",
    }[key]


def _overlap(one: Measured, other: Measured, key: str) -> bool:
    a, b = one.figures[key], other.figures[key]
    return a.low <= b.high and b.low <= a.high


def _list(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def cautions(document: Document) -> list[str]:
    """Return reasons why these figures may be less reliable than they look."""
    found = []
    rounds = [r for s in document.raw["scenarios"].values() for r in s.get("rounds") or ()]
    kept = [r for r in rounds if r.get("kept")]
    disturbed = sum(bool(r.get("disturbed")) for r in kept)
    if disturbed:
        found.append(
            f"Other processes disturbed {disturbed} of the {len(kept)} rounds that count, because "
            "there were too few undisturbed ones. Differences smaller than the spread mean "
            "nothing; run again on a quiet machine."
        )
    if document.raw.get("interrupted"):
        found.append("The run was interrupted: it has only the figures measured until then.")
    if (document.raw.get("rounds") or 0) < 5:
        found.append("Fewer than five rounds: the spread is only a rough estimate.")
    for section in document.sections:
        for peer, measured in section.peers.items():
            if measured.failure:
                found.append(f"{peer} failed in {section.title}: {measured.failure}")
    return list(dict.fromkeys(found))


def qualities(document: Document) -> dict[str, str]:
    return {
        peer: QUALITIES[peer.partition("?")[0]]
        for peer in document.peers
        if peer.partition("?")[0] in QUALITIES and "?" not in peer
    }
