"""A graceful stop on SIGTERM and SIGINT."""

from __future__ import annotations

import threading

import grpc

from localrpc.drive.signals import stop_by


def stop_on_signals(server: grpc.Server, grace: float | None = None) -> None:
    """See localrpc.stop_on_signals."""

    def stop(wait: float | None) -> None:
        # The main thread may hold a lock of the server at this moment.
        threading.Thread(
            target=server.stop, args=(wait,), name="localrpc-signal", daemon=True
        ).start()

    stop_by(stop, grace)
