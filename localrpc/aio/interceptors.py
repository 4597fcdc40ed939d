"""Client interceptors, and the calls that they stand in front of.

The interceptors of a call run in a task, which ends with the call that the last of them made, or
with what they have put in its place. The call that user code has is a front for that.
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import AsyncIterator, Callable, Coroutine, Generator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import grpc
from grpc import aio

from localrpc.aio import replacing
from localrpc.aio.call import NOT_MIXED
from localrpc.calls.texts import LOCALLY_CANCELLED

if TYPE_CHECKING:
    _UnaryUnaryCall = aio.UnaryUnaryCall[Any, Any]
    _UnaryStreamCall = aio.UnaryStreamCall[Any, Any]
    _StreamUnaryCall = aio.StreamUnaryCall[Any, Any]
    _StreamStreamCall = aio.StreamStreamCall[Any, Any]
else:
    _UnaryUnaryCall = aio.UnaryUnaryCall
    _UnaryStreamCall = aio.UnaryStreamCall
    _StreamUnaryCall = aio.StreamUnaryCall
    _StreamStreamCall = aio.StreamStreamCall

Make = Callable[[aio.ClientCallDetails, Any], Any]
"""Makes the call itself, from its details and its request or requests."""


class Kind(NamedTuple):
    """What differs between the four kinds of call."""

    interceptor: type[Any]
    method: str
    """The interceptor's method."""
    call: type[Any]
    wrap: Callable[[Any, Any], Any]
    """Makes a call of what an interceptor has returned in place of one; also given the call
    that the interceptor has been given, or None."""


class Interceptors:
    """The interceptors of a channel, by the kind of call that they are for."""

    def __init__(self, interceptors: Sequence[Any]) -> None:
        self._by_kind: dict[Kind, list[Any]] = {kind: [] for kind in KINDS}
        for interceptor in interceptors:
            for kind in KINDS:
                if isinstance(interceptor, kind.interceptor):
                    self._by_kind[kind].append(interceptor)
                    break
            else:
                names = " or ".join(kind.interceptor.__name__ for kind in KINDS)
                raise ValueError(f"Interceptor {interceptor} must be {names}. ")

    def of(self, kind: Kind) -> list[Any]:
        return self._by_kind[kind]


async def run(
    kind: Kind,
    interceptors: Sequence[Any],
    make: Make,
    details: aio.ClientCallDetails,
    request: Any,
) -> Any:
    """Run interceptors, the first one outermost, and return the call that results."""
    if not interceptors:
        return make(details, request)
    inner: list[Any] = [None]

    async def following(details: aio.ClientCallDetails, request: Any) -> Any:
        inner[0] = await run(kind, interceptors[1:], make, details, request)
        return inner[0]

    result = await getattr(interceptors[0], kind.method)(following, details, request)
    return result if isinstance(result, kind.call) else kind.wrap(inner[0], result)


class _Chain:
    """The task of a call's interceptors, and the callbacks that wait for the call's end.

    It does not hold the call that user code has, unless that has callbacks and one response.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, Any]) -> None:
        self.task: asyncio.Task[Any] = loop.create_task(work)
        self._callbacks: list[Callable[[Any], object]] = []
        self.task.add_done_callback(self._over)

    def call(self) -> Any:
        """Return the call; None if there is none, or none yet."""
        task = self.task
        if not task.done() or task.cancelled() or task.exception() is not None:
            return None
        return task.result()

    def when_done(self, callback: Callable[[Any], object]) -> None:
        """Call `callback` once it is over, with the call, or with this if there is none."""
        if not self.task.done():
            self._callbacks.append(callback)
            return
        call = self.call()
        if call is None or call.done():
            callback(self if call is None else call)
        else:
            call.add_done_callback(callback)

    def _over(self, _: object) -> None:
        callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            self.when_done(callback)


def _with(callback: Callable[[Any], None], front: Any, _: object) -> None:
    callback(front)


def _with_weak(
    callback: Callable[[Any], None], kind: type[_Front], ref: weakref.ref[_Front], over: Any
) -> None:
    """Call `callback` with the call that it was added to or, if that is garbage, with its like."""
    front = ref()
    if front is None and isinstance(over, _Chain):
        front = kind.__new__(kind)
        front._chain = over
    callback(over if front is None else front)


class _Front:
    """What all kinds have."""

    _chain: _Chain
    _one_response = True

    def __init__(self, loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, Any]) -> None:
        self._chain = _Chain(loop, work)

    def __del__(self) -> None:
        chain = self.__dict__.get("_chain")
        if chain is None or chain.task.done():
            return  # the call cancels itself, unless an interceptor holds it
        loop = chain.task.get_loop()
        if not loop.is_closed():
            loop.call_soon_threadsafe(chain.task.cancel)

    def cancel(self) -> bool:
        task = self._chain.task
        if not task.done():
            return task.cancel()
        call = self._chain.call()
        return False if call is None else bool(call.cancel())

    def cancelled(self) -> bool:
        task = self._chain.task
        if not task.done():
            return False
        if task.cancelled():
            return True
        error = task.exception()
        if error is not None:
            return isinstance(error, aio.AioRpcError) and (
                error.code() is grpc.StatusCode.CANCELLED
            )
        return bool(task.result().cancelled())

    def done(self) -> bool:
        if not self._chain.task.done():
            return False
        call = self._chain.call()
        return call is None or bool(call.done())

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        if self._one_response:
            self._chain.when_done(partial(_with, callback, self))
        else:  # as in Call.add_done_callback()
            self._chain.when_done(partial(_with_weak, callback, type(self), weakref.ref(self)))

    def time_remaining(self) -> Any:
        call = self._chain.call()
        return None if call is None else call.time_remaining()

    async def initial_metadata(self) -> Any:
        return await self._ask("initial_metadata", aio.Metadata())

    async def trailing_metadata(self) -> Any:
        return await self._ask("trailing_metadata", aio.Metadata())

    async def code(self) -> Any:
        return await self._ask("code", grpc.StatusCode.CANCELLED)

    async def details(self) -> Any:
        return await self._ask("details", LOCALLY_CANCELLED[1])

    async def debug_error_string(self) -> Any:
        return await self._ask("debug_error_string", "")

    async def _ask(self, name: str, of_cancelled: Any) -> Any:
        """Ask the call; a failure of the interceptors is the call's, as far as it has a status."""
        task = self._chain.task
        await asyncio.wait((task,))
        if task.cancelled():
            return of_cancelled
        error = task.exception()
        if isinstance(error, aio.AioRpcError):
            return getattr(error, name)()
        return await getattr(task.result(), name)()

    async def wait_for_connection(self) -> None:
        call = await self._chain.task
        await call.wait_for_connection()

    async def _end(self) -> None:
        await self._ask("code", None)

    def __repr__(self) -> str:
        call = self._chain.call()
        return f"<{type(self).__name__} {'before its call' if call is None else call!r}>"


