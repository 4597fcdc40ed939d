"""What a shell offers for targets, services and methods.

A server's services are asked for by reflection, and kept for a minute in a file for each target,
because a shell asks again at every press of a key. Nothing here fails or prints: a shell that
completes is offered less instead.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

import localrpc
from localrpc.cli.processes.rows import callable_targets
from localrpc.observe import processes

_FRESH = 60.0
"""Seconds after which a server is asked again."""
_PATIENCE = 1.0
"""Seconds that a shell waits for a server, unless the line has a --timeout."""


def targets(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Targets with a server, those that were completed before, and the beginnings of others."""
    offers = localrpc.transports()
    served = {target for offer in offers for target in offer.served}
    served |= {target for target in callable_targets(processes()) if _is_there(target)}
    known = sorted(served.union(names["target"] for names in _kept()))
    begins = dict.fromkeys(f"{offer.scheme}:" for offer in offers)
    return _items(text for text in [*known, *begins, "grpc:"] if text.startswith(incomplete))


def _is_there(target: str) -> bool:
    """False for a path without a file: its server has stopped, and its process has not."""
    _, _, place = target.partition(":")
    return not place.startswith("/") or os.path.exists(place)


def places(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Beginnings of targets, for a server's, which is at none that has a server."""
    schemes = dict.fromkeys(f"{offer.scheme}:" for offer in localrpc.transports())
    return _items(text for text in [*schemes, "grpc:"] if text.startswith(incomplete))


def methods(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """SERVICE/METHOD, or only services until one is complete."""
    names = _names(ctx)
    slash = "/" if incomplete.startswith("/") else ""
    wanted = incomplete.removeprefix("/")
    if "/" in wanted:
        return _items(slash + name for name in names["methods"] if name.startswith(wanted))
    services = [name for name in names["services"] if wanted in name]
    if len(services) == 1:
        service = services[0] + "/"
        return _items(slash + name for name in names["methods"] if name.startswith(service))
    return _items(f"{slash}{name}/" for name in services)


def services(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    return _items(name for name in _names(ctx)["services"] if incomplete in name)


def symbols(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Services and methods; messages are too many."""
    names = _names(ctx)
    wanted = incomplete.removeprefix("/")
    known = [*names["services"], *(names["methods"] if "/" in wanted else ())]
    return _items(name for name in known if wanted in name)


def _items(texts: Iterable[str]) -> list[CompletionItem]:
    return [CompletionItem(text) for text in dict.fromkeys(texts)]


def _names(ctx: click.Context) -> dict[str, Any]:
    """Services and methods of what the command line names so far."""
    options = ctx.params
    target = options.get("target") or ""
    given = [options.get(name) for name in ("protos", "folders", "modules")]
    # A click command may end the program, and grpc may raise anything a server has caused.
    with suppress(Exception, SystemExit):
        if any(given):
            from localrpc.cli.rpc import sources

            protos, folders, modules = given
            return _listed(target, sources.read(protos or (), folders or (), modules or ()))
        return _remembered(target, lambda: _asked(target, options))
    return {"target": target, "services": [], "methods": []}


def _asked(target: str, options: dict[str, Any]) -> dict[str, Any]:
    from localrpc.cli.rpc.connection import connected
    from localrpc.cli.rpc.reflection import from_server

    timeout = options.get("timeout") or _PATIENCE
    headers = options.get("headers") or ()
    tls, ca = bool(options.get("tls")), options.get("ca")
    with connected(target, headers, timeout, options.get("worker"), tls, ca) as connection:
        return _listed(target, from_server(connection))


def _listed(target: str, schema: Any) -> dict[str, Any]:
    names = schema.services()
    methods = []
    for name in names:
        with suppress(click.ClickException):  # it is listed, but has no description
            methods += [f"{name}/{method.name}" for method in schema.service(name).methods]
    return {"target": target, "services": names, "methods": methods}


# ---- what is kept ----


def _folder() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(base, "localrpc", "completion")


def _remembered(target: str, ask: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Return the stored entry of a target if it is recent; otherwise ask the server."""
    path = _folder() / f"{hashlib.sha256(target.encode()).hexdigest()[:32]}.json"
    with suppress(OSError, ValueError):
        if 0 <= time.time() - path.stat().st_mtime < _FRESH:
            names: dict[str, Any] = json.loads(path.read_text())
            if names["target"] == target:
                return names
    names = ask()
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        # Two shells may write at once.
        temporary = path.with_suffix(f".{os.getpid()}")
        temporary.write_text(json.dumps(names))
        temporary.replace(path)
    return names


def _kept() -> Iterable[dict[str, Any]]:
    for path in _folder().glob("*.json"):
        with suppress(OSError, ValueError, KeyError):
            names = json.loads(path.read_text())
            names["target"].encode()
            yield names
