"""Channel and server options: grpc's pairs, and localrpc's own.

Options are pairs of a key and a value, as in grpc: [("localrpc.window", 1 << 20)]. Other
options of gRPC, and unknown ones, are accepted and ignored, as in grpcio. An unknown option
that begins with "localrpc." is an error. Options about users have no effect at grpc: targets.
"""

from __future__ import annotations

import re
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Generic, NamedTuple, TypeVar, overload

from localrpc import _log
from localrpc._version import __version__

_logger = _log.logger("options")

WINDOW_MIN = 64 * 1024
WINDOW_MAX = 1 << 40
_METADATA_HARD = 16 * 1024
NAME_MAX = 512
_AGENT_PART_MAX = 256  # characters; the whole HELLO has a few KiB
_INT_MIN, _INT_MAX = -(1 << 31), (1 << 31) - 1
_ID_MAX = (1 << 32) - 2
"""The number above it means none to the kernel."""

_EVERYBODY = -1
"""Stands for all users; the kernel uses no such number."""

CHANNEL, SERVER, BOTH = "channel", "server", "both"

T = TypeVar("T")


class Option(ABC, Generic[T]):
    """Declares an option; read from an instance of Options, it is the option's value."""

    value = "text"
    """The kind of value that a user gives, for the documentation."""

    def __init__(
        self, key: str, default: T, text: str, *, side: str = BOTH, shown: str | None = None
    ) -> None:
        """`shown` is the default as documentation shows it, if not as the value."""
        self.key = key
        self.default = default
        self.text = text
        self.side = side
        self.shown = self._show(default) if shown is None else shown

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    @overload
    def __get__(self, options: None, owner: object) -> Option[T]: ...
    @overload
    def __get__(self, options: object, owner: object) -> T: ...
    def __get__(self, options: object | None, owner: object) -> Option[T] | T:
        # A value that was given is an attribute of the instance, and takes precedence.
        return self if options is None else self.default

    @abstractmethod
    def read(self, value: Any) -> T:
        """Convert a user's value to the one in Options. Raises TypeError or ValueError."""

    def _show(self, value: T) -> str:
        return str(value)


class Number(Option[int]):
    """A number between two bounds; gRPC's own options are treated as in grpcio."""

    value = "number"

    def __init__(
        self,
        key: str,
        default: int,
        text: str,
        *,
        side: str = BOTH,
        shown: str | None = None,
        least: int = 1,
        most: int = _INT_MAX,
    ) -> None:
        super().__init__(key, default, text, side=side, shown=shown)
        self._least, self._most = least, most

    def read(self, value: Any) -> int:
        if not self.key.startswith("localrpc."):
            if isinstance(value, int):
                return max(self._least, value)
            _logger.warning("option %s ignored: it should be an int, not %r", self.key, value)
            return self.default
        if not isinstance(value, int):
            raise TypeError(f"option {self.key!r}: expected int, got {type(value)}")
        if not self._least <= value <= self._most:
            raise ValueError(
                f"option {self.key!r}: {value} is not between {self._least} and {self._most}"
            )
        return int(value)


class Bytes(Number):
    value = "bytes"

    def _show(self, value: int) -> str:
        if value < 0:
            return "no limit"
        for shift, unit in ((30, "GiB"), (20, "MiB"), (10, "KiB")):
            if value >> shift and not value % (1 << shift):
                return f"{value >> shift} {unit}"
        return str(value)


class Milliseconds(Option[float]):
    """A time that is given in milliseconds; its value in Options is in seconds."""

    value = "ms"

    def __init__(self, key: str, default: int, text: str, *, side: str = BOTH) -> None:
        super().__init__(key, default / 1000, text, side=side, shown=str(default))
        self._number = Number(key, default, text)

    def read(self, value: Any) -> float:
        return self._number.read(value) / 1000


