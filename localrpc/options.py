"""Channel and server options: grpc's pairs, and localrpc's own.

An option of gRPC's that means nothing on a local link, and one that nobody
knows, is accepted and ignored, as grpcio does. An unknown option under
"localrpc." is an error, because nobody else can mean anything by it.

| option | default | what |
|---|---|---|
| grpc.max_receive_message_length | 4194304 | bytes; negative: no limit |
| grpc.max_send_message_length | -1 | bytes; negative: no limit |
| grpc.max_metadata_size | 8192 | bytes of metadata above which some are refused, at random |
| grpc.absolute_max_metadata_size | 16384 | bytes at which all metadata is refused; at least 1.25 \
times the above unless given |
| grpc.primary_user_agent, grpc.secondary_user_agent | | put before and after the user agent |
| grpc.initial_reconnect_backoff_ms | 10 | first wait before another try to connect |
| grpc.max_reconnect_backoff_ms | 50 | longest such wait |
| localrpc.window | 4194304 | bytes of one call's messages that may wait for a slow reader |
| localrpc.connect_timeout_ms | 20000 | for one try: connect and greeting |
| localrpc.greeting_timeout_ms | 5000 | what a server gives a client to introduce itself |
| localrpc.shared_memory | 1 | 0: take no shared memory, shm: stays on its socket |
| localrpc.allow_users | | whom a server serves beside its own user and root: names or numbers, \
in a list or separated by commas; * for everybody |
| localrpc.allow_groups | | the same by groups |
| localrpc.server_user | own or root | whose server a channel talks to, and nobody else's |
| localrpc.max_connections_per_user | 4096 | that a server has at a time |
| localrpc.max_calls_per_user | 16384 | in progress at a time, in all of a user's connections |
| localrpc.max_waiting_calls_per_user | 10000 | of those: that wait for a thread of the server |
| localrpc.max_memory_per_user | 2147483648 | bytes of memory for what a user has sent and no \
handler has taken, and for answers that it has not read |

What speaks of users holds at local targets: those of grpc: have none.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from localrpc import _log

_logger = _log.logger("options")

DEFAULT_MAX_RECEIVE = 4 * 1024 * 1024
DEFAULT_WINDOW = 4 * 1024 * 1024
WINDOW_MIN = 64 * 1024
WINDOW_MAX = 1 << 40
_DEFAULT_METADATA_SOFT = 8 * 1024
_DEFAULT_METADATA_HARD = 16 * 1024
_AGENT_PART_MAX = 256  # characters; the whole HELLO has a few KiB
_INT_MIN, _INT_MAX = -(1 << 31), (1 << 31) - 1


class Access(NamedTuple):
    """Whom a server serves beside its own user and root."""

    users: frozenset[int] = frozenset()
    groups: frozenset[int] = frozenset()
    everybody: bool = False

    @property
    def others(self) -> bool:
        """Whether it serves anybody else at all."""
        return bool(self.everybody or self.users or self.groups)


class Options(NamedTuple):
    """What the rest of localrpc reads; sizes in bytes, times in seconds, -1 for no limit."""

    max_receive: int = DEFAULT_MAX_RECEIVE
    max_send: int = -1
    metadata_soft: int = _DEFAULT_METADATA_SOFT
    max_metadata: int = _DEFAULT_METADATA_HARD
    window: int = DEFAULT_WINDOW
    primary_user_agent: str = ""
    secondary_user_agent: str = ""
    initial_backoff: float = 0.010
    max_backoff: float = 0.050
    connect_timeout: float = 20.0
    greeting_timeout: float = 5.0
    shared_memory: bool = True
    access: Access = Access()
    server_users: frozenset[int] | None = None
    max_connections_per_user: int = 4096
    max_calls_per_user: int = 16384
    max_waiting_calls_per_user: int = 10_000
    max_memory_per_user: int = 2 << 30

    @property
    def user_agent(self) -> str:
        """What this side calls itself in its greeting and in a handler's metadata."""
        parts = (self.primary_user_agent, _AGENT, self.secondary_user_agent)
        return " ".join(part for part in parts if part)


_AGENT = f"grpc-python-localrpc/0.1.0 (linux; python {'.'.join(map(str, sys.version_info[:3]))})"

EVERYBODY = "*"


def _users(key: str, value: Any) -> frozenset[int | str]:
    def look_up(name: str) -> int:
        import pwd

        return pwd.getpwnam(name).pw_uid

    return _identities(key, value, "user", look_up)


def _groups(key: str, value: Any) -> frozenset[int | str]:
    def look_up(name: str) -> int:
        import grp

        return grp.getgrnam(name).gr_gid

    return _identities(key, value, "group", look_up)


def _one_user(key: str, value: Any) -> frozenset[int | str]:
    if EVERYBODY in (users := _users(key, value)):
        raise ValueError(f"option {key!r}: name the user whose server it is")
    return users


def _identities(
    key: str, value: Any, kind: str, look_up: Callable[[str], int]
) -> frozenset[int | str]:
    """Numbers of users or groups, or EVERYBODY alone."""
    if isinstance(value, (str, bytes)):
        value = [part.strip() for part in _text(value).split(",")]
    elif isinstance(value, int):
        value = [value]
    elif not isinstance(value, Iterable):
        raise TypeError(f"option {key!r}: expected names or numbers of {kind}s, got {type(value)}")
    found: set[int | str] = set()
    for item in value:
        if isinstance(item, bool) or not isinstance(item, (int, str)):
            raise TypeError(f"option {key!r}: expected a {kind}, got {item!r}")
        if item == EVERYBODY:
            return frozenset((EVERYBODY,))
        if isinstance(item, str) and not item.isdecimal():
            try:
                item = look_up(item)
            except KeyError:
                raise ValueError(
                    f"option {key!r}: there is no {kind} {item!r} on this machine"
                ) from None
        if not 0 <= int(item) <= _ID_MAX:
            raise ValueError(f"option {key!r}: {item} is no number of a {kind}")
        found.add(int(item))
    return frozenset(found)


