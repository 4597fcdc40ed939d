"""The census sees what could be left over: or the tests of leftovers would say nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import posix_ipc
import pytest

from localrpc._core import lib
from tests import own_ipc
from tests.peers import census
from tests.skips import cannot

KEY = 0x6C720001


def posix_queues() -> Callable[[], object]:
    queue = posix_ipc.MessageQueue("/localrpc-census", posix_ipc.O_CREX)
    queue.close()
    return lambda: posix_ipc.unlink_message_queue("/localrpc-census")


def sysv_queues() -> Callable[[], object]:
    number = lib.lr_msgget(KEY, 1)
    return lambda: lib.lr_msgctl_remove(number)


def sysv_segments() -> Callable[[], object]:
    number = lib.lr_sysv_create(KEY, 4096)
    return lambda: lib.lr_sysv_remove(number)


def shared_memory() -> Callable[[], object]:
    path = Path("/dev/shm/localrpc-census")
    path.touch()
    return path.unlink


@pytest.mark.parametrize("make", [posix_queues, sysv_queues, sysv_segments, shared_memory])
def test_the_census_sees_every_system_wide_name(
    make: Callable[[], Callable[[], object]],
) -> None:
    if own_ipc.posix_queues is None:
        cannot("needs the right to have an IPC namespace, as root has it outside containers")
    before = census.take()
    remove = make()
    assert list(census.difference(before, census.take())) in (
        [make.__name__ + "s"],
        [make.__name__],
    )
    remove()
    census.await_same(before)


@pytest.mark.parametrize("name", ["a.sock", "b.spool/", "c.spool/0/up/0", "d.fifo.0.made"])
def test_the_census_sees_a_name_that_is_left_behind(name: str, runtime_directory: str) -> None:
    before = census.take()
    path = Path(runtime_directory, name)
    (path if name.endswith("/") else path.parent).mkdir(parents=True, exist_ok=True)
    if not name.endswith("/"):
        path.touch()
    assert list(census.difference(before, census.take())) == ["names"]
    while path != Path(runtime_directory):
        path.rmdir() if path.is_dir() else path.unlink()
        path = path.parent
    census.await_same(before)
