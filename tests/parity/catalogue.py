"""All scenarios, by name."""

from __future__ import annotations

from . import (
    scenarios_bad_input,
    scenarios_calls,
    scenarios_channel,
    scenarios_client_interceptors,
    scenarios_companions,
    scenarios_context,
    scenarios_failures,
    scenarios_futures,
    scenarios_handlers,
    scenarios_limits,
    scenarios_metadata,
    scenarios_methods,
    scenarios_nonblocking,
    scenarios_private,
    scenarios_server,
    scenarios_server_interceptors,
    scenarios_timeouts,
)
from .world import SCENARIOS

__all__ = [
    "SCENARIOS",
    "scenarios_bad_input",
    "scenarios_calls",
    "scenarios_channel",
    "scenarios_client_interceptors",
    "scenarios_companions",
    "scenarios_context",
    "scenarios_failures",
    "scenarios_futures",
    "scenarios_handlers",
    "scenarios_limits",
    "scenarios_metadata",
    "scenarios_methods",
    "scenarios_nonblocking",
    "scenarios_private",
    "scenarios_server",
    "scenarios_server_interceptors",
    "scenarios_timeouts",
]
