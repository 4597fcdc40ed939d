"""Where a peer's halves meet, and how often a round is measured."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.bench.running import folder_for_halves


@pytest.fixture
def directory(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = folder_for_halves(tmp_path_factory)
    monkeypatch.setenv("LOCALRPC_RUNTIME_DIR", str(folder))
    return folder


@pytest.fixture(autouse=True)
def _no_round_is_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests that run beside these disturb nearly every round."""
    monkeypatch.setattr("localrpc.bench.runner.REPEATS", 1)
