"""grpc.aio.ServicerContext: one call as its handler sees it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from time import monotonic_ns
from typing import TYPE_CHECKING, Any, NoReturn

import grpc
from grpc import aio

from localrpc import _log, status
from localrpc.calls import incoming, texts
from localrpc.calls.answer import encoded
from localrpc.drive.core import NEVER
from localrpc.drive.loop_serving import LoopServed

if TYPE_CHECKING:
    _Base = aio.ServicerContext[Any, Any]
else:
    _Base = aio.ServicerContext

_logger = _log.logger("server")


class ServicerContext(LoopServed, _Base):
    """grpc.aio's methods for a served call. For the loop's own thread."""

    _deserialize: Callable[[bytes], Any] | None = None
    _serialize: Callable[[Any], bytes] | None = None
    _limit = -1

    # Messages

    async def read(self) -> Any:
        """Return the next request, EOF after the last one."""
        while True:
            message = self.pop_request()
            if message is not None:
                break
            if self.too_large is not None:
                limit = self._serving.options.max_receive
                self.refuse(*texts.request_too_large(self.too_large, limit))
            if self.over:
                raise aio.AbortError() if not self.gone else self._lost()
            if self.ended:
                return aio.EOF
            await self.change()
        if self._deserialize is None:
            return message
        try:
            request = self._deserialize(message)
        except Exception:
            _logger.exception("Exception deserializing message!")
            request = None
        if request is None:
            self.refuse(*texts.UNREADABLE)
            raise aio.AbortError()
        return request

    async def write(self, message: Any) -> None:
        if self.over:
            raise aio.UsageError("RPC already finished.")
        data = self.encode(message)
        if data is None:
            raise aio.AbortError()
        if not await self.send(data):
            raise self._lost()
        self.answer.initial_allowed = False

    def encode(self, message: Any) -> bytes | None:
        """Return a serialized response; None if that has ended the call."""
        data = message
        if self._serialize is not None:
            try:
                data = self._serialize(message)
            except Exception:
                _logger.exception("Exception serializing message!")
                data = None
        if not isinstance(data, bytes):
            self.refuse(*texts.UNSERIALIZABLE)
            return None
        if len(data) > self._limit >= 0:
            _, text = texts.sent_too_large("SERVER", len(data), self._limit)
            self.refuse(status.RESOURCE_EXHAUSTED, text)
            return None
        return data

    def _lost(self) -> BaseException:
        return aio.UsageError("RPC already finished.")

    # The answer

    async def send_initial_metadata(self, initial_metadata: Any) -> None:
        if self.over:
            raise aio.UsageError("RPC already finished.")
        result = self.answer.take_initial_metadata(tuple(initial_metadata))
        if isinstance(result, bytes):
            self.send_headers(result)
        else:
            self.do(result)

    async def abort(
        self,
        code: grpc.StatusCode,
        details: str = "",
        trailing_metadata: Any = (),
    ) -> NoReturn:
        if trailing_metadata:
            self.answer.trailing_metadata = trailing_metadata
        self.answer.abort(code, details)
        raise aio.AbortError("Locally aborted.")

    async def abort_with_status(self, status: grpc.Status) -> NoReturn:
        await self.abort(status.code, status.details, status.trailing_metadata or ())

    def set_trailing_metadata(self, trailing_metadata: Iterable[Any]) -> None:
        self.answer.trailing_metadata = tuple(trailing_metadata)

    def trailing_metadata(self) -> Any:
        return self.answer.trailing_metadata

    def set_code(self, code: grpc.StatusCode) -> None:
        self.answer.code = code

    def code(self) -> Any:
        return self.answer.code

    def set_details(self, details: str) -> None:
        self.answer.details = encoded(details)

    def details(self) -> str:
        return (self.answer.details or b"").decode("utf-8", "replace")

    # The call

    def invocation_metadata(self) -> Any:
        agent = self._connection.hello.agent if self._connection else ""
        return incoming.metadata_of(agent, self._head)

    def time_remaining(self) -> Any:
        deadline = self._deadline
        return None if deadline == NEVER else max((deadline - monotonic_ns()) / 1e9, 0)

    def cancelled(self) -> bool:
        return self.gone

    def done(self) -> bool:
        return self.over

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        if self.over:
            callback(self)
        else:
            self.answer.add_callbacks((partial(callback, self),))

    def cancel_here(self) -> None:
        """End the call, as its client sees it, with CANCELLED."""
        self.lose(*texts.CANCELLED_BY_HANDLER)

    # The client

    def peer(self) -> str:
        return self._connection.peer_name if self._connection else "unix:"

    def peer_identities(self) -> Sequence[bytes] | None:
        return incoming.identities(self._security)

    def peer_identity_key(self) -> str | None:
        return incoming.identity_key(self._security)

    def auth_context(self) -> Mapping[str, Any]:
        return incoming.auth_context(self._security)

    @property
    def _security(self) -> str:
        return self._connection.security if self._connection else "insecure"

    def set_compression(self, compression: grpc.Compression) -> None:
        """Accept and ignore the setting: local links do not compress."""

    def disable_next_message_compression(self) -> None:
        """Do nothing: local links do not compress."""
