"""`localrpc generate`: writes typed Python for .proto files."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
from localrpc_codegen import Imports, Settings
from localrpc_codegen.driver import GenerateError, Job, find_protos, prepare
from localrpc_codegen.plugin import parse_python

from localrpc.cli._generate_settings import load
from localrpc.cli._pyproject import SettingsError

WATCH_INTERVAL = 0.3
FOLDER = click.Path(path_type=Path)


def _version(
    context: click.Context, parameter: click.Parameter, value: str | None
) -> tuple[int, int] | None:
    try:
        return parse_python(value) if value else None
    except ValueError:
        raise click.BadParameter(f"{value!r} is not a version like 3.10") from None


@click.command()
@click.argument("protos", nargs=-1, type=FOLDER, metavar="[PROTO|DIR]...")
@click.option(
    "-I",
    "--include",
    multiple=True,
    type=FOLDER,
    metavar="DIR",
    help="Where imports are searched. Default: the folder of each PROTO, or DIR itself.",
)
@click.option("--out", type=FOLDER, metavar="DIR", help="The folder to write to; made if missing.")
@click.option(
    "--imports",
    type=click.Choice([kind.value for kind in Imports]),
    help="How modules import each other. Default: relative, so that DIR is a package; absolute"
    " if DIR is the current folder and not a package.",
)
@click.option(
    "--python",
    callback=_version,
    metavar="3.N",
    help="The oldest Python version to support. Default: 3.10.",
)
@click.option(
    "--init/--no-init", default=None, help="Write missing __init__.py files. Default: if relative."
)
@click.option("--check", is_flag=True, help="Write nothing; exit with 1 if DIR is out of date.")
@click.option("--watch", is_flag=True, help="Generate again whenever a .proto file changes.")
def generate(
    protos: tuple[Path, ...],
    include: tuple[Path, ...],
    out: Path | None,
    imports: str | None,
    python: tuple[int, int] | None,
    init: bool | None,
    check: bool,
    watch: bool,
) -> None:
    """Write typed Python for .proto files.

    For greeter.proto these are greeter_pb2.py with its type stub greeter_pb2.pyi, and
    greeter_localrpc.py with GreeterStub, GreeterAsyncStub, GreeterServicer,
    GreeterAsyncServicer and add_GreeterServicer_to_server for `service Greeter`. They work
    with grpcio's channels and servers and with localrpc's.

    \b
        localrpc generate protos/greeter.proto --out app
        localrpc generate -I protos protos/shop --out app

    Settings that are not given here are taken from [tool.localrpc.generate] in pyproject.toml, if
    it exists: protos, include, out, imports, python, init.
    """
    with _mistakes_in_a_line():
        job = _job(protos, include, out, imports, python, init)
        # A file that is written while we generate has not been read: it counts as a change.
        state = _state(job)
        if check:
            _check(job)
        else:
            _write(job)
    while watch:
        state = _wait_for_change(job, state)
        try:
            with _mistakes_in_a_line():
                _write(job)
        except click.ClickException as error:
            error.show()


def _job(
    protos: tuple[Path, ...],
    include: tuple[Path, ...],
    out: Path | None,
    imports: str | None,
    python: tuple[int, int] | None,
    init: bool | None,
) -> Job:
    table = load(Path.cwd())
    sources = protos or tuple(table.get("protos", ()))
    if not sources:
        raise click.UsageError("no PROTO or DIR given, here or in pyproject.toml")
    out = out or table.get("out")
    if out is None:
        raise click.UsageError("no --out given, here or in pyproject.toml")
    try:
        kind = Imports(imports or table.get("imports") or _fitting_imports(out))
        version = python or parse_python(table.get("python", "3.10"))
    except ValueError as error:
        raise SettingsError(f"pyproject.toml: {error}") from error
    return Job(
        sources=sources,
        out=out,
        roots=include or tuple(table.get("include", ())),
        settings=Settings(imports=kind, python=version),
        init=table.get("init", True) if init is None else init,
    )


def _fitting_imports(out: Path) -> Imports:
    """Return absolute for the current folder, whose modules are imported by scripts beside them."""
    beside = out.resolve() == Path.cwd() and not (out / "__init__.py").exists()
    return Imports.ABSOLUTE if beside else Imports.RELATIVE


def _write(job: Job) -> None:
    output = prepare(job)
    click.echo(output.warnings, err=True, nl=False)
    written = output.write()
    click.echo(f"{len(output.files)} files in {job.out}, {len(written)} changed")


def _check(job: Job) -> None:
    output = prepare(job)
    click.echo(output.warnings, err=True, nl=False)
    stale = output.stale()
    for path in stale:
        click.echo(f"out of date: {path}", err=True)
    if stale:
        sys.exit(1)


def _wait_for_change(job: Job, before: dict[Path, int]) -> dict[Path, int]:
    while (now := _state(job)) == before:
        time.sleep(WATCH_INTERVAL)
    return now


def _state(job: Job) -> dict[Path, int]:
    """Return the modification time of each .proto file that may matter."""
    folders = [*job.sources, *job.roots]
    state = {}
    for folder in folders:
        try:
            for path in find_protos([folder]):
                state[path] = path.stat().st_mtime_ns
        except (GenerateError, OSError):
            continue  # editors replace files: missing for a moment
    return state


@contextmanager
def _mistakes_in_a_line() -> Iterator[None]:
    try:
        yield
    except (GenerateError, SettingsError) as error:
        raise click.ClickException(str(error)) from error
