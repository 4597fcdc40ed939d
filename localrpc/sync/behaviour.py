"""Runs one handler of any kind, inside its call's own contextvars context."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import grpc

from localrpc import _log, status
from localrpc.calls import texts
from localrpc.calls.answer import Stage
from localrpc.calls.handlers import behaviour_of
from localrpc.drive.core import lib
from localrpc.drive.methods import Entry
from localrpc.sync.context import ServicerContext
from localrpc.sync.nonblocking import Responder, answers_later

_logger = _log.logger("server")


def call_plain(
    run: Callable[..., Any], entry: Entry, request: Any, context: ServicerContext
) -> bytes | None:
    """Run a unary handler. Return its reply if that is all to send; otherwise send it."""
    try:
        response = run(entry.behaviour, request, context)
    except Exception as error:
        complain(context, error, "calling application")
        return None
    try:
        message = entry.serialize(response)
        if type(message) is bytes:
            if context._answer is None:
                context._plainly = True
                return message
            context.finish(message)
            return None
    except Exception:
        _logger.exception("Exception serializing message!")
    context.refuse(*texts.UNSERIALIZABLE)
    return None


def complain(context: ServicerContext, error: Exception, doing: str) -> None:
    """End the call for an exception that its handler raised."""
    answer = context.answer
    if answer.aborted:
        context.refuse(*texts.ABORTED)
        return
    if any(error is known for known in answer.errors()):
        context.let_go()
        return
    details = texts.exception_text(error, doing)
    _logger.exception(details)
    context.refuse(status.UNKNOWN, details)


class Task:
    """One call and its handler, of any kind."""

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
        self.behaviour: Callable[..., Any] = behaviour_of(handler)
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
        """Call a handler that answers through a function, from any thread and at any time."""
        context = self._context
        responder = Responder(context, self._serialize)
        try:
            self.behaviour(argument, context, responder)
        except Exception as error:
            complain(context, error, "calling application")
        if not context.answer.over:
            context.answer_later()

    def _single_request(self) -> Any:
        try:
            return next(self._requests)
        except StopIteration:
            if not self._context.answer.over:
                self._context.refuse(*texts.requires_one_request(self._name))
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
                # The response came from on_next(), so the call goes on, as in grpcio.
                raise TypeError(
                    "Argument 'message' has incorrect type"
                    f" (expected bytes, got {type(message).__name__})"
                )
            self._context.refuse(*texts.UNSERIALIZABLE)
            return None
        if len(message) > self._max_send >= 0:
            _, text = texts.sent_too_large("SERVER", len(message), self._max_send)
            self._context.refuse(status.RESOURCE_EXHAUSTED, text)
            return None
        return message

    def _respond(self, responses: Iterator[Any]) -> None:
        serialize = None if self._max_send >= 0 else self._handler.response_serializer
        try:
            self._context.send_each(responses, serialize, self._serialize)
        except Exception as error:
            complain(self._context, error, "iterating responses")


class RequestIterator:
    """The requests that a handler of a request stream iterates over; one thread at a time."""

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
            self._context.refuse(*texts.UNREADABLE)
            raise StopIteration
        return request

    def next(self) -> Any:
        return self.__next__()

    def _receive(self) -> None:
        """Wait for more; raises StopIteration at the end, grpc.RpcError if the client has gone."""
        context = self._context
        answer = context.answer
        if answer.stage is Stage.GONE:
            context.fail()
        if self._ended or answer.chosen:
            answer.requests_ended = self._ended
            raise StopIteration
        if answer.over:
            context.fail()
        kind, came = context.receive()
        if kind == lib.LR_K_MESSAGES:
            self._messages.extend(came)
            return
        if kind == lib.LR_K_END:
            self._ended = answer.requests_ended = True
            raise StopIteration
        if kind == lib.LR_TOO_LARGE:
            context.refuse(*texts.request_too_large(came, context._serving.options.max_receive))
        elif kind == lib.LR_NOMEM:
            context.refuse(status.RESOURCE_EXHAUSTED, texts.no_memory(came))
        elif answer.chosen:
            raise StopIteration  # another thread has answered meanwhile
        context.fail()
