"""The channel of one command, with its metadata and its time limit."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

import grpc

import localrpc
from localrpc.cli.rpc.errors import Misuse, failures_told

Metadata = tuple[tuple[str, str | bytes], ...]

# No limit: the user has asked for this answer.
_OPTIONS = (("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1))


@dataclass(frozen=True)
class Connection:
    target: str
    channel: grpc.Channel
    metadata: Metadata = ()
    deadline: float | None = None
    """On time.monotonic(): for the whole command, both reflection and call."""

    def time_left(self) -> float | None:
        return None if self.deadline is None else max(0.0, self.deadline - monotonic())


@contextmanager
def connected(
    target: str,
    headers: Iterable[str],
    timeout: float | None,
    worker: int | None,
    tls: bool,
    ca: Path | None,
) -> Iterator[Connection]:
    """Open a channel; a failed call or a bad target ends the program with one line."""
    metadata = tuple(map(parse_header, headers))
    deadline = None if timeout is None else monotonic() + timeout
    try:
        if worker is not None:
            target = _place_of(target, worker)
        channel = _open(target, tls, ca)
    except (ValueError, OSError) as error:
        raise Misuse(str(error)) from error
    with failures_told(), channel:
        yield Connection(target, channel, metadata, deadline)


def _place_of(target: str, worker: int) -> str:
    """Return where this worker of a group listens alone. Raises AddressError."""
    from localrpc.workers.places import target_of_worker

    place = target_of_worker(target, worker)
    if place is None:
        raise Misuse(f"{target} has no place for each worker: omit --worker")
    return place


def _open(target: str, tls: bool, ca: Path | None) -> grpc.Channel:
    credentials = channel_credentials(target, tls, ca)
    if credentials is None:
        return localrpc.insecure_channel(target, _OPTIONS)
    return localrpc.secure_channel(target, credentials, _OPTIONS)


def channel_credentials(target: str, tls: bool, ca: Path | None) -> grpc.ChannelCredentials | None:
    """Return what --tls and --ca ask for. Raises Misuse at a local target, and OSError."""
    if not tls and ca is None:
        return None
    if not target.startswith("grpc:"):
        raise Misuse(f"{target} is a local target and has no TLS: omit --tls and --ca")
    return grpc.ssl_channel_credentials(None if ca is None else ca.read_bytes())


def parse_header(text: str) -> tuple[str, str | bytes]:
    """Parse `key: value` as metadata; the value of a key that ends with -bin is base64."""
    key, colon, value = text.partition(":")
    key, value = key.strip().lower(), value.strip()
    if not colon or not key:
        raise Misuse(f"-H {text!r} is not metadata: write 'key: value'")
    if not key.endswith("-bin"):
        return key, value
    try:
        return key, base64.b64decode(value + "=" * (-len(value) % 4), validate=True)
    except binascii.Error as error:
        raise Misuse(f"-H {key}: the value of a -bin key is base64: {error}") from error
