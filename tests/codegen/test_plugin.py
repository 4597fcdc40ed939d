"""The plugin as protoc runs it, and as it answers."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from google.protobuf.compiler.plugin_pb2 import CodeGeneratorRequest
from localrpc_codegen import plugin as plugin_module
from localrpc_codegen.layout import Imports
from localrpc_codegen.plugin import parse_options, respond

from .conftest import PROTOS, Generated


@pytest.fixture
def plugin(tmp_path: Path) -> Path:
    program = tmp_path / "protoc-gen-localrpc"
    python = shlex.quote(sys.executable)
    program.write_text(f'#!/bin/sh\nexec {python} -m localrpc_codegen.plugin "$@"\n')
    program.chmod(0o755)
    return program


def protoc(
    generated: Generated, plugin: Path, out: Path, *arguments: str
) -> subprocess.CompletedProcess[str]:
    return generated.run(
        *("-m", "grpc_tools.protoc", f"--plugin={plugin}", "-I", PROTOS),
        *(f"--python_out={out}", *arguments),
    )


def test_the_plugin_fits_protocs_own_modules(
    generated: Generated, plugin: Path, tmp_path: Path
) -> None:
    """Even in a folder called `in`, whose modules no import statement can name."""
    protos = ["in/lambda/folder.proto", "2023/digits.proto", "dash-ed.name.proto"]
    protos += ["names/types.proto", "shop/v1/catalog.proto", "shop/common/money.proto"]
    done = protoc(generated, plugin, tmp_path, f"--localrpc_out={tmp_path}", *protos)
    assert done.returncode == 0, done.stderr
    script = (
        "import grpc, importlib, sys\n"
        f"sys.path.insert(0, {str(tmp_path)!r})\n"
        "from shop.v1.catalog_localrpc import CatalogStub\n"
        "channel = grpc.insecure_channel('unix:/nowhere')\n"
        "CatalogStub(channel)\n"
    )
    assert generated.run("-c", script).stderr == ""
    # protoc's own import of digits is not valid Python, so the module with it is only compiled.
    text = (tmp_path / "in/lambda/folder_localrpc.py").read_text()
    assert 'digits_pb2 = import_module("2023.digits_pb2")' in text.replace("messages", "digits")
    compile(text, "folder_localrpc.py", "exec")


def test_relative_imports_on_demand(generated: Generated, plugin: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    done = protoc(
        generated,
        plugin,
        tmp_path,
        f"--localrpc_out=imports=relative:{tmp_path}/out",
        "same/both.proto",
    )
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "out/same/both_localrpc.py").read_text()
    assert "from .a import thing_pb2\n" in text
    assert "from . import both_pb2\n" in text


def test_an_unknown_option_is_an_error_of_protoc(
    generated: Generated, plugin: Path, tmp_path: Path
) -> None:
    done = protoc(
        generated, plugin, tmp_path, f"--localrpc_out=colour=red:{tmp_path}", "same/both.proto"
    )
    assert done.returncode == 1
    assert "--localrpc_out: unknown option 'colour=red': known are imports=" in done.stderr
    assert not (tmp_path / "same").exists()


def test_options_are_read() -> None:
    settings = parse_options("imports=relative, python=3.13")
    assert settings.imports is Imports.RELATIVE
    assert settings.python == (3, 13)


def test_a_request_for_nothing_is_answered() -> None:
    response = respond(CodeGeneratorRequest())
    assert not response.error
    assert not response.file
    assert response.supported_features


def test_output_that_is_not_valid_python_is_reported_through_protoc(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken(*arguments: object) -> dict[str, str]:
        return {"good_localrpc.py": "", "a_localrpc.py": "class A:\n    def = 3\n"}

    monkeypatch.setattr(plugin_module, "generate", broken)
    response = respond(CodeGeneratorRequest(file_to_generate=["a.proto"]))
    assert "a.proto: cannot generate a_localrpc.py: `def = 3` in A: " in response.error
    assert not response.file


def test_help_shows_how_protoc_and_buf_find_it(generated: Generated) -> None:
    done = generated.run("-m", "localrpc_codegen.plugin", "--help")
    assert done.returncode == 0
    assert "--localrpc_out" in done.stdout
    assert "buf.gen.yaml" in done.stdout
