"""grpc.ServicerContext: one call as its handler sees it."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from time import monotonic_ns, time
from typing import Any, NoReturn

import grpc

from localrpc import _log, status
from localrpc.drive.core import NEVER, NULL, lib
from localrpc.drive.serving import Serving
from localrpc.errors import InvalidMetadata
from localrpc.metadata import Metadatum, Pairs
from localrpc.sync import private
from localrpc.sync.nonblocking import Turns
from localrpc.sync.outcome import refusal
from localrpc.transports.base import Connection, PeerCredentials
from localrpc.wire import codec

_logger = _log.logger("server")

_INFINITE = 9223372036854775807.0
"""What grpcio's clock makes of a call without a deadline."""

_LEVELS = {"insecure": b"TSI_SECURITY_NONE", "local": b"TSI_PRIVACY_AND_INTEGRITY"}
_SECURITY_TYPE = "transport_security_type"


class ServicerContext(grpc.ServicerContext):
    """Made for every call, so it holds little until it is asked; the defaults are the class's.

    Methods may be called from any thread, also after the call has ended.
    """

    _code: grpc.StatusCode | None = None
    _details: bytes | None = None
    _trailing: Iterable[Any] | None = None
    _touched = False
    """Whether the plain reply (OK, a message, nothing else) does not do."""
    _initial_allowed = True
    _aborted = False
    _over = False
    """The status has gone out, or cannot any more."""
    _gone = False
    """It has not gone out: the client has cancelled or died, or the deadline has passed."""
    _statused = False
    """Whether it has gone out."""
    _requests_ended = False
    """Whether the handler has read to the end of a request stream."""
    _callbacks: list[Callable[[], None]] | None = None
    _errors: tuple[weakref.ref[Exception], ...] = ()
    """Those of fail(): not the errors themselves, whose tracebacks hold this context."""
    _turns: Turns | None = None
    """Who may send now, where several threads may answer."""

    def __init__(
        self,
        serving: Serving,
        call: int,
        connection: Connection | None,
        head: bytes,
        deadline: int,
    ) -> None:
        self._serving = serving
        self._call = call
        self._connection = connection
        self._head = head
        self._deadline = deadline

    # grpc.RpcContext

    def is_active(self) -> bool:
        return not self._statused and self._alive()

    def _alive(self) -> bool:
        if self._over:
            return False
        if self._deadline != NEVER and monotonic_ns() >= self._deadline:
            return False
        return bool(lib.lr_active(self._serving.engine, self._call) == 1)

    def time_remaining(self) -> float:
        if self._deadline == NEVER:
            return _INFINITE - time()
        return max((self._deadline - monotonic_ns()) / 1e9, 0)

    def cancel(self) -> Any:
        text = b"CANCELLED"
        lib.lr_cancel(self._serving.engine, self._call, status.CANCELLED, text, len(text))

    def add_callback(self, callback: Callable[[], None]) -> bool:
        return self._watch(callback)

    def _watch(self, *callbacks: Callable[[], None]) -> bool:
        """Have _end() run once the call is over, and these callbacks; False if it is."""
        serving = self._serving
        with serving.callback_lock:
            if self._over:
                return False
            if self._callbacks is not None:
                self._callbacks.extend(callbacks)
                return True
            late = not self._alive()
            if not late:
                self._callbacks = list(callbacks)
                self._touched = True
        # As in grpcio, who comes too late is not called.
        if late:
            self._end()
            return False
        if serving.watch(self._call, self._deadline, self._end):
            return True
        # It has ended meanwhile, and others may have come.
        with serving.callback_lock:
            if self._callbacks is None:
                return True
            for callback in callbacks:
                self._callbacks.remove(callback)
        self._end()
        return False

    def _end(self) -> None:
        """The call is over: nothing more goes out, and the callbacks run, once."""
        with self._serving.callback_lock:
            self._gone = not self._over
            self._over = True
            callbacks, self._callbacks = self._callbacks or (), None
        if self._gone:
            # If it was the deadline, a stopped client has yet to find out.
            text = b"Deadline Exceeded"
            engine = self._serving.engine
            lib.lr_cancel(engine, self._call, status.DEADLINE_EXCEEDED, text, len(text))
            if self._turns is not None:
                self._release()  # its handler may have returned
        for callback in callbacks:
            try:
                callback()
            except KeyboardInterrupt:  # the main thread's, inside of stop()
                raise
            except BaseException:  # SystemExit, too: this thread has more to do
                _logger.exception("Exception calling callback!")

    # grpc.ServicerContext

    def invocation_metadata(self) -> Pairs:
        connection = self._connection
        agent = connection.hello.agent if connection else ""
        return (Metadatum("user-agent", agent), *codec.decode_metadata(self._head))

    def peer(self) -> str:
        return self._connection.peer_name if self._connection else "unix:"

    def peer_identities(self) -> Sequence[bytes] | None:
        return [b"local"] if self._security == "local" else None

    def peer_identity_key(self) -> str | None:
        return _SECURITY_TYPE if self._security == "local" else None

    def auth_context(self) -> Mapping[str, Any]:
        security = self._security
        return {_SECURITY_TYPE: [security.encode()], "security_level": [_LEVELS[security]]}

    @property
    def _security(self) -> str:
        return self._connection.security if self._connection else "insecure"

    def set_compression(self, compression: grpc.Compression) -> None:
        """Accepted; on a local link there is nothing to win."""

    def disable_next_message_compression(self) -> None:
        """Nothing is compressed."""

    def send_initial_metadata(self, initial_metadata: Sequence[Any] | None) -> None:
        if not (self._statused or self._alive()):
            self.fail()
        if not self._initial_allowed:
            raise ValueError("Initial metadata no longer allowed!")
        if initial_metadata is not None:
            len(initial_metadata)  # grpcio's TypeError for what has none, a generator too
        try:
            block = codec.encode_metadata(initial_metadata)
        except InvalidMetadata as error:
            self._trailing = None
            code, details = refusal(error)
            self._conclude(status.number_of(code), details.encode(), None)
            return
        self._initial_allowed = False
        if self._statused:
            return
        lib.lr_headers(self._serving.engine, self._call, block, len(block))

    def set_trailing_metadata(self, trailing_metadata: Iterable[Any]) -> None:
        self._trailing = trailing_metadata
        self._touched = True

    def trailing_metadata(self) -> Any:
        return self._trailing

    def abort(self, code: grpc.StatusCode, details: str) -> NoReturn:
        if code == grpc.StatusCode.OK:
            _logger.error("abort() called with StatusCode.OK; returning UNKNOWN")
            code = grpc.StatusCode.UNKNOWN
            details = ""
        self._code = code
        self._details = _encode(details)
        self._aborted = self._touched = True
        raise Exception()

    def abort_with_status(self, status: grpc.Status) -> NoReturn:
        self._trailing = status.trailing_metadata
        self.abort(status.code, status.details)

    def set_code(self, code: grpc.StatusCode) -> None:
        self._code = code
        self._touched = True

    def code(self) -> grpc.StatusCode | None:
        return self._code

    def set_details(self, details: str) -> None:
        self._details = _encode(details)
        self._touched = True

    def details(self) -> bytes | None:
        """Bytes, as grpcio's."""
        return self._details

    # For interceptors that look inside grpcio's contexts

    @property
    def _state(self) -> private.ServicerState:
        return private.ServicerState(self)

    @property
    def _rpc_event(self) -> private.RpcEvent:
        method = private.method_of(self._serving.engine, self._call)
        details = private.CallDetails(method, b"localhost", time() + self.time_remaining())
        return private.RpcEvent(details, self.invocation_metadata())

    # For this package

    def fail(self) -> NoReturn:
        """Raise the error that means to a handler: your client has gone."""
        error = grpc.RpcError()
        self._errors = (*self._errors, weakref.ref(error))
        try:
            raise error
        finally:
            del error  # or it would hold itself, by way of this frame

    def finish(self, message: bytes | None) -> None:
        """The handler is done: send the status it chose, with its message if it has one."""
        code = 0 if self._code is None else status.number_of(self._code)
        # As in grpcio, OK has no details, whatever the handler has set.
        self._conclude(code, self._details or b"" if code else b"", message)

    def refuse(self, code: int, details: str) -> None:
        """The call failed; a code or details that the handler has set take precedence."""
        if self._code is not None:
            code = status.number_of(self._code)
        self._conclude(code, details.encode() if self._details is None else self._details, None)

    def _conclude(self, code: int, details: bytes, message: bytes | None) -> None:
        if self._statused:
            return
        if self._over:
            self.let_go()
            return
        try:
            trailer = codec.encode_trailer(code, details.decode("utf-8", "replace"), self._trailing)
        except InvalidMetadata as error:
            _logger.error("trailing metadata: %s", error)
            refused, text = refusal(error)
            trailer = codec.encode_trailer(status.number_of(refused), text)
            message = None
        except (TypeError, ValueError):
            _logger.exception("Invalid trailing metadata")
            trailer = codec.encode_trailer(status.INTERNAL, "Invalid metadata")
            message = None
        if code:
            message = None
        self._statused = True
        if self._turns is None:
            self._send_status(trailer, message, code)
        else:
            self._turns.last(partial(self._send_status, trailer, message, code), self._after_status)
            return
        self._after_status()

    def _send_status(self, trailer: bytes, message: bytes | None, code: int) -> None:
        self._over = True
        lib.lr_finish(
            self._serving.engine,
            self._call,
            trailer,
            len(trailer),
            NULL if message is None else message,
            0 if message is None else len(message),
            code,
        )

    def _after_status(self) -> None:
        if self._callbacks and self._turns is not None:
            # This thread is any, and may hold what the callbacks wait for.
            self._serving.callbacks.post(self._unwatch)
        elif self._callbacks is not None:
            self._unwatch()

    def leave_open(self) -> None:
        """The handler has returned, and answers later; the call is kept until its end."""
        if self._statused:
            return
        lib.lr_leave_open(self._serving.engine, self._call)
        # Who sends the status meanwhile releases the call with it.
        if not self._watch() and not self._statused:
            self._release()

    def _release(self) -> None:
        lib.lr_release(self._serving.engine, self._call)

    def let_go(self) -> None:
        """Nothing more comes from the handler."""
        self._over = True
        self._release()
        if self._callbacks is not None:
            self._unwatch()

    def _unwatch(self) -> None:
        self._serving.unwatch(self._call)
        self._end()


def _encode(details: str | bytes) -> bytes:
    return details if isinstance(details, bytes) else details.encode()


def credentials_of(context: Any) -> PeerCredentials:
    """For localrpc.peer_credentials; grpcio knows no more of its peers than what they say."""
    if not isinstance(context, grpc.ServicerContext):
        raise TypeError(f"not the context of a call: {context!r}")
    connection = getattr(context, "_connection", None)
    if not isinstance(connection, Connection):
        return PeerCredentials(0, -1, -1)
    return connection.peer
