"""Errors of these commands: what is printed, and the exit code."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import click
import grpc

FAILED_CALL = 64
"""Added to the status code of a failed call, as in grpcurl; 2 is misuse."""
INTERRUPTED = 130


class Misuse(click.ClickException):
    """The command line or a request is wrong; no call was made, or it was cancelled."""

    exit_code = 2


class CallFailed(click.ClickException):
    """A call ended with a status other than OK."""

    def __init__(self, code: grpc.StatusCode, details: str | None, hint: str = "") -> None:
        super().__init__(f"{code.name}: {details or 'no details'}{hint}")
        self.exit_code = FAILED_CALL + code.value[0]  # type: ignore[misc]


@contextmanager
def failures_told() -> Iterator[None]:
    """Let a failed call and Ctrl-C end the program with their exit codes."""
    try:
        yield
    except grpc.RpcError as error:
        raise CallFailed(error.code(), error.details()) from error
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
