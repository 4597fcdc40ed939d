"""The metrics of prometheus.py and opentelemetry.py, under one name in both.

Those that gRFC A66 (https://github.com/grpc/proposal/blob/master/A66-otel-stats.md) has are named
as there; the others begin with `localrpc.`. OpenTelemetry's name is given: Prometheus has
underscores for its dots, as OpenTelemetry's exporter for Prometheus writes it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import grpc

from localrpc.observe import Counts


class Metric(NamedTuple):
    """A number of an endpoint."""

    name: str
    unit: str
    """As OpenTelemetry writes it."""
    text: str
    value: Callable[[Counts], int]
    grows: bool = True
    role: str = ""
    """Of endpoints of this role only, and so not a label; empty: of both."""


METRICS = (
    Metric(
        "grpc.server.call.started",
        "{call}",
        "Calls that have begun; those refused by a limit are not among them.",
        lambda counts: counts.begun,
        role="server",
    ),
    Metric(
        "grpc.client.attempt.started",
        "{attempt}",
        "Attempts at calls that have begun.",
        lambda counts: counts.begun,
        role="channel",
    ),
    Metric(
        "localrpc.connections",
        "{connection}",
        "Connections now.",
        lambda counts: counts.connections,
        grows=False,
    ),
    Metric(
        "localrpc.connections_opened",
        "{connection}",
        "Connections there have been.",
        lambda counts: counts.connected,
    ),
    Metric(
        "localrpc.calls_in_flight",
        "{call}",
        "Calls in progress now.",
        lambda counts: counts.in_flight,
        grows=False,
    ),
    Metric(
        "localrpc.calls_waiting",
        "{call}",
        "Calls in progress that no thread of the server has taken up.",
        lambda counts: counts.waiting,
        grows=False,
        role="server",
    ),
    Metric(
        "localrpc.streams",
        "{call}",
        "Calls in progress in which one side has sent a message that was not its only one.",
        lambda counts: counts.streams,
        grows=False,
    ),
    Metric(
        "localrpc.calls_refused",
        "{call}",
        "Calls that no handler saw, because of a limit or the server's end.",
        lambda counts: counts.refused,
        role="server",
    ),
    Metric(
        "localrpc.received",
        "By",
        "Bytes of frames received, with their headers.",
        lambda counts: counts.bytes_in,
    ),
    Metric(
        "localrpc.sent",
        "By",
        "Bytes of frames sent, with their headers.",
        lambda counts: counts.bytes_out,
    ),
    Metric(
        "localrpc.frames_received",
        "{frame}",
        "Frames received.",
        lambda counts: counts.frames_in,
    ),
    Metric(
        "localrpc.frames_sent",
        "{frame}",
        "Frames sent.",
        lambda counts: counts.frames_out,
    ),
)

ENDED = "localrpc.calls_ended"
ENDED_TEXT = "Calls that have ended, by status code."

_NAMES = {code.value[0]: code.name for code in grpc.StatusCode}


def by_status(counts: Counts) -> dict[str, int]:
    """Return the ended calls by the name of their status code: OK, and those that have occurred.

    A code that gRPC does not have counts as UNKNOWN, which is what grpcio makes of it.
    """
    found = {"OK": 0}
    for number, calls in enumerate(counts.ended):
        if calls:
            name = _NAMES.get(number, "UNKNOWN")
            found[name] = found.get(name, 0) + calls
    return found
