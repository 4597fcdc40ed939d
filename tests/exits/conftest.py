"""A process per test is slow; what exits differently, differs by the kind of link."""

from __future__ import annotations

import pytest

from tests.conftest import DISTINCT, TWO_PROCESSES, fresh_target

KINDS = [kind for kind in TWO_PROCESSES if kind in DISTINCT]


@pytest.fixture(params=KINDS)
def target(request: pytest.FixtureRequest, runtime_directory: str) -> str:
    return fresh_target(request.param, runtime_directory)
