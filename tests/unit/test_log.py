from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path

import pytest

from localrpc import _log


def test_the_wire_logs_below_debug() -> None:
    assert _log.TRACE < logging.DEBUG
    assert logging.getLevelName(_log.TRACE) == "TRACE"


def test_loggers_hang_under_localrpc(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(_log.TRACE, "localrpc.wire"):
        _log.logger("wire").log(_log.TRACE, "%d bytes", 3)
        _log.logger("server").log(_log.TRACE, "unheard")
        _log.logger("server").warning("%s", "heard")
    assert caplog.record_tuples == [
        ("localrpc.wire", _log.TRACE, "3 bytes"),
        ("localrpc.server", logging.WARNING, "heard"),
    ]


def test_a_record_says_where_it_was_logged(caplog: pytest.LogCaptureFixture) -> None:
    _log.logger("server").warning("one")
    _log.logger("server").log(logging.WARNING, "two")
    assert [record.filename for record in caplog.records] == [Path(__file__).name] * 2


def test_a_warning_is_printed_by_a_program_that_has_not_imported_logging() -> None:
    script = """
import sys
from localrpc import _log
logger = _log.logger("wire")
logger.log(_log.TRACE, "not enabled")
print("logging" in sys.modules)
logger.log(30, "a warning of %d words", 5)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("False\n", "a warning of 5 words\n")
