"""Runs one handler of any kind, inside its call's own contextvars context."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import grpc

from localrpc import _log, status
from localrpc._later import Later
from localrpc.drive.core import lib
from localrpc.drive.reading import no_memory, receive_whole
from localrpc.sync.context import ServicerContext
from localrpc.sync.nonblocking import Responder, answers_later

if TYPE_CHECKING:
    from localrpc.sync import handling as _handling

    MethodHandler = grpc.RpcMethodHandler[Any, Any]
else:
    _handling = Later("localrpc.sync.handling")
    MethodHandler = grpc.RpcMethodHandler  # grpcio's own takes no parameters

_logger = _log.logger("server")


def call_plain(
    run: Callable[..., Any], entry: _handling.Entry, request: Any, context: ServicerContext
) -> bytes | None:
    """The reply of a unary handler if it is no more than a message; else it has been sent."""
    try:
        response = run(entry.behaviour, request, context)
    except Exception as error:
        complain(context, error, "calling application")
        return None
    try:
        message = entry.serialize(response)
        if type(message) is bytes:
            if not context._touched:
                context._over = True
                return message
            context.finish(message)
            return None
    except Exception:
        _logger.exception("Exception serializing message!")
    context.refuse(status.INTERNAL, "Failed to serialize response!")
    return None


def complain(context: ServicerContext, error: Exception, doing: str) -> None:
    """End the call for an exception that its handler let out."""
    if context._aborted:
        context.refuse(status.UNKNOWN, "RPC Aborted")
        return
    if any(error is known() for known in context._errors):
        context.let_go()
        return
    try:
        details = f"Exception {doing}: {error}"
    except Exception:
        details = "Calling application raised unprintable Exception!"
    _logger.exception(details)
    context.refuse(status.UNKNOWN, details)


def of(handler: Any) -> Any:
    """What a handler of any kind is to call."""
    if handler.response_streaming:
        return handler.stream_stream if handler.request_streaming else handler.unary_stream
    return handler.stream_unary if handler.request_streaming else handler.unary_unary


class Task:
    """One call and its handler, whatever its kind."""

    def __init__(
        self,
        context: ServicerContext,
        handler: Any,
        name: str,
        max_send: int,
        flags: int,
        data: bytes | None,
    ) -> None:
        self._context = context
        self._handler = handler
        self.behaviour: Callable[..., Any] = of(handler)
        self._name = name
        self._max_send = max_send
        self._requests = RequestIterator(
            context, handler.request_deserializer, data, ended=bool(flags & lib.LR_F_END)
        )

    def run(self) -> None:
        handler, behaviour = self._handler, self.behaviour
        argument: Any = self._requests
        if not handler.request_streaming:
            argument = self._single_request()
            if argument is None:
                return
        if handler.response_streaming and answers_later(behaviour):
            self._answer_later(argument)
            return
        try:
            result = behaviour(argument, self._context)
        except Exception as error:
            complain(self._context, error, "calling application")
            return
        if handler.response_streaming:
            self._respond(result)
        else:
            message = self._serialize(result)
            if message is not None:
                self._context.finish(message)

    def _answer_later(self, argument: Any) -> None:
        """Have the handler answer by a function, from any thread, when it likes."""
        context = self._context
        responder = Responder(context, self._serialize)
        try:
            self.behaviour(argument, context, responder)
        except Exception as error:
            complain(context, error, "calling application")
        if not context._over:
            context.leave_open()

    def _single_request(self) -> Any:
        try:
            return next(self._requests)
        except StopIteration:
            if not self._context._over:
                text = f'"{self._name.encode()!r}" requires exactly one request message.'
                self._context.refuse(status.UNIMPLEMENTED, text)
        except grpc.RpcError:
            self._context.let_go()
        return None

    def _serialize(self, response: Any) -> bytes | None:
        serializer = self._handler.response_serializer
        message = response
        if serializer is not None:
            try:
                message = serializer(response)
            except Exception:
                _logger.exception("Exception serializing message!")
                message = None
        if not isinstance(message, bytes):
            if message is not None and self._context._turns is not None:
                # From on_next(), and the call goes on, as in grpcio.
                raise TypeError(
                    "Argument 'message' has incorrect type"
                    f" (expected bytes, got {type(message).__name__})"
                )
            self._context.refuse(status.INTERNAL, "Failed to serialize response!")
            return None
        if len(message) > self._max_send >= 0:
            text = f"SERVER: Sent message larger than max ({len(message)} vs. {self._max_send})"
            self._context.refuse(status.RESOURCE_EXHAUSTED, text)
            return None
        return message

    def _respond(self, responses: Iterator[Any]) -> None:
        context = self._context
        engine, call, deadline = context._serving.engine, context._call, context._deadline
        serialize = self._handler.response_serializer
        send = lib.lr_send
        checked = serialize is None or self._max_send >= 0
        while True:
            try:
                response = next(responses)
            except StopIteration:
                context.finish(None)
                return
            except Exception as error:
                complain(context, error, "iterating responses")
                return
            if response is None:  # grpcio takes this for the end
                context.finish(None)
                return
            try:
                message = None if checked else serialize(response)
            except Exception:
                message = None
            if message is None:
                message = self._serialize(response)
                if message is None:
                    return
            result = send(engine, call, message, len(message), 0, deadline)
            if result:
                while result == lib.LR_AGAIN:
                    result = send(engine, call, message, len(message), 0, deadline)
                if result < 0:
                    context.let_go()
                    return
            context._initial_allowed = False


class RequestIterator:
    """What a handler of a request stream reads from; one thread at a time."""

    def __init__(
        self,
        context: ServicerContext,
        deserializer: Callable[[bytes], Any] | None,
        first: bytes | None,
        *,
        ended: bool,
    ) -> None:
        self._context = context
        self._deserializer = deserializer
        self._messages: deque[bytes] = deque()
        if first is not None:
            self._messages.append(first)
        self._ended = ended

    def __iter__(self) -> RequestIterator:
        return self

    def __next__(self) -> Any:
        try:
            message = self._messages.popleft()
        except IndexError:
            self._receive()
            message = self._messages.popleft()
        if self._deserializer is None:
            return message
        try:
            request = self._deserializer(message)
        except Exception:
            _logger.exception("Exception deserializing message!")
            request = None
        if request is None:
            self._context.refuse(status.INTERNAL, "Exception deserializing request!")
            raise StopIteration
        return request

    def next(self) -> Any:
        return self.__next__()

    def _receive(self) -> None:
        """Wait for more; raises StopIteration at the end, grpc.RpcError if the client has gone."""
        context = self._context
        if context._gone:
            context.fail()
        if self._ended or context._statused:
            context._requests_ended = self._ended
            raise StopIteration
        if context._over:
            context.fail()
        kind, came = receive_whole(context._serving.engine, context._call, context._deadline)
        if kind == lib.LR_K_MESSAGES:
            self._messages.extend(came)
            return
        if kind == lib.LR_K_END:
            self._ended = context._requests_ended = True
            raise StopIteration
        if kind == lib.LR_TOO_LARGE:
            limit = context._serving.options.max_receive
            text = f"SERVER: Received message larger than max ({came} vs. {limit})"
            context.refuse(status.RESOURCE_EXHAUSTED, text)
        elif kind == lib.LR_NOMEM:
            context.refuse(status.RESOURCE_EXHAUSTED, no_memory(came))
        elif context._statused and not context._gone:
            raise StopIteration  # another thread has answered meanwhile
        context.fail()
