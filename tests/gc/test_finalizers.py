"""A finalizer takes no lock: it runs anywhere, even in a thread that holds that lock."""

from __future__ import annotations

import asyncio
import fcntl
import gc
import importlib
import os
import pkgutil
import threading
import traceback
import weakref
from collections.abc import Callable
from concurrent import futures
from typing import Any

import grpc
import pytest

import localrpc
import localrpc.aio
from localrpc.drive import finalizers
from localrpc.drive.callback_queue import CallbackQueue
from tests.conftest import FULL, fresh_target
from tests.endings import at_end
from tests.gc.channels import CHANNELS, SERVERS
from tests.gc.heap import uncollected
from tests.gc.scenes import CALLS, Home
from tests.peers.interpreters import Interpreter
from tests.rpc.house import PATIENCE, await_that
from tests.skips import cannot

_real = {"Lock": threading.Lock, "RLock": threading.RLock}


class Watch:
    """Knows which threads are inside a finalizer of localrpc, and what they do there."""

    def __init__(self) -> None:
        self._inside = threading.local()
        self.ran: set[str] = set()
        self.faults: list[str] = []

    def finalizer(self, function: Callable[..., Any], name: str) -> Callable[..., Any]:
        def run(*args: Any, **named: Any) -> Any:
            self.ran.add(name)
            before = getattr(self._inside, "name", "")
            self._inside.name = name
            try:
                return function(*args, **named)
            finally:
                self._inside.name = before

        return run

    def must_not_be_inside(self, what: str) -> None:
        if name := getattr(self._inside, "name", ""):
            self.faults.append(f"{name}: {what}\n{''.join(traceback.format_stack(limit=8))}")


def watched_lock(watch: Watch, kind: str) -> Callable[[], Any]:
    """As threading.Lock or RLock, and a blocking acquire() inside a finalizer is a fault."""

    class Lock:
        def __init__(self) -> None:
            self._lock: Any = _real[kind]()

        def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
            if blocking:
                watch.must_not_be_inside(f"acquires a {kind}")
            return bool(self._lock.acquire(blocking, timeout))

        def __enter__(self) -> bool:
            return self.acquire()

        def __exit__(self, *exc_info: object) -> None:
            self._lock.release()

        def __getattr__(self, name: str) -> Any:
            return getattr(self._lock, name)

    return Lock


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> Watch:
    """From here on every lock and every finalizer of localrpc is watched."""
    one = Watch()
    for kind in _real:
        monkeypatch.setattr(threading, kind, watched_lock(one, kind))
    for kind in _with_finalizers():
        name = _name_of(kind)
        monkeypatch.setattr(kind, "__del__", one.finalizer(kind.__del__, name))
    real_finalize = weakref.finalize

    def finalize(subject: Any, function: Callable[..., Any], *args: Any) -> Any:
        name = getattr(function, "__name__", str(function))
        return real_finalize(subject, one.finalizer(function, name), *args)

    monkeypatch.setattr(weakref, "finalize", finalize)
    for owner, name in ((fcntl, "flock"), (threading.Thread, "start")):
        monkeypatch.setattr(owner, name, _outside(one, getattr(owner, name), name))
    return one


def _name_of(kind: Any) -> str:
    return f"{kind.__module__.removeprefix('localrpc.')}.{kind.__name__}.__del__"


def _with_finalizers() -> set[Any]:
    """All of our classes that have one."""
    found: set[Any] = set()
    for name in ("sync", "aio", "drive", "transports"):
        package = importlib.import_module(f"localrpc.{name}")
        for each in pkgutil.iter_modules(package.__path__, f"localrpc.{name}."):
            module = importlib.import_module(each.name)
            found |= {kind for kind in vars(module).values() if isinstance(kind, type)}
    ours = {kind for kind in found if kind.__module__.startswith("localrpc.")}
    return {kind for kind in ours if "__del__" in vars(kind)}


def _outside(watch: Watch, function: Callable[..., Any], name: str) -> Callable[..., Any]:
    def run(*args: Any) -> Any:
        watch.must_not_be_inside(name)
        return function(*args)

    return run


class Waiting(grpc.aio.UnaryUnaryClientInterceptor):
    async def intercept_unary_unary(self, *_: Any) -> Any:
        await asyncio.Event().wait()


async def drop_everything(target: str) -> None:
    """Drop what the asyncio API returns, while it is in use."""
    server = localrpc.aio.server()
    server.add_insecure_port(target)
    await server.start()
    channel = localrpc.aio.insecure_channel(target)
    await channel.channel_ready()
    channel.unary_unary("/a/b")(b"")
    channel.unary_stream("/a/b")(b"")
    intercepted = localrpc.aio.insecure_channel(target, interceptors=[Waiting()])
    intercepted.unary_unary("/a/b")(b"")
    del channel, server, intercepted
    for _ in range(5):
        await asyncio.sleep(0)


