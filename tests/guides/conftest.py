"""Folders with the service of README's quickstart, whose files the guides use."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.guides.page import Folder


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


@pytest.fixture(scope="session")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package `greeter`, as the README's command generates it."""
    folder = Folder(tmp_path_factory.mktemp("greeter"))
    folder.write("README.md", "greeter.proto")
    folder.run("localrpc generate greeter.proto --out greeter")
    return folder.path / "greeter"


@pytest.fixture
def greeter(folder: Folder, generated: Path) -> Folder:
    """With the generated package `greeter`."""
    folder.write("README.md", "greeter.proto")
    shutil.copytree(generated, folder.path / "greeter")
    return folder
