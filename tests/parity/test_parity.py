"""User code sees the same from localrpc, over each of its transports, as from grpcio."""

from __future__ import annotations

import pytest

from .backends import CANDIDATES, Backend
from .catalogue import SCENARIOS
from .conftest import Stage
from .deviations import DEVIATIONS


@pytest.mark.parametrize("name", sorted(SCENARIOS))
@pytest.mark.parametrize("backend", CANDIDATES, ids=lambda backend: backend.name)
def test_user_code_sees_what_grpcio_shows(stage: Stage, backend: Backend, name: str) -> None:
    expected = stage.reference(name)
    if backend.module != "grpc" and name in DEVIATIONS:
        expected = DEVIATIONS[name].adapt(expected)
    assert stage.play(name, backend) == expected


@pytest.mark.parametrize("name", sorted(DEVIATIONS))
def test_deviation_is_still_one(stage: Stage, name: str) -> None:
    assert DEVIATIONS[name].adapt(stage.reference(name)) != stage.reference(name)
