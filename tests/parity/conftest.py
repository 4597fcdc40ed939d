"""The reference's transcripts, made once per run while its use is recorded."""

from __future__ import annotations

import os
import pickle
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import grpc
import pytest

from . import catalogue
from .backends import REFERENCE, Backend
from .transcript import Transcript
from .usage import Recorder, Use
from .world import World

# Exceptions that end threads of grpcio: it starts them before it finds that a time is too long, or
# that the channel is closed.
GRPCIOS_THREADS = [
    pytest.mark.filterwarnings(
        rf"ignore:[\s\S]*{text}:pytest.PytestUnhandledThreadExceptionWarning"
    )
    for text in ("cancel_all_calls_after_grace", "cygrpc._watch_connectivity_state")
]


class Played(NamedTuple):
    """What a scenario has shown with the reference, and what it used of grpc's interfaces."""

    transcript: Transcript
    uses: frozenset[Use]


class Stage:
    """Plays scenarios; the reference only once each, for all processes of a run.

    `directory` is for sockets, `kept` for what the reference has shown. Two processes may play the
    same scenario at the same time: then the later result is kept.
    """

    def __init__(self, directory: str, kept: Path) -> None:
        self._directory = directory
        self._kept = kept
        self._told: dict[Path, Played] = {}

    def play(self, name: str, backend: Backend) -> Transcript:
        with World(backend, self._directory) as world:
            return world.play(catalogue.SCENARIOS[name])

    def play_again(self, name: str, backend: Backend = REFERENCE) -> None:
        """Have the reference play this once more."""
        path = self._path(name, backend)
        played = self._told[path] = self._record(name, backend)
        fresh = path.with_suffix(f".{os.getpid()}")
        fresh.write_bytes(pickle.dumps(tuple(played)))
        fresh.replace(path)

    def reference(self, name: str, backend: Backend = REFERENCE) -> Transcript:
        return self._reference(name, backend).transcript

    def uses(self) -> set[Use]:
        """What all the scenarios together use of grpc's interfaces."""
        return {
            use for name in catalogue.SCENARIOS for use in self._reference(name, REFERENCE).uses
        }

    def _path(self, name: str, backend: Backend) -> Path:
        return self._kept / f"{name}.{backend.name}"

    def _reference(self, name: str, backend: Backend) -> Played:
        path = self._path(name, backend)
        if path not in self._told:
            try:
                self._told[path] = Played(*pickle.loads(path.read_bytes()))
            except FileNotFoundError:
                self.play_again(name, backend)
        return self._told[path]

    def _record(self, name: str, backend: Backend) -> Played:
        with Recorder() as recorder:
            try:
                transcript = self.play(name, backend)
            except grpc.RpcError:
                # Where the scenario sees no race, grpcio has lost one: once more.
                transcript = self.play(name, backend)
        return Played(transcript, frozenset(recorder.uses))


@pytest.fixture(scope="session")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    base = tmp_path_factory.getbasetemp()
    kept = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "references"
    kept.mkdir(exist_ok=True)
    # Not tmp_path: a socket's path has 108 bytes.
    with tempfile.TemporaryDirectory(prefix="parity") as directory:
        yield Stage(directory, kept)
