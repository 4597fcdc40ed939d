"""Which of grpc's credentials mean something on a local link, and what to say of the others.

Local credentials ask for no more than a local link gives without them: the
other side is on this machine, and the kernel says who it is.
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
"""Seconds; who does not speak gRPC in clear text hangs up at once."""


def check_channel(address: Address, credentials: grpc.ChannelCredentials) -> None:
    """Raises ValueError, with the fix, for credentials that a local channel cannot honour."""
    # grpc's own class says nothing; the one it wraps has a class for each sort.
    kind = type(credentials._credentials).__name__  # type: ignore[attr-defined]
    if kind == "InsecureChannelCredentials":
        return  # grpcio takes them too: grpc.experimental's calls come with them
    if kind == "CompositeChannelCredentials":
        raise ValueError(
            f"target {str(address)!r}: call credentials do not travel over local links; send"
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
    """Why a local door cannot honour the credentials, and the fix; None if it can."""
    if not _are_local(credentials):
        return (
            f"{_REFUSAL}; use add_insecure_port or grpc.local_server_credentials(), or a grpc:"
            " target"
        )
    return _ELSEWHERE if is_elsewhere(address) else None


_REFUSAL = (
    "a local link has no TLS and needs none, because the kernel says who the peer is, and"
    " these credentials are not local ones"
)
_ELSEWHERE = "local credentials vouch for peers of this machine; leave out ?interfaces=any"


def _are_local(credentials: grpc.ServerCredentials) -> bool:
    """grpcio hides what server credentials are, so ask a server that has them."""
    handler: Any = grpc.unary_unary_rpc_method_handler(_security_of)
    with ThreadPoolExecutor(1) as pool:
        handlers = [grpc.method_handlers_generic_handler(_PROBE, {_PROBE: handler})]
        server = grpc.server(pool, handlers)
        name = f"unix-abstract:localrpc-probe-{os.urandom(8).hex()}"
        try:
            # Each sort of local credentials answers on one of them.
            server.add_secure_port(name, credentials)
            port = server.add_secure_port("127.0.0.1:0", credentials)
        except RuntimeError:  # ALTS away from Google's cloud, for one
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
