"""grpc.StatusCode and its numbers on the wire."""

from __future__ import annotations

import grpc

_NUMBER_OF: dict[object, int] = {code: code.value[0] for code in grpc.StatusCode}
_CODE_OF: dict[int, grpc.StatusCode] = {number: code for code, number in _NUMBER_OF.items()}  # type: ignore[misc]

OK = 0
CANCELLED = 1
UNKNOWN = 2
DEADLINE_EXCEEDED = 4
RESOURCE_EXHAUSTED = 8
UNIMPLEMENTED = 12
INTERNAL = 13
UNAVAILABLE = 14


def code_of(number: int) -> grpc.StatusCode:
    """Return the code of a number; UNKNOWN, as in grpcio, for a number that grpc does not know."""
    return _CODE_OF.get(number, grpc.StatusCode.UNKNOWN)


def number_of(code: object) -> int:
    """Return a code's number; UNKNOWN, as in grpcio, for anything else, even a plain int."""
    return _NUMBER_OF.get(code, UNKNOWN)
