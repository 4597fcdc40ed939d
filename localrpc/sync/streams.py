"""The methods with a stream of requests, responses or both."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import grpc

from localrpc.drive import texts
from localrpc.drive.call import ClientCall
from localrpc.drive.sending import RequestSender
from localrpc.sync.call import (
    _MultiThreadedRendezvous,
    failure,
    finished,
)
from localrpc.sync.method import Method

_Serializer = Callable[[Any], bytes] | None
_Deserializer = Callable[[bytes], Any] | None
_Metadata = Any


class UnaryStream(Method, grpc.UnaryStreamMultiCallable):  # type: ignore[type-arg]
    def __call__(
        self,
        request: Any,
        timeout: float | None = None,
        metadata: _Metadata = None,
        credentials: Any = None,
        wait_for_ready: bool | None = None,
        compression: Any = None,
    ) -> Any:
        message = self._message(request)
        call = self._begin(timeout, metadata, credentials, wait_for_ready, message, streams=True)
        return _MultiThreadedRendezvous(call, self._deserializer)


class _RequestStream(Method):
    def _send(self, requests: Iterator[Any], call: ClientCall, *, inline: bool = False) -> None:
        RequestSender(call, requests, self._serializer, self._max_send).start(inline=inline)


class StreamUnary(_RequestStream, grpc.StreamUnaryMultiCallable):  # type: ignore[type-arg]
    def __call__(
        self,
        request_iterator: Iterator[Any],
        timeout: float | None = None,
        metadata: _Metadata = None,
        credentials: Any = None,
        wait_for_ready: bool | None = None,
        compression: Any = None,
    ) -> Any:
        call = self._block(request_iterator, timeout, metadata, credentials, wait_for_ready)
        return finished(call.state)

    def with_call(
        self,
        request_iterator: Iterator[Any],
        timeout: float | None = None,
        metadata: _Metadata = None,
        credentials: Any = None,
        wait_for_ready: bool | None = None,
        compression: Any = None,
    ) -> tuple[Any, grpc.Call]:
        call = self._block(request_iterator, timeout, metadata, credentials, wait_for_ready)
        return finished(call.state), _MultiThreadedRendezvous(call)

    def future(
        self,
        request_iterator: Iterator[Any],
        timeout: float | None = None,
        metadata: _Metadata = None,
        credentials: Any = None,
        wait_for_ready: bool | None = None,
        compression: Any = None,
    ) -> Any:
        send = partial(self._send, request_iterator)
        return _MultiThreadedRendezvous(
            self._begin(
                timeout, metadata, credentials, wait_for_ready, None, streams=False, then=send
            )
        )

    def _block(
        self,
        requests: Iterator[Any],
        timeout: float | None,
        metadata: _Metadata,
        credentials: Any,
        wait_for_ready: bool | None,
    ) -> ClientCall:
        if self._connector.closed:
            raise ValueError("Cannot invoke RPC on closed channel!")
        send = partial(self._send, requests, inline=True)
        call = self._begin(
            timeout, metadata, credentials, wait_for_ready, None,
            streams=False, blocking=True, then=send,
        )  # fmt: skip
        try:
            call.wait(call.ended)
        except BaseException:
            call.end(*texts.LOCALLY_CANCELLED, cancelled=True)
            raise
        if call.state.code is not grpc.StatusCode.OK:
            raise failure(call.state)
        return call


class StreamStream(_RequestStream, grpc.StreamStreamMultiCallable):  # type: ignore[type-arg]
    def __call__(
        self,
        request_iterator: Iterator[Any],
        timeout: float | None = None,
        metadata: _Metadata = None,
        credentials: Any = None,
        wait_for_ready: bool | None = None,
        compression: Any = None,
    ) -> Any:
        send = partial(self._send, request_iterator)
        call = self._begin(
            timeout, metadata, credentials, wait_for_ready, None, streams=True, then=send
        )
        return _MultiThreadedRendezvous(call, self._deserializer)
