"""Observations as plain data, so that two implementations can be compared with ==."""

from __future__ import annotations

import enum
import re
from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

import grpc
from google.protobuf.message import Message

Transcript: TypeAlias = dict[str, Any]

_DEBUG = re.compile(r'debug_error_string = ".*"', re.DOTALL)


def plain(value: Any) -> Any:
    """Values as themselves, enums by name, metadata as lists of pairs, the rest by what it is."""
    if isinstance(value, enum.Enum):
        return f"{type(value).__name__}.{value.name}"
    if value is None or isinstance(value, (bool, int, str, bytes)):
        return value
    if isinstance(value, Message):
        return str(value)
    if isinstance(value, dict):
        return {key: plain(each) for key, each in value.items()}
    if isinstance(value, BaseException) and not isinstance(value, grpc.Call):
        return failure(value)
    if isinstance(value, (list, tuple)):
        return [plain(each) for each in value]
    if isinstance(value, float):
        return "float"
    return kinds(value) or type(value).__name__


def kinds(value: Any) -> list[str]:
    """Which of gRPC's interfaces an object has: what isinstance() in user code can see."""
    interfaces = (
        grpc.RpcError,
        grpc.Call,
        grpc.Future,
        grpc.ServicerContext,
        grpc.Channel,
        grpc.Server,
        grpc.UnaryUnaryMultiCallable,
        grpc.UnaryStreamMultiCallable,
        grpc.StreamUnaryMultiCallable,
        grpc.StreamStreamMultiCallable,
    )
    return [each.__name__ for each in interfaces if isinstance(value, each)]


def failure(error: BaseException) -> Transcript:
    """An exception as its handler sees it."""
    if not isinstance(error, grpc.RpcError):
        return {"raised": type(error).__name__, "text": str(error)}
    seen: Transcript = {"raised": kinds(error)}
    if isinstance(error, grpc.Call):
        seen |= ended(error)
    return seen


def error_of(act: Callable[[], Any]) -> Exception | None:
    """What act() raises."""
    try:
        act()
    except Exception as error:
        return error
    return None


def ended(call: Any) -> Transcript:
    """What a call that has ended says about itself."""
    return {
        "code": plain(call.code()),
        "details": call.details(),
        "initial": plain(call.initial_metadata()),
        "trailing": plain(call.trailing_metadata()),
    }


def outcome(act: Callable[..., Any], *args: Any, **named: Any) -> Any:
    """What act() returned or raised."""
    try:
        return plain(act(*args, **named))
    except Exception as error:
        return failure(error)


def drained(responses: Iterable[Any]) -> list[Any]:
    """All the responses, and behind them how the stream failed if it did."""
    seen: list[Any] = []
    try:
        for response in responses:
            seen.append(plain(response))
    except Exception as error:
        seen.append(failure(error))
    return seen


def shown(call: Any) -> str:
    """repr() without the class's private name and without the internals of the failure."""
    text = repr(call).replace(type(call).__name__, "CALL")
    return _DEBUG.sub('debug_error_string = "..."', text)


def scrub(value: Any, names: list[str]) -> Any:
    """The same transcript with every address that was made up for this run replaced."""
    if isinstance(value, dict):
        return {key: scrub(each, names) for key, each in value.items()}
    if isinstance(value, list):
        return [scrub(each, names) for each in value]
    if isinstance(value, int) and any(name.endswith(f":{value}") for name in names):
        return "PORT"
    if isinstance(value, str):
        for name in names:
            value = value.replace(name, "ADDRESS")
    return value
