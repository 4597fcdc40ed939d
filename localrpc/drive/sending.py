"""Sends a stream of requests in the background, or while the caller waits."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

from localrpc import _log
from localrpc.calls import messages, texts
from localrpc.calls.texts import Ending
from localrpc.drive.call import ClientCall
from localrpc.drive.core import lib

_logger = _log.logger("channel")

# Iterators over existing objects: next() neither blocks nor runs user code.
_READY_MADE: tuple[type, ...] = (type(iter([])), type(iter(())))


class RequestSender:
    """Consumes the user's iterator; if that fails, the call ends with grpcio's status."""

    def __init__(
        self,
        call: ClientCall,
        requests: Iterator[Any],
        function: Callable[[Any], bytes] | None,
        max_send: int,
    ) -> None:
        self._call = call
        self._requests = requests
        self._function = function
        self._max_send = max_send
        self._waiting: bytes | None = None

    def start(self, *, inline: bool = False) -> None:
        """Start a thread that sends the requests; without waiting, send here what can be sent.

        With `inline` this thread also waits: the caller has nothing to read meanwhile.
        """
        if type(self._requests) in _READY_MADE and self._send_all(wait=inline):
            return
        threading.Thread(target=self._run, name="localrpc-requests", daemon=True).start()

    def _run(self) -> None:
        if self._function is None or self._waiting is not None:
            self._send_all(wait=True)
        else:
            self._stream(self._function)

    def _stream(self, serialize: Callable[[Any], bytes]) -> None:
        """Send as _send_all(wait=True), with as little work per message as possible."""
        call, requests, send = self._call, self._requests, lib.lr_send
        state = call.state
        limit = self._max_send if self._max_send >= 0 else sys.maxsize
        while state.code is None:
            try:
                request = next(requests)
            except StopIteration:
                call.half_close()
                return
            except Exception:
                self._broken()
                return
            try:
                message = serialize(request)
            except Exception:
                self._refuse(messages.unserializable())
                return
            live = call.live
            if call.kept is not None and type(message) is bytes and len(message) <= limit:
                if not call.send(message):
                    return
                continue
            if type(message) is not bytes or len(message) > limit or live is None:
                self._waiting = self._checked(message)
                if self._waiting is not None:
                    self._send_all(wait=True)
                return
            engine, handle = live.session.engine, live.handle
            if send(engine, handle, message, len(message), 0, call.deadline):
                # Interrupted, too late, or no longer wanted: _send_all() sends again and decides.
                self._waiting = message
                del live, engine
                self._send_all(wait=True)
                return
            # Free these while waiting for the next request.
            del live, engine, request, message

    def _send_all(self, *, wait: bool) -> bool:
        """Send the requests. Return False if that would block and `wait` is False."""
        call = self._call
        message = self._waiting
        while call.running():
            if message is None:
                message = self._next()
                if message is None:
                    break
            if not wait and len(message) > lib.LR_INLINE:
                self._waiting = message
                return False
            more = call.send(message, wait=wait)
            if more is None:
                self._waiting = message
                return False
            if not more:
                break
            message = None
        else:
            return True
        if message is None:
            call.half_close()
        return True

    def _next(self) -> bytes | None:
        """Return the next message; None at the end. An error ends the call and returns None."""
        try:
            request = next(self._requests)
        except StopIteration:
            return None
        except Exception:
            self._broken()
            return None
        if self._function is None:
            return self._checked(request)
        try:
            message = self._function(request)
        except Exception:
            self._refuse(messages.unserializable())
            return None
        return self._checked(message)

    def _checked(self, message: Any) -> bytes | None:
        """Return the bytes to send; end the call and return None if they cannot be sent."""
        try:
            refused = messages.check(message, self._max_send)
        except TypeError:
            refused = messages.unserializable()
        if refused is None:
            return bytes(message)
        self._refuse(refused)
        return None

    def _broken(self) -> None:
        _logger.exception(texts.BAD_ITERATOR[1])
        self._call.end(*texts.BAD_ITERATOR)

    def _refuse(self, ending: Ending) -> None:
        self._call.end(ending.code, ending.details, debug=ending.debug)
