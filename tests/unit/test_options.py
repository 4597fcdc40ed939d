"""Options: what grpcio raises is raised here, on the same input."""

from __future__ import annotations

import re
from typing import Any

import grpc
import pytest

import localrpc.options
from localrpc.options import DECLARED, Options, parse_options

from . import case_id

SAME_AS_GRPCIO: list[Any] = [
    None,
    [],
    (("a", "b"),),
    [["a", 1]],
    [("a", b"b")],
    [(b"grpc.max_send_message_length", 4)],
    [("grpc.max_receive_message_length", "x")],
    [("grpc.max_receive_message_length", 1.5)],
    [("grpc.max_receive_message_length", True)],
    [("grpc.max_receive_message_length", None)],
    [("grpc.max_receive_message_length", 1 << 40)],
    [("grpc.max_receive_message_length", -5)],
    [("grpc.nobody_knows", 1)],
    [(1, 1)],
    [("a",)],
    [("a", "b", "c")],
    [("a", [])],
    [("a", object())],
    5,
]


@pytest.mark.parametrize("options", SAME_AS_GRPCIO, ids=case_id)
def test_options_are_taken_and_refused_as_by_grpcio(options: Any) -> None:
    try:
        grpc.insecure_channel("unix:/nowhere", options=options).close()
    except Exception as error:
        expected: type[BaseException] | None = type(error)
    else:
        expected = None
    if expected is None:
        assert isinstance(parse_options(options), Options)
    else:
        with pytest.raises(expected):
            parse_options(options)


def test_defaults_are_grpcios() -> None:
    options = parse_options(None)
    assert options == Options()
    assert options.max_receive == 4 * 1024 * 1024
    assert options.max_send == -1
    assert options.max_metadata == 16 * 1024


def test_any_negative_length_is_no_limit() -> None:
    options = parse_options([("grpc.max_receive_message_length", -5)])
    assert options.max_receive == -1


def test_a_known_option_of_the_wrong_type_is_ignored_with_a_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    options = parse_options([("grpc.max_receive_message_length", "1")])
    assert options.max_receive == Options().max_receive
    assert "grpc.max_receive_message_length" in caplog.text


@pytest.mark.parametrize(
    ("pairs", "limit"),
    [
        ([("grpc.max_metadata_size", 100)], 16384),
        ([("grpc.max_metadata_size", 16000)], 20000),
        ([("grpc.absolute_max_metadata_size", 100)], 100),
        ([("grpc.max_metadata_size", 16000), ("grpc.absolute_max_metadata_size", 200)], 200),
    ],
)
def test_the_metadata_limit_follows_grpcs_rule(pairs: list[tuple[str, int]], limit: int) -> None:
    assert parse_options(pairs).max_metadata == limit


def test_the_last_of_two_values_counts() -> None:
    assert parse_options([("localrpc.window", 65536), ("localrpc.window", 131072)]).window == 131072


@pytest.mark.parametrize(
    ("pair", "error", "words"),
    [
        (("localrpc.windw", 1), ValueError, ["localrpc.windw", "localrpc.window"]),
        (("localrpc.window", "1"), TypeError, ["localrpc.window", "int"]),
        (("localrpc.window", 1), ValueError, ["65536"]),
        (("localrpc.shared_memory", 2), ValueError, ["between 0 and 1"]),
        (("localrpc.connect_timeout_ms", 0), ValueError, ["between 1"]),
        (("localrpc.allow_users", "no-such-user"), ValueError, ["unknown user 'no-such-user'"]),
        (("localrpc.allow_groups", ["no-such"]), ValueError, ["unknown group 'no-such'"]),
        (("localrpc.allow_users", -1), ValueError, ["not a valid user number"]),
        (("localrpc.allow_users", 1 << 32), ValueError, ["not a valid user number"]),
        (("localrpc.allow_users", ""), ValueError, ["unknown user ''"]),
        (("localrpc.allow_users", None), TypeError, ["names or numbers of users"]),
        (("localrpc.allow_users", True), TypeError, ["expected a user, got True"]),
        (("localrpc.allow_groups", [1.5]), TypeError, ["expected a group, got 1.5"]),
        (("localrpc.server_user", "*"), ValueError, ["who runs the server"]),
        (("localrpc.server_user", []), ValueError, ["who runs the server"]),
        (("localrpc.max_calls_per_user", 0), ValueError, ["between 1"]),
    ],
)
def test_invalid_values_of_localrpcs_own_options_are_named(
    pair: tuple[str, Any], error: type[Exception], words: list[str]
) -> None:
    with pytest.raises(error) as caught:
        parse_options([pair])
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("value", "users"),
    [
        (1000, {1000}),
        ("root", {0}),
        ("root, 7", {0, 7}),
        (b"7,8", {7, 8}),
        (["root", 7, "8"], {0, 7, 8}),
        ([], set()),
    ],
)
def test_users_are_names_or_numbers(value: Any, users: set[int]) -> None:
    access = parse_options([("localrpc.allow_users", value)]).access
    assert set(access.users) == users
    assert access.others is bool(users)
    assert not access.everybody


