"""Ports for the tests that listen on TCP."""

from __future__ import annotations

import socket
import zlib

# Below the ephemeral ports, which other connections are given at random.
_FIRST, _LAST = 12_000, 32_000


def free_port(name: str) -> int:
    """A port of 127.0.0.1 on which nobody listens; another name most often gives another."""
    size = _LAST - _FIRST
    start = zlib.crc32(name.encode())
    for step in range(100):
        port = _FIRST + (start + step * 7) % size
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise AssertionError("a hundred ports in a row are taken")
