"""Serves your servicers in a test, over any transport, and gives a channel to them.

With pytest there is a fixture as well:

    def test_greeting(localrpc_serve):
        channel = localrpc_serve(Greeter())
        assert GreeterStub(channel).Greet(Name(name="Ada")).text == "Hello, Ada!"

`@pytest.mark.localrpc_target("inproc:", "shm:")` runs a test once over each. For servicers of
coroutines there is localrpc_serve_aio, with any plugin for asynchronous tests:

    async def test_greeting(localrpc_serve_aio):
        async with localrpc_serve_aio(Greeter()) as channel:
            assert (await GreeterStub(channel).Greet(Name(name="Ada"))).text == "Hello, Ada!"
"""

from __future__ import annotations

import itertools
import os
import re
import secrets
import sys
import tempfile
import threading
import traceback
from collections.abc import AsyncIterator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, asynccontextmanager, contextmanager
from time import monotonic
from typing import Any

import grpc

import localrpc
from localrpc.transports import REGISTERED, parse_target, scheme_for

__all__ = ["fresh_target", "serving", "serving_aio"]

PATIENCE = 5.0
"""Seconds that handlers have to end once their server has stopped."""

_PARENT_MAX = 40
_numbers = itertools.count(1)

_Options = Sequence[tuple[str, Any]] | None


@contextmanager
def serving(
    *servicers: object,
    target: str = "inproc:",
    interceptors: Sequence[grpc.ServerInterceptor] | None = None,
    options: _Options = None,
    channel_options: _Options = None,
    max_workers: int = 8,
) -> Iterator[grpc.Channel]:
    """Serve `servicers`, and yield a channel to them; the server is stopped at the end.

    A servicer is an instance of a generated class, a grpc.GenericRpcHandler, or a function that
    adds something to the server that it is given. `target` may be a scheme alone, with or
    without options (shm:?wakeup=signal): then a unique name is added. `interceptors` and
    `options` are the server's, as in localrpc.server, `channel_options` the channel's;
    `max_workers` is the number of threads that run handlers.

    A handler's exception is logged with its traceback, and its call has the status UNKNOWN, as
    always. Raises RuntimeError, with their stacks, if handlers are still running 5 seconds after
    the end; TypeError for an object that is not a servicer; and what localrpc.server and
    localrpc.insecure_channel raise. The server runs in this process, on threads of its own.
    """
    threads: list[threading.Thread] = []
    pool = ThreadPoolExecutor(
        max_workers,
        thread_name_prefix="localrpc-testing",
        initializer=lambda: threads.append(threading.current_thread()),
    )
    with ExitStack() as undo:
        undo.callback(_join, pool, threads)
        server = localrpc.server(pool, interceptors=interceptors, options=options)
        for servicer in servicers:
            _add(servicer, server)
        where = fresh_target(target, undo.enter_context(_folder()))
        port = server.add_insecure_port(where)
        server.start()
        undo.callback(server.stop, None)
        channel = localrpc.insecure_channel(_reachable(where, port), channel_options)
        undo.callback(channel.close)
        yield channel


@asynccontextmanager
async def serving_aio(
    *servicers: object,
    target: str = "inproc:",
    interceptors: Sequence[grpc.aio.ServerInterceptor] | None = None,
    options: _Options = None,
    channel_options: _Options = None,
    max_workers: int = 8,
) -> AsyncIterator[grpc.aio.Channel]:
    """Serve `servicers` with the asyncio API on the running loop, and yield a channel to them.

    `servicers`, `target`, `interceptors`, `options` and `channel_options` are as in serving();
    `max_workers` is the number of threads for handlers that are plain functions. The server is
    stopped at the end: all handlers have ended then, `finally` blocks included.

    Raises TypeError for an object that is not a servicer, and what localrpc.aio.server and
    localrpc.aio.insecure_channel raise. It is for the thread of the loop.
    """
    from localrpc import aio

    with ExitStack() as undo:
        pool = undo.enter_context(ThreadPoolExecutor(max_workers))
        server = aio.server(pool, interceptors=interceptors, options=options)
        for servicer in servicers:
            _add(servicer, server)
        where = fresh_target(target, undo.enter_context(_folder()))
        port = server.add_insecure_port(where)
        await server.start()
        try:
            channel = aio.insecure_channel(_reachable(where, port), channel_options)
            async with channel:
                yield channel
        finally:
            await server.stop(None)


def fresh_target(target: str, directory: str) -> str:
    """Return `target` with a unique name if it has none; paths are in `directory`.

    Raises AddressError if `target` is malformed, and ValueError for a scheme without names to
    choose from.
    """
    head, question, query = target.partition("?")
    name, _, rest = head.partition(":")
    if name not in REGISTERED or rest or ":" not in head:
        parse_target(target)
        return target
    scheme = scheme_for(name)
    word = f"test-{os.getpid()}-{next(_numbers)}-{secrets.token_hex(4)}"
    bodies = {
        "NAME": word,
        "PATH": f"{directory}/{word}",
        "DIR": f"{directory}/{word}",
        "HOST:PORT": "127.0.0.1:0",
        "TARGET": f"unix:{directory}/{word}",
    }
    form = scheme.example.partition(":")[2]
    if form not in bodies:
        raise ValueError(f"target {target!r}: cannot choose a name for it; write {scheme.example}")
    return f"{head}{bodies[form]}{question}{query}"


@contextmanager
def _folder() -> Iterator[str]:
    # A socket's name has at most 107 bytes, and some temporary directories leave few of them.
    parent = None if len(tempfile.gettempdir()) <= _PARENT_MAX else "/tmp"
    with tempfile.TemporaryDirectory(
        prefix="localrpc-", dir=parent, ignore_cleanup_errors=True
    ) as folder:
        yield folder


def _reachable(target: str, port: int) -> str:
    """Return the target to dial for a server that has chosen its port."""
    head, question, query = target.partition("?")
    if head.endswith(":0") and port > 1:
        head = f"{head[:-1]}{port}"
    return f"{head}{question}{query}"


def _add(servicer: object, server: grpc.Server | grpc.aio.Server) -> None:
    if isinstance(servicer, type):
        raise TypeError(f"{servicer.__name__} is a class; give an instance: {servicer.__name__}()")
    if isinstance(servicer, grpc.GenericRpcHandler):
        server.add_generic_rpc_handlers((servicer,))
        return
    # All of gRPC's generators name it so, beside the class; one function for both APIs.
    adders = (
        getattr(sys.modules.get(base.__module__), f"add_{name}_to_server", None)
        for base in type(servicer).__mro__
        for name in (base.__name__, re.sub("AsyncServicer$", "Servicer", base.__name__))
    )
    add = next((adder for adder in adders if adder is not None), None)
    if add is not None:
        add(servicer, server)
    elif callable(servicer):
        servicer(server)
    else:
        name = type(servicer).__name__
        raise TypeError(
            f"{name} is not a generated servicer: no add_{name}_to_server is defined beside it or"
            " its bases; pass a function that adds it to a server"
        )


def _join(pool: ThreadPoolExecutor, threads: list[threading.Thread]) -> None:
    pool.shutdown(wait=False)
    until = monotonic() + PATIENCE
    for thread in threads:
        thread.join(max(0.0, until - monotonic()))
    frames = sys._current_frames()
    stacks = [
        "".join(traceback.format_stack(frames[thread.ident]))
        for thread in threads
        if thread.is_alive() and thread.ident in frames
    ]
    if stacks:
        raise RuntimeError(
            f"{len(stacks)} handlers are still running {PATIENCE:g} s after their server stopped:\n"
            + "\n".join(stacks)
        )
