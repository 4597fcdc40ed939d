"""The documentation site: it builds without a warning, and holds every page."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from runpy import run_path

import pytest

import localrpc
from tests.conftest import FULL
from tests.skips import need, needs
from tests.test_documents import PAGES

ROOT = Path(__file__).resolve().parents[2]
CONFIGURATION = ROOT / ".docs"

# The configuration of the site, with other pages or fewer listings of files.
USUAL = f"""
from runpy import run_path
globals().update(run_path({str(CONFIGURATION / "conf.py")!r}))
import localrpc_docs
"""
OTHER = f"""
{USUAL}
localrpc_docs.SECTIONS = {{"More": {{"folder/b": ".folder/b.md"}}}}
localrpc_docs.PAGES = {{"index": "a.md", "folder/b": ".folder/b.md"}}
"""
LISTING = "source/localrpc/transports/unix.py"
# All files that pages link to are read, but most of a whole build's time would go into listing
# them: one of each kind is listed.
FEW_LISTINGS = f"""
{USUAL}
from pathlib import Path
every = localrpc_docs.source_pages

def few(app):
    found = localrpc_docs.sources(app)
    for path in found.values():
        Path(app.srcdir, path).read_text()
    kinds = {{Path(path).suffix: page for page, path in found.items()}}
    app.env.localrpc_sources = {{page: found[page] for page in [*kinds.values(), {LISTING!r}]}}
    return every(app)

localrpc_docs.source_pages = few
"""


def build(configuration: Path, source: Path, out: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going"]
    places = ["-c", str(configuration), "-d", f"{out}.trees", str(source), str(out)]
    return subprocess.run(
        [*command, *places],
        cwd=ROOT,
        env={**os.environ, "PYTHONWARNINGS": ""},  # sphinx and its extensions warn each other
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    need("sphinx")
    folder = tmp_path_factory.mktemp("docs")
    out = folder / "site"
    (folder / "conf.py").write_text(USUAL if FULL else FEW_LISTINGS)
    done = build(folder, ROOT, out)
    assert done.returncode == 0, done.stderr
    return out


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A site of two pages, of which one lies in a dotfolder."""
    need("sphinx")
    (tmp_path / "conf.py").write_text(OTHER)
    (tmp_path / ".folder").mkdir()
    (tmp_path / ".folder" / "b.md").write_text("# B `c:`\n\n[back](../a.md) [code](../conf.py)\n")
    return tmp_path


@needs("sphinx")
def test_every_page_is_in_the_site_but_the_forms() -> None:
    pages = run_path(str(CONFIGURATION / "localrpc_docs.py"))["PAGES"]
    assert set(PAGES) - set(pages.values()) == {".github/PULL_REQUEST_TEMPLATE.md"}


def test_the_site_has_the_pages_and_their_sources(site: Path) -> None:
    pages = run_path(str(CONFIGURATION / "localrpc_docs.py"))["PAGES"]
    assert [name for name in pages if not (site / f"{name}.html").is_file()] == []
    listing = (site / f"{LISTING}.html").read_text()
    assert "<h1>localrpc/transports/unix.py</h1>" in listing
    architecture = (site / "architecture.html").read_text()
    assert 'href="source/localrpc/transports/unix.py.html"' in architecture
    assert 'href="transports.html"' in architecture
    assert not list(site.glob("_downloads/**/*"))


def test_the_reference_has_every_public_name_and_docstrings_are_markdown(site: Path) -> None:
    page = (site / "api.html").read_text()
    hidden = ("__version__", "observe", "testing")
    names = [f"localrpc.{name}" for name in localrpc.__all__ if name not in hidden]
    names += [f"localrpc.testing.{name}" for name in localrpc.testing.__all__]
    of_observe = set(localrpc.observe.__all__) - set(localrpc.__all__)
    names += [f"localrpc.observe.{name}" for name in sorted(of_observe)]
    assert [name for name in names if f'id="{name}"' not in page] == []
    assert "<code" in page
    text = re.sub(r"<[^>]+>", "", page)
    assert "`" not in text


def test_the_site_loads_nothing_from_elsewhere(site: Path) -> None:
    for path in site.rglob("*.html"):
        loaded = re.findall(
            r'<(?:script|link|img|iframe)[^>]*(?:src|href)="(\w+:)?//', path.read_text()
        )
        assert loaded == [], path
    for path in site.rglob("*.css"):
        assert not re.search(r"(@import|url\()\s*[\"']?(https?:)?//", path.read_text()), path


def test_links_between_pages_hold_wherever_these_lie(small: Path) -> None:
    (small / "a.md").write_text("# A\n\n[to b](.folder/b.md#b-c)\n")
    done = build(small, small, small / "out")
    assert done.returncode == 0, done.stderr
    assert 'href="folder/b.html#b-c"' in (small / "out" / "index.html").read_text()
    other = (small / "out" / "folder" / "b.html").read_text()
    assert 'href="../index.html"' in other
    assert 'href="../source/conf.py.html"' in other


def test_broken_links_fail_the_build(small: Path) -> None:
    links = [".folder/page.md", ".folder/b.md#anchor", "#heading", "file.py"]
    (small / "a.md").write_text("# A\n\n" + "\n".join(f"[x]({link})" for link in links) + "\n")
    done = build(small, small, small / "out")
    assert done.returncode != 0
    for link in ("page", "anchor", "heading", "file"):
        assert re.search(rf"WARNING: .*{link}", done.stderr), done.stderr
