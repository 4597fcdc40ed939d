"""Worker loops on the threads of the user's pool.

A plain ThreadPoolExecutor lends its threads to loops that stay in the core from call to call.
Its owner can still use the pool: a job that is submitted makes a waiting loop yield its thread,
and shutdown() ends the loops first. Any other executor, a pool that already runs the loops of
another server, and a server with a limit of concurrent calls (which must be able to refuse while
all workers are busy) get one submit() per call.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import Any, Generic, Protocol, TypeAlias, TypeVar

from localrpc import _locks, _log
from localrpc.drive.core import NULL, WorkerIo, lib

_logger = _log.logger("server")

_UNKNOWN = 2
_UNAVAILABLE = 14


Placed: TypeAlias = "tuple[Executor | None, Callable[[], None]] | None"
"""The other pool (None for the server's) and what to run there; None if nothing is left to do."""


class Owner(Protocol):
    """What the workers serve. It holds them; they hold it only while they run a call."""

    engine: Any

    def finish(self) -> None: ...
    def release_pool(self) -> None: ...


OwnerT = TypeVar("OwnerT", bound=Owner)
OwnerT_co = TypeVar("OwnerT_co", bound=Owner, covariant=True)
Place = Callable[[OwnerT, WorkerIo], "Placed"]


class Workers(Protocol[OwnerT_co]):
    """The interface that all workers offer to their owner; spare() asks for one more loop."""

    def start(self, accept: Callable[[WorkerIo], int], place: Place[OwnerT_co]) -> None: ...
    def spare(self) -> None: ...
    def expect_other_pools(self) -> None: ...
    def leave(self) -> None: ...


def workers_for(pool: Executor, serving: OwnerT, *, limited: bool) -> Workers[OwnerT]:
    """Return the kind of workers that fits `pool`."""
    plain = type(pool) is ThreadPoolExecutor and not {"submit", "shutdown"} & set(vars(pool))
    if plain and not limited:
        return LoopWorkers(pool, serving)  # type: ignore[arg-type]
    return SubmitWorkers(pool, serving)


class LoopWorkers(Generic[OwnerT]):
    """Runs loops on the pool's threads: as many as there is work for and the pool allows."""

    def __init__(self, pool: ThreadPoolExecutor, serving: OwnerT) -> None:
        self._pool = pool
        self._serving = weakref.ref(serving)
        self._engine = serving.engine
        self._lock = _locks.Lock()
        self._loops = 0
        self._queued = 0
        """Loops among the pool's queued jobs."""
        self._bound = False
        self._accept: Callable[[], Callable[[WorkerIo], int] | None] = lambda: None
        """A weak reference: the function holds the serving, so only running loops may hold it."""
        self._place: Place[OwnerT] | None = None
        self._relief: Relief[OwnerT] | None = None

    def start(self, accept: Callable[[WorkerIo], int], place: Place[OwnerT]) -> None:
        self._accept = weakref.ref(accept)
        self._place = place
        self._bind()
        self.spare()

    def spare(self) -> None:
        accept = self._accept()
        with self._lock:
            if self._loops >= self._pool._max_workers or not self._bound or accept is None:
                if self._relief is not None:
                    self._relief.full()
                return
            self._loops += 1
        self._enter(accept)

    def expect_other_pools(self) -> None:
        with self._lock:
            if self._relief is not None or not self._bound or self._place is None:
                return
            relief = Relief(self._pool, self._engine, self._serving, self._place)
            relief.full()  # the pool may be full already
            self._relief = relief
        relief.start()

    def _enter(self, accept: Callable[[WorkerIo], int]) -> None:
        with self._lock:
            self._queued += 1
        try:
            ThreadPoolExecutor.submit(self._pool, self._loop, accept)
        except RuntimeError:  # the pool, or the interpreter, is shutting down
            with self._lock:
                self._queued -= 1
            self._gone()

    def _others(self) -> int:
        """Return how many jobs wait for the thread of a loop that is starting.

        A loop that yielded may have given its thread to this one.
        """
        with self._lock:
            self._queued -= 1
            return max(0, self._pool._work_queue.qsize() - self._queued)

    def _gone(self) -> None:
        with self._lock:
            self._loops -= 1
            last = self._loops == 0
        serving = self._serving()
        if last and not self._bound and serving is not None:
            serving.finish()

    def _loop(self, accept: Callable[[WorkerIo], int]) -> None:
        others = self._others()
        engine = self._engine
        io = WorkerIo()
        raw = io.raw
        lr_next = lib.lr_next
        call, again, give_way = lib.LR_K_CALL, lib.LR_AGAIN, lib.LR_K_YIELD
        # While jobs wait, take at most as many calls as there are jobs, and wait for none:
        # an endless series of jobs cannot starve calls, nor calls the jobs.
        turns = others
        kind = give_way if turns else lr_next(engine, raw)
        while True:
            if turns and kind == give_way:
                turns -= 1
                kind = lib.lr_next_now(engine, raw)
                if kind == call:
                    lib.lr_yield(engine)  # otherwise accept() would wait for the next call
                else:
                    turns = 0
                continue
            if kind == call:
                try:
                    kind = accept(io)
                except BaseException as error:
                    give_up(engine, raw.call, error)
                    kind = lr_next(engine, raw)
            elif kind == again:
                kind = lr_next(engine, raw)
            elif kind == give_way:
                # Queue this loop again behind the job that was submitted.
                self._enter(accept)
                return
            else:
                self._gone()
                return

    # The pool's other users

    def _bind(self) -> None:
        pool, engine = self._pool, self._engine
        me = weakref.ref(self)

        def submit(fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
            future = ThreadPoolExecutor.submit(pool, fn, *args, **kwargs)
            if pool._work_queue.qsize():
                lib.lr_yield(engine)
            return future

        def shutdown(wait: bool = True, *, cancel_futures: bool = False) -> None:
            workers = me()
            if workers is not None:
                workers._release()
            ThreadPoolExecutor.shutdown(pool, wait=wait, cancel_futures=cancel_futures)

        self._bound = True
        pool.submit = submit  # type: ignore[method-assign]
        pool.shutdown = shutdown  # type: ignore[method-assign]

    def leave(self) -> None:
        """Restore the pool's own submit and shutdown."""
        with self._lock:
            bound, self._bound = self._bound, False
            relief, self._relief = self._relief, None
            self._place = None  # it may hold calls that have been postponed
        if relief is not None:
            relief.leave()
        if bound:
            vars(self._pool).pop("submit", None)
            vars(self._pool).pop("shutdown", None)

    def _release(self) -> None:
        self.leave()
        serving = self._serving()
        if serving is not None:
            serving.release_pool()


class SubmitWorkers(Generic[OwnerT]):
    """Takes calls on a thread of its own, and submits each to the executor."""

    def __init__(self, pool: Executor, serving: OwnerT) -> None:
        self._pool = pool
        self._engine = serving.engine
        self._serving = weakref.ref(serving)

    def start(self, accept: Callable[[WorkerIo], int], place: Place[OwnerT]) -> None:
        threading.Thread(
            target=self._dispatch, args=(place,), name="localrpc-dispatch", daemon=True
        ).start()

    def spare(self) -> None:
        """There is nothing to add: the one dispatcher never stays away for long."""

    def expect_other_pools(self) -> None:
        """There is nothing to do: the dispatcher runs on no pool."""

    def leave(self) -> None:
        """There is nothing to do: the dispatcher notices that the engine stops."""

    def _dispatch(self, place: Place[OwnerT]) -> None:
        engine = self._engine
        io = WorkerIo()
        while True:
            kind = lib.lr_next(engine, io.raw)
            if kind in (lib.LR_AGAIN, lib.LR_K_YIELD):
                continue
            serving = self._serving()
            if kind != lib.LR_K_CALL or serving is None:
                return
            dispatch(self._pool, serving, io, place)
            serving = None


class Relief(Generic[OwnerT]):
    """A thread that takes calls while all threads of a pool are busy.

    A server has one if some of its handlers run on pools of their own, because these must not
    wait for the server's pool. Calls for the server's pool are submitted to it, which is slow, so
    this thread sleeps as long as the pool's threads take calls now and then.
    """

    _PAUSE = 0.02
    """Seconds without a call taken after which the pool's threads are assumed to be busy."""

    def __init__(
        self,
        pool: ThreadPoolExecutor,
        engine: Any,
        serving: weakref.ref[OwnerT],
        place: Place[OwnerT],
    ) -> None:
        self._pool = pool
        self._engine = engine
        self._serving = serving
        self._place = place
        self._full = threading.Event()
        self._left = threading.Event()
        self._taken = 0

    def start(self) -> None:
        try:
            threading.Thread(target=self._run, name="localrpc-relief", daemon=True).start()
        except RuntimeError:
            pass  # the interpreter is exiting

    def full(self) -> None:
        """Note that the last thread of the pool has taken a call."""
        self._taken += 1
        self._full.set()

    def leave(self) -> None:
        """Ask the thread to end; return without waiting for it."""
        self._left.set()
        self._full.set()

    def _run(self) -> None:
        io = WorkerIo()
        while True:
            self._full.wait()
            self._full.clear()
            taken = -1
            while taken != self._taken:
                taken = self._taken
                if self._left.wait(self._PAUSE):
                    return
            while (more := self._take(io)) is not False:
                if more is None and self._left.wait(self._PAUSE):
                    return
            if self._left.is_set():
                return

    def _take(self, io: WorkerIo) -> bool | None:
        """Take a call. Return True if the pool is still busy, None if there was no call."""
        engine = self._engine
        kind = lib.lr_next_now(engine, io.raw)
        if kind == lib.LR_K_YIELD and not self._pool._work_queue.qsize():
            kind = lib.lr_next(engine, io.raw)
            if kind == lib.LR_K_YIELD:
                lib.lr_yield(engine)  # it was meant for a thread of the pool
        if kind in (lib.LR_K_YIELD, lib.LR_AGAIN):
            return None
        serving = self._serving()
        if kind != lib.LR_K_CALL or serving is None:
            self._left.set()
            return False
        busy = bool(io.raw.flags & lib.LR_F_ALONE)
        dispatch(self._pool, serving, io, self._place)
        return busy


def dispatch(pool: Executor, serving: OwnerT, io: WorkerIo, place: Place[OwnerT]) -> None:
    """Run the call in `io` on `pool`, or on the pool of its handler."""
    call = io.raw.call
    try:
        placed = place(serving, io)
        if placed is not None:
            other, ready = placed
            submit(other or pool, ready, serving.engine, call)
    except BaseException as error:
        give_up(serving.engine, call, error)


def submit(pool: Executor, ready: Callable[[], None], engine: Any, call: int) -> None:
    """Run `ready`, which serves `call`, on `pool`; the call ends if the pool refuses it."""

    def run() -> None:
        try:
            ready()
        except BaseException as error:
            give_up(engine, call, error)
            raise

    try:
        pool.submit(run)
    except RuntimeError as error:
        _logger.error("the thread pool accepts no more calls: %s", error)
        text = str(error).encode()
        lib.lr_cancel(engine, call, _UNAVAILABLE, text, len(text))
        lib.lr_release(engine, call)


def give_up(engine: Any, call: int, error: BaseException) -> None:
    """End a call whose handler raised an exception that handlers must not, such as SystemExit."""
    _logger.error("call abandoned by %r", error, exc_info=error)
    lib.lr_cancel(engine, call, _UNKNOWN, NULL, 0)
    lib.lr_release(engine, call)
