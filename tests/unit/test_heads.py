"""What a client sends to begin a call, and what a server makes of it."""

from __future__ import annotations

import grpc
import pytest

from localrpc import status
from localrpc.calls import incoming
from localrpc.calls.request import (
    ATTEMPTS,
    Attempts,
    head_of,
    text,
    unsendable,
    with_name,
)
from localrpc.errors import InvalidMetadata
from localrpc.metadata import SizeLimits
from localrpc.wire.frames import NAME_MAX

LIMITS = SizeLimits(1000, 1000)


def test_a_servers_handler_sees_the_metadata_behind_the_user_agent() -> None:
    head = head_of([("k", "v"), ("k-bin", b"\0")])
    seen = incoming.metadata_of("agent/1", head)
    assert seen == (("user-agent", "agent/1"), ("k", "v"), ("k-bin", b"\0"))


@pytest.mark.parametrize("metadata", [None, (), [("user-agent", "mine")]])
def test_without_metadata_of_the_users_nothing_is_sent(metadata: list[tuple[str, str]]) -> None:
    assert head_of(metadata) == b""


def test_metadata_that_cannot_be_sent_is_refused() -> None:
    with pytest.raises(InvalidMetadata):
        head_of([("UPPER", "v")])


def test_a_name_that_has_no_number_stands_before_the_metadata() -> None:
    assert with_name("/a/ä", b"head") == b"\5\0\0\0/a/\xc3\xa4head"


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("/a/b", None),
        ("m" * NAME_MAX, None),
        ("", grpc.StatusCode.CANCELLED),
        ("m" * (NAME_MAX + 1), grpc.StatusCode.RESOURCE_EXHAUSTED),
        ("ä" * NAME_MAX, grpc.StatusCode.RESOURCE_EXHAUSTED),
    ],
)
def test_a_name_that_is_empty_or_too_long_ends_the_call(
    name: str, code: grpc.StatusCode | None
) -> None:
    refused = unsendable(name)
    assert (refused and refused[0]) == code


def test_names_are_text_or_bytes() -> None:
    assert text("/a/ä") == text("/a/ä".encode()) == "/a/ä"
    with pytest.raises(AttributeError):
        text(5)  # type: ignore[arg-type]


def test_a_call_that_no_server_has_seen_has_a_limited_number_of_attempts() -> None:
    attempts = Attempts()
    for _ in range(ATTEMPTS):
        assert attempts.begin()
        assert attempts.failed(unseen=True)
    assert not attempts.begin()


def test_a_call_that_a_server_may_have_seen_has_no_further_attempt() -> None:
    attempts = Attempts()
    assert attempts.begin()
    assert not attempts.failed(unseen=False)
    assert not attempts.begin()


def test_a_call_with_more_metadata_than_the_limit_is_refused() -> None:
    assert incoming.refusal(LIMITS, "/a/b", "agent", head_of([("k", "v" * 100)])) is None
    refused = incoming.refusal(LIMITS, "/a/b", "agent", head_of([("k", "v" * 1000)]))
    assert refused is not None
    assert refused[0] == status.RESOURCE_EXHAUSTED


def test_a_long_method_name_counts_as_metadata() -> None:
    assert incoming.refusal(LIMITS, "m" * incoming.LONG_NAME, "agent", b"") is None
    refused = incoming.refusal(LIMITS, "m" * 1000, "agent", b"")
    assert refused is not None
    assert refused[0] == status.RESOURCE_EXHAUSTED


def test_metadata_that_cannot_be_read_is_refused_if_it_has_to_be_counted() -> None:
    broken = b"\x0a\x7f"  # a field of 127 bytes, none of which is there
    refused = incoming.refusal(LIMITS, "/a/b", "agent", broken)
    assert refused is not None
    assert refused[0] == status.INTERNAL


def test_the_security_of_a_port_is_in_the_auth_context_of_its_calls() -> None:
    assert incoming.identities("insecure") is None
    assert incoming.identity_key("insecure") is None
    assert incoming.auth_context("insecure") == {
        "transport_security_type": [b"insecure"],
        "security_level": [b"TSI_SECURITY_NONE"],
    }
    key = incoming.identity_key("local")
    assert key is not None
    assert incoming.auth_context("local")[key] == incoming.identities("local") == [b"local"]
