"""One call as a server drives it; the contexts of every API build on it.

AnswerState (calls/answer.py) decides what to send; this module sends it, on the calling thread.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from time import monotonic_ns
from typing import Any

import grpc

from localrpc import _log
from localrpc.calls import incoming, texts
from localrpc.calls.answer import AnswerState, Reply, Stage, Then
from localrpc.drive.core import NEVER, NULL, ffi, lib
from localrpc.drive.reading import receive_whole
from localrpc.drive.serving import Serving
from localrpc.metadata import Pairs
from localrpc.transports.base import Connection, PeerCredentials
from localrpc.wire.frames import NAME_MAX

_logger = _log.logger("server")


class ServedCall:
    """A call on the server. Made for every call, so it is small; the class has the defaults.

    Methods may be called from any thread, also after the call has ended.
    """

    _answer: AnswerState | None = None
    """None while the answer is a single message and nothing else."""
    _plainly = False
    """True once that message has been sent; set by the sender."""
    _turns: Turns | None = None
    """Serializes sends if several threads may answer."""

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

    @property
    def connection(self) -> Connection | None:
        """The connection of the call; None if it has ended."""
        return self._connection

    @property
    def answer(self) -> AnswerState:
        """The state of an answer that is more than one message; created on first use."""
        answer = self._answer
        if answer is None:
            fresh = AnswerState()
            if self._plainly:
                fresh.stage = Stage.SENT
            # An atomic operation, because two threads may get here at once.
            answer = self.__dict__.setdefault("_answer", fresh)
        return answer

    def is_alive(self) -> bool:
        """Return True if an answer can be sent and the client waits for it."""
        answer = self._answer
        if self._plainly if answer is None else answer.over:
            return False
        if self._deadline != NEVER and monotonic_ns() >= self._deadline:
            return False
        return bool(lib.lr_active(self._serving.engine, self._call) == 1)

    def stop(self, number: int, text: bytes) -> None:
        """End the call in the core: its client gets that status unless it already has one."""
        lib.lr_cancel(self._serving.engine, self._call, number, text, len(text))

    def method(self) -> bytes:
        """Return the method's name; empty if the call is over."""
        room = ffi.new("char[]", NAME_MAX)
        size = lib.lr_call_method(self._serving.engine, self._call, room, NAME_MAX)
        return b"" if size < 0 else bytes(ffi.buffer(room, size))

    def receive(self) -> tuple[int, Any]:
        """Wait for more of the request stream; see receive_whole()."""
        return receive_whole(self._serving.engine, self._call, self._deadline)

    # What is known of it; these methods are grpc's, the same in all of its APIs

    @property
    def agent(self) -> str:
        """The user agent of its client."""
        return self._connection.hello.agent if self._connection else ""

    @property
    def _security(self) -> str:
        return self._connection.security if self._connection else "insecure"

    def invocation_metadata(self) -> Pairs:
        """Return the metadata that the client sent, and its user agent."""
        return incoming.metadata_of(self.agent, self._head)

    def peer(self) -> str:
        """Return where the call comes from, in gRPC's spelling."""
        return self._connection.peer_name if self._connection else "unix:"

    def peer_identities(self) -> Sequence[bytes] | None:
        """Return [b"local"] if the port is secure; None if it is not."""
        return incoming.identities(self._security)

    def peer_identity_key(self) -> str | None:
        """Return the key of peer_identities() in auth_context(); None for an insecure port."""
        return incoming.identity_key(self._security)

    def auth_context(self) -> Mapping[str, Any]:
        """Return the kind and the level of security of the port, each in a list."""
        return incoming.auth_context(self._security)

    def set_compression(self, compression: grpc.Compression) -> None:
        """Accept and ignore the setting: local links do not compress."""

    def disable_next_message_compression(self) -> None:
        """Do nothing: local links do not compress."""

    # Answering

    def send_headers(self, block: bytes) -> None:
        """Send the encoded initial metadata."""
        lib.lr_headers(self._serving.engine, self._call, block, len(block))

    def send(self, message: bytes, *, post: bool = False) -> bool:
        """Send a message, waiting for room. Return False if the call has ended.

        With `post` the message may also be queued and sent later.
        """
        engine, call, deadline = self._serving.engine, self._call, self._deadline
        flags = lib.LR_F_POST if post else 0
        result = lib.LR_AGAIN
        while result == lib.LR_AGAIN:
            result = lib.lr_send(engine, call, message, len(message), flags, deadline)
        return bool(result == 0 or (post and result == lib.LR_TIMEOUT))

    def send_each(
        self,
        responses: Iterator[Any],
        serialize: Callable[[Any], bytes | None] | None,
        careful: Callable[[Any], bytes | None],
    ) -> None:
        """Send each of `responses`, then the status. A response of None ends the stream.

        `careful` serializes where `serialize` is None or fails; if it returns None, it has ended
        the call. Exceptions from `responses` propagate.
        """
        engine, call, deadline = self._serving.engine, self._call, self._deadline
        send = lib.lr_send
        answer = self.answer
        while True:
            try:
                response = next(responses)
            except StopIteration:
                break
            if response is None:  # the end of the stream, as in grpcio
                break
            try:
                message = None if serialize is None else serialize(response)
            except Exception:
                message = None
            if message is None:
                message = careful(response)
                if message is None:
                    return
            result = send(engine, call, message, len(message), 0, deadline)
            if result:
                while result == lib.LR_AGAIN:
                    result = send(engine, call, message, len(message), 0, deadline)
                if result < 0:
                    self.let_go()
                    return
            answer.initial_allowed = False
        self.finish(None)

    def finish(self, message: bytes | None) -> None:
        """End the handler normally: send its status, and its message if it has one."""
        self.do(self.answer.finish(message))

    def refuse(self, code: int, details: str) -> None:
        """End a failed call; a code or details that the handler has set take precedence."""
        self.do(self.answer.refuse(code, details))

    def let_go(self) -> None:
        """End the handler without an answer, because its client has gone."""
        self.do(self.answer.drop())

    def do(self, then: Reply | Then) -> None:
        """Do what the answer's state has returned."""
        if type(then) is Reply:
            if self._turns is None:
                self._send_status(then)
                self._after_status()
            else:
                self._turns.last(partial(self._send_status, then), self._after_status)
        elif then is Then.RELEASE:
            self._release()
            if self.answer.watched:
                self._unwatch()

    def _send_status(self, reply: Reply) -> None:
        self.answer.sent()
        message = reply.message
        lib.lr_finish(
            self._serving.engine,
            self._call,
            reply.trailer,
            len(reply.trailer),
            NULL if message is None else message,
            0 if message is None else len(message),
            reply.code,
        )

    def _after_status(self) -> None:
        if not self.answer.watched:
            return
        if self._turns is not None:
            # This thread may hold a lock that the callbacks wait for.
            self._serving.callbacks.post(self._unwatch)
        else:
            self._unwatch()

    def answer_later(self) -> None:
        """Keep the call open after its handler has returned: other threads answer it."""
        if self.answer.chosen:
            return
        lib.lr_leave_open(self._serving.engine, self._call)
        # The thread that has sent the status meanwhile has released the call with it.
        if not self.watch() and not self.answer.chosen:
            self._release()

    def _release(self) -> None:
        lib.lr_release(self._serving.engine, self._call)

    # The end

    def watch(self, *callbacks: Callable[[], None]) -> bool:
        """Run the callbacks when the call is over. Return False, without them, if it is already."""
        serving, answer = self._serving, self.answer
        with serving.callback_lock:
            if answer.over:
                return False
            late = not answer.watched and not self.is_alive()
            if not late and not answer.add_callbacks(callbacks):
                return True
        # As in grpcio, a callback that is added too late is not called.
        if late:
            self.end()
            return False
        if serving.watch(self._call, self._deadline, self.end):
            return True
        # It has ended meanwhile; other callbacks may have been added.
        with serving.callback_lock:
            if not answer.remove_callbacks(callbacks):
                return True
        self.end()
        return False

    def end(self) -> None:
        """Note that the call is over: nothing more is sent, and the callbacks run, once."""
        answer = self.answer
        with self._serving.callback_lock:
            news, callbacks = answer.end()
        if news:
            # If the deadline ended it, a stopped client has not been told yet.
            self.stop(*texts.LATE)
            if self._turns is not None:
                self._release()  # its handler may have returned
        for callback in callbacks:
            try:
                callback()
            except KeyboardInterrupt:  # from the main thread inside stop()
                raise
            except BaseException:  # SystemExit, too: this thread has more callbacks to run
                _logger.exception("Exception calling callback!")

    def _unwatch(self) -> None:
        self._serving.unwatch(self._call)
        self.end()


