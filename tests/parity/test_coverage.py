"""The scenarios leave out no public method and no parameter of grpc's interfaces."""

from __future__ import annotations

import pytest

from .conftest import GRPCIOS_THREADS, Stage
from .usage import Use, required

pytestmark = GRPCIOS_THREADS


@pytest.mark.parametrize("use", sorted(required()), ids=lambda use: ".".join(filter(None, use)))
def test_some_scenario_uses_it(stage: Stage, use: Use) -> None:
    assert use in stage.uses()
