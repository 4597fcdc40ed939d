"""User code sees the same from localrpc, over each of its transports, as from grpcio."""

from __future__ import annotations

import pytest

from .backends import REFERENCE, Backend, pairs
from .catalogue import SCENARIOS
from .conftest import GRPCIOS_THREADS, Stage
from .deviations import DEVIATIONS
from .transcript import Transcript

pytestmark = GRPCIOS_THREADS


@pytest.mark.parametrize(
    ("backend", "name"),
    list(pairs(sorted(SCENARIOS))),
    ids=lambda one: one.name if isinstance(one, Backend) else one,
)
def test_user_code_sees_what_grpcio_shows(stage: Stage, backend: Backend, name: str) -> None:
    reference = backend.reference or REFERENCE
    told = stage.play(name, backend)
    if told != adapted(stage, name, backend, reference):
        # grpcio loses a race now and then, and may play once more; localrpc may not.
        stage.play_again(name, reference)
        if backend.by_grpcio:
            told = stage.play(name, backend)
    assert told == adapted(stage, name, backend, reference)


def adapted(stage: Stage, name: str, backend: Backend, reference: Backend) -> Transcript:
    """What a backend should tell."""
    expected = stage.reference(name, reference)
    deviation = DEVIATIONS.get(name)
    if deviation and backend.module != "grpc" and (deviation.at_grpc or not backend.by_grpcio):
        expected = deviation.adapt(expected)
    return expected


@pytest.mark.parametrize("name", sorted(DEVIATIONS))
def test_deviation_is_still_one(stage: Stage, name: str) -> None:
    assert DEVIATIONS[name].adapt(stage.reference(name)) != stage.reference(name)
