"""localrpc.testing.serving_aio and its fixture."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest

from localrpc.testing import serving_aio
from tests.testing.test_serving import NAMED, PATIENCE


class ShoutServicer:
    """As a generator writes it."""

    async def Shout(self, request: bytes, context: Any) -> bytes:
        await asyncio.sleep(0)
        return request.upper()


def add_ShoutServicer_to_server(servicer: ShoutServicer, server: Any) -> None:
    method: Any = grpc.unary_unary_rpc_method_handler(servicer.Shout)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("t", {"Shout": method}),))


class ShoutAsyncServicer:
    """As localrpc's own generator writes it beside the other one, with one function for both."""

    Shout = ShoutServicer.Shout


@pytest.mark.parametrize("servicer", [ShoutServicer, ShoutAsyncServicer])
@pytest.mark.parametrize("scheme", NAMED)
def test_servicers_are_served_at_every_target(scheme: str, servicer: Any) -> None:
    async def run() -> None:
        async with serving_aio(servicer(), target=f"{scheme}:") as channel:
            shout: Any = channel.unary_unary("/t/Shout")
            assert await shout(b"hey", timeout=PATIENCE) == b"HEY"
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(run())


def test_the_fixture_serves_within_a_tests_loop(localrpc_serve_aio: Any) -> None:
    async def run() -> None:
        async with localrpc_serve_aio(ShoutServicer()) as channel:
            assert await channel.unary_unary("/t/Shout")(b"hey") == b"HEY"

    asyncio.run(run())


def test_a_class_in_place_of_a_servicer_is_refused() -> None:
    async def run() -> None:
        async with serving_aio(ShoutServicer):
            raise AssertionError("it has been served")

    with pytest.raises(TypeError, match="ShoutServicer is a class; give an instance"):
        asyncio.run(run())
