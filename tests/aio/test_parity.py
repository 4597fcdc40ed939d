"""User code sees the same from localrpc.aio, over each transport, as from grpc.aio."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from tests.conftest import DISTINCT, fresh_target

from .scenarios import SCENARIOS
from .world import World

_told: dict[str, Any] = {}


def play(name: str, module: str, target: str) -> Any:
    return asyncio.run(SCENARIOS[name](World(module, target)))


@pytest.fixture
def reference(runtime_directory: str) -> Callable[[str], Any]:
    def told(name: str) -> Any:
        if name not in _told:
            target = fresh_target("unix", runtime_directory)
            _told[name] = play(name, "grpc.aio", target)
        return _told[name]

    return told


@pytest.mark.parametrize("name", sorted(SCENARIOS))
@pytest.mark.parametrize("kind", DISTINCT)
def test_user_code_sees_what_grpc_aio_shows(
    kind: str, name: str, runtime_directory: str, reference: Any
) -> None:
    told = play(name, "localrpc.aio", fresh_target(kind, runtime_directory))
    assert told == reference(name)
