"""What the system allows, as it is now."""

from __future__ import annotations

import resource


def setting(path: str) -> int | None:
    """Return a number of /proc/sys; None if this kernel does not have it."""
    try:
        with open(f"/proc/sys/{path}") as file:
            return int(file.read())
    except (OSError, ValueError):
        return None


def rlimit(name: str) -> int:
    """Return the soft limit of that name, -1 for no limit."""
    number: int = getattr(resource, name)
    return resource.getrlimit(number)[0]


def settings(folder: str, *names: str) -> dict[str, int]:
    """Return those numbers of /proc/sys/FOLDER that exist."""
    found = {name: setting(f"{folder}/{name}") for name in names}
    return {name: value for name, value in found.items() if value is not None}
