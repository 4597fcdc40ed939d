"""The four kinds of grpc.aio multicallable."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterable, Iterable
from typing import TYPE_CHECKING, Any

import grpc
from grpc import aio

from localrpc.aio import interceptors
from localrpc.aio.binding import Binding
from localrpc.aio.call import (
    Deserializer,
    Serializer,
    StreamStreamCall,
    StreamUnaryCall,
    UnaryStreamCall,
    UnaryUnaryCall,
)
from localrpc.calls import messages, texts
from localrpc.calls.request import head_of, text, unsendable
from localrpc.drive.core import NEVER, deadline_of
from localrpc.drive.loop_call import LoopCall
from localrpc.drive.loop_session import INLINE
from localrpc.errors import InvalidMetadata

if TYPE_CHECKING:
    _UnaryUnary = aio.UnaryUnaryMultiCallable[Any, Any]
    _UnaryStream = aio.UnaryStreamMultiCallable[Any, Any]
    _StreamUnary = aio.StreamUnaryMultiCallable[Any, Any]
    _StreamStream = aio.StreamStreamMultiCallable[Any, Any]
else:
    _UnaryUnary = aio.UnaryUnaryMultiCallable
    _UnaryStream = aio.UnaryStreamMultiCallable
    _StreamUnary = aio.StreamUnaryMultiCallable
    _StreamStream = aio.StreamStreamMultiCallable

_running_loop = asyncio._get_running_loop
Requests = AsyncIterable[Any] | Iterable[Any] | None


class _Method(ABC):
    """A method of a channel, and how its messages are converted."""

    _kind: interceptors.Kind
    _front: type[Any]

    def __init__(
        self, binding: Binding, method: str, serialize: Serializer, deserialize: Deserializer
    ) -> None:
        self._binding = binding
        self._name = method
        self._number = binding.number(method)
        self._serialize = serialize
        self._deserialize = deserialize
        self._limit = binding.options.max_send
        # Sent at once, in one frame with the beginning of the call.
        self._inline = INLINE if self._limit < 0 else min(self._limit, INLINE)
        self._unsendable = unsendable(method)
        self._intercepted = binding.interceptors.of(self._kind)

    @abstractmethod
    def _make(
        self,
        request: Any,
        timeout: float | None,
        metadata: Any,
        credentials: Any,
        wait_for_ready: bool | None,
    ) -> Any:
        """Begin a call; `request` is its request, or the iterator of these."""

    def _intercept(
        self,
        request: Any,
        timeout: float | None,
        metadata: Any,
        credentials: Any,
        wait_for_ready: bool | None,
    ) -> Any:
        """Return a call whose interceptors begin to run."""
        loop = self._binding.connector().loop
        if not isinstance(metadata, aio.Metadata):
            metadata = aio.Metadata(*(metadata or ()))
        name: Any = self._name.encode()  # bytes, as in grpc.aio
        details = aio.ClientCallDetails(name, timeout, metadata, credentials, wait_for_ready)
        work = interceptors.run(self._kind, self._intercepted, self._make_from, details, request)
        front = self._front(loop, work)
        task = front._chain.task
        self._binding.fronts.add(task)
        task.add_done_callback(self._binding.fronts.discard)
        return front

    def _intercept_requests(
        self,
        requests: Requests,
        timeout: float | None,
        metadata: Any,
        credentials: Any,
        wait_for_ready: bool | None,
    ) -> Any:
        written = interceptors.Written() if requests is None else None
        front = self._intercept(
            written if requests is None else requests,
            timeout,
            metadata,
            credentials,
            wait_for_ready,
        )
        front._written = written
        return front

    def _make_from(self, details: Any, request: Any) -> Any:
        method, name = self, text(details.method)
        if name != self._name:
            method = type(self)(self._binding, name, self._serialize, self._deserialize)
        return method._make(
            request,
            details.timeout,
            details.metadata,
            details.credentials,
            details.wait_for_ready,
        )

    def _new(self, timeout: float | None, *, streams: bool) -> LoopCall:
        connector = self._binding.connector()
        if connector.closed:
            raise aio.UsageError("Channel is closed.")
        return LoopCall(
            connector,
            self._name,
            self._number,
            None if streams else self._deserialize,
            deadline_of(timeout),
            streams=streams,
        )

    def _begin(
        self,
        call: LoopCall,
        request: Any,
        timeout: float | None,
        metadata: Any,
        credentials: Any,
        wait_for_ready: bool | None,
    ) -> None:
        """Begin a call with a single request."""
        try:
            message: Any = request if self._serialize is None else self._serialize(request)
            refused = None
        except Exception:
            message, refused = None, messages.unserializable()
        if refused is not None:
            call.end(refused.code, refused.details, debug=refused.debug)
            return
        self._check_and_open(call, message, timeout, metadata, credentials, wait_for_ready)

    def _check_and_open(
        self,
        call: LoopCall,
        message: Any,
        timeout: float | None,
        metadata: Any,
        credentials: Any,
        wait_for_ready: bool | None,
    ) -> None:
        refused = messages.check(message, self._limit)
        if refused is not None:
            call.end(refused.code, refused.details, debug=refused.debug)
            return
        self._open(call, message, timeout, metadata, credentials, wait_for_ready)

    def _open(
        self,
        call: LoopCall,
        message: bytes | None,
        timeout: float | None,
        metadata: Any,
        credentials: Any,
        wait_for_ready: bool | None,
    ) -> None:
        if self._unsendable:
            call.end(*self._unsendable, debug=texts.debug_text(*self._unsendable))
            return
        if credentials is not None and not self._binding.secure:
            raise aio.UsageError("Call credentials are only valid on secure channels")
        if credentials is not None:
            call.end(*texts.NO_CREDENTIALS, debug=texts.debug_text(*texts.NO_CREDENTIALS))
            return
        head = b""
        try:
            if metadata is not None:
                head = head_of(metadata)
        except InvalidMetadata as error:
            call.end(*texts.refusal(error), debug="")
            return
        if timeout is not None and not timeout > 0:
            call.end(*texts.DEADLINE_EXCEEDED, debug=texts.DEADLINE_DEBUG)
            return
        call.start(head, message, wait_for_ready=bool(wait_for_ready))


class UnaryUnary(_Method, _UnaryUnary):
    _kind = interceptors.UNARY_UNARY
    _front = interceptors.InterceptedUnaryUnaryCall

    def __call__(
        self,
        request: Any,
        *,
        timeout: float | None = None,
        metadata: Any = None,
        credentials: grpc.CallCredentials | None = None,
        wait_for_ready: bool | None = None,
        compression: grpc.Compression | None = None,
    ) -> Any:
        if self._intercepted:
            return self._intercept(request, timeout, metadata, credentials, wait_for_ready)
        return self._make(request, timeout, metadata, credentials, wait_for_ready)

    def _make(
        self,
        request: Any,
        timeout: float | None,
        metadata: Any,
        credentials: Any,
        wait_for_ready: bool | None,
    ) -> UnaryUnaryCall:
        connector = self._binding.bound
        if connector is None or connector.loop is not _running_loop():
            connector = self._binding.connector()
        session = connector.session
        if connector.links is not None:
            session = connector.best()
        if session is None or metadata is not None or credentials is not None or self._unsendable:
            call = self._new(timeout, streams=False)
            self._begin(call, request, timeout, metadata, credentials, wait_for_ready)
            return UnaryUnaryCall(call)
        call = LoopCall(
            connector,
            self._name,
            self._number,
            self._deserialize,
            NEVER if timeout is None else deadline_of(timeout),
            streams=False,
        )
        try:
            message: Any = request if self._serialize is None else self._serialize(request)
        except Exception:
            refused = messages.unserializable()
            call.end(refused.code, refused.details, debug=refused.debug)
            return UnaryUnaryCall(call)
        if type(message) is bytes and len(message) <= self._inline:
            call.begin_with(session, message, bool(wait_for_ready))
        else:
            self._check_and_open(call, message, timeout, None, None, wait_for_ready)
        return UnaryUnaryCall(call)


class UnaryStream(_Method, _UnaryStream):
    _kind = interceptors.UNARY_STREAM
    _front = interceptors.InterceptedUnaryStreamCall

    def __call__(
        self,
        request: Any,
        *,
        timeout: float | None = None,
        metadata: Any = None,
        credentials: grpc.CallCredentials | None = None,
        wait_for_ready: bool | None = None,
        compression: grpc.Compression | None = None,
    ) -> Any:
        if self._intercepted:
            return self._intercept(request, timeout, metadata, credentials, wait_for_ready)
        return self._make(request, timeout, metadata, credentials, wait_for_ready)

    def _make(
        self,
        request: Any,
        timeout: float | None,
        metadata: Any,
        credentials: Any,
        wait_for_ready: bool | None,
    ) -> UnaryStreamCall:
        call = self._new(timeout, streams=True)
        self._begin(call, request, timeout, metadata, credentials, wait_for_ready)
        outer = UnaryStreamCall(call)
        outer._deserialize = self._deserialize
        return outer


class StreamUnary(_Method, _StreamUnary):
    _kind = interceptors.STREAM_UNARY
    _front = interceptors.InterceptedStreamUnaryCall

    def __call__(
        self,
        request_iterator: Requests = None,
        timeout: float | None = None,
        metadata: Any = None,
        credentials: grpc.CallCredentials | None = None,
        wait_for_ready: bool | None = None,
        compression: grpc.Compression | None = None,
    ) -> Any:
        if self._intercepted:
            return self._intercept_requests(
                request_iterator, timeout, metadata, credentials, wait_for_ready
            )
        return self._make(request_iterator, timeout, metadata, credentials, wait_for_ready)

    def _make(
        self,
        requests: Requests,
        timeout: float | None,
        metadata: Any,
        credentials: Any,
        wait_for_ready: bool | None,
    ) -> StreamUnaryCall:
        call = self._new(timeout, streams=False)
        self._open(call, None, timeout, metadata, credentials, wait_for_ready)
        outer = StreamUnaryCall(call)
        outer._serialize, outer._limit = self._serialize, self._limit
        outer._write_from(requests)
        return outer


class StreamStream(_Method, _StreamStream):
    _kind = interceptors.STREAM_STREAM
    _front = interceptors.InterceptedStreamStreamCall

    def __call__(
        self,
        request_iterator: Requests = None,
        timeout: float | None = None,
        metadata: Any = None,
        credentials: grpc.CallCredentials | None = None,
        wait_for_ready: bool | None = None,
        compression: grpc.Compression | None = None,
    ) -> Any:
        if self._intercepted:
            return self._intercept_requests(
                request_iterator, timeout, metadata, credentials, wait_for_ready
            )
        return self._make(request_iterator, timeout, metadata, credentials, wait_for_ready)

    def _make(
        self,
        requests: Requests,
        timeout: float | None,
        metadata: Any,
        credentials: Any,
        wait_for_ready: bool | None,
    ) -> StreamStreamCall:
        call = self._new(timeout, streams=True)
        self._open(call, None, timeout, metadata, credentials, wait_for_ready)
        outer = StreamStreamCall(call)
        outer._serialize, outer._limit = self._serialize, self._limit
        outer._deserialize = self._deserialize
        outer._write_from(requests)
        return outer
