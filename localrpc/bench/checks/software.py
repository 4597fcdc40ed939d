"""Python, the packages that localrpc needs, and the core with its compiler."""

from __future__ import annotations

import re

from .finding import Finding, Verdict, ok, problem, warning
from .system import System


def python(system: System) -> Finding:
    name, version = system.python()
    found = f"{name} {'.'.join(map(str, version))}"
    if name != "CPython" or not (3, 10) <= version[:2] <= (3, 13):
        return warning(found, "localrpc supports CPython 3.10 to 3.13", "use one of these")
    return ok(found)


def core(system: System) -> Finding:
    try:
        system.try_core()
    except ImportError as error:
        return problem("does not load", "no transport works", str(error))
    return ok("loads")


def compiler(system: System) -> Finding:
    command, headers = system.compiler(), system.headers()
    missing = [
        what
        for what, there in (("a C compiler", command), (headers, system.exists(headers)))
        if not there
    ]
    if not missing:
        return ok(f"{command}, and Python's headers")
    found = f"without {' and '.join(missing)}"
    if core(system).verdict is Verdict.OK:
        return ok(found, "needed only to build localrpc, which is installed")
    return problem(
        found,
        "localrpc's core cannot be built here",
        "apt-get install gcc python3-dev, dnf install gcc python3-devel, or the like",
    )


def packages(system: System) -> Finding:
    found, bad = [], []
    for requirement in system.requirements():
        match = re.fullmatch(r"([\w.-]+)\s*>=\s*([\d.]+)", requirement)
        if match is None:  # a dependency of an extra
            continue
        name, least = match.groups()
        version = system.version(name)
        found.append(f"{name} {version or 'missing'}")
        if version is None or _order(version) < _order(least):
            bad.append(f"'{requirement}'")
    if bad:
        return problem(
            ", ".join(found),
            "localrpc cannot be imported, or fails",
            f"pip install {' '.join(bad)}",
        )
    return ok(", ".join(found) or "localrpc is not installed: run from the source tree")


def _order(version: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", version)[:3]))
