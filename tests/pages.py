"""Tables in pages that are made from what the code declares.

Such a table follows the line `<!-- table: NAME -->`. `python -m tests.pages` writes them all;
tests/test_documents.py checks that they are up to date.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import click

from localrpc import options
from localrpc.cli._serve_types import variables
from localrpc.cli.serve import serve
from localrpc.transports import schemes

ROOT = Path(__file__).resolve().parents[1]


def transports() -> Iterator[str]:
    yield (
        "| target | between | how calls travel | direction | without copy"
        " | what each side knows of the other |"
    )
    yield "|---|---|---|---|---|---|"
    for name, scheme in schemes().items():
        for kind in scheme.kinds:
            yield (
                f"| `{name}:{kind.form}` | {kind.scope.value} | {kind.technique}"
                f" | {kind.direction} | {'yes' if kind.zero_copy else 'no'} | {kind.credentials} |"
            )


def targets() -> Iterator[str]:
    yield "| target | what the name is |"
    yield "|---|---|"
    for scheme in schemes().values():
        for kind in scheme.kinds:
            yield from (f"| `{spelled}` | {text} |" for spelled, text in kind.spellings.items())


def target_options() -> Iterator[str]:
    yield "| in the target | of | values | default | what |"
    yield "|---|---|---|---|---|"
    takers = {name: scheme.options for name, scheme in schemes().items() if scheme.options}
    for option in dict.fromkeys(itertools.chain.from_iterable(takers.values())):
        names = [name for name, taken in takers.items() if option in taken]
        of = "all but `grpc:`" if len(names) == len(takers) else ", ".join(f"`{n}:`" for n in names)
        yield f"| `?{option.key}=` | {of} | {option.values} | {option.shown} | {option.text} |"


def serve_settings() -> Iterator[str]:
    """Each option of `localrpc serve`, with its environment variables."""
    yield "| on the command line | in the environment | what |"
    yield "|---|---|---|"
    context = click.Context(serve, auto_envvar_prefix="LOCALRPC_SERVE")
    for each in serve.params:
        names = "/".join((*each.opts, *each.secondary_opts)) if each.opts[0][0] == "-" else ""
        shown = f"{names} {each.metavar or ''}".strip().strip("[]").replace("|", r"\|")
        text = getattr(each, "help", None) or "What is served."
        default = getattr(each, "show_default", None) and each.default
        text += f" Default: {default:g}." if isinstance(default, (int, float)) else ""
        text += f" Default: {default}." if isinstance(default, str) else ""
        (variable, *_) = variables(context, each)
        yield f"| `{shown}` | `{variable}` | {text} |"


TABLES: dict[str, tuple[str, Callable[[], Iterable[str]]]] = {
    "options": ("localrpc/sync/README.md", options.table),
    "transports": ("localrpc/transports/README.md", transports),
    "targets": ("localrpc/transports/README.md", targets),
    "target options": ("localrpc/transports/README.md", target_options),
    "settings": ("localrpc/workers/README.md", serve_settings),
}
"""For each table its page, and what makes its lines."""


def with_tables(page: str, text: str) -> str:
    """The page's text with its tables up to date. Raises ValueError if it has no place for one."""
    for name, (where, lines) in TABLES.items():
        if where == page:
            mark = f"<!-- table: {name} -->\n"
            before, found, rest = text.partition(mark)
            if not found:
                raise ValueError(f"{page} has no line {mark.strip()}")
            rest = re.sub(r"\A(\|.*\n)*", "", rest)
            text = before + mark + "".join(f"{line}\n" for line in lines()) + rest
    return text


def main() -> None:
    for page in {page for page, _ in TABLES.values()}:
        path = ROOT / page
        path.write_text(with_tables(page, path.read_text()))


if __name__ == "__main__":
    main()
