"""What a server knows of a call: what its handler has chosen to answer, and how far that has come.

Nothing here waits, takes a lock, or touches the core; so any driver, blocking or not, can use
it. A driver calls these methods, and does what each returns.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Sequence
from enum import Enum, auto
from typing import Any, NamedTuple

import grpc

from localrpc import _log, status
from localrpc.drive.texts import refusal
from localrpc.errors import InvalidMetadata
from localrpc.wire import codec

_logger = _log.logger("server")


class Stage(Enum):
    """How far the answer has come. The last three are final."""

    OPEN = auto()
    """The status has not been chosen."""
    CHOSEN = auto()
    """It has been, but waits: a message is still on its way, or the driver is about to send it."""
    SENT = auto()
    """It has been handed to the core."""
    DROPPED = auto()
    """The handler has ended without one, because its client had gone."""
    GONE = auto()
    """The client has cancelled or died, or the deadline has passed, before it was sent."""


_FINAL = (Stage.SENT, Stage.DROPPED, Stage.GONE)


class Reply(NamedTuple):
    """A status, encoded with the trailing metadata, and the message to send before it."""

    code: int
    trailer: bytes
    message: bytes | None


class Then(Enum):
    """What a driver has to do when there is no reply to send."""

    NOTHING = auto()
    RELEASE = auto()
    """Give the call back to the core: nothing more comes from its handler."""


class AnswerState:
    """Made for few calls; the defaults are the class's.

    `details` are bytes, and `trailing_metadata` is what the handler gave, as in grpcio.
    `stage`, `initial_allowed` (whether initial metadata may still be sent), `aborted` (whether
    the handler has called abort()) and `requests_ended` (whether it has read to the end of a
    request stream) are independent of each other.
    """

    stage = Stage.OPEN
    code: grpc.StatusCode | None = None
    details: bytes | None = None
    trailing_metadata: Iterable[Any] | None = None
    initial_allowed = True
    aborted = False
    requests_ended = False
    _callbacks: list[Callable[[], None]] | None = None
    _errors: tuple[weakref.ref[Exception], ...] = ()

    @property
    def chosen(self) -> bool:
        """Whether a status has been chosen, and the client was there to get it."""
        return self.stage is Stage.CHOSEN or self.stage is Stage.SENT

    @property
    def over(self) -> bool:
        """Whether nothing more can be sent."""
        return self.stage in _FINAL

    # What the handler does

    def take_initial_metadata(self, metadata: Sequence[Any] | None) -> bytes | Reply | Then:
        """The block to send, or the reply that ends the call for metadata that cannot be sent.

        Raises ValueError when initial metadata or a message has been sent, TypeError for
        metadata without a length, as grpcio.
        """
        if not self.initial_allowed:
            raise ValueError("Initial metadata no longer allowed!")
        if metadata is not None:
            len(metadata)
        try:
            block = codec.encode_metadata(metadata)
        except InvalidMetadata as error:
            self.trailing_metadata = None
            code, details = refusal(error)
            return self._choose(status.number_of(code), details.encode(), None)
        self.initial_allowed = False
        return Then.NOTHING if self.chosen else block

    def abort(self, code: grpc.StatusCode, details: str | bytes) -> None:
        """Choose code and details, for which the driver raises the exception that ends a handler.

        OK is an error of the handler's: UNKNOWN in its place, as in grpcio.
        """
        if code == grpc.StatusCode.OK:
            _logger.error("abort() called with StatusCode.OK; returning UNKNOWN")
            code = grpc.StatusCode.UNKNOWN
            details = ""
        self.code = code
        self.details = encoded(details)
        self.aborted = True

    def finish(self, message: bytes | None) -> Reply | Then:
        """The handler is done: the status it chose, with its message if it has one."""
        code = 0 if self.code is None else status.number_of(self.code)
        # As in grpcio, OK has no details, whatever the handler has set.
        return self._choose(code, self.details or b"" if code else b"", message)

    def refuse(self, code: int, details: str) -> Reply | Then:
        """The call failed; a code or details that the handler has set take precedence."""
        if self.code is not None:
            code = status.number_of(self.code)
        return self._choose(code, details.encode() if self.details is None else self.details, None)

    def drop(self) -> Then:
        """The handler ends without an answer, because its client has gone."""
        if self.stage is Stage.CHOSEN:
            return Then.NOTHING  # the status is still sent
        if self.stage is Stage.OPEN:
            self.stage = Stage.DROPPED
        return Then.RELEASE

    def new_error(self) -> grpc.RpcError:
        """The error that tells a handler of its client's end.

        It is remembered, but not held: its traceback will hold the call.
        """
        error = grpc.RpcError()
        self._errors = (*self._errors, weakref.ref(error))
        return error

    def errors(self) -> list[Exception]:
        """Those of new_error() that still exist."""
        return [error for known in self._errors if (error := known()) is not None]

    def _choose(self, code: int, details: bytes, message: bytes | None) -> Reply | Then:
        if self.stage is not Stage.OPEN:
            return Then.NOTHING if self.chosen else Then.RELEASE
        try:
            trailer = codec.encode_trailer(
                code, details.decode("utf-8", "replace"), self.trailing_metadata
            )
        except InvalidMetadata as error:
            _logger.error("trailing metadata: %s", error)
            refused, text = refusal(error)
            code = status.number_of(refused)
            trailer = codec.encode_trailer(code, text)
        except (TypeError, ValueError):
            _logger.exception("Invalid trailing metadata")
            code = status.INTERNAL
            trailer = codec.encode_trailer(code, "Invalid metadata")
        self.stage = Stage.CHOSEN
        return Reply(code, trailer, None if code else message)

    # What happens to the call

    def add_callbacks(self, callbacks: Sequence[Callable[[], None]]) -> bool:
        """Of the call's end; whether they are the first, and the driver has to watch for it."""
        if self._callbacks is not None:
            self._callbacks.extend(callbacks)
            return False
        self._callbacks = list(callbacks)
        return True

    def remove_callbacks(self, callbacks: Sequence[Callable[[], None]]) -> bool:
        """Before the end takes them; whether it has not."""
        if self._callbacks is None:
            return False
        for callback in callbacks:
            self._callbacks.remove(callback)
        return True

    @property
    def watched(self) -> bool:
        """Whether there have been callbacks, and the end has not taken them."""
        return self._callbacks is not None

    def sent(self) -> None:
        """The chosen status has been handed to the core."""
        if self.stage is Stage.CHOSEN:
            self.stage = Stage.SENT

    def end(self) -> tuple[bool, Sequence[Callable[[], None]]]:
        """The call has ended, for whatever reason: whether that is news, and whom to call."""
        news = not self.over
        if news:
            self.stage = Stage.GONE
        callbacks, self._callbacks = self._callbacks or (), None
        return news, callbacks


def encoded(details: str | bytes) -> bytes:
    """A handler's details as they are kept."""
    return details if isinstance(details, bytes) else details.encode()
