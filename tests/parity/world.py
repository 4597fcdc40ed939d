"""The stage on which a scenario plays: servers, channels, gates and the log of one backend."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent import futures
from typing import Any, TypeAlias

import grpc

from .backends import Backend
from .transcript import Transcript, drained, outcome, scrub

PATIENCE = 10.0
"""Seconds after which something that must happen is taken to have failed."""

KINDS = ("unary_unary", "unary_stream", "stream_unary", "stream_stream")
SERVICE = "parity.Service"

Behaviour: TypeAlias = Callable[[Any, Any], Any]
Scenario: TypeAlias = "Callable[[World], Transcript]"

SCENARIOS: dict[str, Scenario] = {}


def scenario(function: Scenario) -> Scenario:
    """Add a function of a World to those that every backend plays."""
    assert function.__name__ not in SCENARIOS, function.__name__
    SCENARIOS[function.__name__] = function
    return function


def scenario_of(*kinds: str) -> Callable[[Callable[[World, str], Any]], Scenario]:
    """Like scenario, for a function of a World and a kind, played once with each of these kinds."""

    def register(function: Callable[[World, str], Any]) -> Scenario:
        def every(w: World) -> Transcript:
            return {kind: function(w, kind) for kind in kinds}

        every.__name__ = function.__name__
        return scenario(every)

    return register


def handler(kind: str, behaviour: Behaviour, **codecs: Any) -> Any:
    """behaviour as an RpcMethodHandler of a kind."""
    return getattr(grpc, f"{kind}_rpc_method_handler")(behaviour, **codecs)


def generic(methods: Mapping[str, Any], service: str = SERVICE) -> Any:
    return grpc.method_handlers_generic_handler(service, dict(methods))


def answering(kind: str, prologue: Callable[[Any], Any]) -> Behaviour:
    """A behaviour of a kind: reads all requests, does prologue(context), answers b'one', b'two'."""

    def respond(request: Any, context: Any) -> bytes:
        if kind.startswith("stream"):
            list(request)
        prologue(context)
        return b"one"

    def respond_twice(request: Any, context: Any) -> Iterator[bytes]:
        yield respond(request, context)
        yield b"two"

    return respond_twice if kind.endswith("stream") else respond


def begin(kind: str, method: Any, request: Any = None, **named: Any) -> Any:
    """Start a call of any kind without waiting for it; every kind gives a Call and a Future."""
    start = method.future if kind.endswith("unary") else method
    return start(asking(kind) if request is None else request, **named)


def ok(request: Any, context: Any) -> bytes:
    """A behaviour that reads nothing."""
    return b"ok"


def asking(kind: str, requests: Iterable[Any] = (b"ask",)) -> Any:
    """What to hand to a multicallable of a kind: an iterator, or the first request."""
    return iter(requests) if kind.startswith("stream") else next(iter(requests))


def finish(kind: str, method: Any, requests: Iterable[Any] = (b"ask",), **named: Any) -> Any:
    """Make a call of any kind and tell everything that came back."""
    request = asking(kind, requests)
    if kind.endswith("unary"):
        return outcome(method, request, **named)
    return outcome(lambda: drained(method(request, **named)))


class World:
    """One backend's server side and client side; leaving the context takes all of it down."""

    def __init__(self, backend: Backend, directory: str) -> None:
        self.backend = backend
        self.directory = directory
        self._names: list[str] = []
        self._undo: list[Callable[[], object]] = []
        self._channels: list[Any] = []
        self._log = _Log()

    def __enter__(self) -> World:
        logging.getLogger().addHandler(self._log)
        return self

    def __exit__(self, *_: object) -> None:
        self.clear()
        logging.getLogger().removeHandler(self._log)

    def play(self, story: Scenario) -> Transcript:
        told: Transcript = scrub(story(self), self._names)
        return told

    def clear(self) -> None:
        """Take down what there is: a scenario of many servers needs more than some may have."""
        while self._undo:
            self._undo.pop()()

    # -- things to play with

    def gate(self) -> threading.Event:
        """An event that is set at the latest when the scenario is over."""
        event = threading.Event()
        self._undo.append(event.set)
        return event

    def address(self) -> str:
        name = self.backend.fresh_address(self.directory)
        self._names.append(name)
        return name

    def pool(self, workers: int = 8, **named: Any) -> futures.ThreadPoolExecutor:
        pool = futures.ThreadPoolExecutor(workers, **named)
        self._undo.append(lambda: pool.shutdown(wait=False))
        return pool

    def server(self, methods: Mapping[str, Any] | None = None, **named: Any) -> Any:
        """A server that has neither a port nor been started."""
        if methods is not None:
            named["handlers"] = [generic(methods)]
        pool = named.pop("pool", None) or self.pool()
        server = self.backend.make_server(pool, **named)
        # Bounded: grpcio can lose count of a call whose request it could not read.
        self._undo.append(lambda: server.stop(0).wait(1))
        return server

    def serve(self, methods: Mapping[str, Any], **named: Any) -> str:
        """Start a server with these methods and give its address."""
        address = self.address()
        server = self.server(methods, **named)
        server.add_insecure_port(address)
        server.start()
        return address

    def channel(self, target: str, **named: Any) -> Any:
        channel = self.backend.make_channel(target, **named)
        self._channels.append(channel)
        self._undo.append(channel.close)
        return channel

    def close_channels(self) -> None:
        for channel in self._channels:
            channel.close()

    def method(self, kind: str, behaviour: Behaviour, **codecs: Any) -> Any:
        """A multicallable whose calls reach behaviour, on a separate server and channel."""
        return getattr(self._served(handler(kind, behaviour)), kind)(f"/{SERVICE}/Do", **codecs)

    def method_of(self, served: Any) -> Any:
        """A multicallable of raw bytes for an RpcMethodHandler, served likewise."""
        kind = "_".join(
            "stream" if streaming else "unary"
            for streaming in (served.request_streaming, served.response_streaming)
        )
        return getattr(self._served(served), kind)(f"/{SERVICE}/Do")

    def _served(self, served: Any) -> Any:
        return self.channel(self.serve({"Do": served}))

    def logged(self) -> list[list[str]]:
        """Level and text of the warnings and errors logged so far."""
        return [[record.levelname, record.getMessage()] for record in self._log.records]


def name_of(address: str) -> str:
    """What errors call it: no options, and grpcio sees nothing of grpc: either."""
    return address.split("?")[0].removeprefix("grpc:")


def wait(event: threading.Event) -> None:
    assert event.wait(PATIENCE), "did not happen in time"


class _Log(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.name.split(".")[0] in ("grpc", "localrpc"):
            self.records.append(record)
