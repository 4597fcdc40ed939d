"""The unary method: serialize, one call into the core, parse.

`__call__` handles the plain case, and leaves everything else to `_invoke`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from time import monotonic_ns
from typing import TYPE_CHECKING, Any, Union

from localrpc import _grpc
from localrpc._later import Later
from localrpc.calls import messages
from localrpc.calls.connectivity import NotReady
from localrpc.calls.request import with_name
from localrpc.drive.connector import ChannelClosed, Connector
from localrpc.drive.core import LONGEST, NULL, Io, borrow, deadline_of, idle_ios, lib
from localrpc.drive.naming import UNNUMBERED
from localrpc.drive.opening import SessionAttempts
from localrpc.drive.session import Session
from localrpc.errors import InvalidMetadata, RemoteProtocolError
from localrpc.metadata import Pairs
from localrpc.sync.method import Method, checked
from localrpc.wire import codec

# What a call that blocks and succeeds does without.
if TYPE_CHECKING:
    import grpc

    from localrpc import status
    from localrpc.calls import texts
    from localrpc.drive import call as driven
    from localrpc.sync import call as rendezvous
    from localrpc.sync import outcome

    _Base = grpc.UnaryUnaryMultiCallable[Any, Any]
else:
    grpc = Later("grpc")
    status = Later("localrpc.status")
    driven = Later("localrpc.drive.call")
    texts = Later("localrpc.calls.texts")
    rendezvous = Later("localrpc.sync.call")
    outcome = Later("localrpc.sync.outcome")
    _Base = _grpc.base("UnaryUnaryMultiCallable")

_Serializer = Callable[[Any], bytes] | None
_Deserializer = Callable[[bytes], Any] | None
_Metadata = Any

# Initial and trailing metadata of a call that ended with OK, or the call.
_Said = Union[tuple[Pairs, Pairs], "driven.ClientCall"]
_NOTHING: tuple[Pairs, Pairs] = ((), ())

_lr_unary = lib.lr_unary
_AGAIN = lib.LR_AGAIN
_FULL = lib.LR_FULL


def _as_it_is(message: Any) -> Any:
    return message


class UnaryUnary(Method, _Base):
    """`_session` is the session of the last call. Each call reads it once, because another
    thread's call may replace it at any moment."""

    def __init__(
        self,
        connector: Connector,
        method: str,
        serializer: _Serializer,
        deserializer: _Deserializer,
    ) -> None:
        super().__init__(connector, method, serializer, deserializer)
        self._session: Session | None = None
        self._number = connector.number(method)
        self._serialize = serializer or _as_it_is
        self._deserialize = deserializer or _as_it_is
        self._limit = self._max_send if self._max_send >= 0 else sys.maxsize

    def __call__(
        self,
        request: Any,
        timeout: float | None = None,
        metadata: _Metadata = None,
        credentials: Any = None,
        wait_for_ready: bool | None = None,
        compression: Any = None,
    ) -> Any:
        session = self._session
        if (
            session is not None
            and metadata is None
            and (timeout is None or 0 < timeout < LONGEST)
            and credentials is None
        ):
            try:
                message = self._serialize(request)
            except Exception:
                raise outcome.raised(messages.unserializable()) from None
            if type(message) is not bytes or len(message) > self._limit:
                message = checked(message, self._max_send)
            deadline = 0 if timeout is None else monotonic_ns() + int(timeout * 1e9)
            if session.load is not None:
                return self._call_a_worker(session, message, deadline, wait_for_ready)
            try:
                io = idle_ios.pop()
            except IndexError:
                io = Io()
            length = _lr_unary(
                session.engine, io.raw, self._number, NULL, 0, message, len(message), deadline
            )
            if length >= 0:
                answer = io.buf[:length]
                idle_ios.append(io)
                try:
                    response = self._deserialize(answer)
                except Exception:
                    raise outcome.raised(messages.unreadable()) from None
                if response is None:
                    raise outcome.inactive(*texts.BAD_RESPONSE)
                return response
            return self._settle(session, io, length, message, deadline, wait_for_ready)
        return self._invoke(request, timeout, metadata, credentials, wait_for_ready)[0]

    def with_call(
        self,
        request: Any,
        timeout: float | None = None,
        metadata: _Metadata = None,
        credentials: Any = None,
        wait_for_ready: bool | None = None,
        compression: Any = None,
    ) -> tuple[Any, grpc.Call]:
        response, said = self._invoke(request, timeout, metadata, credentials, wait_for_ready)
        if not isinstance(said, driven.ClientCall):
            said = driven.ClientCall.over(self._name, response, *said)
        return response, rendezvous._MultiThreadedRendezvous(said)

    def future(
        self,
        request: Any,
        timeout: float | None = None,
        metadata: _Metadata = None,
        credentials: Any = None,
        wait_for_ready: bool | None = None,
        compression: Any = None,
    ) -> Any:
        message = self._message(request)
        return rendezvous._MultiThreadedRendezvous(
            self._begin(timeout, metadata, credentials, wait_for_ready, message, streams=False)
        )

    def _call_a_worker(
        self, session: Session, message: bytes, deadline: int, wait_for_ready: bool | None
    ) -> Any:
        """Make a plain call where there are several sessions: on that of the last one, unless it is
        busy."""
        busy = session.load
        calls = busy.calls
        if calls or busy.shown[0]:
            session = self._connector.session_now() or session
            self._bind(session)
            busy = session.load
            calls = busy.calls
        else:
            busy = None
        try:
            io = idle_ios.pop()
        except IndexError:
            io = Io()
        try:
            calls.append(None)  # inside, or an interrupt after it would leave it there
            length = _lr_unary(
                session.engine, io.raw, self._number, NULL, 0, message, len(message), deadline
            )
            if length < 0:
                return self._settle(session, io, length, message, deadline, wait_for_ready)
        finally:
            calls.pop()
            if busy is not None:
                busy.completed(monotonic_ns())
        answer = io.buf[:length]
        idle_ios.append(io)
        try:
            response = self._deserialize(answer)
        except Exception:
            raise outcome.raised(messages.unreadable()) from None
        if response is None:
            raise outcome.inactive(*texts.BAD_RESPONSE)
        return response

    def _invoke(
        self,
        request: Any,
        timeout: float | None,
        metadata: _Metadata,
        credentials: Any,
        wait_for_ready: bool | None,
    ) -> tuple[Any, _Said]:
        """Make the call; return the response, and its metadata or its call."""
        if self._unsendable:
            raise outcome.inactive(*self._unsendable, texts.debug_text(*self._unsendable))
        try:
            message = self._serialize(request)
        except Exception:
            raise outcome.raised(messages.unserializable()) from None
        if type(message) is not bytes or len(message) > self._limit:
            message = checked(message, self._max_send)
        if self._connector.closed:
            raise ValueError("Cannot invoke RPC on closed channel!")
        deadline = deadline_of(timeout)
        try:
            head = b""
            if metadata is not None or credentials is not None:
                head = self._head(metadata, credentials)
        except InvalidMetadata as error:
            raise outcome.inactive(*texts.refusal(error), "") from None
        if timeout is not None and not timeout > 0:
            raise outcome.inactive(*texts.DEADLINE_EXCEEDED, texts.DEADLINE_DEBUG)
        session = self._connector.session_now()
        if session is None or self._number == UNNUMBERED:
            attempts = SessionAttempts(self._connector, wait_for_ready=bool(wait_for_ready))
            return self._attempt(attempts, message, head, deadline)
        self._bind(session)
        io = borrow()
        calls = [] if session.load is None else session.load.calls
        try:
            calls.append(None)
            length = _lr_unary(
                session.engine, io.raw, self._number,
                head or NULL, len(head), message, len(message), deadline,
            )  # fmt: skip
            if length == _AGAIN:
                length = self._finish_unary(session, io, length, head, message, deadline)
        finally:
            calls.pop()
        if length < 0 and length != _FULL:
            attempts = SessionAttempts(self._connector, wait_for_ready=bool(wait_for_ready))
            attempts.begin()
            if attempts.unseen(session, length):
                idle_ios.append(io)
                return self._attempt(attempts, message, head, deadline)
        return self._outcome(session, io, length, deadline)

    def _attempt(
        self, attempts: SessionAttempts, message: bytes, head: bytes, deadline: int
    ) -> tuple[Any, _Said]:
        if self._number == UNNUMBERED:
            head = with_name(self._name, head)
        io = borrow()
        length = lib.LR_UNSENT
        session = None
        while True:
            try:
                following = attempts.session(deadline)
            except NotReady as reason:
                debug = texts.debug_text(*reason.ending)
                raise outcome.inactive(*reason.ending, debug) from None
            except ChannelClosed:  # closed after the call had begun
                debug = texts.debug_text(*texts.CHANNEL_CLOSED)
                raise outcome.inactive(*texts.CHANNEL_CLOSED, debug) from None
            if following is None:
                break
            session = following
            self._bind(session)
            calls = [] if session.load is None else session.load.calls
            try:
                calls.append(None)
                length = _lr_unary(
                    session.engine, io.raw, self._number,
                    head or NULL, len(head), message, len(message), deadline,
                )  # fmt: skip
                length = self._finish_unary(session, io, length, head, message, deadline)
            finally:
                calls.pop()
            if not attempts.unseen(session, length):
                break
        assert session is not None
        return self._outcome(session, io, length, deadline)

    def _bind(self, session: Session) -> None:
        # Without a number each call goes through _invoke.
        if self._session is not session and self._number != UNNUMBERED:
            session.declare(self._number, self._name.encode())
            self._session = session

    def _settle(
        self,
        session: Session,
        io: Io,
        length: int,
        message: bytes,
        deadline: int,
        wait_for_ready: bool | None,
    ) -> Any:
        """Complete a call whose first try on the hot path brought no answer."""
        length = self._finish_unary(session, io, length, b"", message, deadline)
        attempts = SessionAttempts(self._connector, wait_for_ready=bool(wait_for_ready))
        if attempts.unseen(session, length):
            idle_ios.append(io)
            if self._connector.closed:
                raise ValueError("Cannot invoke RPC on closed channel!")
            return self._attempt(attempts, message, b"", deadline)[0]
        return self._outcome(session, io, length, deadline)[0]

    def _finish_unary(
        self, session: Session, io: Io, length: int, head: bytes, message: bytes, deadline: int
    ) -> int:
        """Go on waiting while the core only lets Python handle signals."""
        engine, raw = session.engine, io.raw
        try:
            while length == _AGAIN:
                if raw.call:
                    length = lib.lr_unary_wait(engine, raw, message, len(message), deadline)
                else:  # It waited for room, and nothing has been sent: begin again.
                    length = _lr_unary(
                        engine, raw, self._number,
                        head or NULL, len(head), message, len(message), deadline,
                    )  # fmt: skip
        except BaseException:
            lib.lr_cancel(session.engine, io.raw.call, 1, NULL, 0)
            lib.lr_release(session.engine, io.raw.call)
            raise
        return length

    def _outcome(self, session: Session, io: Io, length: int, deadline: int) -> tuple[Any, _Said]:
        if length >= 0:
            answer = io.buf[:length]
            idle_ios.append(io)
            return self._response(answer), _NOTHING
        if length == _FULL:
            return self._whole(io)
        handle = io.raw.call
        idle_ios.append(io)
        call = driven.ClientCall(
            self._connector, self._name, self._deserializer, deadline=deadline, streams=False
        )
        if length == lib.LR_SLOW:
            call.adopt(session, handle)
            try:
                call.wait(call.ended)
            except BaseException:
                call.end(*texts.LOCALLY_CANCELLED, cancelled=True)
                raise
        else:
            code, details = self._connector.failure(length, 0, session, deadline)
            call.end(code, details, debug=texts.debug_text(code, details))
        return rendezvous.finished(call.state), call

    def _whole(self, io: Io) -> tuple[Any, _Said]:
        """Return the answer in `io` with all its metadata; raise it if it is an error."""
        raw, buf = io.raw, io.buf
        size, middle = raw.size, raw.size + raw.head
        message = buf[:size] if raw.flags & lib.LR_F_MESSAGE else None
        trailer, headers = buf[size:middle], buf[middle : middle + raw.count]
        idle_ios.append(io)
        try:
            initial = codec.decode_metadata(headers)
            code, details, trailing = codec.decode_trailer(trailer)
        except RemoteProtocolError as error:
            raise outcome.inactive(grpc.StatusCode.INTERNAL, str(error)) from None
        refused = self._too_much(headers, initial, trailer, (code, details, trailing))
        if refused:
            raise outcome.inactive(*refused, texts.debug_text(*refused))
        if code:
            status_code = status.code_of(code)
            debug = texts.debug_text(status_code, details)
            raise outcome._InactiveRpcError(status_code, details, initial, trailing, debug)
        return None if message is None else self._response(message), (initial, trailing)

    def _too_much(
        self, headers: bytes, initial: Pairs, trailer: bytes, end: tuple[int, str, Pairs]
    ) -> tuple[grpc.StatusCode, str] | None:
        limits = self._connector.metadata_limits
        if headers and len(headers) > limits.light:
            refused = texts.too_much_metadata(limits, headers, initial)
            if refused:
                return refused
        if trailer and len(trailer) > limits.light:
            return texts.too_much_metadata(limits, trailer, texts.trailer_pairs(*end))
        return None

    def _response(self, message: bytes) -> Any:
        response, fault = messages.deserialize(message, self._deserializer)
        if fault:
            raise outcome.inactive(*texts.BAD_RESPONSE)
        return response
