"""The state of a call on the server: the answer that its handler has chosen, and its progress.

No function here waits, takes a lock or touches the core, so blocking and other drivers can
share it. A driver calls these methods, and does what each returns.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Sequence
from enum import Enum, auto
from typing import Any, NamedTuple

import grpc

from localrpc import _log, status
from localrpc.calls.texts import refusal
from localrpc.errors import InvalidMetadata
from localrpc.wire import codec

_logger = _log.logger("server")


class Stage(Enum):
    """How far the answer has come. The last three are final."""

    OPEN = auto()
    """No status has been chosen."""
    CHOSEN = auto()
    """A status has been chosen; it waits for a message in transit, or is about to be sent."""
    SENT = auto()
    """The status has been passed to the core."""
    DROPPED = auto()
    """The handler ended without a status, because its client had gone."""
    GONE = auto()
    """The client cancelled or died, or the deadline passed, before the status was sent."""


_FINAL = (Stage.SENT, Stage.DROPPED, Stage.GONE)


class Reply(NamedTuple):
    """A status, encoded with the trailing metadata, and the message to send before it."""

    code: int
    trailer: bytes
    message: bytes | None


class Then(Enum):
    """What a driver does when there is no reply to send."""

    NOTHING = auto()
    RELEASE = auto()
    """Release the call in the core: its handler sends nothing more."""


class AnswerState:
    """Holds the state of an answer. Few calls need one; the class has the defaults.

    `details` are bytes, and `trailing_metadata` is what the handler gave, as in grpcio.
    These are independent of each other: `stage`; `initial_allowed`, true while initial metadata
    may still be sent; `aborted`, true once the handler has called abort(); `requests_ended`,
    true once the handler has read to the end of a request stream.
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
        """True if a status has been chosen and its client has not gone before that."""
        return self.stage is Stage.CHOSEN or self.stage is Stage.SENT

    @property
    def over(self) -> bool:
        """True if nothing more can be sent."""
        return self.stage in _FINAL

    # Events from the handler

    def take_initial_metadata(self, metadata: Sequence[Any] | None) -> bytes | Reply | Then:
        """Return the block to send, or the reply that ends the call if `metadata` cannot be sent.

        Raises ValueError if initial metadata or a message has already been sent, and TypeError
        for metadata without a length, as grpcio does.
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
        """Set code and details; the driver then raises the exception that ends a handler.

        OK is a mistake of the handler, and becomes UNKNOWN, as in grpcio.
        """
        if code == grpc.StatusCode.OK:
            _logger.error("abort() called with StatusCode.OK; returning UNKNOWN")
            code = grpc.StatusCode.UNKNOWN
            details = ""
        self.code = code
        self.details = encoded(details)
        self.aborted = True

    def finish(self, message: bytes | None) -> Reply | Then:
        """End the handler normally: return its status, and its message if it has one."""
        code = 0 if self.code is None else status.number_of(self.code)
        # As in grpcio, OK has no details, even if the handler has set some.
        return self._choose(code, self.details or b"" if code else b"", message)

    def refuse(self, code: int, details: str) -> Reply | Then:
        """End a failed call; a code or details that the handler has set take precedence."""
        if self.code is not None:
            code = status.number_of(self.code)
        return self._choose(code, details.encode() if self.details is None else self.details, None)

    def drop(self) -> Then:
        """End the handler without an answer, because its client has gone."""
        if self.stage is Stage.CHOSEN:
            return Then.NOTHING  # the status is still sent
        if self.stage is Stage.OPEN:
            self.stage = Stage.DROPPED
        return Then.RELEASE

    def new_error(self) -> grpc.RpcError:
        """Return the error that tells a handler that its client has gone.

        Only a weak reference to it is kept, because its traceback refers to the call.
        """
        error = grpc.RpcError()
        self._errors = (*self._errors, weakref.ref(error))
        return error

    def errors(self) -> list[Exception]:
        """Return the errors from new_error() that still exist."""
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

    # Events of the call

    def add_callbacks(self, callbacks: Sequence[Callable[[], None]]) -> bool:
        """Add callbacks for the end of the call.

        Return True if they are the first, so that the driver has to start watching the call.
        """
        if self._callbacks is not None:
            self._callbacks.extend(callbacks)
            return False
        self._callbacks = list(callbacks)
        return True

    def remove_callbacks(self, callbacks: Sequence[Callable[[], None]]) -> bool:
        """Remove callbacks. Return False if the end of the call has already taken them."""
        if self._callbacks is None:
            return False
        for callback in callbacks:
            self._callbacks.remove(callback)
        return True

    @property
    def watched(self) -> bool:
        """True if there are callbacks that the end of the call has not taken."""
        return self._callbacks is not None

    def sent(self) -> None:
        """Note that the chosen status has been passed to the core."""
        if self.stage is Stage.CHOSEN:
            self.stage = Stage.SENT

    def end(self) -> tuple[bool, Sequence[Callable[[], None]]]:
        """Note that the call is over. Return True if that is new, and the callbacks to run."""
        news = not self.over
        if news:
            self.stage = Stage.GONE
        callbacks, self._callbacks = self._callbacks or (), None
        return news, callbacks


def encoded(details: str | bytes) -> bytes:
    """Return a handler's details as bytes, the form in which they are kept."""
    return details if isinstance(details, bytes) else details.encode()
