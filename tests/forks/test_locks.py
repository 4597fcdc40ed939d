"""A fork while other threads hold every lock of the package: the child must not wait for them."""

from __future__ import annotations

import ast
import gc
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent import futures
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

import localrpc
from tests.conftest import fresh_target
from tests.forks.children import Child, try_all_kinds
from tests.peers.journal import PATIENCE
from tests.peers.scenes import Stage

PACKAGE = Path(__file__).resolve().parents[2] / "localrpc"
LOCKS = (type(threading.Lock()), type(threading.RLock()))
KINDS = ("threading.Lock", "threading.RLock", "threading.Condition")

# Held by the thread that forks, which the child lets go of; another thread may hold it, too,
# so the child makes a new one.
HELD_BY_WHO_FORKS = {"localrpc/transports/to_child.py"}
# Of one call that a server has taken in: a child answers none of its parent's.
OF_A_CALL = {"localrpc/drive/served.py", "localrpc/drive/call.py"}


def locks_in(owner: Any) -> Iterator[Any]:
    """The locks of an object or a module, those inside of conditions too."""
    values = list(getattr(owner, "__dict__", {}).values())
    values += [getattr(owner, name, None) for name in getattr(type(owner), "__slots__", ())]
    for value in values:
        if isinstance(value, threading.Condition):
            value = value._lock  # type: ignore[attr-defined]
        if isinstance(value, LOCKS):
            yield value


def locks_of_the_package() -> list[Any]:
    owners = [
        each
        for each in gc.get_objects()
        if str(type(each).__module__).partition(".")[0] == "localrpc"
    ]
    owners += [m for name, m in list(sys.modules.items()) if name.partition(".")[0] == "localrpc"]
    return list({id(lock): lock for owner in owners for lock in locks_in(owner)}.values())


@contextmanager
def all_locks_held() -> Iterator[None]:
    """Held by another thread, or by the thread that had them before."""
    locks = locks_of_the_package()
    held, over = threading.Event(), threading.Event()

    def hold() -> None:
        mine = [lock for lock in locks if lock.acquire(timeout=0.05)]
        held.set()
        over.wait()
        for lock in mine:
            lock.release()

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait()
    try:
        yield
    finally:
        over.set()
        holder.join()


def child_of_a_fork_with_all_locks_held(work: Callable[[], object]) -> Child:
    """In the child they are held forever, unless something is done for it."""
    with all_locks_held():
        return Child(work)


def test_locks_are_found_and_held(stage: Stage) -> None:
    try_all_kinds(stage.channel)
    with all_locks_held():
        locks = locks_of_the_package()
        assert len(locks) > 10
        assert not any(lock.acquire(blocking=False) for lock in locks)


def test_a_child_uses_what_it_has_inherited(stage: Stage) -> None:
    try_all_kinds(stage.channel)
    trickle = stage.channel.unary_stream("/station/trickle")(b"")
    assert next(trickle) == b"first"

    def work() -> None:
        for call in (trickle.code, trickle.cancel, lambda: trickle.add_callback(list)):
            call()
        try_all_kinds(stage.channel)
        # A name that the channel has not used before.
        with pytest.raises(grpc.RpcError) as caught:
            stage.channel.unary_unary("/station/another")(b"", timeout=PATIENCE)
        error: Any = caught.value
        assert error.code() is grpc.StatusCode.UNIMPLEMENTED
        stage.channel.subscribe(lambda state: None, try_to_connect=True)
        stage.channel.close()

    child_of_a_fork_with_all_locks_held(work).join()
    try_all_kinds(stage.channel)
    trickle.cancel()


def test_a_child_has_channels_and_servers_of_its_own(
    stage: Stage, target: str, runtime_directory: str
) -> None:
    try_all_kinds(stage.channel)
    handlers: Any = {"echo": grpc.unary_unary_rpc_method_handler(lambda request, context: request)}
    own = fresh_target("unix", runtime_directory)

    def work() -> None:
        with localrpc.insecure_channel(target) as channel:
            try_all_kinds(channel)
        localrpc.instrument(channel=lambda channel: channel)()
        pool = futures.ThreadPoolExecutor(1)
        server = localrpc.server(pool, (grpc.method_handlers_generic_handler("own", handlers),))
        server.add_insecure_port(own)
        server.start()
        local: Any = localrpc.insecure_channel(own)
        with local as channel:
            assert channel.unary_unary("/own/echo")(b"x", timeout=PATIENCE) == b"x"
        server.stop(None)

    child_of_a_fork_with_all_locks_held(work).join()


def test_every_lock_is_made_where_forks_are_thought_of() -> None:
    """What is made elsewhere would be held forever in some child."""
    found = set()
    for path in PACKAGE.rglob("*.py"):
        if path.parent.name == "bench" or path.name == "_locks.py":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and ast.unparse(node) in KINDS:
                found.add(str(path.relative_to(PACKAGE.parent)))
    assert found == HELD_BY_WHO_FORKS | OF_A_CALL