class Switch(Number):
    value = "0 or 1"

    def __init__(self, key: str, default: int, text: str, *, side: str = BOTH) -> None:
        super().__init__(key, default, text, side=side, least=0, most=1)


class Agent(Option[str]):
    """A part of the user agent."""

    def read(self, value: Any) -> str:
        if isinstance(value, bytes):
            value = value.decode("ascii", "replace")
        if not (isinstance(value, str) and value.isascii() and value.isprintable()):
            return ""
        return value[:_AGENT_PART_MAX]


class Choice(Option[str]):
    """One of some words, of which the first is the default."""

    def __init__(self, key: str, *words: str, text: str, side: str = BOTH) -> None:
        super().__init__(key, words[0], text, side=side, shown=f"`{words[0]}`")
        self._words = words
        self.value = " or ".join(f"`{word}`" for word in words)

    def read(self, value: Any) -> str:
        word = _text(value)
        if word not in self._words:
            raise ValueError(f"option {self.key!r}: {word!r} is not {self.value.replace('`', '')}")
        return str(word)


class Worker(NamedTuple):
    """A process of a group that serves one target: the group's name, and the process's number.

    Without a group they are empty and 0.
    """

    group: str = ""
    number: int = 0


class WorkerOption(Option[Worker]):
    value = "GROUP.N"

    def read(self, value: Any) -> Worker:
        match = re.fullmatch(r"([0-9A-Za-z]{1,64})\.([1-9][0-9]{0,4})", str(_text(value)))
        if match is None:
            raise ValueError(
                f"option {self.key!r}: {value!r} is not a group's name, of letters and digits, and"
                " the number of a worker, such as a1b2.3"
            )
        return Worker(match[1], int(match[2]))


class Name(Option[str]):
    """A name for people: any printable text of at most 512 characters."""

    value = "text"

    def read(self, value: Any) -> str:
        text = _text(value)
        if not (isinstance(text, str) and text.isprintable() and 0 < len(text) <= NAME_MAX):
            raise ValueError(
                f"option {self.key!r}: {value!r} is not a text of 1 to {NAME_MAX} characters, each"
                " of which can be printed"
            )
        return text


class Identities(Option[frozenset[int]]):
    """Numbers of users or groups; `*` is _EVERYBODY alone."""

    kind = ""
    look_up: Callable[[str], int]

    def read(self, value: Any) -> frozenset[int]:
        kind = self.kind
        if isinstance(value, (str, bytes)):
            value = [part.strip() for part in _text(value).split(",")]
        elif isinstance(value, int):
            value = [value]
        elif not isinstance(value, Iterable):
            raise TypeError(
                f"option {self.key!r}: expected names or numbers of {kind}s, got {type(value)}"
            )
        found: set[int] = set()
        for item in value:
            if isinstance(item, bool) or not isinstance(item, (int, str)):
                raise TypeError(f"option {self.key!r}: expected a {kind}, got {item!r}")
            if item == "*":
                return frozenset((_EVERYBODY,))
            if isinstance(item, str) and not item.isdecimal():
                try:
                    item = self.look_up(item)
                except KeyError:
                    raise ValueError(
                        f"option {self.key!r}: unknown {kind} {item!r} on this machine"
                    ) from None
            if not 0 <= int(item) <= _ID_MAX:
                raise ValueError(f"option {self.key!r}: {item} is not a valid {kind} number")
            found.add(int(item))
        return frozenset(found)


def _user(name: str) -> int:
    import pwd

    return pwd.getpwnam(name).pw_uid


def _group(name: str) -> int:
    import grp

    return grp.getgrnam(name).gr_gid


class Users(Identities):
    value = "users"
    kind = "user"
    look_up = staticmethod(_user)


class Groups(Identities):
    value = "groups"
    kind = "group"
    look_up = staticmethod(_group)


class OneUser(Users):
    value = "user"

    def read(self, value: Any) -> frozenset[int]:
        users = super().read(value)
        if not users or _EVERYBODY in users:
            raise ValueError(f"option {self.key!r}: give the user who runs the server")
        return users