def test_no_finalizer_takes_a_lock(watch: Watch, one_target: str, runtime_directory: str) -> None:
    unserved = fresh_target("shm-eventfd", runtime_directory)
    with uncollected(), Home(one_target, unserved) as home:
        for call in CALLS.values():
            call(home)
        for channel in CHANNELS.values():
            channel(home)
        for server in SERVERS.values():
            server(fresh_target("unix", runtime_directory))
        asyncio.run(drop_everything(fresh_target("unix", runtime_directory)))
        finalizers.settle()
    assert not watch.faults, watch.faults[0]
    classes = {_name_of(kind) for kind in _with_finalizers()}
    assert len(classes) >= 3
    assert watch.ran >= classes | {"lr_engine_free"}, "some finalizer was not tried"


def test_a_lock_taken_by_a_finalizer_is_seen(watch: Watch) -> None:
    lock = threading.Lock()
    watch.finalizer(lock.acquire, "bad")()
    watch.finalizer(lambda: lock.acquire(blocking=False), "good")()
    assert [fault.partition("\n")[0] for fault in watch.faults] == ["bad: acquires a Lock"]


def test_deferred_functions_run_once_and_in_order() -> None:
    seen: list[int] = []
    for number in range(100):
        finalizers.run_later(seen.append, number)
    finalizers.settle()
    assert seen == list(range(100))


def test_a_failing_deferred_function_does_not_stop_the_others() -> None:
    done = threading.Event()

    def fail() -> None:
        raise ValueError("on purpose")

    finalizers.run_later(fail)
    finalizers.run_later(done.set)
    assert done.wait(PATIENCE)


class Subscriber:
    """Unsubscribes in its finalizer, as the future of grpc.channel_ready_future() does."""

    def __init__(self, channel: Any) -> None:
        self._channel = channel
        channel.subscribe(self.noted)

    def noted(self, state: Any) -> None:
        pass

    def __del__(self) -> None:
        self._channel.unsubscribe(self.noted)


@pytest.mark.parametrize("how", ["closed", "dropped"])
def test_a_subscriber_without_other_references_unsubscribes_itself(
    how: str, runtime_directory: str
) -> None:
    channel = localrpc.insecure_channel(fresh_target("unix", runtime_directory))
    forgotten = weakref.ref(Subscriber(channel))
    await_that(lambda: "localrpc-connectivity" not in names_of_threads(), "it knows the state")
    ends = [channel.close] if how == "closed" else [channel.__del__]
    ender = threading.Thread(target=ends.pop(), daemon=True)
    ender.start()
    ender.join(PATIENCE)
    assert not ender.is_alive(), "close() waits for itself"
    await_that(lambda: forgotten() is None, "the subscriber is gone")
    assert channel.facts is None  # its lock is free


def names_of_threads() -> set[str]:
    return {thread.name for thread in threading.enumerate()}


def test_a_callback_may_end_an_object_that_posts_another() -> None:
    queue = CallbackQueue("localrpc-test", "")
    alone, posted = threading.Event(), threading.Event()

    class Posting:
        def __call__(self) -> None:
            pass

        def __del__(self) -> None:
            queue.post(posted.set)

    queue.post(alone.wait)
    queue.post(Posting())
    queue.post(lambda: None)
    alone.set()  # now the queue alone holds the callbacks
    assert posted.wait(PATIENCE)


class Owner:
    """A user's object that, as garbage, ends what it has begun with a channel."""

    def __init__(self, channel: Any, call: Any) -> None:
        self._channel, self._call = channel, call
        self._cycle = self
        channel.subscribe(self.noted)

    @staticmethod
    def noted(state: Any) -> None:
        pass

    def __del__(self) -> None:
        self._channel.unsubscribe(self.noted)
        self._call.cancel()


def test_finalizers_run_inside_every_allocation(one_target: str) -> None:
    """Garbage of other threads is collected by the thread that allocates, with or without locks."""
    over, failures = threading.Event(), []
    threshold = gc.get_threshold()

    def litter(home: Home) -> None:
        while not over.is_set():
            channel: Any = home.channel
            call = channel.unary_stream("/house/count")(b"5")
            upload = channel.unary_unary("/house/echo").future(b"x")
            for each in (call, upload):
                if each is upload:
                    at_end(each, lambda: None)
                cycle = [each]
                cycle.append(cycle)
            owned = channel.unary_unary("/house/echo").future(b"x")
            owned.add_done_callback(id)
            Owner(channel, owned)

    def work(home: Home) -> None:
        try:
            for _ in range(60):
                assert home.unary("echo").future(b"x").result(PATIENCE) == b"x"
                assert len(list(home.stream("count")(b"5"))) == 5
                home.channel.subscribe(print)
                home.channel.unsubscribe(print)
        except BaseException as error:
            failures.append(error)

    with Home(one_target) as home:
        litterer = threading.Thread(target=litter, args=(home,), daemon=True)
        workers = [threading.Thread(target=work, args=(home,), daemon=True) for _ in range(2)]
        gc.set_threshold(1)
        try:
            for thread in (litterer, *workers):
                thread.start()
            for thread in workers:
                thread.join(6 * PATIENCE)
                assert not thread.is_alive(), "a thread waits for itself"
        finally:
            over.set()
            gc.set_threshold(*threshold)
            litterer.join(PATIENCE)
    assert not failures


