"""Rows as JSON: everything that is known, in seconds and bytes."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby
from typing import Any

from localrpc.cli.processes.rows import Row, schemes_of, targets_of
from localrpc.observe import Counts, Latency
from localrpc.transports.leftovers import Leftover

CODES = (
    *("OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND"),
    *("ALREADY_EXISTS", "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION"),
    *("ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"),
    *("UNAUTHENTICATED", "other"),
)
"""gRPC's status codes by number; importing grpc takes longer than all that `ps` does."""


def codes_of(counts: Counts) -> dict[str, int]:
    """Return how many calls have ended with each status code, without those that none has."""
    return {name: ended for name, ended in zip(CODES, counts.ended, strict=True) if ended}


def processes_of(rows: Iterable[Row]) -> list[dict[str, Any]]:
    """Return an object for each process, with its endpoints; the rows are sorted by pid."""
    found = []
    for _, group in groupby(rows, key=lambda row: row.process.pid):
        of_process = list(group)
        process = of_process[0].process
        found.append(
            {
                "pid": process.pid,
                "uid": process.uid,
                "state": of_process[0].state,
                "command": process.command,
                "note": process.page.note,
                "threads": process.threads,
                "memory": process.memory,
                "cpu_seconds": process.processor,
                "cpu_share": of_process[0].processor_share,
                "left_out": process.page.left_out,
                "endpoints": [_endpoint(row) for row in of_process],
            }
        )
    return found


def _endpoint(row: Row) -> dict[str, Any]:
    endpoint, counts = row.endpoint, row.endpoint.counts
    document: dict[str, Any] = {
        "role": endpoint.role,
        "targets": targets_of(endpoint.target),
        "transport": schemes_of(endpoint),
        "live": endpoint.live,
        "age": row.age,
        "connections": counts.connections,
        "in_flight": counts.in_flight,
        "waiting": counts.waiting,
        "streams": counts.streams,
        "connected": counts.connected,
        "calls": counts.begun,
        "failed": counts.failed,
        "refused": counts.refused,
        "codes": codes_of(counts),
        "seconds": counts.seconds,
        **_percentiles(counts.latency),
        "frames_in": counts.frames_in,
        "frames_out": counts.frames_out,
        "bytes_in": counts.bytes_in,
        "bytes_out": counts.bytes_out,
    }
    if row.interval is not None:
        changed = row.interval.counts
        document["interval"] = {
            "seconds": row.interval.seconds,
            "calls": changed.begun,
            "calls_per_second": row.calls_per_second,
            "failed": changed.failed,
            "codes": codes_of(changed),
            **_percentiles(changed.latency),
        }
    return document


def _percentiles(latency: Latency) -> dict[str, float | None]:
    return {f"p{percent:g}": latency.percentile(percent) for percent in (50, 99, 99.9)}


def leftover_of(left: Leftover) -> dict[str, Any]:
    return {"target": left.target or None, "kind": left.kind, "place": left.place}
