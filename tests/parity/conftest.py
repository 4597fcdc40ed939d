"""The reference's transcripts, made once per session while its use is recorded."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator

import grpc
import pytest

from . import catalogue
from .backends import REFERENCE, Backend
from .transcript import Transcript
from .usage import Recorder, Use
from .world import World


class Stage:
    """Plays scenarios; the reference only once each."""

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._told: dict[tuple[str, str], Transcript] = {}
        self._recorder = Recorder()

    def play(self, name: str, backend: Backend) -> Transcript:
        with World(backend, self._directory) as world:
            return world.play(catalogue.SCENARIOS[name])

    def forget(self, name: str, backend: Backend) -> None:
        """Have the reference play this once more."""
        self._told.pop((name, backend.name), None)

    def reference(self, name: str, backend: Backend = REFERENCE) -> Transcript:
        key = name, backend.name
        if key not in self._told:
            with self._recorder:
                try:
                    self._told[key] = self.play(name, backend)
                except grpc.RpcError:
                    # Where the scenario sees no race, grpcio has lost one: once more.
                    self._told[key] = self.play(name, backend)
        return self._told[key]

    def uses(self) -> set[Use]:
        """What all the scenarios together use of grpc's interfaces."""
        for name in catalogue.SCENARIOS:
            self.reference(name)
        return self._recorder.uses


@pytest.fixture(scope="session")
def stage() -> Iterator[Stage]:
    # Not tmp_path: a socket's path has 108 bytes.
    with tempfile.TemporaryDirectory(prefix="parity") as directory:
        yield Stage(directory)
