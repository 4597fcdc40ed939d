"""Reads what the core has received for a call, as Python objects, for clients and servers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from localrpc._later import Later
from localrpc.drive.core import blank, borrow, ffi, idle_ios, lib

if TYPE_CHECKING:
    import grpc

    from localrpc.calls import texts
else:
    grpc = Later("grpc")
    texts = Later("localrpc.calls.texts")


def receive(engine: Any, call: int, deadline: int) -> tuple[int, Any]:
    """Wait for one event of `call`, and return its kind and content.

    | kind | content |
    |---|---|
    | `LR_K_MESSAGES` | a list of bytes |
    | `LR_K_BIG` | the size of a message, for fill() to fetch |
    | `LR_K_HEADERS`, `LR_K_STATUS` | their encoded bytes |
    | `LR_K_RESET` | status number, text, and True if the peer has not begun the call |
    | `LR_K_END` | None |
    | `LR_TOO_LARGE` | the size of the message |
    | other negative values | no meaning |
    """
    io = borrow()
    raw, buf = io.raw, io.buf
    kind = lib.LR_AGAIN
    while kind == lib.LR_AGAIN:
        kind = lib.lr_recv(engine, raw, call, deadline)
    content: Any = None
    if kind == lib.LR_K_MESSAGES:
        content = []
        start = 0
        for end in ffi.unpack(raw.ends, raw.count):
            content.append(buf[start:end])
            start = end
    elif kind == lib.LR_K_HEADERS or kind == lib.LR_K_STATUS:
        content = buf[: raw.size]
    elif kind == lib.LR_K_RESET:
        text = buf[: raw.count].decode("utf-8", "replace")
        content = (raw.size, text, bool(raw.flags & lib.LR_F_UNSEEN))
    elif kind != lib.LR_K_END:
        content = raw.size
    idle_ios.append(io)
    return kind, content


def fill(engine: Any, call: int, message: bytes, deadline: int) -> int:
    """Wait for the rest of `message`, a blank() of the size that receive() returned.

    Return 0, or a result that receive() may return; after LR_TIMEOUT it may be called again with
    the same message.
    """
    # The core writes into the bytes object, which no other code has seen yet.
    dest = ffi.from_buffer("char[]", message)
    result = lib.LR_AGAIN
    while result == lib.LR_AGAIN:
        result = lib.lr_fill(engine, call, dest, len(message), deadline)
    return int(result)


def receive_whole(engine: Any, call: int, deadline: int) -> tuple[int, Any]:
    """Read as receive(), but return a message of any size as LR_K_MESSAGES.

    If there is no memory for it, return LR_NOMEM and its size.
    """
    kind, content = receive(engine, call, deadline)
    if kind == lib.LR_K_BIG:
        try:
            message = blank(content)
        except MemoryError:
            return lib.LR_NOMEM, content
        kind = fill(engine, call, message, deadline)
        if kind == 0:
            return lib.LR_K_MESSAGES, [message]
    return kind, content


def failure(
    result: int, size: int, max_receive: int, *, closed: bool
) -> tuple[grpc.StatusCode, str]:
    """Return how a client's call ends for a negative `result`; `size` is for LR_TOO_LARGE."""
    if result == lib.LR_TOO_LARGE:
        text = texts.received_too_large(size, max_receive)
        return grpc.StatusCode.RESOURCE_EXHAUSTED, f"Stream removed (CLIENT: {text})"
    if result == lib.LR_TIMEOUT:
        return texts.DEADLINE_EXCEEDED
    if result == lib.LR_FORKED:
        return texts.FORKED
    if closed:
        return texts.CHANNEL_CLOSED
    if result == lib.LR_CANCELLED:  # by the core: a call that is cancelled here has ended before
        return texts.NO_MEMORY_TO_SEND
    if result == lib.LR_PROTOCOL:
        return texts.BROKEN_PROTOCOL
    if result in (lib.LR_NOMEM, lib.LR_NOROOM):
        return texts.no_room(lib.LR_MAX_SLOTS)
    return texts.SOCKET_CLOSED
