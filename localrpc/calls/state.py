"""The state of a call on the client: what has arrived so far, and how the call ended.

No function here waits, takes a lock or touches the core, so blocking and other drivers can
share it. A driver calls these methods one at a time, and does what each returns. Events after the
end of the call change nothing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from enum import Enum, auto
from typing import Any

import grpc

from localrpc import status
from localrpc.calls.texts import (
    BAD_RESPONSE,
    TOO_MANY,
    debug_text,
    too_much_metadata,
    trailer_pairs,
)
from localrpc.errors import RemoteProtocolError
from localrpc.metadata import Pairs, SizeLimits
from localrpc.wire import codec


class Then(Enum):
    """What a driver has to do after an event."""

    GO_ON = auto()
    RELEASE = auto()
    """The call has just ended, and the peer knows it."""
    CANCEL = auto()
    """The call has just ended here; tell the peer `code` and `details`."""


_NO_MESSAGES: deque[bytes] = deque()
"""Of a call with one response: nothing is ever added to it."""


class CallState:
    """Holds the state of a call. `code` is None until it has ended.

    `code` is set last, so it can be read without a lock. A unary call has its deserialized answer
    in `response`; a stream has the messages that have arrived in `messages`, until the driver
    takes them out.

    An error removes messages that were not taken, as in grpcio's synchronous API; with
    `keeps_messages` only an end on this side does.
    """

    keeps_messages = False

    response: Any = None
    initial_metadata: Pairs | None = None
    trailing_metadata: Pairs | None = None
    details: str | None = None
    debug_error_string: str | None = None
    cancelled = False
    code: grpc.StatusCode | None = None
    _answered = False

    def __init__(self, limits: SizeLimits, *, streams: bool) -> None:
        self._limits = limits
        self.messages: deque[bytes] = deque() if streams else _NO_MESSAGES

    @classmethod
    def over(cls, response: Any, initial: Pairs, trailing: Pairs) -> CallState:
        """Return the state of a call that has ended with OK."""
        state = cls.__new__(cls)
        state.messages = _NO_MESSAGES
        state.response = response
        state.initial_metadata = initial
        state.trailing_metadata = trailing
        state.details = state.debug_error_string = ""
        state.code = grpc.StatusCode.OK
        return state

    def take_messages(self, messages: Sequence[bytes]) -> Then:
        """Add messages of a stream."""
        if self.code is None:
            self.messages.extend(messages)
        return Then.GO_ON

    def take_response(self, response: Any, count: int, bad: bool) -> Then:
        """Take the answer of a unary call: `response` is the first of `count` messages.

        `bad` if it could not be deserialized.
        """
        if self.code is not None:
            return Then.GO_ON
        if self._answered or count > 1:
            return self.end(*TOO_MANY)
        if bad:
            return self.end(*BAD_RESPONSE)
        self.response = response
        self._answered = True
        return Then.GO_ON

    def take_headers(self, block: bytes) -> Then:
        """Take the encoded initial metadata."""
        if self.code is not None:
            return Then.GO_ON
        try:
            pairs = codec.decode_metadata(block)
        except RemoteProtocolError as error:
            return self.end(grpc.StatusCode.INTERNAL, str(error))
        refusal = too_much_metadata(self._limits, block, pairs)
        if refusal:
            return self.end(*refusal, debug=debug_text(*refusal))
        self.initial_metadata = pairs
        return Then.GO_ON

    def take_ok(self) -> Then:
        """Take the status OK without trailing metadata."""
        if self.code is not None:
            return Then.GO_ON
        if self.initial_metadata is None:
            self.initial_metadata = ()
        self.trailing_metadata = ()
        self.details = self.debug_error_string = ""
        self.code = grpc.StatusCode.OK
        return Then.RELEASE

    def take_answer(self, response: Any) -> Then:
        """Take a response, and the status OK without trailing metadata."""
        if self.code is not None:
            return Then.GO_ON
        if self._answered:
            return self.end(*TOO_MANY)
        self.response = response
        self._answered = True
        if self.initial_metadata is None:
            self.initial_metadata = ()
        self.trailing_metadata = ()
        self.details = self.debug_error_string = ""
        self.code = grpc.StatusCode.OK
        return Then.RELEASE

    def take_status(self, block: bytes) -> Then:
        """Take the encoded status and trailing metadata."""
        if self.code is not None:
            return Then.GO_ON
        try:
            number, details, pairs = codec.decode_trailer(block)
        except RemoteProtocolError as error:
            return self._finish(grpc.StatusCode.INTERNAL, str(error), (), None)
        refusal = too_much_metadata(self._limits, block, trailer_pairs(number, details, pairs))
        if refusal:
            return self._finish(*refusal, (), debug_text(*refusal))
        code = status.code_of(number)
        return self._finish(code, details, pairs, debug_text(code, details))

    def take_reset(self, code: grpc.StatusCode, details: str) -> Then:
        """End the call as its peer has ended it."""
        return self._finish(code, details, (), debug_text(code, details))

    def end(
        self,
        code: grpc.StatusCode,
        details: str,
        *,
        debug: str | None = None,
        cancelled: bool = False,
    ) -> Then:
        """End the call for a reason on this side; `cancelled` if the user cancelled it."""
        if self.code is not None:
            return Then.GO_ON
        self.cancelled = cancelled
        self.messages.clear()
        self._finish(code, details, (), debug)
        return Then.CANCEL

    def _finish(
        self, code: grpc.StatusCode, details: str, metadata: Pairs, debug: str | None
    ) -> Then:
        """End the call; the peer knows it."""
        if self.code is not None:
            return Then.GO_ON
        if self.initial_metadata is None:
            self.initial_metadata = ()
        self.trailing_metadata = metadata
        self.details = details
        self.debug_error_string = debug
        if code is not grpc.StatusCode.OK and not self.keeps_messages:
            self.messages.clear()
        self.code = code
        return Then.RELEASE
