"""Makes an API of grpcio open localrpc's channels, for libraries that only take a target."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from localrpc import _locks
from localrpc.calls.request import text
from localrpc.transports import REGISTERED

_THEIRS = ("unix", "unix-abstract")
"""Schemes that grpcio knows, too."""


class Patching:
    """Replaces insecure_channel and secure_channel of `api`, which is grpc or grpc.aio.

    `insecure` and `secure` open localrpc's channels; the previous functions are called for other
    targets. Thread-safe.
    """

    def __init__(self, api: Any, insecure: Callable[..., Any], secure: Callable[..., Any]) -> None:
        self._api = api
        self._openers = {"insecure_channel": insecure, "secure_channel": secure}
        self._lock = _locks.Lock()
        self._patch: _Patch | None = None

    def patch(self) -> Callable[[], None]:
        """Patch the API, once. Return a function to undo it."""
        with self._lock:
            if self._patch is None:
                self._patch = _Patch(self._api, self._openers)
        return self.undo

    def undo(self) -> None:
        with self._lock:
            if self._patch is not None:
                self._patch.undo()
                self._patch = None


class _Patch:
    """The functions that replace those of an API.

    If another library has wrapped them since, they stay in place when the patch is undone:
    `active` is True while they have an effect.
    """

    def __init__(self, api: Any, openers: dict[str, Callable[..., Any]]) -> None:
        self._api = api
        self._theirs = {name: getattr(api, name) for name in openers}
        self.active = True
        self._ours = {name: self._replacing(self._theirs[name], openers[name]) for name in openers}
        for name, function in self._ours.items():
            setattr(api, name, function)

    def _replacing(
        self, theirs: Callable[..., Any], opener: Callable[..., Any]
    ) -> Callable[..., Any]:
        @functools.wraps(theirs)
        def replacement(target: str, *args: Any, **kwargs: Any) -> Any:
            opens = opener if self.active and is_ours(target) else theirs
            return opens(target, *args, **kwargs)

        return replacement

    def undo(self) -> None:
        self.active = False
        for name, function in self._ours.items():
            if getattr(self._api, name) is function:
                setattr(self._api, name, self._theirs[name])


def is_ours(target: str | bytes) -> bool:
    """Return True if localrpc has the scheme of a target, and grpcio does not."""
    scheme, colon, body = text(target).partition(":")
    if not colon or scheme not in REGISTERED or scheme in _THEIRS:
        return False
    return scheme == "fd" or not body.isdecimal()  # else a host with this name, and a port
