"""The report: one HTML file with figures, style and script, which needs no network."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, select_autoescape
from markupsafe import Markup

from .advice import advise, cautions, qualities
from .document import CLIENTS, SIZE, Document, Family
from .measures import MEASURES

_TEMPLATES = Path(__file__).parent / "templates"


def render(document: Document) -> str:
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=select_autoescape(["html"]),
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html").render(
        document=document,
        advice=advise(document),
        cautions=cautions(document),
        qualities=qualities(document),
        command=shlex.join(document.raw.get("command") or []),
        conditions=_conditions(document),
        doctor=_doctor(document.raw.get("doctor")),
        style=_verbatim("report.css"),
        script=_verbatim("report.js"),
        figures=_script_safe(_figures(document)),
    )


def _verbatim(name: str) -> Markup:
    return Markup((_TEMPLATES / name).read_text(encoding="utf-8"))


def _script_safe(value: Any) -> Markup:
    """Return JSON that no HTML parser takes for the end of its script."""
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    return Markup(text.replace("<", "\\u003c").replace("\u2028", " ").replace("\u2029", " "))


def _figures(document: Document) -> dict[str, Any]:
    """Return the data that the script draws; see the head of the script."""
    index = {section.name: number for number, section in enumerate(document.sections)}

    def families(parameters: tuple[str, ...]) -> list[dict[str, Any]]:
        return [_family(family, index) for family in document.families(parameters)]

    return {
        "baseline": document.baseline,
        "peers": document.peers,
        "measures": {
            key: {"title": m.title, "unit": m.unit, "more": m.more_is_better}
            for key, m in MEASURES.items()
            if not m.detail
        },
        "scenarios": [
            {
                "name": section.name,
                "title": section.title,
                "unit": section.unit,
                "main": section.main,
                "peers": {
                    peer: {
                        "failure": measured.failure,
                        "figures": {
                            key: [figure.median, figure.low, figure.high]
                            for key, figure in measured.figures.items()
                            if not MEASURES[key].detail
                        },
                        "percentiles": measured.percentiles,
                    }
                    for peer, measured in section.peers.items()
                },
            }
            for section in document.sections
        ],
        "sizes": families(SIZE),
        "clients": families(CLIENTS),
    }


def _family(family: Family, index: dict[str, int]) -> dict[str, Any]:
    return {
        "title": family.title,
        "parameter": family.parameter,
        "members": [[value, index[section.name]] for value, section in family.members],
    }


def _conditions(document: Document) -> list[tuple[str, str]]:
    raw = document.raw
    rounds = [r for s in raw["scenarios"].values() for r in s.get("rounds") or ()]
    dropped = sum(not r.get("kept") for r in rounds)
    disturbed = sum(bool(r.get("disturbed")) for r in rounds)
    shares = [float(r.get("others_share") or 0.0) for r in rounds]
    facts = [
        (
            "ended",
            str(raw.get("ended", "not recorded")).replace("T", " ").replace("+00:00", " UTC"),
        ),
        ("placement", str(raw.get("placement", "not recorded"))),
        ("rounds", f"{raw.get('rounds', '?')}, interleaved, of {_seconds(raw)} for each peer"),
        ("disturbed", f"{disturbed} of {len(rounds)} rounds; {dropped} dropped"),
    ]
    if raw.get("beside_busy"):
        facts.append(("load", "one busy process on each core"))
    if shares:
        facts.append(("others used", f"up to {max(shares):.0%} of the machine in a slice"))
    return facts


def _seconds(raw: dict[str, Any]) -> str:
    value = raw.get("slice_seconds")
    return "unknown length" if value is None else f"{float(value) * 1000:.0f} ms"


def _doctor(raw: Any) -> list[tuple[str, str]]:
    """Return the findings of `localrpc doctor` as pairs of name and text, in any form they have."""
    if isinstance(raw, dict):
        return [(str(key), _text(value)) for key, value in raw.items()]
    if isinstance(raw, list):
        pairs = []
        for one in raw:
            values = list(one.values()) if isinstance(one, dict) else [one]
            texts = [text for text in map(_text, values) if text]
            pairs.append((texts[0] if texts else "", " · ".join(texts[1:])))
        return pairs
    return []


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key}: {_text(one)}" for key, one in value.items())
    if isinstance(value, list):
        return ", ".join(map(_text, value))
    return "" if value is None else str(value)
