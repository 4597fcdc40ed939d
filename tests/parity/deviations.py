"""Where localrpc deliberately differs from grpcio, and why."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from .transcript import Transcript


@dataclass(frozen=True)
class Deviation:
    """How grpcio's transcript of a scenario becomes localrpc's."""

    adapt: Callable[[Transcript], Transcript]
    why: str
    at_grpc: bool = False
    """Also where grpcio carries the calls of localrpc's channel and server."""


def _except(**entries: Any) -> Callable[[Transcript], Transcript]:
    """Other values in these entries; a name's _ stands for a space."""
    changed = {name.replace("_", " "): value for name, value in entries.items()}
    return lambda transcript: {
        name: changed.get(name.replace("_", " "), value) for name, value in transcript.items()
    }


def _error(code: str, details: str) -> Transcript:
    return {
        "raised": ["RpcError", "Call", "Future"],
        "code": f"StatusCode.{code}",
        "details": details,
        "initial": [],
        "trailing": [],
    }


def _unpacked(entry: tuple[str, ...]) -> Transcript:
    """What this Python says of metadata without a pair: CPython 3.14 counts what is too much."""
    try:
        _key, _value = entry
    except ValueError as error:
        return {"raised": "ValueError", "text": str(error)}
    raise AssertionError(f"a pair: {entry}")


_ONE, _THREE = _unpacked(("a",)), _unpacked(("a", "b", "c"))
_TOO_MANY = _error("INTERNAL", "a unary call got more than one response")

_CYTHON = "Python's own words, where grpcio's are Cython's"

DEVIATIONS: Mapping[str, Deviation] = {
    "more_answers_than_a_unary_call_expects": Deviation(
        _except(unary_unary=_TOO_MANY, stream_unary=_TOO_MANY),
        "grpcio waits for the deadline, and without one forever",
    ),
    "metadata_is_refused_last": Deviation(
        _except(int_value=[_error("INTERNAL", "Invalid metadata"), [None]]),
        "grpcio never ends the call",
    ),
    "metadata_reserved_keys_of_the_client": Deviation(
        _except(**{"grpc-tags-bin": [b"ok", [[["grpc-tags-bin", b"x"]]]]}),
        "a name that only grpcio's own tracing takes for itself",
    ),
    "metadata_the_client_must_not_send": Deviation(
        _except(single=_ONE, string=_ONE, triple=_THREE), _CYTHON
    ),
    "metadata_the_server_must_not_send_first": Deviation(
        _except(single=[[_ONE], b"ok"], string=[[_ONE], b"ok"], triple=[[_THREE], b"ok"]), _CYTHON
    ),
    "metadata_user_agent": Deviation(
        _except(seen=["grpc-python-localrpc"]), "a server can tell which library calls"
    ),
    "server_port_of_another_server": Deviation(
        _except(taken="AddressInUse"), "a live endpoint is never stolen; grpcio takes its name away"
    ),
    "timeouts_of_calls_beyond_all_time": Deviation(
        lambda transcript: {
            kind: {value: transcript["unary_unary"]["None"] for value in told}
            if kind.endswith("unary")
            else {value: transcript["unary_stream"]["None"] for value in told}
            for kind, told in transcript.items()
        },
        "more than ten years means no limit; grpcio's clock overflows, and the call fails at once",
    ),
    "target_that_is_none": Deviation(
        lambda transcript: dict.fromkeys(transcript, True),
        "an invalid target is refused at once, by ValueError, with the known schemes",
        at_grpc=True,
    ),
}
