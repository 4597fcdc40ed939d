"""Begins coroutines at once, and gives them a task only if they suspend.

A handler that answers without waiting needs no task. But what it calls may ask for the current
task, as asyncio.timeout() does, and keep it. So a task is there from the start, one for all:
it waits for the first handler that suspends, takes it over, and another one takes its place.
Between these its context is that of the server, unless a handler has changed a variable in it:
then it is replaced, too.
"""

from __future__ import annotations

import asyncio
import sys
from asyncio.tasks import _enter_task, _leave_task
from collections.abc import Coroutine
from contextvars import Context, copy_context
from typing import Any


class _Successor(Coroutine[Any, Any, Any]):
    """What a task runs: nothing until take(), then the rest of a coroutine that has begun.

    Not a coroutine function, whose body would not see a cancellation before the first step.
    """

    __slots__ = ("_coroutine", "_first", "_gate", "_resumed")

    def __init__(self, gate: asyncio.Future[None]) -> None:
        self._gate = gate
        self._coroutine: Coroutine[Any, Any, Any] | None = None
        self._first: Any = None
        self._resumed = False

    def take(self, coroutine: Coroutine[Any, Any, Any], first: Any) -> None:
        """Take over a coroutine that has yielded `first`, to wait for it."""
        self._coroutine = coroutine
        self._first = first
        if not self._gate.done():
            self._gate.set_result(None)

    def send(self, value: Any) -> Any:
        if self._coroutine is None:
            if self._gate.done():
                raise StopIteration
            self._gate._asyncio_future_blocking = True
            return self._gate
        if self._resumed:
            return self._coroutine.send(value)
        self._resumed = True
        first, self._first = self._first, None
        return first

    def throw(self, *error: Any) -> Any:
        coroutine = self._coroutine
        if coroutine is None:
            raise error[0] if len(error) == 1 else error[1] or error[0]()
        if not self._resumed:
            self._resumed = True
            first, self._first = self._first, None
            if first is not None:
                first._asyncio_future_blocking = False
        return coroutine.throw(*error)

    def close(self) -> None:
        if self._coroutine is not None:
            self._coroutine.close()

    def __await__(self) -> Any:
        raise TypeError("only for a task")

    def __getattr__(self, name: str) -> Any:
        """For debuggers: cr_frame and the like are those of the coroutine."""
        return getattr(object.__getattribute__(self, "_coroutine"), name)


class _Spare:
    """A task that waits for a coroutine to take over."""

    __slots__ = ("context", "gate", "successor", "task")

    def __init__(self, loop: asyncio.AbstractEventLoop, base: Context) -> None:
        self.context = base.copy()
        self.gate: asyncio.Future[None] = loop.create_future()
        self.successor = _Successor(self.gate)
        options: dict[str, Any] = {"context": self.context}  # from Python 3.11 on
        self.task: asyncio.Task[None] = loop.create_task(
            self.successor, name="localrpc-handler", **options
        )
        # It is always pending: no reason for a warning when the loop is closed by hand.
        self.task._log_destroy_pending = False  # type: ignore[attr-defined]


class Beginner:
    """Begins coroutines on one loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._base = copy_context()
        self._spare: _Spare | None = None

    def begin(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[Any] | None:
        """Run a coroutine until it waits for something. Return its task, None if it is over."""
        spare = self._spare
        if spare is None or spare.gate.done() or spare.task.done():
            if self._loop.get_task_factory() is not None:
                return self._create(coroutine)
            spare = self._spare = _Spare(self._loop, self._base)
        loop, task, context = self._loop, spare.task, spare.context
        _enter_task(loop, task)
        try:
            first = context.run(coroutine.send, None)
        except (StopIteration, asyncio.CancelledError):
            first = None
            over = True
        else:
            over = False
        finally:
            _leave_task(loop, task)
        if over:
            if context != self._base:
                self._spare = None
                spare.gate.cancel()
            return None
        self._spare = None
        task._log_destroy_pending = True  # type: ignore[attr-defined]
        spare.successor.take(coroutine, first)
        return task

    def _create(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[Any]:
        """Have the loop run a coroutine as any other: its task factory may want to see each."""
        return self._base.copy().run(self._loop.create_task, coroutine)

    def close(self) -> None:
        """End the task that waits."""
        spare, self._spare = self._spare, None
        if spare is not None:
            spare.gate.cancel()


class _OldBeginner(Beginner):
    """For Python 3.10, whose tasks cannot be given a context."""

    def begin(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[Any] | None:
        return self._create(coroutine)

    def close(self) -> None:
        return


def beginner(loop: asyncio.AbstractEventLoop) -> Beginner:
    return Beginner(loop) if sys.version_info >= (3, 11) else _OldBeginner(loop)
