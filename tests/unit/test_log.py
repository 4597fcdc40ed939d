from __future__ import annotations

import logging

from localrpc import _log


def test_the_wire_logs_below_debug() -> None:
    assert _log.TRACE < logging.DEBUG
    assert logging.getLevelName(_log.TRACE) == "TRACE"


def test_loggers_hang_under_localrpc() -> None:
    assert _log.logger("wire") is logging.getLogger("localrpc.wire")
