"""What the core says about an engine's work."""

from __future__ import annotations

from typing import Any

from localrpc._core import ffi, lib


def engine_of(one: Any) -> Any:
    """Of a server, or of a channel that is connected."""
    if hasattr(one, "_serving"):
        return one._serving.engine
    return one._connector.peek().engine


def figures(one: Any) -> Any:
    """The struct lr_stats of its engine."""
    stats = ffi.new("struct lr_stats *")
    lib.lr_engine_stats(engine_of(one), stats)
    return stats


def queued_bytes(one: Any) -> int:
    """What its process keeps for calls whose readers are slow."""
    return int(figures(one).queued_bytes)


def live_calls(one: Any) -> int:
    return int(lib.lr_live(engine_of(one)))