_ID_MAX = (1 << 32) - 2
"""The one above means none, to the kernel."""

_OWN: Mapping[str, tuple[int, int] | Callable[[str, Any], Any]] = MappingProxyType(
    {
        "localrpc.window": (WINDOW_MIN, WINDOW_MAX),
        "localrpc.connect_timeout_ms": (1, _INT_MAX),
        "localrpc.greeting_timeout_ms": (1, _INT_MAX),
        "localrpc.shared_memory": (0, 1),
        "localrpc.allow_users": _users,
        "localrpc.allow_groups": _groups,
        "localrpc.server_user": _one_user,
        "localrpc.max_connections_per_user": (1, _INT_MAX),
        "localrpc.max_calls_per_user": (1, _INT_MAX),
        "localrpc.max_waiting_calls_per_user": (1, _INT_MAX),
        "localrpc.max_memory_per_user": (WINDOW_MIN, WINDOW_MAX),
    }
)


def parse_options(options: Iterable[tuple[str, Any]] | None) -> Options:
    """Raises as grpcio does: TypeError for a key or value of a wrong type, OverflowError
    for a number beyond 32 bits, ValueError for what is no pair, or an unknown localrpc option.
    """
    given: dict[str, Any] = {}
    for key, value in options or ():
        key = _text(key)
        if not isinstance(key, str):
            raise TypeError(f"Expected str, not {type(key)}")
        if key.startswith("localrpc."):
            value = _check_own(key, value)
        else:
            _check_grpc(value)
        given[key] = value
    return _interpret(given)


def without_own(options: Iterable[tuple[str, Any]] | None) -> list[tuple[str, Any]]:
    """What is left for grpcio; checked first, as parse_options does it."""
    pairs = list(options or ())
    parse_options(pairs)
    return [pair for pair in pairs if not _text(pair[0]).startswith("localrpc.")]


def _text(key: str | bytes) -> str:
    return key.decode() if isinstance(key, bytes) else key


def _check_own(key: str, value: Any) -> Any:
    if key not in _OWN:
        raise ValueError(f"unknown option {key!r}; localrpc's own are {', '.join(_OWN)}")
    check = _OWN[key]
    if callable(check):
        return check(key, value)
    if not isinstance(value, int):
        raise TypeError(f"option {key!r}: expected int, got {type(value)}")
    low, high = check
    if not low <= value <= high:
        raise ValueError(f"option {key!r}: {value} is not between {low} and {high}")
    return value


def _check_grpc(value: Any) -> None:
    if isinstance(value, int):
        if not _INT_MIN <= value <= _INT_MAX:
            raise OverflowError("value too large to convert to int")
    elif not isinstance(value, (str, bytes)) and not hasattr(value, "__int__"):
        raise TypeError(f"Expected int, bytes, or behavior, got {type(value)}")


def _interpret(given: Mapping[str, Any]) -> Options:
    def number(key: str, default: int) -> int:
        value = given.get(key, default)
        if isinstance(value, int):
            return int(value)
        _logger.warning("option %s ignored: it should be an int, not %r", key, value)
        return default

    def text(key: str) -> str:
        value = given.get(key, "")
        if isinstance(value, bytes):
            value = value.decode("ascii", "replace")
        if not (isinstance(value, str) and value.isascii() and value.isprintable()):
            return ""
        return value[:_AGENT_PART_MAX]

    soft = number("grpc.max_metadata_size", _DEFAULT_METADATA_SOFT)
    hard = number("grpc.absolute_max_metadata_size", -1)
    if hard < 0:
        hard = max(soft * 5 // 4, _DEFAULT_METADATA_HARD)
    initial = max(1, number("grpc.initial_reconnect_backoff_ms", 10))
    longest = max(initial, number("grpc.max_reconnect_backoff_ms", 50))
    return Options(
        max_receive=max(-1, number("grpc.max_receive_message_length", DEFAULT_MAX_RECEIVE)),
        max_send=max(-1, number("grpc.max_send_message_length", -1)),
        metadata_soft=soft,
        max_metadata=hard,
        window=number("localrpc.window", DEFAULT_WINDOW),
        primary_user_agent=text("grpc.primary_user_agent"),
        secondary_user_agent=text("grpc.secondary_user_agent"),
        initial_backoff=initial / 1000,
        max_backoff=longest / 1000,
        connect_timeout=number("localrpc.connect_timeout_ms", 20_000) / 1000,
        greeting_timeout=number("localrpc.greeting_timeout_ms", 5_000) / 1000,
        shared_memory=bool(number("localrpc.shared_memory", 1)),
        access=_access(
            given.get("localrpc.allow_users", frozenset()),
            given.get("localrpc.allow_groups", frozenset()),
        ),
        server_users=given.get("localrpc.server_user"),
        max_connections_per_user=number("localrpc.max_connections_per_user", 4096),
        max_calls_per_user=number("localrpc.max_calls_per_user", 16384),
        max_waiting_calls_per_user=number("localrpc.max_waiting_calls_per_user", 10_000),
        max_memory_per_user=number("localrpc.max_memory_per_user", 2 << 30),
    )


def _access(users: frozenset[Any], groups: frozenset[Any]) -> Access:
    if EVERYBODY in users | groups:
        return Access(everybody=True)
    return Access(users, groups)
