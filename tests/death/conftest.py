"""Peers die and stop here, so they are processes of their own."""

from __future__ import annotations

from tests.conftest import two_process_target as target

__all__ = ["target"]
