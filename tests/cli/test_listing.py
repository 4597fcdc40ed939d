"""`localrpc list` and `describe`: what a server has, from itself, a proto or a module."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from localrpc_codegen.driver import compile_protos

from .scene import COMMAND, HEALTH, PROTO, REFLECTION, SERVICES, UNDESCRIBED, run, served

METHODS = [f"demo.v1.Echo/{name}" for name in ("One", "Many", "Gather", "Talk")]


def test_every_transport_lists_and_describes(any_target: str) -> None:
    with served(any_target):
        listed = run("list", any_target)
        described = run("describe", any_target, "demo.v1.Echo")
    assert listed.stdout.splitlines() == [*SERVICES, HEALTH, REFLECTION, UNDESCRIBED], listed.output
    assert "  rpc Gather(stream demo.v1.Word) returns (demo.v1.Word);\n" in described.stdout


def test_the_methods_of_a_service_can_be_copied_into_a_call(one_demo: str) -> None:
    assert run("list", one_demo, "Echo").stdout.splitlines() == METHODS
    everything = run("list", one_demo, "--methods").stdout.splitlines()
    assert everything[:4] == METHODS
    assert f"{HEALTH}/Watch" in everything


def test_a_service_without_a_description_does_not_hide_the_others(one_demo: str) -> None:
    for command in (["describe", one_demo], ["list", one_demo, "--methods"]):
        done = run(*command)
        assert done.exit_code == 0
        assert SERVICES[1] in done.stdout
        assert f"lists {UNDESCRIBED}, but has no description of it" in done.stderr


def test_a_description_includes_all_types_it_uses(one_demo: str) -> None:
    done = run("describe", one_demo, "Echo/One")
    heads = [line for line in done.stdout.splitlines() if line.startswith("//")]
    assert heads == ["// demo.v1.Echo/One", "// demo.v1.Word", "// demo.v1.Mood"]


def test_without_a_symbol_everything_is_described(one_demo: str) -> None:
    heads = [line for line in run("describe", one_demo).stdout.splitlines() if line[:2] == "//"]
    assert heads[:4] == [f"// {name}" for name in (*SERVICES, HEALTH, REFLECTION)]
    assert "// demo.v1.Mood" in heads
    assert f"// {HEALTH}CheckRequest" in heads
    assert len(set(heads)) == len(heads)


def test_a_description_is_a_proto_that_compiles_to_the_same(one_demo: str, tmp_path: Path) -> None:
    described = run("describe", one_demo, "Echo", "Plain").stdout
    imports = [line for line in PROTO.read_text().splitlines() if line.startswith("import")]
    again = tmp_path / PROTO.name
    head = ['syntax = "proto3";', "package demo.v1;", *imports]
    again.write_text("\n".join([*head, described]))
    (before,), (after,) = (
        [file for file in compile_protos([path], []) if file.name == PROTO.name]
        for path in (PROTO, again)
    )
    for file in (before, after):
        file.ClearField("source_code_info")
        messages = sorted(file.message_type, key=lambda each: each.name)
        services = sorted(file.service, key=lambda each: each.name)
        del file.message_type[:], file.service[:]
        file.message_type.extend(messages)
        file.service.extend(services)
    assert after == before


def test_proto2_and_editions_are_described_in_their_own_words(mute: str, tmp_path: Path) -> None:
    proto = tmp_path / "old.proto"
    proto.write_text(
        'syntax = "proto2";\nmessage Old {\n  required int32 a = 1;\n'
        '  optional string b = 2 [default = "x\\"y"];\n  repeated bool c = 3;\n'
        "  optional float d = 4 [default = 1.5, deprecated = true];\n}\n"
        "service Shop {\n  rpc Buy(Old) returns (Old);\n}\n"
    )
    done = run("describe", mute, "Old", "--proto", str(proto))
    assert done.stdout == (
        "// Old\nmessage Old {\n  required int32 a = 1;\n"
        '  optional string b = 2 [default = "x\\"y"];\n  repeated bool c = 3;\n'
        "  optional float d = 4 [default = 1.5, deprecated = true];\n}\n"
    )


@pytest.mark.parametrize(
    ("symbol", "hint"),
    [
        ("demo.v1.Wrod", "did you mean 'demo.v1.Word'?"),
        ("Moood", "did you mean 'demo.v1.Mood'?"),
        ("demo.v1.Echo.On", "did you mean 'demo.v1.Echo.One'?"),
        ("Xyzzy", "it has demo.v1.Echo, "),
    ],
)
def test_similar_symbols_are_suggested_for_a_mistyped_one(
    one_demo: str, symbol: str, hint: str
) -> None:
    done = run("describe", one_demo, symbol)
    assert done.exit_code == 2
    assert hint in done.stderr


def test_messages_and_enums_are_found_without_their_package(one_demo: str) -> None:
    assert "enum Mood {" in run("describe", one_demo, "Mood").stdout
    assert run("describe", one_demo, ".demo.v1.Word.Part").stdout.startswith(
        "// demo.v1.Word.Part\nmessage Part {\n  bytes data = 1;\n}\n"
    )


def test_services_are_read_from_a_module(mute: str, tmp_path: Path) -> None:
    generate = [*COMMAND, "generate", str(PROTO), "--out", "made"]
    subprocess.run(generate, cwd=tmp_path, check=True, capture_output=True)
    for module in ("made.demo_pb2", "made.demo_localrpc"):
        done = subprocess.run(
            [*COMMAND, "list", mute, "--module", module],
            cwd=tmp_path,
            capture_output=True,
            text=True,
        )
        assert done.stdout.splitlines() == list(SERVICES), done.stderr
