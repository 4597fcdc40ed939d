"""Every proto that installed packages bring: generated, imported, formatted and type-checked."""

from __future__ import annotations

import importlib
import subprocess
from pathlib import Path

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from localrpc_codegen import Settings, generate
from localrpc_codegen.driver import Job, find_protos, prepare

from tests.checkers import mypy_cache, strict_mypy
from tests.skips import need

from .conftest import Generated

IMPORT_ALL = """
import importlib, pkgutil, sys
import protocol
for module in pkgutil.walk_packages(protocol.__path__, "protocol."):
    importlib.import_module(module.name)
    print(module.name)
"""


@pytest.fixture(scope="module")
def sources() -> list[Path]:
    """google/** of site-packages, and what grpcio-tools brings."""
    tools, google = (importlib.import_module(name).__path__ for name in ("grpc_tools", "google"))
    return [*(Path(folder, "_proto") for folder in tools), *map(Path, google)]


@pytest.fixture(scope="module")
def corpus(sources: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Generated:
    output = Generated(tmp_path_factory.mktemp("corpus"))
    output.package.mkdir()
    roots = [sources[0], *(folder.parent for folder in sources[1:])]
    prepare(Job(sources, output.package, roots)).write()
    return output


def test_no_proto_is_left_out_and_every_module_can_be_imported(
    corpus: Generated, sources: list[Path]
) -> None:
    done = corpus.run("-c", IMPORT_ALL)
    assert done.returncode == 0, done.stderr
    modules = [name for name in done.stdout.split() if name.endswith("_pb2")]
    protos = find_protos(sources)
    assert len(modules) == len(protos)
    assert len(protos) > 60, "googleapis-common-protos and grpcio-tools bring more"


def test_mypy_reports_nothing(corpus: Generated, tmp_path_factory: pytest.TempPathFactory) -> None:
    done = corpus.run(*strict_mypy(mypy_cache(tmp_path_factory)), "-p", "protocol")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    "module", ["grpc_health.v1.health_pb2", "grpc_reflection.v1alpha.reflection_pb2"]
)
def test_services_that_come_without_their_proto(module: str, tmp_path: Path) -> None:
    file = FileDescriptorProto()
    importlib.import_module(module).DESCRIPTOR.CopyToProto(file)
    (text,) = generate([file], [file.name], Settings()).values()
    compile(text, "generated", "exec")
    written = tmp_path / "generated.py"
    written.write_text(text)
    command = [need("ruff"), "format", "--isolated", "--diff", str(written)]
    done = subprocess.run(command, capture_output=True)
    assert done.returncode == 0, done.stdout
