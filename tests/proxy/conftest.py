"""A server, a proxy in front of it, and a client, in one process."""

from __future__ import annotations

import asyncio
import pickle
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import grpc
import pytest

from localrpc.proxy import process
from localrpc.proxy.process import Settings, proxying
from tests.conftest import fresh_target
from tests.endings import at_end
from tests.rpc.house import PATIENCE, House, dial

PAIRS = (
    ("grpc", "shm-eventfd"),
    ("unix", "grpc"),
    ("shm-eventfd", "unix"),
    ("grpc", "grpc"),
)
"""At what a proxy listens, and what is behind it."""


class Loop:
    """An event loop in a thread, where proxies run."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, name="proxies")
        self._thread.start()

    def run(self, coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(PATIENCE)

    def close(self) -> None:
        self.run(self.loop.shutdown_asyncgens())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()


@pytest.fixture(scope="session")
def loop() -> Iterator[Loop]:
    running = Loop()
    yield running
    running.close()


class Behind(House):
    """The house, with handlers that answer and observe what a proxy may change."""

    def __init__(self, target: str, **named: Any) -> None:
        self.taken = 0
        """Requests that `take` has read, or answers that `give` has given."""
        self.attempts: list[str | bytes | None] = []
        """How many came before each call of `status`, as its client says."""
        super().__init__(target, **named)

    def handlers(self) -> Any:
        uu: Any = grpc.unary_unary_rpc_method_handler
        us: Any = grpc.unary_stream_rpc_method_handler
        su: Any = grpc.stream_unary_rpc_method_handler
        ss: Any = grpc.stream_stream_rpc_method_handler
        more = {
            "metadata": uu(self.metadata),
            "left": uu(self.left),
            "status": us(self.status),
            "speaks_first": ss(self.speaks_first),
            "headers_first": us(self.headers_first),
            "enough": ss(self.enough),
            "take": su(self.take),
            "give": us(self.give),
        }
        return _Both(super().handlers(), grpc.method_handlers_generic_handler("behind", more))

    def metadata(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        """Answer with what has come; send back the pairs that the request has, pickled."""
        initial, trailing = pickle.loads(request)
        context.send_initial_metadata(initial)
        context.set_trailing_metadata(trailing)
        return pickle.dumps([(key, value) for key, value in context.invocation_metadata()])

    def left(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        return pickle.dumps(context.time_remaining())

    def status(self, request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        """As many answers, then a status: the request says which."""
        metadata = dict(context.invocation_metadata())
        self.attempts.append(metadata.get("grpc-previous-rpc-attempts"))
        count, code, details, trailing = pickle.loads(request)
        for number in range(count):
            yield b"%d" % number
        context.set_trailing_metadata(trailing)
        context.set_code(grpc.StatusCode[code])
        context.set_details(details)

    def speaks_first(
        self, requests: Iterator[bytes], context: grpc.ServicerContext
    ) -> Iterator[bytes]:
        yield b"who are you?"
        yield next(requests)

    def headers_first(self, request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        context.send_initial_metadata((("early", "1"),) if request else ())
        self.gate.wait(PATIENCE)
        yield b""

    def enough(self, requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        """End the call, as the first request says, while the client goes on sending."""
        if next(requests) == b"refuse":
            context.abort(grpc.StatusCode.PERMISSION_DENIED, "not you")
        yield b"enough"

    def take(self, requests: Iterator[bytes], context: grpc.ServicerContext) -> bytes:
        """Take one request, and the others once the gate is open."""
        for request in requests:
            self.taken += 1
            self.entered.release()
            self.gate.wait(PATIENCE)
            del request
        return b"%d" % self.taken

    def give(self, request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        at_end(context, self.ended.set)
        count, size = map(int, request.split())
        for _ in range(count):
            yield bytes(size)
            self.taken += 1


class _Both(grpc.GenericRpcHandler):
    def __init__(self, *generic: Any) -> None:
        self._generic = generic

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        found = (each.service(handler_call_details) for each in self._generic)
        return next((handler for handler in found if handler is not None), None)


class Bridge:
    """`house` is behind the proxy, which listens at `front`; `channel` leads to the proxy."""

    def __init__(self, loop: Loop, house: Behind, front: str, options: Any = None) -> None:
        self.loop = loop
        self.house = house
        self.front = front
        self.channel = dial(front, options)

    def unary(self, method: str, request: bytes = b"", **named: Any) -> Any:
        """The call of a method with one request and answer, as a future."""
        named.setdefault("timeout", PATIENCE)
        return self.channel.unary_unary(method).future(request, **named)


@contextmanager
def bridged(
    loop: Loop,
    pair: tuple[str, str],
    folder: str,
    *,
    proxy_options: tuple[tuple[str, Any], ...] = (),
    client_options: Any = None,
    **named: Any,
) -> Iterator[Bridge]:
    """`named` are arguments of the house."""
    front, back = (fresh_target(kind, folder) for kind in pair)
    behind = Behind(back, **named)
    with behind:
        served = proxying(Settings(front, back, options=proxy_options))
        loop.run(served.__aenter__())
        try:
            bridge = Bridge(loop, behind, front, client_options)
            with bridge.channel:
                yield bridge
        finally:
            behind.gate.set()
            loop.run(served.__aexit__(None, None, None))


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have proxies hold back the end of a grpcio client's requests, however busy this machine."""
    monkeypatch.setattr(process, "DOUBT", PATIENCE)


@pytest.fixture(params=PAIRS, ids="-".join)
def pair(request: pytest.FixtureRequest) -> tuple[str, str]:
    found: tuple[str, str] = request.param
    return found


@pytest.fixture
def bridge(pair: tuple[str, str], loop: Loop, runtime_directory: str) -> Iterator[Bridge]:
    with bridged(loop, pair, runtime_directory) as made:
        yield made
