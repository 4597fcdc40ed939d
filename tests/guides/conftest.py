"""Folders with the service of README's quickstart, whose files the guides use."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.guides.page import Folder


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


@pytest.fixture
def greeter(folder: Folder) -> Folder:
    """With the generated package `greeter`."""
    folder.write("README.md", "greeter.proto")
    folder.run("localrpc generate greeter.proto --out greeter")
    return folder
