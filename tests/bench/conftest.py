"""Where a peer's halves meet, for tests that start them without a runner."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.bench.running import folder_for_halves


@pytest.fixture
def directory(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = folder_for_halves(tmp_path_factory)
    monkeypatch.setenv("LOCALRPC_RUNTIME_DIR", str(folder))
    return folder
