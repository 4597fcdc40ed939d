"""`sentry_sdk.init(integrations=[LocalrpcIntegration()])`: transactions, spans and events as
`GRPCIntegration` has for grpcio."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from .scene import SERVICE, TARGETS

LIBRARIES = ("sentry-sdk",)

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def sent(runtime_directory: str) -> dict[str, Any]:
    """What Sentry is sent, by target; grpcio's is under "grpcio"."""
    command = [sys.executable, "-m", "tests.libraries.sentry_app", *TARGETS, "grpc:"]
    # sentry_sdk imports eventlet, which is deprecated, wherever it is installed.
    accepted = f"{os.environ['PYTHONWARNINGS']},ignore::Warning:sentry_sdk.utils"
    environment = os.environ | {"PYTHONWARNINGS": accepted}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return dict(zip(("grpcio", *TARGETS, "grpc:"), json.loads(done.stdout), strict=True))


def test_sentry_is_sent_what_it_is_with_grpcio_over_every_target(sent: dict[str, Any]) -> None:
    for target in TARGETS:
        assert sent[target] == sent["grpcio"], target
    ops = [(item["kind"], item["op"]) for item in sent["grpcio"]]
    assert ("transaction", "grpc.server") in ops
    (client,) = (item for item in sent["grpcio"] if item["transaction"] == "client")
    assert ["grpc.client", f"unary unary call to /{SERVICE}/Refuse", "NOT_FOUND"] in client["spans"]
    assert all(item["joined"] for item in sent["grpcio"] if item["kind"] == "transaction")


def test_sentry_has_an_event_of_what_a_handler_raises(sent: dict[str, Any]) -> None:
    events = [item for item in sent["shm:"] if item["kind"] == "event"]
    assert [event["exceptions"] for event in events] == [[["ValueError", "no"]]]


def test_sentry_records_calls_by_grpcio_once(sent: dict[str, Any]) -> None:
    assert sent["grpc:"] == sent["grpcio"]
