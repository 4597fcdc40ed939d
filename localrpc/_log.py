"""Loggers, and the level below DEBUG on which the wire talks.

Everything hangs under "localrpc"; `logging.getLogger("localrpc.wire").setLevel(TRACE)`
shows each greeting and connection.
"""

from __future__ import annotations

import logging

TRACE = 5

logging.addLevelName(TRACE, "TRACE")

# No NullHandler: in a program that has not set up logging, warnings go to stderr.
_ROOT = logging.getLogger("localrpc")


def logger(name: str) -> logging.Logger:
    """`name` is relative: "wire" gives "localrpc.wire"."""
    return _ROOT.getChild(name)
