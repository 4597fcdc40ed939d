"""Patches grpc.insecure_channel and grpc.secure_channel, for libraries that only take a target."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import grpc

from localrpc import _locks
from localrpc.calls.request import text
from localrpc.sync.channel import open_channel
from localrpc.transports import REGISTERED

_THEIRS = ("unix", "unix-abstract")
"""Schemes that grpcio knows, too."""

_lock = _locks.Lock()
_patch: _Patch | None = None


class _Patch:
    """Replaces both functions, calling the previous ones for other targets.

    If another library has wrapped them since, they stay in place when the patch is undone:
    `active` is True while they have an effect.
    """

    def __init__(self) -> None:
        insecure, secure = grpc.insecure_channel, grpc.secure_channel
        self._theirs = insecure, secure
        self.active = True

        @functools.wraps(insecure)
        def insecure_channel(target: str, options: Any = None, compression: Any = None) -> Any:
            if self.active and _is_ours(target):
                return open_channel(target, options, compression)
            return insecure(target, options, compression)

        @functools.wraps(secure)
        def secure_channel(
            target: str, credentials: Any, options: Any = None, compression: Any = None
        ) -> Any:
            if self.active and _is_ours(target):
                return open_channel(target, options, compression, credentials=credentials)
            return secure(target, credentials, options, compression)

        self._ours = insecure_channel, secure_channel
        grpc.insecure_channel, grpc.secure_channel = self._ours

    def undo(self) -> None:
        self.active = False
        if grpc.insecure_channel is self._ours[0]:
            grpc.insecure_channel = self._theirs[0]
        if grpc.secure_channel is self._ours[1]:
            grpc.secure_channel = self._theirs[1]


def _is_ours(target: str | bytes) -> bool:
    scheme, colon, body = text(target).partition(":")
    if not colon or scheme not in REGISTERED or scheme in _THEIRS:
        return False
    return scheme == "fd" or not body.isdecimal()  # else a host with this name, and a port


def patch() -> Callable[[], None]:
    global _patch
    with _lock:
        if _patch is None:
            _patch = _Patch()
    return unpatch


def unpatch() -> None:
    global _patch
    with _lock:
        if _patch is not None:
            _patch.undo()
            _patch = None
