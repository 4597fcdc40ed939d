"""An interpreter per test is slow; what exits differently, differs by the kind of link."""

from __future__ import annotations

import pytest

from tests.conftest import fresh_target

_KINDS = ["shm-eventfd", "shm-signal", "shm-futex", "unix", "pipe", "mq", "sysvmq", "file", "tcp"]


@pytest.fixture(params=_KINDS)
def target(request: pytest.FixtureRequest, runtime_directory: str) -> str:
    return fresh_target(request.param, runtime_directory)
