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
from collections.abc import Coroutine, Generator
from contextvars import Context, copy_context
from typing import Any


class _Rest:
    """What is left of a coroutine that has yielded `first`, to be awaited.

    With `error` that is thrown into it, and `first` is not waited for.
    """

    __slots__ = ("_coroutine", "_first", "error")

    def __init__(self, coroutine: Coroutine[Any, Any, Any], first: Any) -> None:
        self._coroutine = coroutine
        self._first = first
        self.error: BaseException | None = None

    def __await__(self) -> Generator[Any, Any, Any]:
        coroutine, following, error = self._coroutine, self._first, self.error
        if error is not None and following is not None:
            following._asyncio_future_blocking = False
        while True:
            value = None
            if error is None:
                try:
                    value = yield following
                except BaseException as thrown:
                    error = thrown
            try:
                following = coroutine.send(value) if error is None else coroutine.throw(error)
            except StopIteration as end:
                return end.value
            finally:
                error = None


class _Spare:
    """A task that waits for a coroutine to take over."""

    __slots__ = ("context", "gate", "rest", "task")

    def __init__(self, loop: asyncio.AbstractEventLoop, base: Context) -> None:
        self.context = base.copy()
        self.gate: asyncio.Future[None] = loop.create_future()
        self.rest: _Rest | None = None
        options: dict[str, Any] = {"context": self.context}  # from Python 3.11 on
        self.task: asyncio.Task[None] = loop.create_task(
            self._run(), name="localrpc-handler", **options
        )

    async def _run(self) -> None:
        try:
            await self.gate
        except asyncio.CancelledError as error:
            if self.rest is None:
                return  # the server has stopped
            self.rest.error = error
        if self.rest is not None:
            await self.rest


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
            spare = self._spare = _Spare(self._loop, self._base)
        loop, task, context = self._loop, spare.task, spare.context
        _enter_task(loop, task)
        try:
            first = context.run(coroutine.send, None)
        except StopIteration:
            first = None
            over = True
        else:
            over = False
        finally:
            _leave_task(loop, task)
        if over:
            if context != self._base:
                spare.gate.cancel()
                self._spare = None
            return None
        spare.rest = _Rest(coroutine, first)
        self._spare = None
        if not spare.gate.done():
            spare.gate.set_result(None)
        return task

    def close(self) -> None:
        """End the task that waits."""
        spare, self._spare = self._spare, None
        if spare is not None:
            spare.gate.cancel()


class _OldBeginner(Beginner):
    """For Python 3.10, whose tasks cannot be given a context."""

    def begin(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[Any] | None:
        return self._base.copy().run(self._loop.create_task, coroutine)

    def close(self) -> None:
        return


def beginner(loop: asyncio.AbstractEventLoop) -> Beginner:
    return Beginner(loop) if sys.version_info >= (3, 11) else _OldBeginner(loop)
