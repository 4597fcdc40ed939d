"""A socket that listens, and the name to give back with it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from localrpc.transports import names

if TYPE_CHECKING:
    import socket


class BoundSocket(NamedTuple):
    """A listening socket; other processes that it is passed to can serve it as `fd:`."""

    sock: socket.socket
    path: str | None = None
    """Its name in the file system, if it has one."""
    identity: names.Identity = (0, 0)
    port: int = 1
    """Where there is one, else grpcio's 1."""

    def release(self) -> None:
        """Remove the name, if it is still this socket's. Idempotent.

        To be called while the socket is open: its inode must not belong to another.
        """
        if self.path is not None:
            names.release_name(self.path, self.identity)
