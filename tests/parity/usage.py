"""Which public methods and parameters of grpc's interfaces the scenarios really use."""

from __future__ import annotations

import inspect
import os
import sys
import threading
from types import FrameType
from typing import Any, TypeAlias

import grpc

Use: TypeAlias = tuple[str, str, str]
"""Interface, method, parameter; the parameter is empty for the call itself."""

INTERFACES: tuple[type[Any], ...] = (
    grpc.Channel,
    grpc.UnaryUnaryMultiCallable,
    grpc.UnaryStreamMultiCallable,
    grpc.StreamUnaryMultiCallable,
    grpc.StreamStreamMultiCallable,
    grpc.Call,
    grpc.Future,
    grpc.Server,
    grpc.ServicerContext,
    grpc.RpcContext,
)

# The implementation proper: what grpc.intercept_channel() and
# channel_ready_future() wrap around it does not count.
_IMPLEMENTATION = {"grpc._channel", "grpc._server"}
_HERE = os.path.dirname(os.path.abspath(__file__)) + os.sep
_SPECIAL = ("__call__", "__enter__", "__exit__")


def _signatures() -> dict[str, dict[type[Any], inspect.Signature]]:
    found: dict[str, dict[type[Any], inspect.Signature]] = {}
    for interface in INTERFACES:
        for name, function in inspect.getmembers(interface, inspect.isfunction):
            if not name.startswith("_") or name in _SPECIAL:
                found.setdefault(name, {})[interface] = inspect.signature(function)
    return found


_SIGNATURES = _signatures()


def required() -> set[Use]:
    """All there is to use."""
    uses: set[Use] = set()
    for name, interfaces in _SIGNATURES.items():
        for interface, signature in interfaces.items():
            uses.add((interface.__name__, name, ""))
            uses |= {(interface.__name__, name, each) for each in list(signature.parameters)[1:]}
    return uses


class Recorder:
    """While entered, notes every call that a file of this directory makes to an implementation.

    Threads count if they start meanwhile. A parameter counts as used once it
    was given a value other than its default.
    """

    def __init__(self) -> None:
        self.uses: set[Use] = set()

    def __enter__(self) -> Recorder:
        threading.setprofile(self._profile)
        sys.setprofile(self._profile)
        return self

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)
        threading.setprofile(None)

    def _profile(self, frame: FrameType, event: str, _: Any) -> None:
        if event != "call" or frame.f_code.co_name not in _SIGNATURES:
            return
        caller = frame.f_back
        if caller is None or not caller.f_code.co_filename.startswith(_HERE):
            return
        given = frame.f_locals
        target = given.get("self")
        if type(target).__module__ not in _IMPLEMENTATION:
            return
        name = frame.f_code.co_name
        for interface, signature in _SIGNATURES[name].items():
            if not isinstance(target, interface):
                continue
            self.uses.add((interface.__name__, name, ""))
            for parameter in list(signature.parameters.values())[1:]:
                default = parameter.default
                value = given.get(parameter.name, default)
                if default is inspect.Parameter.empty or value != default:
                    self.uses.add((interface.__name__, name, parameter.name))
