"""What a worker of a group says of its load, in a page of memory that it sends to its clients:
struct lr_load of _core/src/api.h."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Sequence

from localrpc._core import ffi, lib
from localrpc.errors import GreetingError

_SIZE = 32
_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL


def read_load(descriptor: int) -> Sequence[int]:
    """Return the numbers of the page, as they are when they are read. Closes the descriptor.

    Raises GreetingError if it is not such a page, or could be made smaller while it is read, which
    would be a SIGBUS.
    """
    try:
        if not fcntl.fcntl(descriptor, fcntl.F_GET_SEALS) & _SEALS == _SEALS:
            raise GreetingError("the server's load is memory without seals")
        if os.fstat(descriptor).st_size < _SIZE:
            raise GreetingError("the server's load is too small")
        # Not mmap.mmap(), which keeps a descriptor for each.
        page = lib.lr_load_open(descriptor)
        if page == ffi.NULL:
            raise GreetingError("the server's load cannot be mapped")
    except (OSError, ValueError) as error:
        raise GreetingError(f"the server's load cannot be read: {error}") from None
    finally:
        if descriptor >= 0:
            os.close(descriptor)
    page = ffi.gc(page, lib.lr_load_close)
    return memoryview(ffi.buffer(page)).cast("Q")
