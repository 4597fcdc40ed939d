"""Where a peer's halves meet, for tests that start them without a runner."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def directory(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path_factory.mktemp("b")
    folder.chmod(0o700)
    monkeypatch.setenv("LOCALRPC_RUNTIME_DIR", str(folder))
    return folder
