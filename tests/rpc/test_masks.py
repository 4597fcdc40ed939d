"""A thread that has slept for a signal, and then elsewhere, has its own signal mask back."""

from __future__ import annotations

import signal
from concurrent import futures
from typing import Any

import grpc
import pytest

import localrpc
from tests.conftest import fresh_target

from .house import PATIENCE, dial


def blocked(request: bytes, context: Any) -> bytes:
    return b"blocked" if signal.SIGURG in signal.pthread_sigmask(signal.SIG_BLOCK, []) else b""


# "beside", because a run of one kind alone may forbid the socket that greets for shm:.
@pytest.mark.parametrize("other", ["mq", "sysvmq", "unix-abstract"], ids="beside-{}".format)
def test_a_server_of_signals_and_others_leaves_no_signal_blocked(
    other: str, runtime_directory: str
) -> None:
    handler: Any = grpc.unary_unary_rpc_method_handler(blocked)
    generic = grpc.method_handlers_generic_handler("m", {"b": handler})
    server = localrpc.server(futures.ThreadPoolExecutor(2), handlers=(generic,))
    targets = [fresh_target(kind, runtime_directory) for kind in ("shm-signal", other)]
    for target in targets:
        server.add_insecure_port(target)
    server.start()
    try:
        for target in targets:
            with dial(target) as channel:
                ask = channel.unary_unary("/m/b")
                assert {ask(b"", timeout=PATIENCE) for _ in range(200)} == {b""}
    finally:
        server.stop(None).wait()
