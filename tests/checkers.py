"""What mypy knows of libraries, found out once in a run of tests."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.native.build import shared

LIBRARIES = """
import argparse, asyncio, collections, concurrent.futures, contextlib, re, subprocess, typing
import google.protobuf.descriptor_pool, google.protobuf.empty_pb2, google.protobuf.message
import google.protobuf.internal.builder, google.protobuf.internal.containers
import google.protobuf.internal.enum_type_wrapper, google.protobuf.symbol_database
import grpc, grpc.aio, typing_extensions
"""


def strict_mypy(cache: Path) -> list[str]:
    """Arguments for Python: mypy as a user of the oldest Python without a configuration runs it."""
    return [
        *("-m", "mypy", "--strict", "--python-version", "3.10"),
        *("--config-file", os.devnull, "--cache-dir", str(cache)),
    ]


def mypy_cache(factory: pytest.TempPathFactory) -> Path:
    """A folder for `strict_mypy` alone: with other options mypy would write it anew."""
    with shared(factory, "mypy") as folder:
        cache = folder / "cache"
        if not cache.exists():
            command = [sys.executable, *strict_mypy(cache), "-c", LIBRARIES]
            subprocess.run(command, cwd=folder, stdout=subprocess.DEVNULL, check=True)
    return cache