def test_no_lock_is_held_while_a_thread_is_waited_for(
    one_target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Thread.start() waits until the new thread runs, which may run a user's finalizer first."""
    begun, stuck = [], []
    start = threading.Thread.start

    with Home(one_target) as home:

        def collect_and_start(thread: threading.Thread) -> None:
            if thread.name.startswith("localrpc-"):
                begun.append(thread.name)
                finalizer = threading.Thread(target=home.channel.unsubscribe, args=(print,))
                start(finalizer)
                finalizer.join(PATIENCE)
                if finalizer.is_alive():
                    stuck.append(thread.name)
            start(thread)

        monkeypatch.setattr(threading.Thread, "start", collect_and_start)
        states: list[Any] = []
        home.channel.subscribe(states.append, try_to_connect=True)
        await_that(lambda: grpc.ChannelConnectivity.READY in states, "a connection")
        done = threading.Event()
        future = home.unary("echo").future(b"x", wait_for_ready=True)
        future.add_done_callback(lambda _: done.set())
        assert future.result(PATIENCE) == b"x"
        assert done.wait(PATIENCE)
        home.channel.unsubscribe(states.append)
        names = {"localrpc-connectivity", "localrpc-connect", "localrpc-watch"}
        await_that(lambda: names <= set(begun), "the threads")
    assert not stuck


_PROGRAM = """
import faulthandler, gc, os, sys, threading, warnings
from concurrent import futures
import grpc, localrpc
faulthandler.enable()
warnings.simplefilter("error", ResourceWarning)
gc.disable()
target = sys.argv[1]

def slow(request, context):
    over = threading.Event()
    if context.add_callback(over.set):
        over.wait(PATIENCE)
    return request

uu = grpc.unary_unary_rpc_method_handler
us = grpc.unary_stream_rpc_method_handler
generic = grpc.method_handlers_generic_handler("p", {
    "echo": uu(lambda request, context: request), "slow": uu(slow),
    "count": us(lambda request, context: (b"x" for _ in range(100000)))})
server = localrpc.server(futures.ThreadPoolExecutor(4), handlers=(generic,))
server.add_insecure_port(target)
server.start()
never_started = localrpc.server(futures.ThreadPoolExecutor(4), handlers=(generic,))
never_started.add_insecure_port(sys.argv[2])
channel = localrpc.insecure_channel(target)
assert channel.unary_unary("/p/echo")(b"x") == b"x"
waiting = channel.unary_unary("/p/slow").future(b"x")
waiting.add_done_callback(lambda call: None)
stream = channel.unary_stream("/p/count")(b"x")
next(stream)
channel.subscribe(lambda state: None)
unserved = localrpc.insecure_channel(sys.argv[3]).unary_unary("/p/echo")
ready = unserved.future(b"", wait_for_ready=True)
del unserved
"""

_FORK = (
    _PROGRAM.replace("PATIENCE", "20")
    + """
child = os.fork()
if child == 0:
    # The child must not end what the parent has; dropping it sends nothing to a peer.
    del waiting, stream, ready
    channel = server = never_started = None
    from localrpc.drive import finalizers
    done = threading.Event()
    finalizers.run_later(done.set)
    os._exit(0 if done.wait(20) else 1)
assert os.waitpid(child, 0)[1] == 0
assert next(stream) == b"x"
assert channel.unary_unary("/p/echo")(b"y") == b"y"
assert not waiting.done()
del waiting
server.stop(None)
print("good")
"""
)

_EXIT = (
    _PROGRAM.replace("PATIENCE", "0.2")  # the pool's threads are waited for at the exit
    + """
del waiting, stream, channel  # and the rest goes with the module
print("good")
"""
)


@pytest.mark.parametrize("program", [_FORK, _EXIT], ids=["fork", "exit"])
def test_objects_dropped_in_a_child_or_at_exit_end_quietly(
    program: str, distinct_kind: str, runtime_directory: str
) -> None:
    if distinct_kind == "inproc":
        cannot("between the threads of one process")
    targets = [fresh_target(distinct_kind, runtime_directory) for _ in range(3)]
    names = set(os.listdir(runtime_directory))
    with Interpreter(program, *targets, fresh=FULL or distinct_kind == "unix") as running:
        assert running.finish() == (0, "good\n", "")
    # Whose process has ended before it closed leaves names to the next start, as a kill does.
    for target in targets:
        server = localrpc.server(futures.ThreadPoolExecutor(1))
        server.add_insecure_port(target)
        server.start()
        server.stop(None).wait()
    assert set(os.listdir(runtime_directory)) <= names
