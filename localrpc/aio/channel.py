"""grpc.aio.Channel over a local link."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import grpc
from grpc import aio

from localrpc.address import Address
from localrpc.aio import interceptors
from localrpc.aio.call import (
    Deserializer,
    Serializer,
    StreamStreamCall,
    StreamUnaryCall,
    UnaryStreamCall,
    UnaryUnaryCall,
)
from localrpc.calls import messages, texts
from localrpc.calls.connectivity import State
from localrpc.calls.request import head_of, text, unsendable
from localrpc.drive import naming
from localrpc.drive.core import NEVER, deadline_of
from localrpc.drive.greenlets import refuse_greenlets
from localrpc.drive.loop_call import LoopCall
from localrpc.drive.loop_connector import LoopConnector
from localrpc.drive.loop_session import INLINE
from localrpc.errors import InvalidMetadata
from localrpc.options import parse_options
from localrpc.transports import parse_target
from localrpc.transports.base import ConnectionFacts, Dialer

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
        self, channel: Channel, method: str, serialize: Serializer, deserialize: Deserializer
    ) -> None:
        self._channel = channel
        self._name = method
        self._number = channel._number(method)
        self._serialize = serialize
        self._deserialize = deserialize
        self._limit = channel._options.max_send
        # Sent at once, in one frame with the beginning of the call.
        self._inline = INLINE if self._limit < 0 else min(self._limit, INLINE)
        self._unsendable = unsendable(method)
        self._intercepted = channel._interceptors.of(self._kind)

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
        loop = self._channel._bound().loop
        if not isinstance(metadata, aio.Metadata):
            metadata = aio.Metadata(*(metadata or ()))
        name: Any = self._name.encode()  # bytes, as in grpc.aio
        details = aio.ClientCallDetails(name, timeout, metadata, credentials, wait_for_ready)
        work = interceptors.run(self._kind, self._intercepted, self._make_from, details, request)
        front = self._front(loop, work)
        task = front._chain.task
        self._channel._fronts.add(task)
        task.add_done_callback(self._channel._fronts.discard)
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
            method = type(self)(self._channel, name, self._serialize, self._deserialize)
        return method._make(
            request,
            details.timeout,
            details.metadata,
            details.credentials,
            details.wait_for_ready,
        )

    def _new(self, timeout: float | None, *, streams: bool) -> LoopCall:
        connector = self._channel._bound()
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
        if credentials is not None and not self._channel.secure:
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
        channel = self._channel
        connector = channel._connector
        if connector is None or connector.loop is not _running_loop():
            connector = channel._bound()
        session = connector.session
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


class Channel(aio.Channel):
    """A channel to a local target, on one event loop: the one that runs at its first call.

    It connects with the first call, and again after its connection is lost. `secure` is true if it
    was opened with credentials.
    """

    secure = False

    def __init__(
        self,
        address: Address,
        options: Sequence[tuple[str, Any]] | None,
        client_interceptors: Sequence[Any] | None = None,
        dialer: Dialer | None = None,
    ) -> None:
        self._interceptors = interceptors.Interceptors(client_interceptors or ())
        self._address = address
        self._options = parse_options(options)
        self._dialer = dialer
        self._number = naming.MethodNumbers().number
        self._connector: LoopConnector | None = None
        self._closed = False
        self._fronts: set[asyncio.Task[Any]] = set()
        """The tasks of interceptors."""

    def _bound(self) -> LoopConnector:
        """Return the connector for the running loop."""
        connector = self._connector
        loop = asyncio._get_running_loop()
        if connector is not None and (connector.loop is loop or loop is None):
            return connector
        if loop is None:
            loop = asyncio.get_event_loop()
        if connector is not None:
            if not connector.loop.is_closed() and not connector.inherited:
                raise RuntimeError(
                    f"{self!r} belongs to {connector.loop!r}, and cannot be used in {loop!r};"
                    " open a channel for each loop"
                )
            connector.forsake()
        self._connector = LoopConnector(self._address, self._options, loop, self._dialer)
        self._connector.number = self._number
        self._connector.closed = self._closed
        return self._connector

    @property
    def facts(self) -> ConnectionFacts | None:
        """How the present connection carries calls; None while there is none."""
        session = self._connector.peek() if self._connector is not None else None
        return None if session is None else session.connection.facts

    # grpc.aio.Channel

    async def __aenter__(self) -> Channel:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()

    async def close(self, grace: float | None = None) -> None:
        """End the channel: no new calls, and those in progress end within `grace` seconds."""
        if self._closed:
            return
        if grace and grace < 0:
            raise ValueError(f"grace must be non-negative, got {grace}.")
        self._closed = True
        connector = self._connector
        if connector is None:
            return
        if grace:
            ends = [asyncio.ensure_future(call.until_over()) for call in connector.live_calls()]
            waits = {*self._fronts, *ends}
            if waits:
                await asyncio.wait(waits, timeout=grace)
            for end in ends:
                end.cancel()
        for task in tuple(self._fronts):
            task.cancel()
        connector.close()

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:
        if self._closed:
            return grpc.ChannelConnectivity.SHUTDOWN
        connector = self._bound()
        if try_to_connect:
            connector.connect()
        return grpc.ChannelConnectivity[connector.state.name]

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        await self._bound().change_of(State[last_observed_state.name])

    async def channel_ready(self) -> None:
        state = self.get_state(try_to_connect=True)
        while state is not grpc.ChannelConnectivity.READY:
            await self.wait_for_state_change(state)
            state = self.get_state(try_to_connect=True)

    def unary_unary(
        self,
        method: str,
        request_serializer: Serializer = None,
        response_deserializer: Deserializer = None,
        _registered_method: bool | None = False,
    ) -> UnaryUnary:
        return UnaryUnary(self, text(method), request_serializer, response_deserializer)

    def unary_stream(
        self,
        method: str,
        request_serializer: Serializer = None,
        response_deserializer: Deserializer = None,
        _registered_method: bool | None = False,
    ) -> UnaryStream:
        return UnaryStream(self, text(method), request_serializer, response_deserializer)

    def stream_unary(
        self,
        method: str,
        request_serializer: Serializer = None,
        response_deserializer: Deserializer = None,
        _registered_method: bool | None = False,
    ) -> StreamUnary:
        return StreamUnary(self, text(method), request_serializer, response_deserializer)

    def stream_stream(
        self,
        method: str,
        request_serializer: Serializer = None,
        response_deserializer: Deserializer = None,
        _registered_method: bool | None = False,
    ) -> StreamStream:
        return StreamStream(self, text(method), request_serializer, response_deserializer)

    def __repr__(self) -> str:
        state = "closed" if self._closed else "idle"
        if self._connector is not None and not self._closed:
            state = str(self._connector.state.name).lower()
        return f"<localrpc.aio.{type(self).__name__} to {self._address}: {state}>"


def open_channel(
    target: str,
    options: Sequence[tuple[str, Any]] | None,
    compression: grpc.Compression | None,
    client_interceptors: Sequence[Any] | None,
    credentials: grpc.ChannelCredentials | None = None,
) -> Any:
    """Return a localrpc channel or, for a grpc: target, one of grpc.aio."""
    refuse_greenlets()
    address = parse_target(text(target))
    if address.scheme == "grpc":
        from localrpc.drive import remote

        return remote.channel(aio, address, credentials, options, compression, client_interceptors)
    if credentials is not None:
        from localrpc.drive import security

        security.check_channel(address, credentials)
    channel = Channel(address, options, client_interceptors)
    channel.secure = credentials is not None
    return channel
