"""Ports for the tests that listen on TCP."""

from __future__ import annotations

import contextlib
import itertools
import socket
from functools import cache

# Below the ephemeral ports, which other connections are given at random.
_FIRST, _SHARE, _SHARES = 12_000, 500, 40
_numbers = itertools.count()


@cache
def _share() -> tuple[int, socket.socket]:
    """The first port of this process's share, and what keeps other test runs out of it.

    Abstract names belong to a network namespace, as ports do.
    """
    for first in range(_FIRST, _FIRST + _SHARE * _SHARES, _SHARE):
        claim = socket.socket(socket.AF_UNIX)
        try:
            claim.bind(f"\0localrpc-tests-ports-{first}")
        except OSError:
            claim.close()
            continue
        return first, claim
    raise AssertionError("every share of ports is taken")


with contextlib.suppress(PermissionError):  # where sockets are forbidden, no test needs ports
    _share()  # now, for descriptors are counted later


def free_port() -> int:
    """Return an unused port of 127.0.0.1; each time another one."""
    first, _ = _share()
    for number in itertools.islice(_numbers, _SHARE):
        port = first + number % _SHARE
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise AssertionError("every port is taken")
