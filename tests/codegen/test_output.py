"""What stands in the files."""

from __future__ import annotations

import ast
import os
import subprocess
from pathlib import Path

import pytest
from localrpc_codegen import Settings
from localrpc_codegen.driver import Job, prepare

from tests.skips import need

from .conftest import HERE, PROTOS, Generated

GOLDEN = HERE / "golden"
REPRESENTATIVE = (
    "shop/v1/catalog_localrpc.py",
    "names/collisions_localrpc.py",
    "names/keywords_localrpc.py",
    "names/builtins_localrpc.py",
    "comments_localrpc.py",
    "same/both_localrpc.py",
    "only_service_localrpc.py",
    "annotated_localrpc.py",
)


@pytest.mark.parametrize("name", REPRESENTATIVE)
def test_generated_files_equal_the_golden_files(generated: Generated, name: str) -> None:
    """LOCALRPC_GOLDEN=write keeps the new output, to be read in the diff."""
    text = (generated.package / name).read_text()
    golden = GOLDEN / name.replace("/", ".")
    if os.environ.get("LOCALRPC_GOLDEN") == "write":
        golden.write_text(text)
    assert golden.read_text() == text


def test_the_output_is_formatted_as_ruff_would(generated: Generated) -> None:
    command = [need("ruff"), "format", "--isolated", "--diff", *map(str, generated.services())]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def docs(path: Path, name: str) -> dict[str, str]:
    """The docstrings of the methods of one class."""
    (found,) = (
        node
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.ClassDef) and node.name == name
    )
    functions = (node for node in found.body if isinstance(node, ast.FunctionDef))
    # A formatter puts a space between a last quote and the three that end the literal.
    return {node.name: (ast.get_docstring(node) or "").rstrip() for node in functions}


def test_comments_arrive_in_docstrings_unharmed(generated: Generated) -> None:
    assert docs(generated.package / "comments_localrpc.py", "CommentsServicer") == {
        "Quoted": '"Quoted"',
        "Backslash": "Ends in a backslash \\",
        "Triple": '"""',
        "Escapes": r"\N{BULLET} \x41 \u0041 {braces} %s $dollar ${both}",
        "NonAscii": "Grüße, 世界 🌍 — naïve.",
        "Blank": "",
        "NoMargin": "No margin\nat all",
        "Indented": "Indented first line\nthen less\n    then more",
        "Tabs": "Tabs    within\nand before",
        "Both": "Before.\n\nAfter.",
        "Long": "A very long line that goes on and on, well beyond the eighty-eight columns "
        "that a formatter keeps to.",
        "LastQuote": 'Two lines,\nthe last with a "quote"',
    }


def test_a_file_from_windows_gives_no_carriage_return(generated: Generated) -> None:
    assert b"\r" not in (generated.package / "crlf_localrpc.py").read_bytes()
    assert docs(generated.package / "crlf_localrpc.py", "CrlfServicer") == {
        "Say": "Says\nthings.\n\nReally."
    }


def test_a_proto_without_services_has_no_services_module(generated: Generated) -> None:
    assert (generated.package / "shop/common/money_pb2.py").exists()
    assert not (generated.package / "shop/common/money_localrpc.py").exists()


def test_folders_are_given_names_that_python_can_import(generated: Generated) -> None:
    assert (generated.package / "in_/lambda_/folder_localrpc.py").exists()
    assert (generated.package / "_2023/digits_pb2.py").exists()
    assert (generated.package / "dash_ed/name_localrpc.py").exists()
    assert (generated.package / "odd/with_space/na_me_pb2.py").exists()
    assert (generated.package / "odd/c__/a_b_pb2.py").exists()
    assert (generated.package / "odd/größe/straße_localrpc.py").exists()


def test_a_folder_named_like_a_module_beside_it_gets_another_name(generated: Generated) -> None:
    assert (generated.package / "odd/x_pb2.py").exists()
    assert (generated.package / "odd/x_pb2_/y_pb2.py").exists()


def test_protos_of_installed_packages_are_left_where_they_are(generated: Generated) -> None:
    text = (generated.package / "annotated_localrpc.py").read_text()
    assert "from google.rpc import status_pb2" in text
    assert not (generated.package / "google").exists()


@pytest.mark.parametrize(
    ("python", "home"), [((3, 10), "typing_extensions"), ((3, 13), "warnings")]
)
def test_deprecated_comes_from_where_the_target_version_has_it(
    python: tuple[int, int], home: str, tmp_path: Path
) -> None:
    output = prepare(Job([PROTOS / "shop"], tmp_path, [PROTOS], Settings(python=python)))
    text = output.files[tmp_path / "shop/v1/catalog_localrpc.py"].decode()
    assert f"\nfrom {home} import deprecated\n" in text
    assert text.count("import deprecated") == 1


CASTS = """
syntax = "proto2";
package mypy_protobuf;
import "google/protobuf/descriptor.proto";
message FieldOptions {
  optional string casttype = 1;
  optional string keytype = 2;
  optional string valuetype = 3;
}
extend google.protobuf.FieldOptions {
  optional FieldOptions options = 1154;
  optional string casttype = 1151;
}
"""

USES_CASTS = """
syntax = "proto3";
import "mypy_protobuf/extensions.proto";
message User {
  int32 id = 1 [(mypy_protobuf.options).casttype = "users/types.UserId"];
  string mail = 2 [(mypy_protobuf.casttype) = "users/types.Mail"];
  map<int32, string> friends = 3 [(mypy_protobuf.options) = {
    keytype: "users/types.UserId", valuetype: "users/types.Mail"
  }];
}
"""


def test_a_field_has_the_type_that_an_option_of_mypy_protobuf_names(tmp_path: Path) -> None:
    protos, out = tmp_path / "protos", tmp_path / "out"
    (protos / "mypy_protobuf").mkdir(parents=True)
    out.mkdir()
    (protos / "mypy_protobuf/extensions.proto").write_text(CASTS)
    (protos / "user.proto").write_text(USES_CASTS)
    text = prepare(Job([protos], out)).files[out / "user_pb2.pyi"].decode()
    assert "from users import types as _types\n" in text
    assert "    id: _types.UserId\n" in text
    assert "    mail: _types.Mail\n" in text
    assert "ScalarMap[_types.UserId, _types.Mail]" in text
