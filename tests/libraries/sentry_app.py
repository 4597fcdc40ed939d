"""What Sentry is sent of the calls at some targets, as JSON: its hooks are a process's for good."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import sentry_sdk
from sentry_sdk.envelope import Envelope
from sentry_sdk.integrations.grpc import GRPCIntegration
from sentry_sdk.integrations.logging import LoggingIntegration
from sentry_sdk.transport import Transport

from localrpc.integrations.sentry import LocalrpcIntegration
from localrpc.testing import serving
from tests.libraries.scene import Service, by_grpcio, call_everything

_sent: list[dict[str, Any]] = []


class Kept(Transport):
    def capture_envelope(self, envelope: Envelope) -> None:
        _sent.extend(item.payload.json for item in envelope.items if item.payload.json)


@contextmanager
def recording(story: list[Any]) -> Iterator[None]:
    """Add to `story` what is sent meanwhile, in a fixed order."""
    _sent.clear()
    with sentry_sdk.start_transaction(name="client"):
        yield
    told = []
    for item in _sent:
        trace = item["contexts"]["trace"]
        exceptions = item.get("exception", {}).get("values", [])
        told.append(
            {
                "kind": item.get("type", "event"),
                "transaction": item.get("transaction"),
                "op": trace.get("op"),
                "exceptions": [(one["type"], one["value"]) for one in exceptions],
                "spans": [
                    (span["op"], span["description"], span["data"].get("code"))
                    for span in item.get("spans", [])
                ],
                "joined": trace["trace_id"] == _sent[-1]["contexts"]["trace"]["trace_id"],
            }
        )
    story.append(sorted(told, key=json.dumps))


def main() -> None:
    sentry_sdk.init(
        dsn="http://key@localhost/1",
        transport=Kept,
        traces_sample_rate=1.0,
        default_integrations=False,
        integrations=[LoggingIntegration(), GRPCIntegration(), LocalrpcIntegration()],
    )
    story: list[Any] = []
    with by_grpcio(Service().handler()) as channel, recording(story):
        call_everything(channel)
    for target in sys.argv[1:]:
        with serving(Service().handler(), target=target) as channel, recording(story):
            call_everything(channel)
    json.dump(story, sys.stdout)


if __name__ == "__main__":
    main()
