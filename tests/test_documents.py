"""The documentation: its links lead somewhere, and its tables and commands are the code's."""

from __future__ import annotations

import ast
import itertools
import re
import textwrap
from pathlib import Path

import click
import grpc
import pytest

import localrpc
from localrpc.cli._group import COMMANDS, commands
from localrpc.transports import REGISTERED, parse_target
from tests import pages

ROOT = Path(__file__).resolve().parents[1]


FOLDERS = (".docs", ".github", "codegen", "examples", "localrpc", "proto", "tests")
PAGES = ["README.md"]
for _folder in FOLDERS:
    PAGES += [str(path.relative_to(ROOT)) for path in sorted((ROOT / _folder).rglob("*.md"))]


def text_of(page: str) -> str:
    return (ROOT / page).read_text()


def prose_of(page: str) -> str:
    """A page without its code blocks."""
    return re.sub(r"^```.*?^```", "", text_of(page), flags=re.MULTILINE | re.DOTALL)


def anchors_of(page: str) -> set[str]:
    """What follows the # in a link to a heading, as GitHub makes it of the heading's text."""
    found: set[str] = set()
    for heading in re.findall(r"^#+ (.*)$", prose_of(page), re.MULTILINE):
        kept = re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")
        same = (f"{kept}-{number}" for number in itertools.count(1))
        found.add(next(anchor for anchor in itertools.chain([kept], same) if anchor not in found))
    return found


def broken_links(page: str) -> list[str]:
    prose = re.sub(r"`[^`\n]*`", "", prose_of(page))
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)\)", prose):
        path, _, anchor = link.partition("#")
        if re.match(r"[a-z]+:", path):
            continue
        target = ((ROOT / page).parent / path if path else ROOT / page).resolve()
        if not leads_to(target, anchor):
            broken.append(link)
    return broken


def leads_to(target: Path, anchor: str) -> bool:
    if not target.is_relative_to(ROOT) or not target.exists():
        return False
    return not anchor or anchor in anchors_of(str(target.relative_to(ROOT)))


def test_a_broken_link_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"{__name__}.ROOT", tmp_path)
    (tmp_path / "a.md").write_text("# A `b:` c, d\n[x](#a-b-c-d) [y](b.md) [z](#e) [w](a.md#a)\n")
    assert broken_links("a.md") == ["b.md", "#e", "a.md#a"]


@pytest.mark.parametrize("page", PAGES)
def test_lines_of_prose_fit_an_editor(page: str) -> None:
    """Tables and links to other sites are as long as they are."""
    lines = (line for line in prose_of(page).split("\n") if len(line) > 100)
    assert [line for line in lines if not line.startswith("|") and "](http" not in line] == []


@pytest.mark.parametrize("page", PAGES)
def test_links_within_the_repository_lead_somewhere(page: str) -> None:
    assert broken_links(page) == []


def test_every_folder_has_a_page_that_the_front_page_leads_to() -> None:
    reached, waiting = set(), ["README.md"]
    while waiting:
        page = waiting.pop()
        reached.add(page)
        for link in re.findall(r"\]\(([^)#\s:]+\.md)[^)\s]*\)", text_of(page)):
            target = str(((ROOT / page).parent / link).resolve().relative_to(ROOT))
            if target not in reached:
                waiting.append(target)
    wanted = (page for page in PAGES if page.endswith("README.md") or page.startswith(".docs/"))
    assert set(wanted) <= reached


def test_the_guide_of_help_names_every_target_and_every_name_has_a_docstring() -> None:
    guide = localrpc.__doc__ or ""
    assert [scheme for scheme in REGISTERED if f"{scheme}:" not in guide] == []
    functions = [getattr(localrpc, name) for name in localrpc.__all__ if name != "__version__"]
    assert [each for each in functions if "\n" not in (each.__doc__ or "")] == []


@pytest.mark.parametrize("page", sorted({page for page, _ in pages.TABLES.values()}))
def test_tables_are_what_the_code_declares(page: str) -> None:
    """`python -m tests.pages` writes them."""
    assert text_of(page) == pages.with_tables(page, text_of(page))


def test_a_table_that_is_out_of_date_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(pages.TABLES, "fruit", ("a.md", lambda: ["| fruit |", "|---|", "| fig |"]))
    marked = "x\n\n<!-- table: fruit -->\n"
    whole = pages.with_tables("a.md", f"{marked}| old |\n|---|\n\ny\n")
    assert whole == f"{marked}| fruit |\n|---|\n| fig |\n\ny\n" == pages.with_tables("a.md", whole)
    with pytest.raises(ValueError, match="fruit"):
        pages.with_tables("a.md", "x\n")


