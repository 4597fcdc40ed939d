"""A process that is a proxy: from its targets to its exit code."""

from __future__ import annotations

import asyncio
import logging
import math
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import grpc
from grpc import aio

import localrpc.aio
from localrpc.errors import AddressError
from localrpc.proxy.forwarding import DOUBT, Forwarder
from localrpc.transports import parse_target
from localrpc.workers.notifying import Manager

_logger = logging.getLogger("localrpc.proxy")

_DEFAULTS = {
    # A client and a server have limits; the proxy's own would only add others.
    "grpc.max_receive_message_length": -1,
    "grpc.max_send_message_length": -1,
    "grpc.max_metadata_size": 1 << 20,  # bytes; a local link carries less than 32 KiB
    "grpc.absolute_max_metadata_size": 1 << 20,
    # Otherwise another server could take a part of the calls unnoticed.
    "grpc.so_reuseport": 0,
}
_STOPPING = (signal.SIGTERM, signal.SIGINT)


@dataclass(frozen=True)
class Settings:
    listen: str
    """The target at which clients are served."""
    target: str
    """The target of the server that answers."""
    grace: float = 30.0
    """Seconds that calls in progress may take at the end."""
    options: tuple[tuple[str, Any], ...] = ()
    """Of the server and the channel, as `localrpc.server(options=...)` takes them."""
    server_credentials: grpc.ServerCredentials | None = None
    """For a `listen` that is a `grpc:` target."""
    channel_credentials: grpc.ChannelCredentials | None = None
    """For a `target` that is a `grpc:` target."""

    def __post_init__(self) -> None:
        if not 0 <= self.grace < math.inf:
            raise ValueError(f"grace has to be a number of seconds, not {self.grace}")


def run(settings: Settings) -> int:
    """Pass calls on until SIGTERM or SIGINT; return the exit code. For the main thread.

    Raises AddressError for a bad target, ListenError if it cannot listen, and AddressInUse if
    another server does.
    """
    return asyncio.run(_run(settings))


@asynccontextmanager
async def proxying(settings: Settings) -> AsyncIterator[tuple[aio.Server, str]]:
    """Pass calls on; give the server, and its target with the port that was chosen.

    Raises what run() raises.
    """
    _check(settings.listen, settings.target)
    options = list((_DEFAULTS | dict(settings.options)).items())
    async with _open_channel(settings, options) as channel:
        # A server of localrpc tells a cancelled call from one whose requests have ended.
        doubt = DOUBT if settings.listen.startswith("grpc:") else 0.0
        server = localrpc.aio.server(handlers=[Forwarder(channel, doubt=doubt)], options=options)
        if settings.server_credentials is None:
            port = server.add_insecure_port(settings.listen)
        else:
            port = server.add_secure_port(settings.listen, settings.server_credentials)
        await server.start()
        try:
            yield server, _with_port(settings.listen, port)
        finally:
            await server.stop(None)


def _check(listen: str, target: str) -> None:
    """Raise AddressError if no call could ever be passed on between these targets."""
    front, back = parse_target(listen), parse_target(target)
    for address in (front, back):
        if address.scheme == "inproc":
            raise AddressError(
                f"{address}: a name of inproc: is private to a process, and a proxy is another"
                " process than its client and server; use shm:"
            )
    if back.scheme == "pipe" and not back.body:
        raise AddressError(
            f"{back}: pipe: without a path leads to a child, and a proxy has none; use shm:"
        )
    if (front.scheme, front.body) == (back.scheme, back.body):
        raise AddressError(f"{back}: a proxy cannot be in front of itself; name two targets")


def _open_channel(settings: Settings, options: list[tuple[str, Any]]) -> aio.Channel:
    credentials = settings.channel_credentials
    if credentials is None:
        return localrpc.aio.insecure_channel(settings.target, options)
    return localrpc.aio.secure_channel(settings.target, credentials, options)


def _with_port(target: str, port: int) -> str:
    """Return the target with the port in place of 0."""
    place, mark, options = target.partition("?")
    head, _, number = place.rpartition(":")
    return f"{head}:{port}{mark}{options}" if number == "0" else target


async def _run(settings: Settings) -> int:
    loop = asyncio.get_running_loop()
    manager = Manager()
    signals: asyncio.Queue[signal.Signals] = asyncio.Queue()
    for number in _STOPPING:
        loop.add_signal_handler(number, signals.put_nowait, number)
    async with proxying(settings) as (server, place):
        _logger.info("listening on %s, in front of %s", place, settings.target)
        manager.ready(f"{place} in front of {settings.target}")
        alive = loop.create_task(_keep_alive(manager))
        code = await _until_stopped(server, signals, settings.grace, manager)
        alive.cancel()
    _logger.info("stopped")
    return code


async def _keep_alive(manager: Manager) -> None:
    while (pause := manager.next_time()) is not None:
        await asyncio.sleep(pause)
        manager.keep_alive()


async def _until_stopped(
    server: aio.Server, signals: asyncio.Queue[signal.Signals], grace: float, manager: Manager
) -> int:
    """Stop the server as the signals say; return the exit code."""
    loop = asyncio.get_running_loop()
    first = loop.create_task(signals.get())
    ended = loop.create_task(server.wait_for_termination())
    await asyncio.wait((first, ended), return_when=asyncio.FIRST_COMPLETED)
    if not first.done():  # the parent at the other end of pipe: has gone
        first.cancel()
        return 0
    manager.stopping()
    _logger.info("%s: stopping; calls in progress have %g s", first.result().name, grace)
    stopped = loop.create_task(server.stop(grace))
    second = loop.create_task(signals.get())
    await asyncio.wait((stopped, second), return_when=asyncio.FIRST_COMPLETED)
    if stopped.done():
        second.cancel()
        return 0
    _logger.warning("%s: stopping at once", second.result().name)
    for number in _STOPPING:  # a third one ends the process, whatever it does
        loop.remove_signal_handler(number)
    await asyncio.gather(server.stop(None), stopped)
    return 128 + second.result()