@pytest.mark.parametrize("key", ["localrpc.allow_users", "localrpc.allow_groups"])
@pytest.mark.parametrize("value", ["*", ["root", "*"]])
def test_a_star_means_all_users(key: str, value: Any) -> None:
    assert parse_options([(key, value)]).access.everybody


def test_the_user_agent_has_the_programs_parts() -> None:
    options = parse_options(
        [("grpc.primary_user_agent", "mine/1"), ("grpc.secondary_user_agent", b"behind/2")]
    )
    assert options.user_agent.startswith("mine/1 grpc-python-localrpc/")
    assert options.user_agent.endswith(" behind/2")


def test_a_user_agent_that_no_header_could_carry_is_left_out() -> None:
    options = parse_options([("grpc.primary_user_agent", "a\nb")])
    assert "\n" not in options.user_agent


def test_help_lists_every_option() -> None:
    text = localrpc.options.__doc__ or ""
    assert [option.key for option in DECLARED if f"| `{option.key}` |" not in text] == []


def test_an_unknown_option_is_ignored_if_it_is_grpcs_and_else_an_error() -> None:
    assert parse_options([("grpc.no_such_option", 1), ("other.option", "x")]) == Options()
    with pytest.raises(ValueError, match=r"unknown option 'localrpc\.no_such_option'") as caught:
        parse_options([("localrpc.no_such_option", 1)])
    own = [option.key for option in DECLARED if option.key.startswith("localrpc.")]
    assert str(caught.value).endswith(f"localrpc's own are {', '.join(own)}")


@pytest.mark.parametrize("option", DECLARED, ids=lambda option: option.key)
def test_a_default_is_what_an_option_reads_where_it_is_not_given(option: Any) -> None:
    default = getattr(Options(), option.name)
    assert default == (16384 if option.name == "max_metadata" else option.default)
    assert option.side in ("channel", "server", "both")


@pytest.mark.parametrize("value", ["calls", b"off"])
def test_a_choice_is_one_of_its_words(value: object) -> None:
    assert parse_options([("localrpc.spread", value)]).spread in ("calls", "off")


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("localrpc.spread", "on", "'on' is not calls or off"),
        ("localrpc.spread", 1, "1 is not calls or off"),
        ("localrpc.worker", "g", "'g' is not a group's name"),
        ("localrpc.worker", "g.0", "'g.0' is not a group's name"),
        ("localrpc.worker", "g h.1", "'g h.1' is not a group's name"),
        ("localrpc.worker", 3, "3 is not a group's name"),
        ("localrpc.name", "", "'' is not a text of 1 to 512 characters"),
        ("localrpc.name", "a\x1b[2J", "is not a text of 1 to 512 characters, each of which can"),
        ("localrpc.name", "x" * 513, "is not a text of 1 to 512 characters"),
        ("localrpc.name", 3, "3 is not a text of 1 to 512 characters"),
    ],
)
def test_what_is_no_choice_and_no_worker_is_refused(key: str, value: object, words: str) -> None:
    with pytest.raises(ValueError, match=re.escape(words)):
        parse_options([(key, value)])
