"""What localrpc raises where grpc has no exception of its own.

A protocol error says whose fault it is: Local is this process, Remote is the
peer. Users of a stub never see these: the API floors turn them into
grpc.RpcError with a status.
"""

from __future__ import annotations


class LocalrpcError(Exception):
    """The root of this package's own exceptions."""


class AddressError(LocalrpcError, ValueError):
    """A target that cannot be understood, or that no channel can have; a ValueError.

    The text names the target, what is wrong with it, and the fix. Nothing has been opened.
    A server's add_insecure_port raises ListenError in its place.
    """


class Unsupported(LocalrpcError, RuntimeError):
    """This process is one in which localrpc cannot work."""


class InvalidMetadata(LocalrpcError, ValueError):
    """Metadata of the right types that gRPC does not allow on the wire."""


class OversizedMetadata(InvalidMetadata):
    """Metadata that does not fit in a frame."""


class LocalProtocolError(LocalrpcError):
    """This side broke the protocol: a bug in localrpc or in its caller."""


class RemoteProtocolError(LocalrpcError):
    """The peer broke the protocol; only its connection ends."""


class GreetingError(LocalrpcError):
    """A greeting that cannot lead to a connection.

    `quiet` when nobody needs to hear of it, `passing` when the other side was on its way
    out: whoever dials again may find another. `cause` is the reason without who it was, the
    same for all to whom it happens.
    """

    def __init__(
        self, reason: str, *, quiet: bool = False, passing: bool = False, cause: str | None = None
    ) -> None:
        super().__init__(reason)
        self.quiet = quiet
        self.passing = passing
        self.cause = reason if cause is None else cause


class SpeaksHttp2(GreetingError):
    """The peer began as HTTP/2 does."""


class ConnectError(LocalrpcError):
    """No connection to `target`, and why; the text is grpcio's for such a call.

    `final` when there can be none any more, so that nobody waits for one; `passing` when
    somebody was there who went before the greeting was over.
    """

    code = "UNAVAILABLE"
    """The name of the status with which a call ends for it."""

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
    """A limit of the system's, which the text names, leaves no room for a connection."""

    code = "RESOURCE_EXHAUSTED"


class ListenError(LocalrpcError, RuntimeError):
    """A target at which a server cannot listen; a RuntimeError, as add_insecure_port of grpcio's.

    `target` is the target, and `reason` says why, with the fix.
    """

    def __init__(self, target: str, reason: str) -> None:
        super().__init__(f"Failed to bind to address {target}: {reason}")
        self.target = target
        self.reason = reason

    def __reduce__(self) -> tuple[type[ListenError], tuple[str, str]]:
        return type(self), (self.target, self.reason)


class AddressInUse(ListenError):
    """A target at which another server already listens.

    A name that a dead server has left behind is not in use: the next server takes it over.
    """
