"""Metadata beyond the receiver's options ends its call, and no handler sees it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from .house import PATIENCE, House

KINDS = ("unary_unary", "unary_stream", "stream_unary", "stream_stream")
PLACES = ("request", "initial", "trailing", "details")
HARD = 3000
LIMITS = [("grpc.max_metadata_size", HARD), ("grpc.absolute_max_metadata_size", HARD)]


def talkative(what: str, size: int, seen: list[Any]) -> Any:
    def say(context: Any) -> None:
        seen.append(context.invocation_metadata())
        pairs = (("k", "v" * size),)
        if what == "initial":
            context.send_initial_metadata(pairs)
        elif what == "trailing":
            context.set_trailing_metadata(pairs)
        elif what == "details":
            context.abort(grpc.StatusCode.INTERNAL, "x" * size)

    def once(request: Any, context: Any) -> bytes:
        say(context)
        return b"ok"

    def stream(request: Any, context: Any) -> Iterator[bytes]:
        say(context)
        yield b"ok"

    return once, stream


def call(house: House, kind: str, what: str, size: int, seen: list[Any]) -> grpc.StatusCode:
    once, stream = talkative(what, size, seen)
    make: Any = getattr(grpc, f"{kind}_rpc_method_handler")
    name = f"{kind}-{what}-{size}"
    behaviour = stream if kind.endswith("stream") else once
    handlers = {name: make(behaviour)}
    house.server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("m", handlers),))
    method = getattr(house.channel, kind)(f"/m/{name}")
    request: Any = iter([b""]) if kind.startswith("stream") else b""
    metadata = [("k", "v" * size)] if what == "request" else None
    try:
        answer = method(request, metadata=metadata, timeout=PATIENCE)
        list(answer)
    except grpc.RpcError as error:
        told: Any = error
        if told.code() is grpc.StatusCode.RESOURCE_EXHAUSTED:
            assert "received metadata size exceeds" in told.details()
            assert told.details().startswith("Stream removed (") is (what != "request")
        code: grpc.StatusCode = told.code()
        return code
    return grpc.StatusCode.OK


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("what", PLACES)
def test_what_is_above_the_receivers_limit_is_refused(
    distinct_target: str, kind: str, what: str
) -> None:
    mine: dict[str, Any] = {"options": LIMITS} if what == "request" else {"channel_options": LIMITS}
    seen: list[Any] = []
    with House(distinct_target, **mine) as house:
        assert call(house, kind, what, HARD + 100, seen) is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert call(house, kind, what, HARD - 10, seen) is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert len(seen) == (0 if what == "request" else 2)
        good = grpc.StatusCode.INTERNAL if what == "details" else grpc.StatusCode.OK
        assert call(house, kind, what, HARD - 500, seen) is good
        # Of the sender's own limits nothing is asked.
        other: dict[str, Any] = (
            {"channel_options": LIMITS} if what == "request" else {"options": LIMITS}
        )
    with House(distinct_target, **other) as house:
        assert call(house, kind, what, HARD + 101, seen) is good


@pytest.mark.parametrize("what", PLACES)
def test_between_the_limits_some_is_refused(one_target: str, what: str) -> None:
    limits = [("grpc.max_metadata_size", 1000), ("grpc.absolute_max_metadata_size", 4000)]
    mine: dict[str, Any] = {"options": limits} if what == "request" else {"channel_options": limits}
    with House(one_target, **mine) as house:
        codes = [call(house, "unary_unary", what, 2300 + n, []) for n in range(60)]
    refused = codes.count(grpc.StatusCode.RESOURCE_EXHAUSTED)
    assert 0 < refused < 60


def test_a_method_name_counts_as_metadata(one_target: str) -> None:
    with House(one_target, options=LIMITS) as house:
        for size, code in ((4000, "RESOURCE_EXHAUSTED"), (2000, "UNIMPLEMENTED")):
            with pytest.raises(grpc.RpcError) as caught:
                house.channel.unary_unary("/" + "x" * size)(b"", timeout=PATIENCE)
            error: Any = caught.value
            assert error.code().name == code
