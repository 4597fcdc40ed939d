"""Exceptions of localrpc for which grpc has none of its own.

A protocol error says which side is at fault: Local is this process, Remote is the peer. Users of
a stub never see these: the API turns them into grpc.RpcError with a status.
"""

from __future__ import annotations


class LocalrpcError(Exception):
    """The base class of localrpc's own exceptions."""


class AddressError(LocalrpcError, ValueError):
    """A target is malformed, or no channel can use it; a ValueError.

    The text names the target, the error and the fix. Nothing has been opened. A server's
    add_insecure_port raises ListenError instead.
    """


class Unsupported(LocalrpcError, RuntimeError):
    """localrpc cannot work in this process, for example because of gevent's monkey patching."""


class InvalidMetadata(LocalrpcError, ValueError):
    """Metadata of the right types that gRPC does not allow on the wire."""


class OversizedMetadata(InvalidMetadata):
    """Metadata that does not fit in a frame."""


class LocalProtocolError(LocalrpcError):
    """This side broke the protocol: a bug in localrpc or in its caller."""


class RemoteProtocolError(LocalrpcError):
    """The peer broke the protocol; only its connection ends."""


class GreetingError(LocalrpcError):
    """A handshake failed, so there is no connection.

    `quiet` if it need not be logged; `passing` if the peer was stopping, so that dialling again
    may reach another one. `cause` is the reason without the peer's identity, the same for all
    peers that fail so.
    """

    def __init__(
        self, reason: str, *, quiet: bool = False, passing: bool = False, cause: str | None = None
    ) -> None:
        super().__init__(reason)
        self.quiet = quiet
        self.passing = passing
        self.cause = reason if cause is None else cause


class SpeaksHttp2(GreetingError):
    """The peer speaks HTTP/2."""


class ConnectError(LocalrpcError):
    """There is no connection to `target`; the text is grpcio's for such a call.

    `final` if every further attempt would fail as well, so that no call waits for one; `passing`
    if a server was found, but stopped before the handshake was complete.
    """

    code = "UNAVAILABLE"
    """The name of the status with which a call ends for this error."""

    def __init__(
        self, target: str, reason: str, *, final: bool = False, passing: bool = False
    ) -> None:
        super().__init__(
            f"failed to connect to all addresses; last error: {self.code}: {target}: {reason}"
        )
        self.target = target
        self.reason = reason
        self.final = final
        self.passing = passing

    def __reduce__(self) -> tuple[type[ConnectError], tuple[str, str], dict[str, bool]]:
        state = {"final": self.final, "passing": self.passing}
        return type(self), (self.target, self.reason), state


class LimitReached(ConnectError):
    """A limit of the system, named in the text, leaves no room for a connection."""

    code = "RESOURCE_EXHAUSTED"


class ListenError(LocalrpcError, RuntimeError):
    """A server cannot listen at a target; a RuntimeError, as from grpcio's add_insecure_port.

    `target` is the target, and `reason` says why, with the fix.
    """

    def __init__(self, target: str, reason: str) -> None:
        super().__init__(f"Failed to bind to address {target}: {reason}")
        self.target = target
        self.reason = reason

    def __reduce__(self) -> tuple[type[ListenError], tuple[str, str]]:
        return type(self), (self.target, self.reason)


class AddressInUse(ListenError):
    """Another server already listens at the target.

    A name that a dead server has left behind is not in use: the next server takes it over.
    """
