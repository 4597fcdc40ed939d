"""grpc.ServicerContext: one call as its handler sees it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from time import monotonic_ns, time
from typing import Any, NoReturn

import grpc

from localrpc.calls import texts
from localrpc.calls.answer import encoded
from localrpc.drive.arrivals import metadata_of
from localrpc.drive.core import NEVER
from localrpc.drive.served import ServedCall
from localrpc.metadata import Pairs
from localrpc.sync import private_context
from localrpc.transports.base import Connection, PeerCredentials

_INFINITE = 9223372036854775807.0
"""What time_remaining() is in grpcio for a call without a deadline."""

_LEVELS = {"insecure": b"TSI_SECURITY_NONE", "local": b"TSI_PRIVACY_AND_INTEGRITY"}
_SECURITY_TYPE = "transport_security_type"


class ServicerContext(ServedCall, grpc.ServicerContext):
    """grpc's methods for a served call. Thread-safe, also after the end of the call."""

    # grpc.RpcContext

    def is_active(self) -> bool:
        answer = self._answer
        return (answer is None or not answer.chosen) and self.is_alive()

    def time_remaining(self) -> float:
        if self._deadline == NEVER:
            return _INFINITE - time()
        return max((self._deadline - monotonic_ns()) / 1e9, 0)

    def cancel(self) -> Any:
        self.stop(*texts.CANCELLED_BY_HANDLER)

    def add_callback(self, callback: Callable[[], None]) -> bool:
        return self.watch(callback)

    # grpc.ServicerContext

    def invocation_metadata(self) -> Pairs:
        return metadata_of(self._connection, self._head)

    def peer(self) -> str:
        return self._connection.peer_name if self._connection else "unix:"

    def peer_identities(self) -> Sequence[bytes] | None:
        return [b"local"] if self._security == "local" else None

    def peer_identity_key(self) -> str | None:
        return _SECURITY_TYPE if self._security == "local" else None

    def auth_context(self) -> Mapping[str, Any]:
        security = self._security
        return {_SECURITY_TYPE: [security.encode()], "security_level": [_LEVELS[security]]}

    @property
    def _security(self) -> str:
        return self._connection.security if self._connection else "insecure"

    def set_compression(self, compression: grpc.Compression) -> None:
        """Accept and ignore the setting: local links do not compress."""

    def disable_next_message_compression(self) -> None:
        """Do nothing: local links do not compress."""

    def send_initial_metadata(self, initial_metadata: Sequence[Any] | None) -> None:
        answer = self.answer
        if not (answer.chosen or self.is_alive()):
            self.fail()
        result = answer.take_initial_metadata(initial_metadata)
        if isinstance(result, bytes):
            self.send_headers(result)
        else:
            self.do(result)

    def set_trailing_metadata(self, trailing_metadata: Iterable[Any]) -> None:
        self.answer.trailing_metadata = trailing_metadata

    def trailing_metadata(self) -> Any:
        return self.answer.trailing_metadata

    def abort(self, code: grpc.StatusCode, details: str) -> NoReturn:
        self.answer.abort(code, details)
        raise Exception()

    def abort_with_status(self, status: grpc.Status) -> NoReturn:
        self.answer.trailing_metadata = status.trailing_metadata
        self.abort(status.code, status.details)

    def set_code(self, code: grpc.StatusCode) -> None:
        self.answer.code = code

    def code(self) -> grpc.StatusCode | None:
        return self.answer.code

    def set_details(self, details: str) -> None:
        self.answer.details = encoded(details)

    def details(self) -> bytes | None:
        """Return bytes, as grpcio does."""
        return self.answer.details

    # For interceptors that read private attributes of grpcio's contexts

    @property
    def _state(self) -> private_context.ServicerState:
        return private_context.ServicerState(self)

    @property
    def _rpc_event(self) -> private_context.RpcEvent:
        deadline = time() + self.time_remaining()
        details = private_context.CallDetails(self.method(), b"localhost", deadline)
        return private_context.RpcEvent(details, self.invocation_metadata())

    # For this package

    def fail(self) -> NoReturn:
        """Raise the error that tells a handler that its client has gone."""
        error = self.answer.new_error()
        try:
            raise error
        finally:
            del error  # or it would refer to itself, through this frame


def credentials_of(context: Any) -> PeerCredentials:
    """See localrpc.peer_credentials; for grpcio's own contexts nothing is known."""
    if not isinstance(context, grpc.ServicerContext):
        raise TypeError(f"not the context of a call: {context!r}")
    connection = getattr(context, "_connection", None)
    if not isinstance(connection, Connection):
        return PeerCredentials(0, -1, -1)
    return connection.peer
