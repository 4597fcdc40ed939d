"""Worker loops on the threads of the user's pool.

A plain ThreadPoolExecutor lends its threads to loops that stay in the core
from call to call. The pool remains its owner's: a job that he submits makes a
waiting loop give way, and shutdown() ends them first. Any other executor, a
pool that already has loops of another server in it, and a server with a limit
of concurrent calls (which must be able to refuse while all workers are busy)
get one submit() per call.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Protocol

from localrpc import _log
from localrpc.drive.core import NULL, WorkerIo, lib

if TYPE_CHECKING:
    from localrpc.drive.serving import Serving

_logger = _log.logger("server")

_UNKNOWN = 2
_UNAVAILABLE = 14


class Workers(Protocol):
    """What a Serving needs of them; spare() asks for one more loop."""

    def start(self, accept: Callable[[WorkerIo], int], take: Callable[..., Any]) -> None: ...
    def spare(self) -> None: ...
    def leave(self) -> None: ...


def workers_for(pool: Executor, serving: Serving, *, limited: bool) -> Workers:
    """Decide how `pool` can serve."""
    plain = type(pool) is ThreadPoolExecutor and not {"submit", "shutdown"} & set(vars(pool))
    if plain and not limited:
        return LoopWorkers(pool, serving)  # type: ignore[arg-type]
    return SubmitWorkers(pool, serving)


class LoopWorkers:
    """Loops on the pool's threads, as many as there is work for and the pool allows."""

    def __init__(self, pool: ThreadPoolExecutor, serving: Serving) -> None:
        self._pool = pool
        self._serving = weakref.ref(serving)
        self._engine = serving.engine
        self._lock = threading.Lock()
        self._loops = 0
        self._queued = 0
        """Loops among the pool's waiting jobs."""
        self._bound = False
        self._accept: Callable[[WorkerIo], int] | None = None

    def start(self, accept: Callable[[WorkerIo], int], take: Callable[..., Any]) -> None:
        self._accept = accept
        self._bind()
        self.spare()

    def spare(self) -> None:
        with self._lock:
            if self._loops >= self._pool._max_workers or not self._bound:
                return
            self._loops += 1
        self._enter()

    def _enter(self) -> None:
        with self._lock:
            self._queued += 1
        try:
            ThreadPoolExecutor.submit(self._pool, self._loop)
        except RuntimeError:  # the pool, or the interpreter, is shutting down
            with self._lock:
                self._queued -= 1
            self._gone()

    def _others(self) -> int:
        """Asked by a loop as it starts: how many jobs wait for the thread that it has.

        A loop that gave way may have given its thread to this one.
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

    def _loop(self) -> None:
        others = self._others()
        engine, accept = self._engine, self._accept
        assert accept is not None
        io = WorkerIo()
        raw = io.raw
        lr_next = lib.lr_next
        call, again, give_way = lib.LR_K_CALL, lib.LR_AGAIN, lib.LR_K_YIELD
        # While others wait, at most as many calls as they have jobs, and none is
        # waited for: jobs without end keep no caller out, and calls no job.
        turns = others
        kind = give_way if turns else lr_next(engine, raw)
        while True:
            if turns and kind == give_way:
                turns -= 1
                kind = lib.lr_next_now(engine, raw)
                if kind == call:
                    lib.lr_yield(engine)  # or accept() would wait for the next
                else:
                    turns = 0
                continue
            if kind == call:
                try:
                    kind = accept(io)
                except BaseException as error:
                    give_up(engine, raw, error)
                    kind = lr_next(engine, raw)
            elif kind == again:
                kind = lr_next(engine, raw)
            elif kind == give_way:
                # Behind the job that somebody has submitted.
                self._enter()
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
        """Give the pool back as it was."""
        with self._lock:
            bound, self._bound = self._bound, False
        if bound:
            vars(self._pool).pop("submit", None)
            vars(self._pool).pop("shutdown", None)

    def _release(self) -> None:
        self.leave()
        serving = self._serving()
        if serving is not None:
            serving.release_pool()


class SubmitWorkers:
    """A thread of its own that takes the calls, and a submit() for each."""

    def __init__(self, pool: Executor, serving: Serving) -> None:
        self._pool = pool
        self._engine = serving.engine
        self._serving = weakref.ref(serving)
        self._take: Callable[..., Any] | None = None

    def start(self, accept: Callable[[WorkerIo], int], take: Callable[..., Any]) -> None:
        self._take = take
        threading.Thread(target=self._dispatch, name="localrpc-dispatch", daemon=True).start()

    def spare(self) -> None:
        """There is one dispatcher, and it never stays away for long."""

    def leave(self) -> None:
        """The dispatcher sees the engine's stop."""

    def _dispatch(self) -> None:
        engine, take = self._engine, self._take
        assert take is not None
        io = WorkerIo()
        while True:
            kind = lib.lr_next(engine, io.raw)
            if kind in (lib.LR_AGAIN, lib.LR_K_YIELD):
                continue
            serving = self._serving()
            if kind != lib.LR_K_CALL or serving is None:
                return
            call = io.raw.call
            try:
                ready = take(serving, io)
                if ready is not None:
                    self._submit(ready, call)
            except Exception as error:
                give_up(engine, io.raw, error)
            serving = ready = None

    def _submit(self, ready: Callable[[], None], call: int) -> None:
        try:
            self._pool.submit(ready)
        except RuntimeError as error:
            _logger.error("the server's pool takes no more calls: %s", error)
            text = str(error).encode()
            lib.lr_cancel(self._engine, call, _UNAVAILABLE, text, len(text))
            lib.lr_release(self._engine, call)


def give_up(engine: Any, raw: Any, error: BaseException) -> None:
    """A handler has let out what handlers must not, SystemExit for one."""
    _logger.error("call abandoned by %r", error, exc_info=error)
    lib.lr_cancel(engine, raw.call, _UNKNOWN, NULL, 0)
    lib.lr_release(engine, raw.call)
