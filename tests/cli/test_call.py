"""`localrpc call`: all kinds of call, what goes in and comes out, and how it fails."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import grpc
import pytest

from .scene import PROTO, run, served


def lines(text: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in text.splitlines()]


def test_every_kind_of_call_works_over_every_transport(any_target: str) -> None:
    with served(any_target):
        one = run("call", any_target, "demo.v1.Echo/One", "-d", '{"text": "grüße"}')
        many = run("call", any_target, "demo.v1.Echo/Many", "-d", '{"text": "x", "number": 2}')
        words = '[{"text": "a"}, {"text": "b"}]'
        gathered = run("call", any_target, "demo.v1.Echo/Gather", "-d", words)
        talk = run("call", any_target, "demo.v1.Echo/Talk", "-d", words)
    assert (one.exit_code, one.stdout) == (0, '{"text": "grüße"}\n'), one.output
    assert lines(many.stdout) == [{"text": "x", "number": "1"}, {"text": "x", "number": "2"}]
    assert lines(gathered.stdout) == [{"tags": ["a", "b"]}]
    assert lines(talk.stdout) == [{"text": "a"}, {"text": "b"}]


@pytest.mark.parametrize(
    "spelling",
    ["demo.v1.Echo/One", "/demo.v1.Echo/One", "demo.v1.Echo.One", "Echo/One", "Echo.One"],
)
def test_a_method_may_be_spelled_in_many_ways(one_demo: str, spelling: str) -> None:
    done = run("call", one_demo, spelling, "-d", '{"number": 7}')
    assert lines(done.stdout) == [{"number": "7"}], done.output


@pytest.mark.parametrize(
    "data",
    [
        ['{"text": "a"}{"text": "b"}'],
        ['{"text": "a"}\n\n{"text": "b"}\n'],
        ['{\n "text": "a"\n}\n{\n "text": "b"}'],
        ['[{"text": "a"}, {"text": "b"}]'],
        ['[\n {"text": "a"},\n {\n "text": "b"\n }\n]\n'],
        ['{"text": "a"}', '{"text": "b"}'],
    ],
)
def test_a_stream_of_requests_may_be_written_in_many_ways(one_demo: str, data: list[str]) -> None:
    options = [part for item in data for part in ("-d", item)]
    done = run("call", one_demo, "Echo/Gather", *options)
    assert lines(done.stdout) == [{"tags": ["a", "b"]}], done.output


def test_requests_come_from_a_file(one_demo: str, tmp_path: Path) -> None:
    file = tmp_path / "words.json"
    file.write_text('{"text": "a"}\n{"text": "b"}\n')
    done = run("call", one_demo, "Echo/Gather", "-d", f"@{file}")
    assert lines(done.stdout) == [{"tags": ["a", "b"]}]


def test_without_data_a_request_is_empty_and_a_stream_has_none(one_demo: str) -> None:
    assert run("call", one_demo, "Echo/One").stdout == "{}\n"
    assert run("call", one_demo, "Echo/Gather").stdout == "{}\n"
    assert run("call", one_demo, "Echo/Talk").stdout == ""


def test_a_request_whose_json_is_an_array_is_one_request(one_demo: str) -> None:
    assert run("call", one_demo, "Plain/Values", "-d", '[1, "a"]').stdout == '[1.0, "a"]\n'


def test_default_values_are_shown_when_asked_for(one_demo: str) -> None:
    (shown,) = lines(run("call", one_demo, "Echo/One", "--defaults").stdout)
    assert shown["text"] == ""
    assert shown["mood"] == "MOOD_UNSPECIFIED"


@pytest.mark.parametrize("code", [c for c in grpc.StatusCode if c is not grpc.StatusCode.OK])
def test_a_failed_call_ends_with_64_and_its_code(one_demo: str, code: grpc.StatusCode) -> None:
    done = run("call", one_demo, "Echo/One", "-d", json.dumps({"text": code.name}))
    assert done.exit_code == 64 + code.value[0]
    assert done.stderr == f"Error: {code.name}: as you wish\n"
    assert done.stdout == ""


def test_answers_before_a_failure_are_printed(demo: str) -> None:
    done = run("call", demo, "Echo/Many", "-d", '{"number": 1, "note": "lost"}')
    assert lines(done.stdout) == [{"number": "1"}]
    assert done.exit_code == 64 + 15
    assert done.stderr == "Error: DATA_LOSS: lost\n"


def test_a_target_without_a_server_is_unavailable(one_target: str) -> None:
    done = run("call", one_target, "Echo/One")
    assert done.exit_code == 78
    assert "no server listens" in done.stderr


def test_verbose_shows_metadata_trailers_and_times_beside_the_answer(demo: str) -> None:
    binary = base64.b64encode(b"\0\xff").decode().rstrip("=")
    headers = ("-H", "X-Key: a value: two", "-H", f"x-b-bin:{binary}")
    done = run("call", demo, "Echo/One", "-v", *headers)
    assert done.stdout == "{}\n"
    told = done.stderr.splitlines()
    assert told[0] == "> /demo.v1.Echo/One"
    assert "> x-key: a value: two" in told
    assert "< first: 1" in told
    assert "<< got-x-key: a value: two" in told
    assert "<< got-x-b-bin: AP8=" in told
    assert "<< last-bin: AQI=" in told
    assert told[-1].startswith("* OK: requests: 1, answers: 1, the first after ")


def test_verbose_shows_the_trailers_of_a_failed_call(one_demo: str) -> None:
    done = run("call", one_demo, "Echo/One", "-v", "-d", '{"text": "ABORTED"}')
    assert "<< last-bin: AQI=" in done.stderr
    assert done.stderr.splitlines()[-1] == "Error: ABORTED: as you wish"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["demo.v1.Eco/One"], "no service 'demo.v1.Eco'; did you mean 'demo.v1.Echo'?"),
        (["Ecko/One"], "no service 'Ecko'; did you mean 'demo.v1.Echo'?"),
        (["demo.v1.Echo/Oen"], "demo.v1.Echo has no method 'Oen'; did you mean 'One'?"),
        (["demo.v1.Echo/Xyzzy"], "it has One, Many, Gather, Talk"),
        (["other.Thing/One"], "it has demo.v1.Echo, demo.v1.Plain, grpc.health.v1.Health"),
        (["xyzzy"], "write SERVICE/METHOD"),
        (["Echo/One", "-d", '{"txt": 1}'], "request 1 is not a demo.v1.Word"),
        (["Echo/One", "-d", '"text"'], "request 1 is not a JSON object"),
        (["Echo/One", "-d", '{"text": '], "not JSON: Expecting value at the end"),
        (["Echo/One", "-d", "{}{}"], "takes one request, and -d has more than one"),
        (["Echo/One", "-d", " "], "takes one request, and -d has no request"),
        (["Echo/One", "-d", "@/gone.json"], "-d @/gone.json: No such file or directory"),
        (["Echo/Gather", "-d", '[{"text": "a"}, {"text": 2}]'], "request 2 is not a demo.v1.Word"),
        (["Echo/Gather", "-d", '[{"text": "a"}'], "']' is missing"),
        (["Echo/Gather", "-d", "[{} {}]"], "',' or ']' expected before '{}]'"),
        (["Echo/One", "-H", "nothing"], "write 'key: value'"),
        (["Echo/One", "-H", "a-bin: !"], "base64"),
        (["Echo/One", "--timeout", "0"], "--timeout"),
        (["Echo/One", "--tls"], "is a local target and has no TLS"),
        (["Echo/One", "--module", "a", "--proto", "b"], "cannot be combined"),
        (["Echo/One", "--module", "no.such.module"], "cannot import no.such.module"),
        (["Echo/One", "--module", "json"], "json is not a module of generated messages"),
        (["Echo/One", "--proto", "gone.proto"], "--proto: there is no file gone.proto"),
        (
            ["Echo/One", "--proto", "gone.proto", "--proto-dir", str(PROTO.parent)],
            f"--proto: there is no file gone.proto, nor below {PROTO.parent}",
        ),
        (["Echo/One", "--proto-dir", "/gone"], "--proto-dir: there is no folder /gone"),
    ],
)
def test_misuse_is_reported_in_one_line_with_exit_code_2(
    one_demo: str, arguments: list[str], words: str
) -> None:
    done = run("call", one_demo, *arguments)
    assert done.exit_code == 2, done.output
    assert words in done.stderr
    assert done.stderr.splitlines()[-1].startswith("Error: ")
    assert done.stdout == ""


def test_a_wrong_request_in_a_stream_cancels_the_call(demo: str) -> None:
    done = run("call", demo, "Echo/Talk", "-d", '{"text": "a"} {"text": "b"} {"text": 3}')
    assert done.exit_code == 2
    assert "request 3 is not a demo.v1.Word" in done.stderr


@pytest.mark.parametrize("target", ["localhost:50051", "shm:", "nothing"])
def test_an_invalid_target_is_misuse(target: str) -> None:
    done = run("call", target, "Echo/One")
    assert done.exit_code == 2
    assert "shm:NAME" in done.stderr


def test_a_server_without_reflection_is_called_with_its_proto(mute: str) -> None:
    refused = run("call", mute, "Echo/One")
    assert refused.exit_code == 64 + 12
    assert "give --proto FILE or --module NAME" in refused.stderr
    for options in (["--proto", str(PROTO)], ["--proto-dir", str(PROTO.parent)]):
        done = run("call", mute, "Echo/One", "-d", '{"number": 1}', *options)
        assert lines(done.stdout) == [{"number": "1"}], done.output
    there = ["--proto", PROTO.name, "--proto-dir", str(PROTO.parent)]
    assert run("call", mute, "Echo/One", *there).stdout == "{}\n"


def test_the_timeout_is_for_reflection_and_call_together(one_demo: str) -> None:
    done = run("call", one_demo, "Echo/One", "--timeout", "0.000001")
    assert done.exit_code == 64 + 4


def test_a_template_is_a_request_to_fill_in(one_demo: str) -> None:
    template = run("call", one_demo, "Echo/One", "--template")
    assert json.loads(template.stdout) == {
        "text": "",
        "number": 0,
        "loud": False,
        "tags": [""],
        "parts": {"": {"data": ""}},
        "note": "",
        "mood": "MOOD_UNSPECIFIED",
        "value": None,
        "any": {},
        "moods": {"0": "MOOD_UNSPECIFIED"},
        "list": [{"data": ""}],
    }
    assert run("call", one_demo, "Echo/One", "-d", template.stdout).exit_code == 0


def test_an_any_of_a_known_type_is_shown_as_json(one_demo: str) -> None:
    packed = {"@type": "type.googleapis.com/demo.v1.Word", "text": "inside"}
    done = run("call", one_demo, "Echo/One", "-d", json.dumps({"any": packed}))
    assert lines(done.stdout) == [{"any": packed}], done.output
