"""Warnings are errors: in the tests, in destructors, and in the programs that tests start."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from typing import Any

import pytest


def test_a_warning_is_an_error() -> None:
    with pytest.raises(DeprecationWarning, match="old"):
        warnings.warn("old", DeprecationWarning, stacklevel=1)


def test_a_file_that_is_left_open_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """pytest fails the test that calls this hook, unless it is replaced, as here."""
    seen: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda raised: seen.append(raised.exc_type))
    open(os.devnull)  # noqa: SIM115
    assert seen == [ResourceWarning]


def test_a_program_ends_with_its_first_warning() -> None:
    program = "import warnings; warnings.warn('old', DeprecationWarning); print('on')"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")
    assert "DeprecationWarning: old" in done.stderr
