"""The wrappers of tracing libraries for this API; see localrpc.aio.instrument."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from localrpc.drive.instruments import Instruments

instruments: Instruments[Sequence[Any], Any] = Instruments()
"""A channel's wrapper takes its interceptors and returns those to use in their place."""