def credentials_of(context: Any) -> PeerCredentials:
    """See localrpc.peer_credentials; for grpcio's own contexts nothing is known."""
    if not isinstance(context, (grpc.ServicerContext, grpc.aio.ServicerContext)):
        raise TypeError(f"not the context of a call: {context!r}")
    connection = getattr(context, "_connection", None)
    if not isinstance(connection, Connection):
        return PeerCredentials(0, -1, -1)
    return connection.peer


class Turns:
    """Lets one thread send at a time, and sends the status after a message in transit."""

    def __init__(self) -> None:
        self._changed = threading.Condition(threading.Lock())
        self._taken = False
        self._last: tuple[Callable[[], None], Callable[[], None]] | None = None

    def __enter__(self) -> None:
        with self._changed:
            while self._taken:
                self._changed.wait()
            self._taken = True

    def __exit__(self, *exc_info: object) -> None:
        with self._changed:
            last, self._last = self._last, None
            if last is None:
                self._give_back()
        if last is not None:
            self._finish(*last)

    def last(self, send: Callable[[], None], then: Callable[[], None]) -> None:
        """Run both now, or let the thread that is sending run them after its message."""
        with self._changed:
            if self._taken:
                self._last = send, then
                return
            self._taken = True
        self._finish(send, then)

    def _finish(self, send: Callable[[], None], then: Callable[[], None]) -> None:
        try:
            send()
        finally:
            with self._changed:
                self._give_back()
        then()

    def _give_back(self) -> None:
        self._taken = False
        self._changed.notify()
