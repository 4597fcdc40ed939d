"""Checks of what this machine allows, what that means for each transport, and how to fix it.

A check is a function of a System that returns one Finding; CHECKS has them all.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from . import descriptors, directory, features, hardware, memory, queues, software
from .finding import Check, Finding, Verdict, warning
from .system import System

__all__ = ["CHECKS", "Check", "Finding", "System", "Verdict", "as_json", "examine"]

CHECKS: dict[str, Check] = {
    "cores": hardware.cores,
    "CPU quota": hardware.cpu_quota,
    "virtualization": hardware.virtualization,
    "kernel": hardware.kernel,
    "Python": software.python,
    "packages": software.packages,
    "the core": software.core,
    "compiler": software.compiler,
    "runtime directory": directory.runtime_directory,
    "descriptors": descriptors.descriptors,
    "pidfd": features.pidfd,
    "SO_PEERPIDFD": features.peer_pidfd,
    "futex_waitv": features.futex_waitv,
    "sealed memory": memory.memfd,
    "/dev/shm": memory.shm_directory,
    "pipes": descriptors.pipes,
    "POSIX queues": queues.mqueue,
    "System V queues": queues.system_v,
    "loopback": features.loopback,
}


def examine(system: System | None = None) -> list[Finding]:
    """Return every check's finding, with its name; an exception becomes a warning."""
    system = system or System()
    findings = []
    for name, check in CHECKS.items():
        try:
            finding = check(system)
        except Exception as error:
            finding = warning(
                "check failed", f"{type(error).__name__}: {error}", "please report this"
            )
        findings.append(Finding(**{**vars(finding), "name": name}))
    return findings


def as_json(findings: list[Finding]) -> list[dict[str, Any]]:
    return [
        # The transport that it concerns comes first, as in the table.
        {"name": finding.name, **asdict(finding), "verdict": finding.verdict.value}
        for finding in findings
    ]
