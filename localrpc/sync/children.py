"""Channels to child processes, which end with their channel or their parent."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import Any

import grpc

from localrpc.drive import children
from localrpc.options import parse_options
from localrpc.sync.channel import Channel
from localrpc.sync.server import Server
from localrpc.transports.to_child import ToChild

_Options = Iterable[tuple[str, Any]] | None


class ChildChannel(Channel):
    """A channel to one child process, as spawn_channel and fork_channel return it.

    close() lets the child end by itself, kills it if it does not, and waits for it.
    """

    def __init__(self, dialer: ToChild, child: children.Child, options: _Options) -> None:
        super().__init__(dialer.address, options, dialer)
        self._dialer = dialer
        self._child = child

    def __enter__(self) -> ChildChannel:
        return self

    def __repr__(self) -> str:
        return f"<localrpc.ChildChannel to process {self.pid}: {self._connector.state}>"

    @property
    def pid(self) -> int:
        """The child's process number."""
        return self._child.pid

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the child. Return its exit status, or minus the signal that killed it.

        `timeout` is in seconds. Raises TimeoutError.
        """
        return self._child.wait(timeout)

    def close(self) -> None:
        super().close()
        self._dialer.close()
        self._child.end()


def spawn_channel(
    argv: Sequence[str],
    options: _Options,
    env: Mapping[str, str] | None,
    cwd: str | None,
    how: children.Manner,
) -> ChildChannel:
    """See localrpc.spawn_channel."""
    options = tuple(options or ())
    return ChildChannel(*children.spawn(argv, parse_options(options), env, cwd, how), options)


def fork_channel(
    setup: Callable[[grpc.Server], object],
    thread_pool: Callable[[], Executor] | None,
    options: _Options,
    how: children.Manner,
) -> ChildChannel:
    """See localrpc.fork_channel."""
    options = tuple(options or ())

    def serve() -> None:
        pool = thread_pool() if thread_pool else ThreadPoolExecutor()
        server = Server(pool, (), (), options, None, None, xds=False)
        setup(server)
        server.add_insecure_port(str(children.TARGET))
        server.start()
        server.wait_for_termination()

    return ChildChannel(*children.fork(serve, parse_options(options), how), options)
