"""Coroutines that begin at once, and their tasks."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Any

import pytest

from localrpc.aio.beginning import Beginner, beginner
from tests.skips import only_where

pytestmark = only_where(
    sys.version_info >= (3, 11), "Python 3.10 begins coroutines in the loop's next turn"
)

timeout: Any = getattr(asyncio, "timeout", None)  # from Python 3.11 on
variable: ContextVar[str] = ContextVar("variable", default="none")


def run(body: Callable[[Beginner], Awaitable[None]]) -> None:
    async def work() -> None:
        one = beginner(asyncio.get_running_loop())
        await body(one)
        one.close()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(work())


async def begun(one: Beginner, coroutine: Any) -> Any:
    """Begin a coroutine outside of any task; return what begin() returns."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Any] = loop.create_future()
    loop.call_soon(lambda: future.set_result(one.begin(coroutine)))
    return await future


def test_a_coroutine_that_does_not_wait_needs_no_task_of_its_own() -> None:
    tasks: list[Any] = []

    async def quick() -> None:
        tasks.append(asyncio.current_task())

    async def body(one: Beginner) -> None:
        for _ in range(3):
            assert await begun(one, quick()) is None
        assert tasks[0] is tasks[1] is tasks[2] is not None

    run(body)


def test_one_that_waits_keeps_the_task_that_it_has_begun_in() -> None:
    seen: list[Any] = []

    async def slow(event: asyncio.Event) -> None:
        seen.append(asyncio.current_task())
        await event.wait()
        seen.append(asyncio.current_task())

    async def body(one: Beginner) -> None:
        event = asyncio.Event()
        task = await begun(one, slow(event))
        other = await begun(one, slow(event))
        assert task is not other
        event.set()
        await asyncio.gather(task, other)
        assert sorted(map(id, seen)) == sorted(map(id, [task, task, other, other]))

    run(body)


def test_a_variable_is_kept_within_a_call_and_does_not_reach_the_next() -> None:
    seen: list[str] = []

    async def sets() -> None:
        seen.append(variable.get())
        variable.set("set")

    async def sets_and_waits() -> None:
        token = variable.set("waiting")
        await asyncio.sleep(0)
        seen.append(variable.get())
        variable.reset(token)

    async def body(one: Beginner) -> None:
        for _ in range(2):
            await begun(one, sets())
        await (await begun(one, sets_and_waits()))
        await begun(one, sets())

    run(body)
    assert seen == ["none", "none", "waiting", "none"]


def test_a_task_cancelled_before_it_could_wait_throws_into_its_coroutine() -> None:
    seen: list[str] = []

    async def cancels_itself() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        try:
            await asyncio.sleep(0)
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise

    async def body(one: Beginner) -> None:
        task = await begun(one, cancels_itself())
        await asyncio.wait({task})
        assert task.cancelled()
        assert seen == ["cancelled"]
        assert await begun(one, asyncio.sleep(0)) is not None

    run(body)


def test_a_coroutine_that_raises_cancelled_error_is_over() -> None:
    async def gives_up() -> None:
        raise asyncio.CancelledError

    async def body(one: Beginner) -> None:
        assert await begun(one, gives_up()) is None

    run(body)


def test_a_coroutine_taken_over_is_seen_by_debuggers() -> None:
    async def slow(event: asyncio.Event) -> None:
        await event.wait()

    async def body(one: Beginner) -> None:
        event = asyncio.Event()
        task = await begun(one, slow(event))
        assert "slow" in repr(task)
        assert task in asyncio.all_tasks()
        event.set()
        await task

    run(body)


def test_a_timeout_that_began_in_the_first_step_ends_the_wait() -> None:
    async def body(one: Beginner) -> None:
        async def limited() -> None:
            with pytest.raises(asyncio.TimeoutError):
                async with timeout(0.01):
                    await asyncio.Event().wait()

        await (await begun(one, limited()))

    run(body)
