"""The HTML report in a real browser, wide and narrow, and the plots as files."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from localrpc.bench import plots
from localrpc.bench.checks import as_json
from localrpc.bench.checks.finding import warning
from localrpc.bench.document import parse
from localrpc.bench.html import render
from localrpc.bench.measures import MEASURES
from localrpc.bench.scenarios import SCENARIOS, Threads, Unary
from tests.bench.chromium import Browser, Page
from tests.bench.documents import document
from tests.skips import needs

PLOTS = ("percentiles", "ratios", "cpu", "sizes", "clients")
SIZES = {"wide": (1280, 900), "narrow": (390, 844)}
in_chromium = needs("chromium")


@pytest.fixture(scope="module")
def raw() -> dict[str, Any]:
    made = document(calls=1200)
    peers = made["scenarios"]["unary-4kib"]["peers"]
    peers["mq"] = {"failure": "no more </script><b>message queues</b>"}
    return made


@pytest.fixture(scope="module")
def html(raw: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("report") / "report.html"
    file.write_text(render(parse(raw)), encoding="utf-8")
    return file


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with closing(Browser(tmp_path_factory.mktemp("chromium"))) as browser:
        yield browser


@pytest.fixture(params=SIZES)
def page(request: pytest.FixtureRequest, html: Path, browser: Browser) -> Iterator[Page]:
    width, height = SIZES[request.param]
    page = Page(browser, width, height)
    try:
        page.open(html)
        yield page
        assert page.errors == []
        assert [url for url in page.requests if not url.startswith(("file:", "data:"))] == []
    finally:
        page.close()


def count(page: Page, selector: str) -> int:
    found = page.run(f"document.querySelectorAll({selector!r}).length")
    assert isinstance(found, int)
    return found


@in_chromium
def test_every_plot_draws_within_the_window(page: Page) -> None:
    for plot in PLOTS:
        assert count(page, f"#{plot} svg") >= 1, plot
        assert not page.run(f"document.getElementById('{plot}').hidden")
    assert count(page, "#percentiles polyline") == 10
    assert "NaN" not in page.run("document.querySelector('main').innerHTML")
    # Tables scroll within themselves; the page never scrolls sideways.
    assert page.run("document.documentElement.scrollWidth <= innerWidth")
    assert page.run(
        "[...document.querySelectorAll('figure text')].every((text) => {"
        " const b = text.getBoundingClientRect(), s = text.closest('section')"
        ".getBoundingClientRect(); return b.left >= s.left - 1 && b.right <= s.right + 1; })"
    )


@in_chromium
def test_names_in_a_plot_do_not_cover_each_other(page: Page) -> None:
    overlaps = page.run(
        """[...document.querySelectorAll("figure svg")].flatMap((svg) => {
          const texts = [...svg.querySelectorAll("text")].map((t) => [t, t.getBBox()]);
          return texts.flatMap(([a, p], i) => texts.slice(i + 1).filter(([b, q]) =>
            p.x + 1 < q.x + q.width && q.x + 1 < p.x + p.width &&
            p.y + 4 < q.y + q.height && q.y + 4 < p.y + p.height)
            .map(([b]) => [svg.getAttribute("aria-label"), a.textContent, b.textContent]));
        })"""
    )
    assert overlaps == []


@in_chromium
def test_a_peer_is_hidden_and_shown_again(page: Page) -> None:
    page.click("#peers button[value=unix]")
    assert count(page, "#percentiles polyline") == 9
    assert count(page, "#percentiles [data-peer=unix]") == 0
    assert page.run("document.querySelector('#overview thead').innerText.includes('unix')") is False
    page.click("#peers button[value=unix]")
    assert count(page, "#percentiles [data-peer=unix]") == 1


@in_chromium
def test_a_scenario_is_chosen_in_the_list_and_in_the_overview(page: Page) -> None:
    page.click("#overview tbody tr:nth-child(4) button")
    assert page.run("document.querySelector('#percentiles figcaption').textContent") == (
        "unary, 1 MiB protobuf"
    )
    page.run(
        "(() => { const s = document.querySelector('#scenario'); s.value = '-1';"
        " s.dispatchEvent(new Event('change')); })()"
    )
    # All of them but the stream, which has no latencies.
    assert count(page, "#percentiles svg") == 12
    assert page.run("document.documentElement.scrollWidth <= innerWidth")


@in_chromium
def test_another_baseline_gives_other_ratios(page: Page) -> None:
    page.run(
        "(() => { const s = document.querySelector('#baseline'); s.value = 'unix';"
        " s.dispatchEvent(new Event('change')); })()"
    )
    assert page.run("document.querySelector('#ratios h2').innerText") == "Times better than unix"
    assert count(page, "#ratios rect[data-peer=grpcio]") == 4
    assert count(page, "#ratios rect[data-peer=unix]") == 0


@in_chromium
def test_tooltips_have_the_exact_figures(page: Page, raw: dict[str, Any]) -> None:
    page.point("#percentiles .catch", 0.5)
    assert page.run("document.querySelector('#tip').hidden") is False
    text = page.run("document.querySelector('#tip').innerText")
    assert re.match(r"p9\d", text)
    assert all(peer in text for peer in ("shm", "unix", "grpcio"))
    page.point("#cpu [data-peer=shm]")
    text = page.run("document.querySelector('#tip').innerText")
    p50 = raw["scenarios"]["unary"]["peers"]["shm"]["p50"]["median"]
    assert f"{p50 * 1e6:.2f} µs" in text
    box = page.run(
        "(({left, right}) => [left, right])(document.querySelector('#tip').getBoundingClientRect())"
    )
    assert 0 <= box[0] < box[1] <= page.run("innerWidth")
    page.point("h1")
    assert page.run("document.querySelector('#tip').hidden") is True


@in_chromium
def test_touch_shows_tooltips(page: Page) -> None:
    page.tap("#ratios rect[data-peer=shm]")
    assert "grpcio" in page.run("document.querySelector('#tip').innerText")


@in_chromium
def test_the_table_is_sorted_by_its_headings(page: Page) -> None:
    head = "#table th:nth-child(2)"
    peers = "[...document.querySelectorAll('#table tbody td:first-child')].map((c) => c.innerText)"
    page.click(f"{head} button")
    assert page.run(f"document.querySelector('{head}').ariaSort") == "ascending"
    assert (page.run(peers)[0], page.run(peers)[-1]) == ("shm", "grpcio")
    page.click(f"{head} button")
    assert (page.run(peers)[0], page.run(peers)[-1]) == ("grpcio", "shm")
    page.click("#every")
    assert count(page, "#table tbody tr") == 13 * 10
    assert page.run("document.querySelector('#table .failed').innerText") == (
        "failed: no more </script><b>message queues</b>"
    )


@in_chromium
def test_every_figure_is_in_the_table_with_its_spread_and_ratio(page: Page) -> None:
    heads = page.run("[...document.querySelectorAll('#table th')].map((c) => c.innerText)")
    assert heads == ["peer", *(m.title for m in MEASURES.values() if not m.detail)]
    cells = page.run(
        "[...document.querySelectorAll('#table tbody tr:first-child td')].slice(1)"
        ".map((cell) => [...cell.querySelectorAll('small')].map((s) => s.innerText))"
    )
    for title, (spread, ratio) in zip(heads[1:], cells, strict=True):
        assert " – " in spread, title
        assert ratio.endswith("×"), title
    page.run(
        "(() => { const s = document.querySelector('#baseline'); s.value = 'shm';"
        " s.dispatchEvent(new Event('change')); })()"
    )
    # Nothing is better or worse than itself.
    assert page.run("document.querySelector('#table tbody td:nth-child(2) .times').innerText") == ""


def test_the_report_makes_no_network_request(html: Path) -> None:
    text = html.read_text(encoding="utf-8")
    assert "default-src 'none'" in text
    addresses = set(re.findall(r"https?://[^\s\"'<]+", text))
    assert addresses == {"http://www.w3.org/2000/svg"}
    assert re.findall(r"<(?:script|link|img|iframe)[^>]*(?:src|href)=\"(?!data:)", text) == []
    assert "<b>message queues" not in text


def test_the_advice_names_the_best_peer_for_each_use(raw: dict[str, Any]) -> None:
    text = render(parse(raw))
    assert "Which to choose" in text
    assert "Many callers: 16 at once" in text
    assert "within the spread of the rounds" in text
    assert "localrpc bench --json results.json" in text


def test_a_document_without_figures_still_gives_a_report() -> None:
    made = document(peers=("shm",), scenarios=(SCENARIOS["unary"],))
    made["scenarios"]["unary"]["peers"]["shm"] = {"failure": "its server ended"}
    made["doctor"] = as_json([replace(warning("1 core", "they take turns"), name="cores")])
    text = render(parse(made))
    assert "shm failed in unary, 64 B: its server ended" in text
    assert "<dt>cores</dt><dd>warning · 1 core · they take turns</dd>" in text


def test_plots_are_written_as_png_and_svg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    every = plots._plots
    # Of the scenarios' own plots those of one: the others are drawn in the same way.
    monkeypatch.setattr(
        plots,
        "_plots",
        lambda made: (plot for plot in every(made) if not re.search("unary-128|threads-", plot[0])),
    )
    scenarios = (
        *(Unary(f"unary-{size}", f"unary, {size} B", size) for size in (64, 128)),
        *(Threads(f"threads-{n}", f"unary, 64 B, {n} threads", 64, n) for n in (1, 2)),
    )
    made = parse(document(peers=("shm", "grpcio"), scenarios=scenarios, calls=300))
    names = {path.name for path in plots.draw(made, tmp_path)}
    assert names == {path.name for path in tmp_path.iterdir()}
    for plot in ("percentiles-unary-64", "ratios-unary-64", "cpu-unary-64", "sizes-unary"):
        assert {f"{plot}.png", f"{plot}.svg"} <= names
    assert "clients-rate-unary-64-b-threads.svg" in names
    root = ElementTree.parse(tmp_path / "ratios-unary-64.svg").getroot()
    assert "grpcio" in "".join(root.itertext())
    head = (tmp_path / "percentiles-unary-64.png").read_bytes()[:24]
    assert struct.unpack(">II", head[16:24]) == (1216, 704)
