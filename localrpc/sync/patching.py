"""grpc.insecure_channel and grpc.secure_channel for libraries that know nothing but a target."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from typing import Any

import grpc

from localrpc.address import SCHEMES
from localrpc.sync.channel import open_channel, text

_THEIRS = ("unix", "unix-abstract")
"""Schemes that mean something to grpcio too."""

_lock = threading.Lock()
_originals: tuple[Callable[..., grpc.Channel], Callable[..., grpc.Channel]] | None = None


def _is_ours(target: str | bytes) -> bool:
    scheme, colon, body = text(target).partition(":")
    if not colon or scheme not in SCHEMES or scheme in _THEIRS:
        return False
    return scheme == "fd" or not body.isdecimal()  # else a host that is called so, and a port


def patch() -> Callable[[], None]:
    global _originals
    with _lock:
        if _originals is not None:
            return unpatch
        insecure, secure = _originals = (grpc.insecure_channel, grpc.secure_channel)

    @functools.wraps(insecure)
    def insecure_channel(
        target: str, options: Any = None, compression: grpc.Compression | None = None
    ) -> grpc.Channel:
        if not _is_ours(target):
            return insecure(target, options, compression)
        return open_channel(target, options, compression)

    @functools.wraps(secure)
    def secure_channel(
        target: str,
        credentials: grpc.ChannelCredentials,
        options: Any = None,
        compression: grpc.Compression | None = None,
    ) -> grpc.Channel:
        if not _is_ours(target):
            return secure(target, credentials, options, compression)
        return open_channel(target, options, compression, credentials=credentials)

    grpc.insecure_channel = insecure_channel
    grpc.secure_channel = secure_channel
    return unpatch


def unpatch() -> None:
    global _originals
    with _lock:
        if _originals is not None:
            grpc.insecure_channel, grpc.secure_channel = _originals
            _originals = None
