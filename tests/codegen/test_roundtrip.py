"""Every sample proto's services answer, imported from inside a package."""

from __future__ import annotations

import re
import tempfile

import pytest

from .conftest import PROTOS, Generated

BACKENDS = [
    ("grpcio", "unix"),
    ("grpcio-aio", "unix"),
    ("localrpc", "unix"),
    ("localrpc", "shm"),
]


def methods() -> int:
    return sum(
        len(re.findall(r"^\s*rpc ", proto.read_text(), re.MULTILINE))
        for proto in PROTOS.rglob("*.proto")
    )


@pytest.mark.parametrize(("backend", "scheme"), BACKENDS)
def test_every_method_of_every_service_answers(
    generated: Generated, backend: str, scheme: str
) -> None:
    with tempfile.TemporaryDirectory(prefix="rt") as folder:
        target = f"{scheme}:{folder}/s"
        done = generated.run("-W", "ignore", "-m", "tests.codegen.roundtrip", backend, target)
    assert done.returncode == 0, done.stdout + done.stderr
    *names, last = done.stdout.splitlines()
    assert last == "left out: UNIMPLEMENTED"
    assert len(set(names)) == methods()


def test_messages_know_the_module_they_were_imported_from(generated: Generated) -> None:
    done = generated.run(
        "-c",
        "import pickle, sys\n"
        "from protocol.shop.v1.catalog_pb2 import GetRequest\n"
        "assert pickle.loads(pickle.dumps(GetRequest(name='a'))).name == 'a'\n"
        "sys.stdout.write(GetRequest.__module__)",
    )
    assert done.stdout == "protocol.shop.v1.catalog_pb2", done.stderr


def test_a_deprecated_service_warns_when_its_stub_is_made(generated: Generated) -> None:
    done = generated.run(
        "-c",
        "import grpc\n"
        "from protocol.shop.v1.catalog_localrpc import AdminStub\n"
        "AdminStub(grpc.insecure_channel('unix:/nowhere'))",
    )
    assert "DeprecationWarning: shop.v1.Admin is deprecated." in done.stderr
