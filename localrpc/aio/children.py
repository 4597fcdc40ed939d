"""Channels to child processes, which end with their channel or their parent."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from localrpc.aio.channel import Channel
from localrpc.aio.server import Server
from localrpc.drive import children
from localrpc.options import parse_options
from localrpc.transports.to_child import ToChild

_Options = Sequence[tuple[str, Any]] | None


class ChildChannel(Channel):
    """A channel to one child process, as spawn_channel and fork_channel return it.

    close() lets the child end by itself, kills it if it does not, and waits for it.
    """

    def __init__(self, dialer: ToChild, child: children.Child, options: _Options) -> None:
        super().__init__(dialer.address, options, None, dialer)
        self._child = child
        self._to_child = dialer

    async def __aenter__(self) -> ChildChannel:
        return self

    @property
    def pid(self) -> int:
        """The child's process number."""
        return self._child.pid

    async def wait(self, timeout: float | None = None) -> int:
        """Wait for the child. Return its exit status, or minus the signal that killed it.

        `timeout` is in seconds. Raises TimeoutError.
        """
        return await asyncio.to_thread(self._child.wait, timeout)

    async def close(self, grace: float | None = None) -> None:
        await super().close(grace)
        self._to_child.close()
        await asyncio.to_thread(self._child.end)


def spawn_channel(
    argv: Sequence[str],
    options: _Options,
    env: Mapping[str, str] | None,
    cwd: str | None,
    how: children.Manner,
) -> ChildChannel:
    """See localrpc.aio.spawn_channel."""
    options = tuple(options or ())
    return ChildChannel(*children.spawn(argv, parse_options(options), env, cwd, how), options)


def fork_channel(
    setup: Callable[[Server], Any], options: _Options, how: children.Manner
) -> ChildChannel:
    """See localrpc.aio.fork_channel."""
    options = tuple(options or ())

    async def work() -> None:
        server = Server(None, (), (), options, None, None)
        result = setup(server)
        if inspect.isawaitable(result):
            await result
        server.add_insecure_port(str(children.TARGET))
        await server.start()
        await server.wait_for_termination()

    def serve() -> None:
        asyncio.run(work())

    return ChildChannel(*children.fork(serve, parse_options(options), how), options)
