"""What others can bring about as often as they like does not fill the log."""

from __future__ import annotations

import logging

import pytest

from localrpc import _log


@pytest.fixture
def seldom() -> _log.Seldom:
    return _log.Seldom(_log.logger("test"), pause=3600.0, most=3)


def test_a_cause_is_logged_once(seldom: _log.Seldom, caplog: pytest.LogCaptureFixture) -> None:
    for number in range(96):
        seldom.log(logging.WARNING, "hung up", f"pid {number} hung up")
    seldom.log(logging.WARNING, "no HELLO", "pid 1 said nothing")
    assert caplog.messages == ["pid 0 hung up", "pid 1 said nothing"]


def test_after_the_pause_the_number_of_suppressed_records_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    seldom = _log.Seldom(_log.logger("test"), pause=3600.0)
    for number in range(4):
        seldom.log(logging.WARNING, "hung up", f"pid {number} hung up")
    seldom._seen["hung up"][0] = 0
    seldom.log(logging.WARNING, "hung up", "pid 9 hung up")
    assert caplog.messages == ["pid 0 hung up", "pid 9 hung up (3 more times since)"]


def test_varying_causes_do_not_evade_the_limit(
    seldom: _log.Seldom, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(1000):
        seldom.log(logging.WARNING, f"cause {number}", f"cause {number}")
    assert len(caplog.messages) == 4
    assert len(seldom._seen) <= 4


def test_expired_causes_are_forgotten(caplog: pytest.LogCaptureFixture) -> None:
    seldom = _log.Seldom(_log.logger("test"), pause=0.0, most=3)
    for number in range(100):
        seldom.log(logging.WARNING, f"cause {number}", f"cause {number}")
    assert len(caplog.messages) == 100
    assert len(seldom._seen) <= 3