class _UnaryFront(_Front):
    def __await__(self) -> Generator[Any, Any, Any]:
        call = yield from self._chain.task.__await__()
        return (yield from call.__await__())


class _StreamFront(_Front):
    _one_response = False
    _responses: AsyncIterator[Any] | None = None

    def __aiter__(self) -> AsyncIterator[Any]:
        return self

    async def __anext__(self) -> Any:
        if self._responses is None:
            self._responses = (await self._chain.task).__aiter__()
        return await self._responses.__anext__()

    async def read(self) -> Any:
        try:
            return await self.__anext__()
        except StopAsyncIteration:
            return aio.EOF


_LAST = object()


class Written:
    """Requests that are written one by one, as the iterator that interceptors are given."""

    def __init__(self) -> None:
        self._request: Any = None
        self._full = self._over = self._watches = False
        self._waiters: list[asyncio.Future[None]] = []

    def __aiter__(self) -> AsyncIterator[Any]:
        return self

    async def __anext__(self) -> Any:
        while not self._full:
            await self._change()
        request = self._request
        if request is _LAST:
            raise StopAsyncIteration
        self._request, self._full = None, False
        self._wake()
        return request

    async def put(self, request: Any, chain: _Chain) -> bool:
        """Add a request when the former one is taken. Return False if the call ends before.

        The interceptors may still run: one may return only after the last request.
        """
        if not self._watches:
            self._watches = True
            chain.when_done(self._end)
        while self._full and not self._over:
            await self._change()
        if self._over:
            return False
        self._request, self._full = request, True
        self._wake()
        return True

    def _end(self, _: object) -> None:
        self._over = True
        self._wake()

    async def _change(self) -> None:
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        try:
            await waiter
        finally:
            if waiter in self._waiters:
                self._waiters.remove(waiter)

    def _wake(self) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)


class _RequestFront(_Front):
    _written: Written | None = None
    _done_writing = False

    async def write(self, request: Any) -> None:
        written = self._writing()
        if self._done_writing:
            raise asyncio.InvalidStateError('RPC is half closed after calling "done_writing".')
        if not await written.put(request, self._chain):
            raise asyncio.InvalidStateError("RPC already finished.")

    async def done_writing(self) -> None:
        """Tell the server that no more requests follow. Idempotent."""
        written = self._writing()
        if not self._done_writing:
            self._done_writing = True
            await written.put(_LAST, self._chain)

    def _writing(self) -> Written:
        if self._written is None:
            raise aio.UsageError(NOT_MIXED)
        return self._written


class InterceptedUnaryUnaryCall(_UnaryFront, _UnaryUnaryCall):
    """A call with interceptors."""


class InterceptedUnaryStreamCall(_StreamFront, _UnaryStreamCall):
    """A call with interceptors."""


class InterceptedStreamUnaryCall(_RequestFront, _UnaryFront, _StreamUnaryCall):
    """A call with interceptors."""


class InterceptedStreamStreamCall(_RequestFront, _StreamFront, _StreamStreamCall):
    """A call with interceptors."""


def _answered(call: type[Any], _: Any, response: Any) -> Any:
    return call(response)


UNARY_UNARY = Kind(
    aio.UnaryUnaryClientInterceptor,
    "intercept_unary_unary",
    aio.UnaryUnaryCall,
    partial(_answered, replacing.AnsweredUnaryUnaryCall),
)
UNARY_STREAM = Kind(
    aio.UnaryStreamClientInterceptor,
    "intercept_unary_stream",
    aio.UnaryStreamCall,
    replacing.ReplacedUnaryStreamCall,
)
STREAM_UNARY = Kind(
    aio.StreamUnaryClientInterceptor,
    "intercept_stream_unary",
    aio.StreamUnaryCall,
    partial(_answered, replacing.AnsweredStreamUnaryCall),
)
STREAM_STREAM = Kind(
    aio.StreamStreamClientInterceptor,
    "intercept_stream_stream",
    aio.StreamStreamCall,
    replacing.ReplacedStreamStreamCall,
)
KINDS = (UNARY_UNARY, UNARY_STREAM, STREAM_UNARY, STREAM_STREAM)
