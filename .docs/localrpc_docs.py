"""What the site is made of, as an extension of Sphinx.

A page's links are relative to the place of its file, as on a code-hosting site. A link to a
file that is not a page leads to a page with that file's text.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from html import escape
from importlib import import_module
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.utils import new_document
from myst_parser.parsers.sphinx_ import MystParser
from pygments.lexers import find_lexer_class_for_filename
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.project import Project
from sphinx.util.docutils import SphinxDirective

import localrpc

SECTIONS = {
    "Guides": {
        "guides/coming-from-grpcio": ".docs/guides/coming-from-grpcio.md",
        "guides/asyncio": ".docs/guides/asyncio.md",
        "guides/testing": ".docs/guides/testing.md",
        "guides/deploying": ".docs/guides/deploying.md",
        "guides/observability": ".docs/guides/observability.md",
        "guides/large-messages": ".docs/guides/large-messages.md",
        "guides/what-happens-when": ".docs/guides/what-happens-when.md",
        "examples": "examples/README.md",
        "examples/gather": "examples/gather/README.md",
    },
    "Reference": {
        "api": ".docs/api.md",
        "synchronous-api": "localrpc/sync/README.md",
        "asyncio-api": "localrpc/aio/README.md",
        "transports": "localrpc/transports/README.md",
        "libraries": "localrpc/integrations/README.md",
        "commands": "localrpc/cli/README.md",
        "workers": "localrpc/workers/README.md",
        "proxy": "localrpc/proxy/README.md",
        "code-generation": "codegen/README.md",
        "benchmark": "localrpc/bench/README.md",
        "benchmark/figures": "examples/bench/figures.md",
    },
    "Internals": {
        "architecture": "localrpc/README.md",
        "core": "localrpc/_core/README.md",
        "protocol": "proto/PROTOCOL.md",
        "tests": "tests/README.md",
        "tests/fuzz": "tests/fuzz/README.md",
        "tests/model": "tests/model/README.md",
    },
    "Project": {
        "changelog": ".github/CHANGELOG.md",
        "contributing": ".github/CONTRIBUTING.md",
        "security": ".github/SECURITY.md",
        "conduct": ".github/CODE_OF_CONDUCT.md",
    },
}
"""The pages by their names in the site, in the order of its navigation."""

PAGES = {"index": "README.md"}
for _pages in SECTIONS.values():
    PAGES |= _pages


class Pages(Project):
    """The documents are those of PAGES, each where its file lies."""

    def discover(self, *_: Any, **__: Any) -> set[str]:
        self.docnames = set(PAGES)
        return self.docnames

    def path2doc(self, filename: str | os.PathLike[str]) -> str | None:
        path = os.path.relpath(os.path.join(self.srcdir, filename), self.srcdir)
        return next((name for name, page in PAGES.items() if page == path), None)

    def doc2path(self, docname: str, absolute: bool = True) -> Path:
        path = PAGES.get(docname, docname)
        return Path(self.srcdir, path) if absolute else Path(path)


class Docstring(SphinxDirective):
    """A docstring, which is Markdown, within the reStructuredText that autodoc makes."""

    has_content = True

    def run(self) -> list[nodes.Node]:
        document = new_document(self.get_location(), self.state.document.settings)
        MystParser().parse("\n".join(self.content), document)
        return document.children


def take_pages(app: Sphinx) -> None:
    app.project = app.env.project = Pages(app.srcdir, app.config.source_suffix)


def complete(app: Sphinx, docname: str, source: list[str]) -> None:
    """Add what only the site needs: its navigation, and a title where a page has none."""
    if not source[0].startswith("# "):
        source[0] = f"# {docname.rpartition('/')[2].capitalize()}\n\n{source[0]}"
    if docname == app.config.root_doc:
        for section, pages in SECTIONS.items():
            names = "\n".join(pages)
            source[0] += f"\n```{{toctree}}\n:hidden:\n:caption: {section}\n\n{names}\n```\n"


def uncover_function(app: Sphinx) -> None:
    """Have localrpc.transports be the function, which importing that package would hide."""
    function = localrpc.transports
    import_module("localrpc.transports")
    localrpc.transports = function


def keep_markdown(
    app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]
) -> None:
    lines[:] = [".. docstring::", "", *(f"   {line}" for line in lines), ""]


def sources(app: Sphinx) -> dict[str, str]:
    """Files that pages link to, by the names of their pages; kept with what has been read."""
    if not hasattr(app.env, "localrpc_sources"):
        app.env.localrpc_sources = {}
    found: dict[str, str] = app.env.localrpc_sources
    return found


def link_to_sources(app: Sphinx, doctree: nodes.document) -> None:
    docname = app.env.docname
    for link in list(doctree.findall(addnodes.download_reference)):
        folder = os.path.dirname(PAGES[docname])
        path = os.path.normpath(os.path.join(folder, link["reftarget"]))
        page = f"source/{path.lstrip('.')}"
        sources(app)[page] = path
        uri = app.builder.get_relative_uri(docname, page)
        link.replace_self(nodes.reference("", "", *link.children, refuri=uri, internal=True))


def source_pages(app: Sphinx) -> Iterator[tuple[str, dict[str, Any], str]]:
    for page, path in sources(app).items():
        lexer = find_lexer_class_for_filename(path)
        language = lexer.aliases[0] if lexer else "text"
        text = Path(app.srcdir, path).read_text()
        code = app.builder.highlighter.highlight_block(text, language, force=True)
        title = escape(path)
        yield page, {"title": title, "body": f"<h1>{title}</h1>{code}"}, "page.html"


def setup(app: Sphinx) -> None:
    app.add_directive("docstring", Docstring)
    app.connect("builder-inited", take_pages)
    app.connect("builder-inited", uncover_function)
    app.connect("source-read", complete)
    app.connect("autodoc-process-docstring", keep_markdown)
    # Before Sphinx copies the files of such links, at 500.
    app.connect("doctree-read", link_to_sources, priority=400)
    app.connect("html-collect-pages", source_pages)
