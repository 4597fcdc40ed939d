"""What a forked child must not keep: with a listener inherited, its name would seem alive after
the parent's death."""

from __future__ import annotations

import os
import weakref
from typing import Protocol


class Inheritable(Protocol):
    """Holds descriptors, and can close them without giving up a name or a connection."""

    def forget(self) -> None:
        """Called in a forked child."""


_inheritable: weakref.WeakSet[Inheritable] = weakref.WeakSet()


def forget_after_fork(holder: Inheritable) -> None:
    """Have `holder` closed in children of this process, but not given up."""
    _inheritable.add(holder)


def forget_all() -> None:
    """For a forked child. Idempotent."""
    for holder in list(_inheritable):
        holder.forget()


os.register_at_fork(after_in_child=forget_all)
