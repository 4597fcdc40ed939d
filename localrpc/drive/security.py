"""Which of grpc's credentials a local link honours, and the error for the others.

Local credentials ask for what a local link provides anyway: the other side is on this machine,
and the kernel identifies it.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc

from localrpc.address import Address
from localrpc.transports.targets import is_elsewhere

_PROBE = "probe"
_PATIENCE = 5.0
"""Seconds; the connection is refused at once unless the peer speaks gRPC in clear text."""


def check_channel(address: Address, credentials: grpc.ChannelCredentials) -> None:
    """Raise ValueError, which names the fix, for credentials that a local channel cannot honour."""
    # grpc's own class tells nothing; the object inside has a class for each kind.
    kind = type(credentials._credentials).__name__  # type: ignore[attr-defined]
    if kind == "InsecureChannelCredentials":
        return  # as in grpcio: grpc.experimental's calls use them
    if kind == "CompositeChannelCredentials":
        raise ValueError(
            f"target {str(address)!r}: call credentials are not sent over local links; send"
            f" them as metadata (an interceptor can), or dial a grpc: target"
        )
    if kind != "LocalChannelCredentials":
        raise ValueError(
            f"target {str(address)!r}: {_REFUSAL}; use insecure_channel or"
            f" grpc.local_channel_credentials(), or dial a grpc: target"
        )
    if is_elsewhere(address):
        raise ValueError(f"target {str(address)!r}: {_ELSEWHERE}")


def refusal_of_server(address: Address, credentials: grpc.ServerCredentials) -> str | None:
    """Return why a local server cannot honour the credentials, and the fix; None if it can."""
    if not _are_local(credentials):
        return (
            f"{_REFUSAL}; use add_insecure_port or grpc.local_server_credentials(), or a grpc:"
            " target"
        )
    return _ELSEWHERE if is_elsewhere(address) else None


_REFUSAL = (
    "a local link has no TLS and needs none, because the kernel identifies the peer, and"
    " these credentials are not local credentials"
)
_ELSEWHERE = "local credentials require peers on this machine; omit ?interfaces=any"


def _are_local(credentials: grpc.ServerCredentials) -> bool:
    """Return True for local credentials. grpcio hides the kind, so try a server that uses them."""
    handler: Any = grpc.unary_unary_rpc_method_handler(_security_of)
    with ThreadPoolExecutor(1) as pool:
        handlers = [grpc.method_handlers_generic_handler(_PROBE, {_PROBE: handler})]
        server = grpc.server(pool, handlers)
        name = f"unix-abstract:localrpc-probe-{os.urandom(8).hex()}"
        try:
            # Each kind of local credentials answers on one of them.
            server.add_secure_port(name, credentials)
            port = server.add_secure_port("127.0.0.1:0", credentials)
        except RuntimeError:  # for example ALTS outside of Google's cloud
            return False
        server.start()
        try:
            return any(
                _ask(target, kind) == b"local"
                for target, kind in (
                    (name, grpc.LocalConnectionType.UDS),
                    (f"127.0.0.1:{port}", grpc.LocalConnectionType.LOCAL_TCP),
                )
            )
        finally:
            server.stop(None)


def _security_of(request: bytes, context: grpc.ServicerContext) -> bytes:
    (security,) = context.auth_context()["transport_security_type"]
    return bytes(security)


def _ask(target: str, kind: grpc.LocalConnectionType) -> bytes:
    credentials = grpc.local_channel_credentials(kind)
    with grpc.secure_channel(target, credentials, [("grpc.enable_http_proxy", 0)]) as channel:
        try:
            call: Any = channel.unary_unary(f"/{_PROBE}/{_PROBE}")
            return bytes(call(b"", timeout=_PATIENCE))
        except grpc.RpcError:
            return b""
