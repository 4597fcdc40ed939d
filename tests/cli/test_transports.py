"""`localrpc transports`: fits the terminal, and is whole in a pipe."""

from __future__ import annotations

import re

import pytest

import localrpc

from .scene import on_terminal, run


def test_lines_fit_a_terminal_of_80_columns() -> None:
    shown = re.sub(r"\x1b\[[\d;]*m", "", on_terminal("transports", columns=80))
    assert max(map(len, shown.splitlines())) <= 80
    words = " ".join(shown.split())
    for offer in localrpc.transports():
        for text in (offer.target, offer.technique, offer.credentials):
            assert text in words


def test_a_pipe_gets_whole_lines_without_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    shown = run("transports").stdout
    assert "\x1b" not in shown
    lines = [line.strip() for line in shown.splitlines()]
    for offer in localrpc.transports():
        assert offer.target in lines
        assert any(line.endswith(f" {offer.technique}") for line in lines)
        for name, value in offer.limits.items():
            assert offer.missing or any(f"{name} {value:,}" in line for line in lines)
