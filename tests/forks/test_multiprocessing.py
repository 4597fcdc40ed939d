"""multiprocessing's three ways to start a child."""

from __future__ import annotations

import multiprocessing
from typing import Any

import pytest

import localrpc
from tests.forks.children import try_all_kinds
from tests.peers.journal import PATIENCE
from tests.peers.scenes import Stage

METHODS = ("fork", "forkserver", "spawn")


def ask(target: str, message: bytes) -> bytes:
    """In the child."""
    with localrpc.insecure_channel(target) as channel:
        try_all_kinds(channel)
        echo: Any = channel.unary_unary("/station/echo")
        return bytes(echo(message, timeout=PATIENCE))


@pytest.mark.parametrize("method", METHODS)
def test_children_of_every_kind_call(target: str, stage: Stage, method: str) -> None:
    try_all_kinds(stage.channel)
    with multiprocessing.get_context(method).Pool(2) as pool:
        waiting = pool.starmap_async(ask, [(target, b"%d" % n) for n in range(4)])
        try_all_kinds(stage.channel)
        assert waiting.get(PATIENCE) == [b"0", b"1", b"2", b"3"]
        pool.close()
        pool.join()
    try_all_kinds(stage.channel)