def rows_of(page: str, heading: str) -> list[list[str]]:
    """The cells of the table that begins with this line."""
    _, _, rest = text_of(page).partition(f"\n{heading}\n")
    assert rest, heading
    lines = itertools.takewhile(lambda line: line.startswith("|"), rest.splitlines())
    return [[cell.strip(" `") for cell in line.strip("|").split("|")] for line in lines][1:]


def test_what_was_measured_is_called_what_it_is() -> None:
    head = "| target | how calls travel | unary, 64 B: p50 | calls/s, 8 threads |"
    techniques = {offer.target: offer.technique for offer in localrpc.transports()}
    heading = f"{head} server streaming, 64 B | echo of 1 MiB |"
    for target, how, *_ in rows_of("README.md", heading):
        others = ("grpcio", "Python's", "multiprocessing")
        assert target.startswith(others) or techniques[target] == how


def test_every_command_is_explained_and_exists() -> None:
    rows = rows_of("localrpc/cli/README.md", "| command | what it does | needs |")
    told = {name.removeprefix("localrpc "): extra.strip("[]") for name, _, extra in rows}
    assert told == {name: entry.extra for name, entry in COMMANDS.items()}


def flags_of(command: click.Command) -> set[str]:
    flags = {flag for one in command.params for flag in (*one.opts, *one.secondary_opts)}
    for one in command.commands.values() if isinstance(command, click.Group) else ():
        flags |= flags_of(one)
    return flags


def test_every_flag_that_is_named_exists() -> None:
    context = click.Context(commands)
    known = {
        flag
        for name in commands.list_commands(context)
        for flag in flags_of(commands.get_command(context, name) or commands)
    }
    flags: set[str] = set()
    for page in PAGES:
        if page.startswith((".github", "examples", "tests")):
            continue  # these name other programs' flags too
        flags.update(re.findall(r"`(?:localrpc [^`\n]*)?(--[a-z-]+)", text_of(page)))
    assert {"--quick", "--placement", "--check"} <= flags
    assert flags - {"--help"} <= known


@pytest.mark.parametrize("page", PAGES)
def test_python_in_a_page_is_python(page: str) -> None:
    for block in re.findall(r"^ *```python\n(.*?)```", text_of(page), re.MULTILINE | re.DOTALL):
        ast.parse(textwrap.dedent(block))


@pytest.mark.parametrize("page", PAGES)
def test_functions_of_ours_that_a_page_calls_exist(page: str) -> None:
    called = set(re.findall(r"\blocalrpc\.([a-z_]+)\(", text_of(page)))
    assert called <= set(localrpc.__all__)


def targets_of(page: str) -> set[str]:
    """What a page's programs and commands dial and serve."""
    line = r"^(?:\$ )?localrpc (?:call|list|describe|health) (\S+)"
    found = set(re.findall(line, text_of(page), re.MULTILINE))
    blocks = re.findall(r"^ *```python\n(.*?)```", text_of(page), re.MULTILINE | re.DOTALL)
    for node in itertools.chain.from_iterable(
        ast.walk(ast.parse(textwrap.dedent(block))) for block in blocks
    ):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            continue
        opened = re.fullmatch(r"(add_(in)?secure_port|(in)?secure_channel)", node.func.attr)
        if opened and ast.unparse(node.func.value) != "grpc":
            found |= {arg.value for arg in node.args[:1] if isinstance(arg, ast.Constant)}
        found |= {
            word.value.value
            for word in node.keywords
            if word.arg == "target" and isinstance(word.value, ast.Constant)
        }
    return found


def test_every_target_that_a_page_uses_exists() -> None:
    used = set().union(*map(targets_of, PAGES))
    assert {"shm:greeter", "fd:greeter", "grpc:0.0.0.0:50051", "shm:"} <= used
    for target in used:
        if not target.endswith(":"):  # for localrpc.testing, which makes a name
            parse_target(target)
        assert target.partition(":")[0] in REGISTERED, target


def test_error_texts_that_are_explained_are_those_of_the_code() -> None:
    constants = [
        node.value
        for path in (ROOT / "localrpc").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]
    core = [path.read_text() for path in (ROOT / "localrpc" / "_core" / "src").rglob("*.c")]
    everything = "\n".join(constants + core)
    rows = rows_of("localrpc/sync/README.md", "| what you see | what it means |")
    told = [text for row in rows for text in re.findall(r"`([^`]+)`", f"`{row[0]}`")]
    # Values stand between the constant parts of a text.
    values = r"…|'|: |:$|the spool|gevent|eventlet|"
    values += "|".join(code.name for code in grpc.StatusCode)
    parts = {part.strip() for text in told for part in re.split(values, text)}
    parts = {part for part in parts if len(part) > 8}
    assert len(parts) > 20
    assert {part for part in parts if part not in everything} == set()
