"""Brings an incoming call to its handler and the answer back, on a worker thread.

`Handling.acceptor` makes the hot path: a unary call of a known method, answered with a message
and nothing else. All other calls take `serve`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from contextvars import Context
from functools import partial
from typing import Any

import grpc

from localrpc import _log
from localrpc.calls import texts
from localrpc.calls.handlers import CallDetails, HandlerTable
from localrpc.drive.arrivals import CALL, Arrivals
from localrpc.drive.core import WorkerIo, lib
from localrpc.drive.executors import submit
from localrpc.drive.methods import Entry, Methods, pool_of
from localrpc.drive.serving import Serving
from localrpc.sync import behaviour
from localrpc.sync.context import ServicerContext

_logger = _log.logger("server")

_PLAIN = lib.LR_F_MESSAGE | lib.LR_F_END
_KNOWN = _PLAIN | lib.LR_F_BIG | lib.LR_F_REFUSED | lib.LR_F_TOO_LARGE


class Handling:
    """Finds and runs the handlers of one server."""

    def __init__(
        self,
        table: HandlerTable,
        interceptors: Sequence[grpc.ServerInterceptor],
        max_send: int,
    ) -> None:
        self._table = table
        self._methods = Methods(table, intercepted=bool(interceptors))
        self._interceptors = tuple(interceptors)
        self._max_send = max_send
        self._arrivals = Arrivals(self._methods, ServicerContext)

    def acceptor(self, serving: Serving) -> Callable[[WorkerIo], int]:
        """Return a function that serves the call in an Io and returns the next event's kind."""
        engine = serving.engine
        entries = self._methods.entries
        connections = serving.connections
        unpack = CALL.unpack_from
        reply_next, lr_next = lib.lr_reply_next, lib.lr_next
        alone = lib.LR_F_ALONE
        limited = self._max_send >= 0
        light = serving.metadata_limits.light

        def accept(io: WorkerIo) -> int:
            raw, buf = io.raw, io.buf
            call, size, _, _, flags, method, head, conn, deadline = unpack(io.view)
            if flags & alone:
                serving.spare()
            if method >= 0 and flags & _KNOWN == _PLAIN:
                entry = entries[method]
                if entry.plain and not limited and head <= light:
                    connection = connections.get(conn)
                    context = ServicerContext(
                        serving, call, connection, buf[:head] if head else b"", deadline
                    )
                    run = Context().run
                    data = buf[head:size]
                    try:
                        request = entry.deserialize(data)
                    except Exception:
                        request = None
                    if request is None:
                        self.serve(serving, entry, context, flags, data, run)
                        del connection, context, data, run
                        return int(lr_next(engine, raw))
                    message = behaviour.call_plain(run, entry, request, context)
                    # Free these now: the next call may be long in coming.
                    del connection, context, data, request, run
                    if message is not None:
                        return int(reply_next(engine, raw, message, len(message)))
                    return int(lr_next(engine, raw))
            ready = self.take(serving, io)
            if ready is not None:
                ready()
                del ready
            return int(lr_next(engine, raw))

        return accept

    def take(self, serving: Serving, io: WorkerIo) -> Callable[[], None] | None:
        """Return a function that serves the call in `io` on any thread; None if all is done."""
        arrival = self._arrivals.take(serving, io)
        if arrival is None:
            return None
        return partial(self.serve, serving, *arrival, Context().run)

    def place(
        self, serving: Serving, io: WorkerIo
    ) -> tuple[Executor | None, Callable[[], None]] | None:
        """Prepare a call as take() does, for a thread that runs no handlers; may name another pool.

        Interceptors then run on the pool's thread, as in grpcio.
        """
        arrival = self._arrivals.take(serving, io)
        if arrival is None:
            return None
        run = Context().run
        task = self._task(*arrival, run)
        return None if task is None else (pool_of(task.behaviour), partial(run, task.run))

    def serve(
        self,
        serving: Serving,
        entry: Entry,
        context: ServicerContext,
        flags: int,
        data: bytes | None,
        run: Callable[..., Any],
    ) -> None:
        """Serve one call, from the search for its handler to its status; raises no exception."""
        task = self._task(entry, context, flags, data, run)
        if task is None:
            return
        pool = pool_of(task.behaviour)
        if pool is None:
            run(task.run)
        else:
            serving.expect_other_pools()
            submit(pool, partial(run, task.run), serving.engine, context._call)

    def _task(
        self,
        entry: Entry,
        context: ServicerContext,
        flags: int,
        data: bytes | None,
        run: Callable[..., Any],
    ) -> behaviour.Task | None:
        """Return the task of a call and its handler; None if the call has its status already."""
        handler = entry.handler
        if handler is None:
            try:
                handler = run(self._find, entry.name, context)
            except Exception as error:
                _logger.exception("Exception servicing handler: %s", error)
                context.refuse(*texts.NO_HANDLER)
                return None
        if handler is None:
            context.refuse(*texts.NO_METHOD)
        elif flags & lib.LR_F_REFUSED:
            context.refuse(*texts.TOO_MANY_CALLS)
        else:
            return behaviour.Task(context, handler, entry.name, self._max_send, flags, data)
        return None

    def _find(self, name: str, context: ServicerContext) -> Any:
        details = CallDetails(name, context.invocation_metadata())
        return self._intercept(0, name, details)

    def _intercept(self, index: int, name: str, details: grpc.HandlerCallDetails) -> Any:
        if index == len(self._interceptors):
            return self._table.look_up(details, name)
        # A method, because a nested function would refer to itself.
        following = partial(self._intercept, index + 1, name)
        return self._interceptors[index].intercept_service(following, details)
