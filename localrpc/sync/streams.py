"""The methods with a stream of requests, responses or both."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

from localrpc import _grpc
from localrpc._later import Later
from localrpc.sync.method import Method

# A stub makes the objects of all its methods, and a program may call none of these.
if TYPE_CHECKING:
    import grpc

    from localrpc.calls import texts
    from localrpc.drive import call as driven
    from localrpc.drive import sending
    from localrpc.sync import call as rendezvous

    _UnaryStream = grpc.UnaryStreamMultiCallable[Any, Any]
    _StreamUnary = grpc.StreamUnaryMultiCallable[Any, Any]
    _StreamStream = grpc.StreamStreamMultiCallable[Any, Any]
else:
    grpc = Later("grpc")
    driven = Later("localrpc.drive.call")
    sending = Later("localrpc.drive.sending")
    texts = Later("localrpc.calls.texts")
    rendezvous = Later("localrpc.sync.call")
    _UnaryStream = _grpc.base("UnaryStreamMultiCallable")
    _StreamUnary = _grpc.base("StreamUnaryMultiCallable")
    _StreamStream = _grpc.base("StreamStreamMultiCallable")

_Serializer = Callable[[Any], bytes] | None
_Deserializer = Callable[[bytes], Any] | None
_Metadata = Any


class UnaryStream(Method, _UnaryStream):
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
        return rendezvous._MultiThreadedRendezvous(call, self._deserializer)


class _RequestStream(Method):
    def _send(
        self, requests: Iterator[Any], call: driven.ClientCall, *, inline: bool = False
    ) -> None:
        sending.RequestSender(call, requests, self._serializer, self._max_send).start(inline=inline)


class StreamUnary(_RequestStream, _StreamUnary):
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
        return rendezvous.finished(call.state)

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
        return rendezvous.finished(call.state), rendezvous._MultiThreadedRendezvous(call)

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
        return rendezvous._MultiThreadedRendezvous(
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
    ) -> driven.ClientCall:
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
            raise rendezvous.failure(call.state)
        return call


class StreamStream(_RequestStream, _StreamStream):
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
        return rendezvous._MultiThreadedRendezvous(call, self._deserializer)