class Access(NamedTuple):
    """The users and groups that a server serves in addition to its own user and root."""

    users: frozenset[int] = frozenset()
    groups: frozenset[int] = frozenset()
    everybody: bool = False

    @property
    def others(self) -> bool:
        """True if it serves any other user at all."""
        return bool(self.everybody or self.users or self.groups)


_PYTHON = ".".join(map(str, sys.version_info[:3]))
_AGENT = f"grpc-python-localrpc/{__version__} (linux; python {_PYTHON})"


class Options:
    """The options of a channel or a server, each declared as the attribute that holds its value.

    Sizes are in bytes, times in seconds; -1 means no limit.
    """

    max_receive = Bytes(
        "grpc.max_receive_message_length",
        4 << 20,
        "largest message that is received; negative: no limit",
        least=-1,
    )
    max_send = Bytes(
        "grpc.max_send_message_length",
        -1,
        "largest message that is sent; negative: no limit",
        least=-1,
    )
    metadata_soft = Bytes(
        "grpc.max_metadata_size",
        8 << 10,
        "received metadata above which some calls are refused, at random",
        least=_INT_MIN,
    )
    max_metadata = Bytes(
        "grpc.absolute_max_metadata_size",
        -1,
        "received metadata that is always refused; at least 1.25 times the above unless given."
        " More than 32,704 bytes cannot be sent, whatever the limit",
        shown="16 KiB",
        least=-1,
    )
    primary_user_agent = Agent("grpc.primary_user_agent", "", "put before the user agent")
    secondary_user_agent = Agent("grpc.secondary_user_agent", "", "put after the user agent")
    initial_backoff = Milliseconds(
        "grpc.initial_reconnect_backoff_ms",
        10,
        "first pause between two attempts to connect; each further one is twice as long",
        side=CHANNEL,
    )
    max_backoff = Milliseconds(
        "grpc.max_reconnect_backoff_ms", 50, "longest such pause", side=CHANNEL
    )
    window = Bytes(
        "localrpc.window",
        4 << 20,
        "how much of one call may wait for a slow reader",
        least=WINDOW_MIN,
        most=WINDOW_MAX,
    )
    connect_timeout = Milliseconds(
        "localrpc.connect_timeout_ms",
        20_000,
        "for one attempt to connect, the handshake included",
        side=CHANNEL,
    )
    greeting_timeout = Milliseconds(
        "localrpc.greeting_timeout_ms",
        5_000,
        "how long a server waits for a client's handshake",
        side=SERVER,
    )
    shared_memory = Switch("localrpc.shared_memory", 1, "0: `shm:` stays on its socket")
    allow_users = Users(
        "localrpc.allow_users",
        frozenset(),
        "users that a server serves, besides its own user and root",
        side=SERVER,
        shown="none",
    )
    allow_groups = Groups(
        "localrpc.allow_groups",
        frozenset(),
        "the same, by group",
        side=SERVER,
        shown="none",
    )
    server_users = OneUser(
        "localrpc.server_user",
        frozenset(),
        "the only user whose servers a channel talks to",
        side=CHANNEL,
        shown="own user or root",
    )
    max_connections_per_user = Number(
        "localrpc.max_connections_per_user",
        4096,
        "connections that a user may have to a server at a time",
        side=SERVER,
    )
    max_calls_per_user = Number(
        "localrpc.max_calls_per_user",
        16384,
        "calls of a user in progress at a time, over all connections",
        side=SERVER,
    )
    max_waiting_calls_per_user = Number(
        "localrpc.max_waiting_calls_per_user",
        10_000,
        "how many of those may wait for a thread; calls of a client that does not read its"
        " answers are counted separately",
        side=SERVER,
    )
    max_memory_per_user = Bytes(
        "localrpc.max_memory_per_user",
        2 << 30,
        "memory for what a user has sent and no handler has taken, and for answers that it has"
        " not read",
        side=SERVER,
        least=WINDOW_MIN,
        most=WINDOW_MAX,
    )

    spread = Choice(
        "localrpc.spread",
        "calls",
        "off",
        text="`calls`: a channel to a target that several workers serve gives each call to one"
        " that is idle, or to the one that will answer first; `off`: it stays with one worker",
        side=CHANNEL,
    )
    worker = WorkerOption(
        "localrpc.worker",
        Worker(),
        "the server is worker `N` of a group of processes; `localrpc serve` says so to each",
        side=SERVER,
        shown="none",
    )

    name = Name(
        "localrpc.name",
        "",
        "what `localrpc ps`, metrics and the log call the server",
        side=SERVER,
        shown="its targets",
    )

    def __init__(self, **given: Any) -> None:
        values = vars(self)
        values.update(_DEFAULTS)
        values.update(given)
        if self.max_metadata < 0:
            values["max_metadata"] = max(self.metadata_soft * 5 // 4, _METADATA_HARD)
        values["max_backoff"] = max(self.initial_backoff, self.max_backoff)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Options):
            return NotImplemented
        return vars(self) == vars(other)

    @property
    def user_agent(self) -> str:
        """The name of this side in its HELLO and in a handler's metadata."""
        parts = (self.primary_user_agent, _AGENT, self.secondary_user_agent)
        return " ".join(part for part in parts if part)

    @property
    def access(self) -> Access:
        if _EVERYBODY in self.allow_users | self.allow_groups:
            return Access(everybody=True)
        return Access(self.allow_users, self.allow_groups)


