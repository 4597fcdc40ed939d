"""Handlers that are plain functions and generators: they run on the migration thread pool.

Such a handler is given a context of grpc's synchronous kind. Everything that touches the call runs
on the loop; the pool's thread waits for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from contextvars import copy_context
from functools import partial
from typing import Any, NoReturn

import grpc
from grpc import aio

from localrpc import _locks
from localrpc.aio.context import ServicerContext


class SyncContext(grpc.ServicerContext):
    """The context of a handler on the pool. Thread-safe."""

    def __init__(self, call: ServicerContext, loop: asyncio.AbstractEventLoop) -> None:
        self._call = call
        self._loop = loop

    @property
    def _connection(self) -> Any:
        return self._call._connection

    def _on_loop(self, function: Callable[..., Any], *arguments: Any) -> Any:
        async def run() -> Any:
            return function(*arguments)

        return self._wait(run())

    def _wait(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()

    def is_active(self) -> bool:
        return self._call.is_alive()

    def time_remaining(self) -> Any:
        return self._call.time_remaining()

    def cancel(self) -> Any:
        self._on_loop(self._call.cancel_here)

    def add_callback(self, callback: Callable[[], None]) -> bool:
        def add() -> bool:
            if self._call.over:
                return False
            self._call.add_done_callback(lambda _: callback())
            return True

        return bool(self._on_loop(add))

    def invocation_metadata(self) -> Any:
        return self._call.invocation_metadata()

    def peer(self) -> str:
        return self._call.peer()

    def peer_identities(self) -> Sequence[bytes] | None:
        return self._call.peer_identities()

    def peer_identity_key(self) -> str | None:
        return self._call.peer_identity_key()

    def auth_context(self) -> Mapping[str, Any]:
        return self._call.auth_context()

    def set_compression(self, compression: grpc.Compression) -> None:
        """Accept and ignore the setting: local links do not compress."""

    def disable_next_message_compression(self) -> None:
        """Do nothing: local links do not compress."""

    def send_initial_metadata(self, initial_metadata: Sequence[Any]) -> None:
        self._wait(self._call.send_initial_metadata(initial_metadata))

    def set_trailing_metadata(self, trailing_metadata: Iterable[Any]) -> None:
        self._call.set_trailing_metadata(trailing_metadata)

    def trailing_metadata(self) -> Any:
        return self._call.trailing_metadata()

    def abort(self, code: grpc.StatusCode, details: str) -> NoReturn:
        self._call.answer.abort(code, details)
        raise aio.AbortError("Locally aborted.")

    def abort_with_status(self, status: grpc.Status) -> NoReturn:
        self._call.set_trailing_metadata(status.trailing_metadata or ())
        self.abort(status.code, status.details)

    def set_code(self, code: grpc.StatusCode) -> None:
        self._call.set_code(code)

    def code(self) -> Any:
        return self._call.code()

    def set_details(self, details: str) -> None:
        self._call.set_details(details)

    def details(self) -> Any:
        return self._call.details()


class _Requests:
    """The requests of a stream, for a thread of the pool."""

    def __init__(self, context: SyncContext, call: ServicerContext) -> None:
        self._context = context
        self._call = call

    def __iter__(self) -> _Requests:
        return self

    def __next__(self) -> Any:
        request = self._context._wait(self._call.read())
        if request is aio.EOF:
            raise StopIteration
        return request

    next = __next__


_END = object()


class _Responses:
    """The generator of a handler, whose steps run on the pool one after the other."""

    def __init__(self, responses: Iterator[Any]) -> None:
        self._responses = responses
        self._running = _locks.Lock()
        self._unwanted = False

    def step(self) -> Any:
        """Return the next response, _END after the last one."""
        with self._running:
            response = next(self._responses, _END)
        if self._unwanted:
            self._close()
        return response

    def close(self) -> Callable[[], None] | None:
        """Close the generator: here by the function that is returned, or after its present step.

        That step may wait for whatever it likes, and the loop does not wait for it.
        """
        self._unwanted = True
        return None if self._running.locked() else self._close

    def _close(self) -> None:
        close = getattr(self._responses, "close", None)
        if close is not None:
            with self._running:
                close()


async def respond(
    loop: asyncio.AbstractEventLoop,
    pool: Executor | None,
    call: ServicerContext,
    behaviour: Callable[..., Any],
    argument: Any,
    *,
    streams: bool,
) -> Any:
    """Run a handler; return its response, or write each of them to `call`.

    `argument` is the request, None for a stream of requests.
    """
    context = SyncContext(call, loop)
    if argument is None:
        argument = _Requests(context, call)
    run = copy_context().run
    response = await loop.run_in_executor(pool, partial(run, behaviour, argument, context))
    if not streams:
        return response
    responses = _Responses(iter(response))
    try:
        while not call.over:
            each = await loop.run_in_executor(pool, run, responses.step)
            if each is _END:
                break
            await call.write(each)
    finally:
        close = responses.close()
        if close is not None:
            await loop.run_in_executor(pool, run, close)
    return None
