"""The scenarios leave out no public method and no parameter of grpc.aio's classes."""

from __future__ import annotations

import asyncio
import functools
import inspect
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from grpc import aio

import localrpc.aio
from localrpc.aio import call, channel, context, interceptors, methods, replacing
from tests.conftest import fresh_target

from .scenarios import SCENARIOS
from .world import World

Use = tuple[str, str, str]
"""Class, method, parameter; the parameter is empty for the call itself."""

CLASSES: tuple[type[Any], ...] = (
    aio.Channel,
    aio.UnaryUnaryMultiCallable,
    aio.UnaryStreamMultiCallable,
    aio.StreamUnaryMultiCallable,
    aio.StreamStreamMultiCallable,
    aio.RpcContext,
    aio.Call,
    aio.UnaryUnaryCall,
    aio.UnaryStreamCall,
    aio.StreamUnaryCall,
    aio.StreamStreamCall,
    aio.Server,
    aio.ServicerContext,
)
FUNCTIONS = ("insecure_channel", "server")
SPECIAL = ("__call__", "__aenter__", "__aexit__", "__aiter__", "__await__")
HERE = os.path.dirname(os.path.abspath(__file__)) + os.sep


def methods_of(kind: type[Any]) -> Iterator[tuple[str, inspect.Signature]]:
    for name, function in inspect.getmembers(kind, inspect.isfunction):
        if not name.startswith("_") or name in SPECIAL:
            yield name, inspect.signature(function)


def required() -> set[Use]:
    uses: set[Use] = set()
    for kind in CLASSES:
        for name, signature in methods_of(kind):
            uses.add((kind.__name__, name, ""))
            # Those of __aexit__ are Python's, and underscored ones grpcio's own.
            parameters = [] if name in SPECIAL[1:] else list(signature.parameters)[1:]
            uses |= {(kind.__name__, name, each) for each in parameters if each[0] != "_"}
    for name in FUNCTIONS:
        parameters = list(inspect.signature(getattr(aio, name)).parameters)
        uses |= {("aio", name, each) for each in ("", *parameters)}
    return uses


class Recorder:
    """Notes every call that a file of this directory makes to localrpc.aio's classes."""

    def __init__(self) -> None:
        self.uses: set[Use] = set()

    def watch(self, patch: pytest.MonkeyPatch) -> None:
        # Its name is that of a public function in localrpc.aio.
        server = sys.modules["localrpc.aio.server"]
        for module in (call, channel, context, interceptors, methods, replacing, server):
            for kind in {each for each in vars(module).values() if isinstance(each, type)}:
                if not kind.__module__.startswith("localrpc.aio"):
                    continue
                for base in CLASSES:
                    if issubclass(kind, base):
                        self._watch_class(patch, kind, base)
        for name in FUNCTIONS:
            patch.setattr(
                localrpc.aio, name, self._noting("aio", name, getattr(localrpc.aio, name), 0)
            )

    def _watch_class(self, patch: pytest.MonkeyPatch, kind: type[Any], base: type[Any]) -> None:
        for name, _ in methods_of(base):
            patch.setattr(kind, name, self._noting(base.__name__, name, getattr(kind, name), 1))

    def _noting(self, owner: str, name: str, function: Any, skip: int) -> Callable[..., Any]:
        signature = inspect.signature(function)

        @functools.wraps(function)
        def wrapper(*given: Any, **named: Any) -> Any:
            frame = sys._getframe(1)
            while frame.f_code.co_name == "wrapper" and frame.f_back is not None:
                frame = frame.f_back  # a class that has two of the interfaces
            if frame.f_code.co_filename.startswith(HERE):
                self.uses.add((owner, name, ""))
                bound = signature.bind(*given, **named).arguments
                for parameter in list(signature.parameters.values())[skip:]:
                    value = bound.get(parameter.name, parameter.default)
                    if parameter.default is inspect.Parameter.empty or (
                        value is not parameter.default
                    ):
                        self.uses.add((owner, name, parameter.name))
            return function(*given, **named)

        return wrapper


@pytest.fixture(scope="module")
def uses(runtime_directory: str) -> set[Use]:
    """What all the scenarios together use."""
    recorder = Recorder()
    with pytest.MonkeyPatch.context() as patch:
        recorder.watch(patch)
        for name in SCENARIOS:
            target = fresh_target("inproc", runtime_directory)
            asyncio.run(SCENARIOS[name](World("localrpc.aio", target)))
    return recorder.uses


def test_some_scenario_uses_each(uses: set[Use]) -> None:
    missing = required() - uses
    assert not missing, "\n".join(".".join(filter(None, use)) for use in sorted(missing))
