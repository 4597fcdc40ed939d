"""The C core for Python: `lib` and `ffi` of src/api.h, and the `Io` that a call borrows."""

from __future__ import annotations

import sys
from typing import Any

try:
    from localrpc._core._lr import ffi, lib
except ImportError as error:
    if not sys.platform.startswith("linux"):
        raise ImportError(f"localrpc needs Linux; this is {sys.platform}") from error
    from pathlib import Path

    if (compiled := Path(__file__).with_name("_lr.abi3.so")).exists():
        raise ImportError(
            f"{compiled}, localrpc's compiled core, cannot be loaded: {error}"
        ) from error
    tree = Path(__file__).resolve().parents[2]
    if (tree / "pyproject.toml").exists():
        raise ImportError(
            f"{tree} is localrpc's source tree, and the C core is not compiled there. Run "
            f"`python -m pip install -e {tree}`, which compiles it and needs a C compiler and "
            "Python's headers (`apt-get install gcc python3-dev`); or, if localrpc is installed, "
            "start Python in another folder"
        ) from error
    raise ImportError("localrpc's compiled core is missing: install localrpc again") from error

__all__ = ["Io", "ffi", "lib"]


class Io:
    """The buffers of one thread for calls into the core.

    `raw` is the `struct lr_io *`, `buf` the bytes that the core writes into:
    message i of a batch is `buf[ends[i - 1]:ends[i]]`. Slices are copies, and
    only they may be kept: the next call writes over `buf`.
    """

    __slots__ = ("_hold", "buf", "raw")

    raw: Any
    buf: bytes

    def __init__(self) -> None:
        # The core writes into a bytes object that no other code refers to: slices of it are
        # bytes made by one copy. (A bytearray would cost a memoryview at every slice.)
        self.buf = bytes(lib.LR_SCRATCH)
        self._hold = ffi.from_buffer("char[]", self.buf)
        self.raw = ffi.new("struct lr_io *")
        self.raw.buf = ffi.cast("uint8_t *", self._hold)
        self.raw.cap = lib.LR_SCRATCH
