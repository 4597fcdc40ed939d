"""What the system allows, as it is now."""

from __future__ import annotations

import resource


def setting(path: str) -> int | None:
    """A number of /proc/sys; None where there is none, as in a kernel without the subject."""
    try:
        with open(f"/proc/sys/{path}") as file:
            return int(file.read())
    except (OSError, ValueError):
        return None


def rlimit(name: str) -> int:
    """The soft limit of that name, -1 for no limit."""
    number: int = getattr(resource, name)
    return resource.getrlimit(number)[0]


def settings(folder: str, *names: str) -> dict[str, int]:
    """Those of /proc/sys/FOLDER that there are."""
    found = {name: setting(f"{folder}/{name}") for name in names}
    return {name: value for name, value in found.items() if value is not None}
