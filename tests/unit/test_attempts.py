"""When a call is tried again: a connector of the test's own says which sessions there are."""

from __future__ import annotations

from typing import Any

import pytest

from localrpc.calls.request import ATTEMPTS
from localrpc.drive.core import lib
from localrpc.drive.opening import SessionAttempts


class Connector:
    """Gives sessions, numbered, and remembers which were lost."""

    def __init__(self) -> None:
        self.given = 0
        self.lost_ones: list[object] = []
        self.waited: list[bool] = []

    def ready(self, deadline: int, *, wait_for_ready: bool, wanted: object, streams: bool) -> Any:
        self.waited.append(wait_for_ready)
        self.given += 1
        return self.given

    def lost(self, session: object) -> None:
        self.lost_ones.append(session)


def attempts_of(connector: Connector, *, wait_for_ready: bool = False) -> SessionAttempts:
    stand_in: Any = connector
    return SessionAttempts(stand_in, wait_for_ready=wait_for_ready)


@pytest.mark.parametrize("result", [lib.LR_UNSENT, lib.LR_FORKED])
def test_a_call_that_no_server_has_seen_is_tried_again_on_another_session(result: int) -> None:
    connector = Connector()
    attempts = attempts_of(connector)
    first = attempts.session(0)
    assert first is not None
    assert attempts.unseen(first, result)
    assert connector.lost_ones == [first]
    assert attempts.session(0) != first


@pytest.mark.parametrize(
    "result", [0, lib.LR_TIMEOUT, lib.LR_CLOSED, lib.LR_CANCELLED, lib.LR_PROTOCOL, lib.LR_NOMEM]
)
def test_a_call_that_a_server_may_have_seen_is_not(result: int) -> None:
    connector = Connector()
    attempts = attempts_of(connector)
    session = attempts.session(0)
    assert session is not None
    assert not attempts.unseen(session, result)
    assert connector.lost_ones == []


def test_attempts_come_to_an_end() -> None:
    connector = Connector()
    attempts = attempts_of(connector)
    for _ in range(ATTEMPTS):
        session = attempts.session(0)
        assert session is not None
        assert attempts.unseen(session)
    assert attempts.session(0) is None
    assert connector.given == len(connector.lost_ones) == ATTEMPTS


@pytest.mark.parametrize("wait_for_ready", [False, True])
def test_each_attempt_waits_as_the_call_asked(*, wait_for_ready: bool) -> None:
    connector = Connector()
    attempts = attempts_of(connector, wait_for_ready=wait_for_ready)
    attempts.session(0)
    attempts.session(0)
    assert connector.waited == [wait_for_ready] * 2
