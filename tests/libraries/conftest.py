"""A test module has in LIBRARIES the distributions that it tries; a page says their versions."""

from __future__ import annotations

import pytest

from .needed import need


@pytest.fixture(scope="module", autouse=True)
def _installed(request: pytest.FixtureRequest) -> None:
    need(getattr(request.module, "LIBRARIES", ()))
