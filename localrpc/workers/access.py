"""Who may open the sockets of a supervisor, and whom its workers serve: one group is enough."""

from __future__ import annotations

from dataclasses import replace

from localrpc.options import parse_options
from localrpc.transports.names import Permissions
from localrpc.workers.settings import Settings

_GROUP_MODE = 0o660
_NO_WRITING = "mode {mode:04o} keeps the group out: to connect it has to write, as with 0660"
_NOT_SERVED = (
    "mode {mode:04o} opens the sockets to other users, and the servers serve only their own and"
    " root; name a group, or set the option localrpc.allow_users or localrpc.allow_groups"
)


def resolved(settings: Settings) -> tuple[Settings, Permissions | None]:
    """Return settings whose options allow the group of the sockets, and the files' permissions.

    None leaves the permissions to the options. Raises ValueError for an unknown group, for a mode
    that contradicts the group or the options, and as parse_options() does.
    """
    if settings.uds_group is None and settings.uds_mode is None:
        return settings, None
    group = None
    if settings.uds_group is not None:
        group = _number(settings.uds_group)
        settings = _allowing(settings, group)
    default = 0o600 if group is None else _GROUP_MODE
    mode = default if settings.uds_mode is None else settings.uds_mode
    if group is not None and not mode & 0o020:
        raise ValueError(_NO_WRITING.format(mode=mode))
    if mode & 0o077 and not parse_options(settings.options).access.others:
        raise ValueError(_NOT_SERVED.format(mode=mode))
    return settings, Permissions(mode, group)


def _number(group: str | int) -> int:
    text = str(group)
    if not text.isdecimal():
        import grp

        try:
            return grp.getgrnam(text).gr_gid
        except KeyError:
            raise ValueError(f"there is no group {text!r} on this machine") from None
    (number,) = parse_options([("localrpc.allow_groups", text)]).allow_groups
    return number


def _allowing(settings: Settings, group: int) -> Settings:
    parsed = parse_options(settings.options)
    if parsed.access.everybody:
        return settings
    allowed = ("localrpc.allow_groups", sorted({*parsed.allow_groups, group}))
    return replace(settings, options=(*settings.options, allowed))
