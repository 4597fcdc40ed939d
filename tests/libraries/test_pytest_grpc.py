"""Its fixtures, where `_grpc_server` and `grpc_create_channel` are overridden, as in
`tests/libraries/test_pytest_grpc.py`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest

import localrpc
from tests.conftest import fresh_target

from .scene import SERVICE, Service

LIBRARIES = ("pytest-grpc",)

KINDS = ("shm-eventfd", "unix", "pipe", "mq", "sysvmq", "file", "tcp", "inproc")


@pytest.fixture(scope="module", params=KINDS)
def grpc_addr(request: pytest.FixtureRequest, runtime_directory: str) -> str:
    return fresh_target(request.param, runtime_directory)


@pytest.fixture(scope="module")
def _grpc_server(grpc_addr: str, grpc_interceptors: Any) -> Iterator[grpc.Server]:
    with ThreadPoolExecutor(4) as pool:
        yield localrpc.server(pool, interceptors=grpc_interceptors)


@pytest.fixture(scope="module")
def grpc_create_channel(grpc_addr: str, grpc_server: grpc.Server) -> Callable[..., grpc.Channel]:
    return lambda credentials=None, options=None: localrpc.insecure_channel(grpc_addr, options)


# What a user of pytest-grpc writes anyway:


@pytest.fixture(scope="module")
def grpc_add_to_server() -> Callable[[Service, grpc.Server], None]:
    return lambda servicer, server: server.add_generic_rpc_handlers((servicer.handler(),))


@pytest.fixture(scope="module")
def grpc_servicer() -> Service:
    return Service()


@pytest.fixture(scope="module")
def grpc_stub_cls() -> Callable[[grpc.Channel], Any]:
    return lambda channel: channel.unary_unary(f"/{SERVICE}/Echo")


def test_a_stub_of_pytest_grpc_s_calls_over_every_target(grpc_stub: Any) -> None:
    assert grpc_stub(b"x", timeout=20) == b"x"


def test_a_channel_of_pytest_grpc_s_streams_over_every_target(grpc_channel: Any) -> None:
    assert list(grpc_channel.unary_stream(f"/{SERVICE}/Count")(b"2")) == [b"0", b"1"]
