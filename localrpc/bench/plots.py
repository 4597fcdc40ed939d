"""The report's plots as PNG and SVG, for a README or a paper."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullFormatter, NullLocator

from .document import CLIENTS, SIZE, Document, Family, Section, form, size, times
from .measures import MEASURES

# The report's colours, and its grey for the baseline.
_COLORS = ("#2a6fd6", "#d9480f", "#12805c", "#a13bb8", "#b07d00", "#0d8ba3", "#c2255c")
_BASELINE = "#6b7280"
_MARKERS = "osD^"
_DASHES = ("-", "--", ":")
_SOFT, _GRID = "#60646c", "#e6e8ec"
_STYLE: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.size": 9.5,
    "axes.edgecolor": _GRID,
    "axes.labelcolor": _SOFT,
    "axes.titlelocation": "left",
    "axes.titlesize": 11.5,
    "axes.titleweight": "bold",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": _SOFT,
    "ytick.color": _SOFT,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "grid.color": _GRID,
    "grid.linewidth": 0.8,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "figure.facecolor": "white",
    # Text stays text: smaller, and searchable.
    "svg.fonttype": "none",
    # The same document gives the same bytes.
    "svg.hashsalt": "localrpc",
}

Painter = Callable[[Document, Axes], bool]


def draw(document: Document, directory: Path) -> Iterator[Path]:
    """Draw every plot for which the document has figures; yield each file."""
    with matplotlib.rc_context(_STYLE):
        for name, paint in _plots(document):
            figure = Figure(figsize=(7.6, 4.4), layout="constrained")
            figure.get_layout_engine().set(w_pad=0.1, h_pad=0.1)  # type: ignore[union-attr, call-arg]
            axes = figure.add_subplot()
            if not paint(document, axes):
                continue
            for kind in ("svg", "png"):
                path = directory / f"{name}.{kind}"
                # No date: the file changes only if the plot does.
                metadata: dict[str, Any] = {"Date": None} if kind == "svg" else {}
                figure.savefig(path, dpi=160, metadata=metadata)
                yield path


def _plots(document: Document) -> Iterator[tuple[str, Painter]]:
    for section in document.sections:
        yield f"percentiles-{_slug(section.name)}", _bound(_percentiles, section)
        yield f"ratios-{_slug(section.name)}", _bound(_ratios, section)
        yield f"cpu-{_slug(section.name)}", _bound(_cpu, section)
    for family in document.families(SIZE):
        yield f"sizes-{_slug(family.title)}", _bound(_family("bytes", size), family)
    for family in document.families(CLIENTS):
        for key in ("rate", "p99", "cpu"):
            yield f"clients-{key}-{_slug(family.title)}", _bound(_family(key, str), family)


def _bound(paint: Callable[[Document, Axes, Any], bool], what: Section | Family) -> Painter:
    return lambda document, axes: paint(document, axes, what)


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def _look(document: Document, peer: str) -> dict[str, Any]:
    others = [one for one in document.peers if one != document.baseline]
    if peer not in others:
        return {"color": _BASELINE, "marker": "o", "linestyle": "-"}
    number = others.index(peer)
    return {
        "color": _COLORS[number % len(_COLORS)],
        "marker": _MARKERS[number % len(_MARKERS)],
        "linestyle": _DASHES[number // len(_COLORS) % len(_DASHES)],
    }


def _percentiles(document: Document, axes: Axes, section: Section) -> bool:
    last = 0.0
    for peer, measured in section.peers.items():
        points = [(p, s) for p, s in measured.percentiles if p < 100]
        if len(points) < 2:
            continue
        last = max(last, points[-1][0])
        look = _look(document, peer)
        xs, ys = [_nines(p) for p, _ in points], [s for _, s in points]
        axes.plot(xs, ys, label=peer, markevery=[len(xs) - 1], markersize=4, **look)
    if not last:
        return False
    marks = [p for p in (0, 50, 90, 99, 99.9, 99.99, 99.999) if p <= last]
    axes.set_yscale("log")
    axes.xaxis.set_major_locator(FixedLocator([_nines(p) for p in marks]))
    axes.set_xticklabels([f"p{p:g}" if p else "min" for p in marks])
    _say(axes, f"Latency by percentile: {section.title}", "percentile", "latency")
    _ticks(axes.yaxis, "p50")
    axes.grid(visible=True)
    _legend(axes)
    return True


def _nines(percent: float) -> float:
    return -math.log10(1 - percent / 100)


def _ratios(document: Document, axes: Axes, section: Section) -> bool:
    """Draw bars of the most important figure: latency, or the rate for streams."""
    base = document.baseline
    key = "p50" if any("p50" in m.figures for m in section.peers.values()) else "rate"
    bars = [(r, p) for p in section.peers if (r := section.ratio(p, base, key)) and p != base]
    if not bars:
        return False
    bars.sort()
    names = [peer for _, peer in bars]
    values = [ratio for ratio, _ in bars]
    colors = [_look(document, peer)["color"] for peer in names]
    axes.barh(names, [v - 1 for v in values], left=1.0, color=colors, height=0.64)
    axes.set_xscale("log")
    axes.set_xlim(min(1.0, min(values) / 1.3), max(values) * 1.9)
    for row, (ratio, peer) in enumerate(bars):
        said = f"{times(ratio)}   {form(key, section.peers[peer].figures[key].median)}"
        axes.annotate(
            said,
            (max(ratio, 1.0), row),
            (5, 0),
            textcoords="offset points",
            va="center",
            color=_SOFT,
        )
    # Bars of one thickness, however many there are.
    axes.figure.set_size_inches(7.6, 1.4 + 0.36 * len(bars))  # type: ignore[union-attr]
    axes.axvline(1.0, color=_BASELINE, linewidth=1)
    own = form(key, section.peers[base].figures[key].median)
    what = "Latency (p50)" if key == "p50" else "Rate"
    _say(axes, f"{what}, {section.title}", f"times better than {base} ({own})", "")
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}×"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.grid(visible=True, axis="x")
    axes.tick_params(axis="y", labelcolor="#1c2024")
    axes.spines["left"].set_visible(False)
    return True


def _cpu(document: Document, axes: Axes, section: Section) -> bool:
    drawn = False
    for peer, measured in section.peers.items():
        x, y = measured.figures.get("p50"), measured.figures.get("cpu")
        if x is None or y is None:
            continue
        drawn = True
        axes.errorbar(
            x.median,
            y.median,
            xerr=[[x.median - x.low], [x.high - x.median]],
            yerr=[[y.median - y.low], [y.high - y.median]],
            label=peer,
            markersize=7,
            elinewidth=1,
            **{**_look(document, peer), "linestyle": "none"},
        )
    if not drawn:
        return False
    axes.set_xscale("log")
    axes.set_yscale("log")
    _ticks(axes.xaxis, "p50")
    _ticks(axes.yaxis, "cpu")
    _say(axes, f"CPU against latency: {section.title}", "median latency", "CPU for each call")
    axes.grid(visible=True)
    _legend(axes)
    return True


def _family(key: str, name: Callable[[int], str]) -> Callable[[Document, Axes, Family], bool]:
    def paint(document: Document, axes: Axes, family: Family) -> bool:
        drawn = False
        for peer in document.peers:
            points = [
                (value, section.peers[peer].figures[key].median)
                for value, section in family.members
                if peer in section.peers and key in section.peers[peer].figures
            ]
            if points:
                drawn = True
                xs, ys = zip(*points, strict=True)
                axes.plot(xs, ys, label=peer, markersize=5, **_look(document, peer))
        if not drawn:
            return False
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        values = sorted({value for value, _ in family.members})
        axes.xaxis.set_major_locator(FixedLocator([float(value) for value in values]))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: name(round(value))))
        axes.xaxis.set_minor_locator(NullLocator())
        _ticks(axes.yaxis, key)
        along = "message size" if family.parameter in SIZE else family.parameter
        title = MEASURES[key].title
        _say(axes, f"{title[0].upper()}{title[1:]} by {along}: {family.title}", along, title)
        axes.grid(visible=True)
        _legend(axes)
        return True

    return paint


def _say(axes: Axes, title: str, x: str, y: str) -> None:
    axes.set_title(title, pad=12)
    axes.set_xlabel(x)
    axes.set_ylabel(y)


def _ticks(axis: Any, key: str) -> None:
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: _round(form(key, value))))
    axis.set_minor_locator(NullLocator())
    axis.set_minor_formatter(NullFormatter())


def _round(text: str) -> str:
    """Return "20 µs" for "20.0 µs", for an axis."""
    return re.sub(r"(\.\d*?)0+ ", lambda found: found[1].rstrip(".") + " ", text)


def _legend(axes: Axes) -> None:
    handles, labels = axes.get_legend_handles_labels()
    axes.legend(
        handles, labels, loc="center left", bbox_to_anchor=(1.01, 0.5), labelcolor="#1c2024"
    )
