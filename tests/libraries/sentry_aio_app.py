"""What Sentry is sent of calls by grpc.aio and by localrpc.aio, as JSON."""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
from typing import Any

import sentry_sdk
from grpc import aio
from sentry_sdk.envelope import Envelope
from sentry_sdk.integrations.grpc import GRPCIntegration
from sentry_sdk.transport import Transport

import localrpc.aio
from localrpc.integrations.sentry import LocalrpcIntegration
from tests.libraries.test_aio import serve_and_call

_sent: list[dict[str, Any]] = []


class Kept(Transport):
    def capture_envelope(self, envelope: Envelope) -> None:
        _sent.extend(item.payload.json for item in envelope.items if item.payload.json)


def record(module: Any, target: str) -> list[Any]:
    """The transactions and events, in a fixed order, each with its spans."""
    _sent.clear()
    with sentry_sdk.start_transaction(name="client"):
        asyncio.run(serve_and_call(module, target))
    told = [
        [
            item.get("type", "event"),
            item["contexts"]["trace"].get("op"),
            item.get("transaction"),
            [[span["op"], span["description"]] for span in item.get("spans", [])],
        ]
        for item in _sent
    ]
    return sorted(told, key=json.dumps)


def main() -> None:
    sentry_sdk.init(
        dsn="http://key@localhost/1",
        transport=Kept,
        traces_sample_rate=1.0,
        default_integrations=False,
        integrations=[GRPCIntegration(), LocalrpcIntegration()],
    )
    with tempfile.TemporaryDirectory() as directory:
        theirs = record(aio, f"unix:{directory}/s")
    json.dump([theirs, record(localrpc.aio, "shm:sentry")], sys.stdout)


if __name__ == "__main__":
    main()
