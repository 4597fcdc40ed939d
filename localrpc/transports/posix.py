"""posix_ipc, for the two targets that need it: mq: and shm:NAME?memory=posix.

It is imported nowhere else, and an extra where it has no wheels: CPython 3.14 and later.
"""

from __future__ import annotations

import errno
from typing import Any

_MISSING = (
    "the package posix_ipc, which mq: and memory=posix need, is not installed:"
    " `pip install 'localrpc[mq]'`, which needs a C compiler and Python's headers"
    " (`apt-get install gcc python3-dev`) where posix_ipc has no wheel, as on"
    " CPython 3.14 and later"
)


def load() -> Any:
    """Return the module posix_ipc. Raises OSError with the fix if it is not installed."""
    try:
        import posix_ipc
    except ImportError:
        raise OSError(errno.ENOPKG, _MISSING) from None
    return posix_ipc
