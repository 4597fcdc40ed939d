"""Credentials: any at grpc: targets, on local links the local ones and no others."""

from __future__ import annotations

from collections.abc import Callable
from concurrent import futures
from typing import Any

import grpc
import pytest
from grpc import experimental

import localrpc

from .conftest import CERTIFICATE, KEY, Home
from .grpcio_peers import PATIENCE

KINDS = [grpc.LocalConnectionType.LOCAL_TCP, grpc.LocalConnectionType.UDS]


def _of(context: grpc.ServicerContext) -> list[Any]:
    return [context.auth_context(), context.peer_identities(), context.peer_identity_key()]


def _seen(home: Home, channel: grpc.Channel) -> list[Any]:
    wait: Any = channel.unary_unary("/stranger/wait")
    home.service.gate.set()
    assert wait(b"x", timeout=PATIENCE) == b"x"
    return _of(home.service.contexts.pop())


@pytest.fixture(scope="module")
def of_grpcio() -> list[Any]:
    """What grpcio's own context says of a local connection."""
    seen = []

    def look(request: bytes, context: grpc.ServicerContext) -> bytes:
        seen.append(_of(context))
        return request

    handler: Any = grpc.unary_unary_rpc_method_handler(look)
    handlers = [grpc.method_handlers_generic_handler("s", {"look": handler})]
    with futures.ThreadPoolExecutor(1) as pool:
        server = grpc.server(pool, handlers)
        port = server.add_secure_port("127.0.0.1:0", grpc.local_server_credentials())
        server.start()
        credentials = grpc.local_channel_credentials()
        with grpc.secure_channel(f"127.0.0.1:{port}", credentials) as channel:
            method: Any = channel.unary_unary("/s/look")
            method(b"", timeout=PATIENCE)
        server.stop(None)
    return seen[0]


@pytest.mark.parametrize("kind", KINDS)
def test_local_credentials_are_honoured_on_local_links(
    home: Home, target: str, kind: grpc.LocalConnectionType, of_grpcio: list[Any]
) -> None:
    home.server.add_secure_port(target, grpc.local_server_credentials(kind))
    home.server.start()
    with localrpc.secure_channel(target, grpc.local_channel_credentials(kind)) as channel:
        assert _seen(home, channel) == of_grpcio


def test_each_port_has_its_own_security(home: Home, target: str, one_target: str) -> None:
    home.server.add_secure_port(target, grpc.local_server_credentials())
    home.server.add_insecure_port(one_target + "&spin=off")
    home.server.start()
    kinds = [
        _seen(home, home.dial(each))[0]["transport_security_type"] for each in (target, one_target)
    ]
    assert kinds == [[b"local"], [b"insecure"]]


def channel_credentials() -> dict[str, tuple[Callable[[], grpc.ChannelCredentials], str]]:
    local = grpc.local_channel_credentials
    token = grpc.access_token_call_credentials("token")
    return {
        "ssl": (grpc.ssl_channel_credentials, "these credentials are not local credentials"),
        "alts": (grpc.alts_channel_credentials, "or dial a grpc: target"),
        "composite": (
            lambda: grpc.composite_channel_credentials(local(), token),
            "call credentials are not sent over local links; send them as metadata",
        ),
    }


@pytest.mark.parametrize("name", channel_credentials())
def test_other_channel_credentials_are_refused_with_the_fix(one_target: str, name: str) -> None:
    make, text = channel_credentials()[name]
    with pytest.raises(ValueError, match=text):
        localrpc.secure_channel(one_target, make())


def test_insecure_credentials_ask_for_nothing(one_target: str) -> None:
    credentials: Any = experimental.insecure_channel_credentials  # without types
    localrpc.secure_channel(one_target, credentials()).close()


def test_no_credentials_are_a_type_error(one_target: str) -> None:
    for target in (one_target, "grpc:localhost:1"):
        with pytest.raises(TypeError, match="use insecure_channel"):
            localrpc.secure_channel(target, None)  # type: ignore[arg-type]


@pytest.mark.parametrize("scheme", ["local", "grpc"])
def test_a_port_that_has_to_be_secure_is_not_opened_without_credentials(
    home: Home, one_target: str, scheme: str
) -> None:
    missing: Any = None
    target = one_target if scheme == "local" else "grpc:127.0.0.1:0"
    server = home.server
    with pytest.raises(TypeError, match="use add_insecure_port"):
        server.add_secure_port(target, missing)
    assert target not in repr(server)


def test_grpcs_patched_function_opens_no_insecure_channel_instead_of_a_secure_one(
    one_target: str,
) -> None:
    missing: Any = None
    undo = localrpc.patch_grpc()
    try:
        with pytest.raises(TypeError, match="use insecure_channel"):
            grpc.secure_channel(one_target, missing)
    finally:
        undo()


def ssl_server_credentials() -> Any:
    return grpc.ssl_server_credentials([(KEY.read_bytes(), CERTIFICATE.read_bytes())])


SERVER_CREDENTIALS: dict[str, Callable[[], Any]] = {
    "ssl": ssl_server_credentials,
    "insecure": grpc.insecure_server_credentials,
    "alts": grpc.alts_server_credentials,
}


@pytest.mark.parametrize("name", SERVER_CREDENTIALS)
def test_other_server_credentials_are_refused_with_the_fix(
    home: Home, one_target: str, name: str
) -> None:
    with pytest.raises(RuntimeError) as caught:
        home.server.add_secure_port(one_target, SERVER_CREDENTIALS[name]())
    text = str(caught.value)
    assert text.startswith(f"Failed to bind to address {one_target}: ")
    assert "not local credentials; use add_insecure_port or grpc.local_server_credentials()" in text
    home.open(one_target)  # and the name is free
    home.server.start()  # or stop() would leave it listening


def test_local_credentials_are_refused_for_other_machines(home: Home) -> None:
    target = "tcp:127.0.0.1:0?interfaces=any"
    with pytest.raises(RuntimeError, match=r"omit \?interfaces=any"):
        home.server.add_secure_port(target, grpc.local_server_credentials())
    with pytest.raises(ValueError, match=r"omit \?interfaces=any"):
        localrpc.secure_channel(target, grpc.local_channel_credentials())
