"""Client and server are processes of their own here."""

from __future__ import annotations

from tests.conftest import soaked_target as target

__all__ = ["target"]
