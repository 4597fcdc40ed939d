"""Ports for the tests that listen on TCP."""

from __future__ import annotations

import itertools
import os
import socket

# Below the ephemeral ports, which other connections are given at random. Each of
# pytest-xdist's workers has a share of its own, and begins anywhere in it.
_FIRST, _SHARE, _SHARES = 12_000, 2_500, 8
_worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % _SHARES
_numbers = itertools.count(os.getpid())


def free_port() -> int:
    """A port of 127.0.0.1 on which nobody listens; each time another one."""
    for number in itertools.islice(_numbers, _SHARE):
        port = _FIRST + _worker * _SHARE + number % _SHARE
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise AssertionError("every port is taken")
