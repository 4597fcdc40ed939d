"""The targets of a server: those of localrpc, and those that grpcio serves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import grpc

from localrpc.address import Address
from localrpc.calls.request import text
from localrpc.errors import AddressError, ListenError
from localrpc.transports import parse_target

ListenRemotely = Callable[[Address, "grpc.ServerCredentials | None"], int]
"""Listens at a `grpc:` target and returns the port; only this part depends on the API."""


class Host(Protocol):
    """The local side of a server of any API."""

    def listen(self, address: Address, *, security: str = "insecure") -> int:
        """Listen at a target; return its port. Raises ListenError."""

    def stay(self) -> None:
        """Do not stop for lack of local clients."""

    def say_where(self, target: str, port: int) -> None:
        """Log where the server listens."""


def add_insecure(serving: Host, target: str, remote: ListenRemotely) -> int:
    """Listen at a target. Return its port, 1 if it has none. Raises ListenError."""
    address = _parse(target)
    if address.scheme == "grpc":
        return _add_remote(serving, address, None, remote)
    return serving.listen(address)


def add_secure(
    serving: Host,
    target: str,
    credentials: grpc.ServerCredentials,
    remote: ListenRemotely,
) -> int:
    """Listen as add_insecure(): grpc: targets take any credentials, others local ones.

    Raises ListenError for other credentials, and TypeError for None, which would otherwise open an
    insecure port.
    """
    if credentials is None:
        raise TypeError("add_secure_port needs credentials; without them use add_insecure_port")
    address = _parse(target)
    if address.scheme == "grpc":
        return _add_remote(serving, address, credentials, remote)
    from localrpc.drive import security

    refusal = security.refusal_of_server(address, credentials)
    if refusal is not None:
        raise ListenError(str(address), refusal)
    return serving.listen(address, security="local")


def _add_remote(
    serving: Host,
    address: Address,
    credentials: grpc.ServerCredentials | None,
    remote: ListenRemotely,
) -> int:
    serving.stay()
    port = remote(address, credentials)
    serving.say_where(str(address), port)
    return port


def _parse(target: str) -> Address:
    """Parse a target. Raises ListenError if it is malformed."""
    try:
        return parse_target(text(target))
    except AddressError as error:
        raise ListenError(target, str(error)) from error