DECLARED: tuple[Option[Any], ...] = tuple(
    each for each in vars(Options).values() if isinstance(each, Option)
)
_DEFAULTS = {option.name: option.default for option in DECLARED}
_BY_KEY = {option.key: option for option in DECLARED}


def parse_options(options: Iterable[tuple[str, Any]] | None) -> Options:
    """Parse pairs of a key and a value.

    Raises, as grpcio does, TypeError for a key or value of a wrong type, OverflowError for a
    number beyond 32 bits, and ValueError for anything but a pair. Raises ValueError for an
    unknown or invalid option of localrpc's own.
    """
    given: dict[str, Any] = {}
    for key, value in options or ():
        key = _text(key)
        if not isinstance(key, str):
            raise TypeError(f"Expected str, not {type(key)}")
        option = _BY_KEY.get(key)
        if not key.startswith("localrpc."):
            _check_grpc(value)
        elif option is None:
            known = ", ".join(known for known in _BY_KEY if known.startswith("localrpc."))
            raise ValueError(f"unknown option {key!r}; localrpc's own are {known}")
        if option is not None:
            given[option.name] = option.read(value)
    return Options(**given)


def without_own(options: Iterable[tuple[str, Any]] | None) -> list[tuple[str, Any]]:
    """Check options as parse_options() does, and return those that are meant for grpcio."""
    pairs = list(options or ())
    parse_options(pairs)
    return [pair for pair in pairs if not _text(pair[0]).startswith("localrpc.")]


def table() -> Iterator[str]:
    """Yield the lines of a table of all options, in Markdown."""
    yield "| option | of | value | default | what |"
    yield "|---|---|---|---|---|"
    for each in DECLARED:
        yield f"| `{each.key}` | {each.side} | {each.value} | {each.shown} | {each.text} |"


def _text(key: str | bytes) -> str:
    return key.decode() if isinstance(key, bytes) else key


def _check_grpc(value: Any) -> None:
    if isinstance(value, int):
        if not _INT_MIN <= value <= _INT_MAX:
            raise OverflowError("value too large to convert to int")
    elif not isinstance(value, (str, bytes)) and not hasattr(value, "__int__"):
        raise TypeError(f"Expected int, bytes, or behavior, got {type(value)}")


__doc__ = "\n".join((__doc__ or "", *table()))
