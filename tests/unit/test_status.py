from __future__ import annotations

import pickle

import grpc
import pytest

from localrpc import errors, status


@pytest.mark.parametrize("code", list(grpc.StatusCode))
def test_every_code_has_its_number_and_back(code: grpc.StatusCode) -> None:
    assert status.code_of(status.number_of(code)) is code


@pytest.mark.parametrize("name", ["OK", "CANCELLED", "UNKNOWN", "INTERNAL", "UNAVAILABLE"])
def test_the_names_are_grpcs(name: str) -> None:
    assert getattr(status, name) == grpc.StatusCode[name].value[0]


def test_unknown_codes_map_to_unknown() -> None:
    assert status.code_of(99) is grpc.StatusCode.UNKNOWN
    assert status.number_of(5) == status.UNKNOWN
    assert status.number_of("NOT_FOUND") == status.UNKNOWN


@pytest.mark.parametrize("kind", [errors.ConnectError, errors.ListenError, errors.AddressInUse])
def test_an_error_survives_pickling(kind: type[errors.ConnectError]) -> None:
    error = kind("shm:a", "because")
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), str(copy), copy.target) == (kind, str(error), "shm:a")
