"""What is put around every channel and server, and grpc's own functions taking our targets."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import grpc
import grpc.experimental
import pytest
from grpc._simple_stubs import ChannelCache

import localrpc
from tests.conftest import DISTINCT, TARGETS, fresh_target

from .house import House, dial

OURS = [kind for kind in DISTINCT if not TARGETS[kind].startswith("unix")]
"""Those whose names mean nothing to grpcio."""


class Notes(
    grpc.UnaryUnaryClientInterceptor,
    grpc.UnaryStreamClientInterceptor,
    grpc.StreamUnaryClientInterceptor,
    grpc.StreamStreamClientInterceptor,
    grpc.ServerInterceptor,
):
    """The method that was called, and the instruments that noticed it."""

    def __init__(self) -> None:
        self.sent: list[str] = []
        self.served: list[str] = []

    def _client(self, continuation: Any, details: Any, request: Any) -> Any:
        self.sent.append(details.method)
        return continuation(details, request)

    intercept_unary_unary: Any = _client
    intercept_unary_stream: Any = _client
    intercept_stream_unary: Any = _client
    intercept_stream_stream: Any = _client

    def intercept_service(self, continuation: Any, details: Any) -> Any:
        self.served.append(details.method)
        return continuation(details)

    def channel(self, methods: grpc.Channel) -> grpc.Channel:
        return grpc.intercept_channel(methods, self)


ALL = ["/house/echo", "/house/count", "/house/length", "/house/mirror"]


def call_all(channel: Any) -> None:
    assert channel.unary_unary("/house/echo")(b"x") == b"x"
    assert list(channel.unary_stream("/house/count")(b"2")) == [b"0", b"1"]
    assert channel.stream_unary("/house/length")(iter([b"abc"])) == b"3"
    assert list(channel.stream_stream("/house/mirror")(iter([b"a"]))) == [b"a"]


@pytest.fixture
def notes() -> Iterator[Notes]:
    made = Notes()
    undo = localrpc.instrument(channel=made.channel, server=lambda: made)
    yield made
    undo()


def test_instruments_see_every_call_of_channels_and_servers(
    notes: Notes, distinct_target: str
) -> None:
    with House(distinct_target) as house:
        call_all(house.channel)
    assert notes.sent == notes.served == ALL


def test_an_instrumented_channel_stays_what_it_is(notes: Notes, one_target: str) -> None:
    with House(one_target) as house:
        with dial(one_target) as channel:
            assert channel.unary_unary("/house/echo")(b"x") == b"x"
            assert type(channel) is type(house.channel)
            assert channel.facts is not None
        with pytest.raises(ValueError, match="closed channel"):
            channel.unary_unary("/house/echo")(b"x")


def test_an_instrumented_channel_to_a_child_knows_its_child(notes: Notes) -> None:
    def setup(server: grpc.Server) -> None:
        echo: Any = grpc.unary_unary_rpc_method_handler(lambda request, context: request)
        server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("c", {"echo": echo})])

    channel: Any
    with localrpc.fork_channel(setup) as channel:
        assert channel.pid > 0
        assert channel.unary_unary("/c/echo")(b"x") == b"x"
    assert channel.wait() == 0
    assert notes.sent == ["/c/echo"]


def test_calls_by_grpcio_are_for_grpcio_s_instruments(notes: Notes, free_grpc_target: str) -> None:
    with House(free_grpc_target) as house:
        call_all(house.channel)
    assert notes.sent == notes.served == []


@pytest.fixture
def free_grpc_target(runtime_directory: str) -> str:
    return f"grpc:unix:{runtime_directory}/instruments.sock"


def test_undoing_one_instrument_leaves_the_others(one_target: str) -> None:
    first, second = Notes(), Notes()
    undo = localrpc.instrument(channel=first.channel, server=lambda: first)
    undo_second = localrpc.instrument(channel=second.channel)
    undo()
    undo()
    try:
        with House(one_target) as house:
            call_all(house.channel)
    finally:
        undo_second()
    assert (first.sent, first.served, second.sent) == ([], [], ALL)


def test_the_last_instrument_is_the_outermost(one_target: str) -> None:
    order: list[str] = []

    class Named(Notes):
        def __init__(self, name: str) -> None:
            super().__init__()
            self.name = name

        def _client(self, continuation: Any, details: Any, request: Any) -> Any:
            order.append(f"client {self.name}")
            return continuation(details, request)

        intercept_unary_unary: Any = _client

        def intercept_service(self, continuation: Any, details: Any) -> Any:
            order.append(f"server {self.name}")
            return continuation(details)

    undo: list[Callable[[], None]] = []
    for name in ("first", "second"):
        one = Named(name)
        undo.append(localrpc.instrument(channel=one.channel, server=lambda one=one: one))  # type: ignore[misc]
    try:
        with House(one_target, interceptors=[Named("own")]) as house:
            house.channel.unary_unary("/house/echo")(b"x")
    finally:
        for each in undo:
            each()
    client, server = order[:2], order[2:]
    assert client == ["client second", "client first"]
    assert server == ["server second", "server first", "server own"]


@pytest.fixture
def patched() -> Iterator[None]:
    before = grpc.insecure_channel, grpc.secure_channel
    undo = localrpc.patch_grpc()
    yield
    undo()
    assert (grpc.insecure_channel, grpc.secure_channel) == before


@pytest.fixture(params=OURS)
def our_target(request: pytest.FixtureRequest, runtime_directory: str) -> str:
    return fresh_target(request.param, runtime_directory)


def test_grpc_s_functions_take_our_targets(patched: None, our_target: str) -> None:
    credentials = grpc.local_channel_credentials()
    with House(our_target):
        with grpc.insecure_channel(our_target) as channel:
            assert type(channel).__module__ == "localrpc.sync.channel"
            call_all(channel)
        with grpc.secure_channel(our_target, credentials) as channel:
            call_all(channel)


@pytest.mark.parametrize(
    "target",
    ["localhost:1", "dns:///localhost:1", "mq:1", "pipe:50051", "unix:/x", "ipv4:1.2.3.4:5"],
)
def test_grpc_s_own_targets_stay_grpc_s(patched: None, target: str) -> None:
    with grpc.insecure_channel(target) as channel:
        assert type(channel).__module__ == "grpc._channel"
    with grpc.secure_channel(target, grpc.ssl_channel_credentials()) as channel:
        assert type(channel).__module__ == "grpc._channel"


def test_patching_twice_has_no_further_effect(patched: None) -> None:
    once = grpc.insecure_channel
    undo = localrpc.patch_grpc()
    assert grpc.insecure_channel is once
    undo()
    assert grpc.insecure_channel is not once
    undo()


def test_wrappers_of_other_libraries_stay(monkeypatch: pytest.MonkeyPatch, one_target: str) -> None:
    monkeypatch.setattr(grpc, "insecure_channel", grpc.insecure_channel)  # put back at the end
    seen: list[str] = []
    undo = localrpc.patch_grpc()
    inner = grpc.insecure_channel

    def outer(target: str, *others: Any) -> Any:
        seen.append(target)
        return inner(target, *others)

    monkeypatch.setattr(grpc, "insecure_channel", outer)
    with House(one_target), grpc.insecure_channel(one_target) as channel:
        call_all(channel)
    undo()
    with grpc.insecure_channel(one_target) as channel:
        assert type(channel).__module__ == "grpc._channel"
    assert seen == [one_target] * 2


@pytest.fixture
def forgotten_channels() -> Iterator[None]:
    """grpc would keep them for ten minutes."""
    yield
    caches: Any = ChannelCache  # without types
    cache = caches.get()
    with cache._lock:
        for key in list(cache._mapping):
            cache._evict_locked(key)


@pytest.mark.filterwarnings("ignore::grpc.experimental.ExperimentalApiWarning")
@pytest.mark.parametrize("registered", [False, True])
def test_grpc_s_calls_without_a_channel_take_our_targets(
    patched: None, forgotten_channels: None, our_target: str, registered: bool
) -> None:
    def call(kind: str, request: Any, method: str) -> Any:
        return getattr(grpc.experimental, kind)(
            request,
            our_target,
            f"/house/{method}",
            insecure=True,
            timeout=10,
            _registered_method=registered,
        )

    with House(our_target):
        for _ in range(2):  # the second time its channel is in grpc's cache
            assert call("unary_unary", b"x", "echo") == b"x"
            assert list(call("unary_stream", b"2", "count")) == [b"0", b"1"]
            assert call("stream_unary", iter([b"abc"]), "length") == b"3"
            assert list(call("stream_stream", iter([b"a"]), "mirror")) == [b"a"]
            with pytest.raises(grpc.RpcError) as caught:
                call("unary_unary", b"gone", "abort")
            assert caught.value.code() is grpc.StatusCode.NOT_FOUND
