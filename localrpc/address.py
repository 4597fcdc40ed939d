"""Targets: `scheme:body?option=value`, and what each scheme allows in them."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple

from localrpc.errors import AddressError

SUN_PATH_MAX = 107
"""Bytes of a Unix socket's name: sun_path holds 108 with the final NUL."""

RING_MIN = 128 * 1024
"""The largest frame that cannot be cut, 64 KiB and its header, must fit."""
RING_MAX = 64 * 1024 * 1024
RING_DEFAULT = 1024 * 1024
SPIN_AUTO = -1
SPIN_ALWAYS = -2
_SPIN_MAX_US = 1_000_000

POLL_DEFAULT_MS = 20
HEARTBEAT_DEFAULT_MS = 1000
_INTERVAL_MAX_MS = 60_000

OptionValue = str | int


class Address(NamedTuple):
    """A target in parsed form; `text` is what the user wrote."""

    scheme: str
    body: str
    options: Mapping[str, OptionValue] = MappingProxyType({})
    text: str = ""

    @property
    def wakeup(self) -> str:
        """How a sleeping reader is woken: "eventfd", "futex", "signal"; "spin" hardly sleeps."""
        return str(self.options.get("wakeup", "eventfd"))

    @property
    def signo(self) -> int:
        """The signal of "signal". SIGURG, because it is ignored where nobody expects it."""
        return int(self.options.get("signo", signal.SIGURG))

    @property
    def spin_us(self) -> int:
        """Longest spin before a sleep in microseconds; 0 never, -1 as measured best, -2 always."""
        if self.wakeup == "spin":
            return SPIN_ALWAYS
        return int(self.options.get("spin", SPIN_AUTO))

    @property
    def ring_size(self) -> int:
        """Bytes of each of the two rings."""
        return int(self.options.get("ring", RING_DEFAULT))

    @property
    def memory(self) -> str:
        """What the rings are made of: "memfd", "posix" or "sysv"."""
        return str(self.options.get("memory", "memfd"))

    @property
    def interval_ms(self) -> int:
        """Between two looks at a spool by who polls it."""
        return int(self.options.get("interval", POLL_DEFAULT_MS))

    @property
    def polls(self) -> bool:
        """Whether a spool's reader looks by itself, instead of being told by inotify."""
        return self.options.get("watch") == "poll"

    @property
    def batches(self) -> bool:
        """Whether a spool's files are renamed into place, instead of being appended to."""
        return self.options.get("write") == "rename"

    @property
    def heartbeat_ms(self) -> int:
        """Between two signs of life where no pid can be seen."""
        return int(self.options.get("heartbeat", HEARTBEAT_DEFAULT_MS))

    @property
    def elsewhere(self) -> bool:
        """Whether the other side may be on another machine."""
        return self.options.get("interfaces") == "any"

    def __str__(self) -> str:
        return self.text or f"{self.scheme}:{self.body}"


class Scheme(NamedTuple):
    """What a target may say: `check` returns the body to use or raises ValueError."""

    name: str
    example: str
    options: tuple[str, ...]
    check: Callable[[str], str]
    nameless: bool = False
    """Whether the body may be empty."""
    verbatim: bool = False
    """Whether all of the rest is the body: nothing is decoded, and there are no options."""
    meets: bool = True
    """Whether two processes can meet at such a target."""


def _unquote(body: str) -> str:
    # urllib.parse has this too, at 4 ms of everybody's import.
    raw = re.sub(
        rb"%([0-9A-Fa-f]{2})", lambda match: bytes((int(match[1], 16),)), os.fsencode(body)
    )
    return os.fsdecode(raw)


def _check_characters(body: str) -> None:
    if bad := re.search(r"[\x00-\x1f\x7f]", body):
        raise ValueError(f"the character {bad.group()!r} is not allowed in a name")


def _check_length(body: str, what: str) -> None:
    size = len(os.fsencode(body))
    if size > SUN_PATH_MAX:
        raise ValueError(
            f"{what} is {size} bytes long, and a Unix socket's name has at most"
            f" {SUN_PATH_MAX}; use a shorter one"
        )


def _socket_path(body: str) -> str:
    if body.startswith("//"):
        body = body[2:]
        if not body.startswith("/"):
            raise ValueError(
                f"after '//' the path must be absolute (write unix:{body} for a relative one)"
            )
    _check_characters(body)
    _check_length(body, "the path")
    if body.endswith("/"):
        raise ValueError("the path names a directory; add the socket's file name")
    return body


def _fifo_path(body: str) -> str:
    if body.startswith("///"):
        body = body[2:]
    _check_characters(body)
    if body.startswith("//"):
        raise ValueError(
            "after '//' the path must be absolute (write pipe:PATH for a relative one)"
        )
    if body.endswith("/"):
        raise ValueError("the path names a directory; add the FIFO's file name")
    return body


def _folder(body: str) -> str:
    if body.startswith("///"):
        body = body[2:]
    _check_characters(body)
    if body.startswith("//"):
        raise ValueError("after '//' the path must be absolute (write file:DIR for a relative one)")
    if body and not body.strip("/"):
        raise ValueError("the root directory is nobody's spool; name another")
    return body.rstrip("/")


def _abstract_name(body: str) -> str:
    body = body.removeprefix("//")
    _check_characters(body)
    _check_length(body, "the name")
    return body


def _own_name(body: str) -> str:
    body = body.removeprefix("//")
    _check_characters(body)
    return body


def _descriptor(body: str) -> str:
    # A name is what sd_listen_fds(3) allows.
    if body and not re.fullmatch(r"[0-9]{1,7}|(?![0-9]+$)[\x20-9;-~]{1,255}", body):
        raise ValueError(
            "write the number of a descriptor, as in fd:3, or a name out of LISTEN_FDNAMES, which"
            " has printable ASCII characters without ':'"
        )
    return body


def _shm_name(body: str) -> str:
    body = body.removeprefix("//")
    if body.startswith("/"):
        return _socket_path(body)
    return _checked_name(body, " (a path must be absolute: shm:/run/me/socket)")


def _plain_name(body: str) -> str:
    return _checked_name(body.removeprefix("//"))


def _checked_name(body: str, hint: str = "") -> str:
    """A name in the runtime directory."""
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.\-]*", body) and body:
        raise ValueError(
            "a name is made of letters, digits, '.', '-' and '_' and does not begin with"
            f" '.' or '-'{hint}"
        )
    _check_length(body, "the name")
    return body


def _host_and_port(body: str) -> str:
    body = body.removeprefix("//")
    _check_characters(body)
    match = re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[^:\[\]/]+):([0-9]{1,5})", body)
    if body and (match is None or int(match[2]) > 65535):
        raise ValueError(
            "write host and port, as in tcp:127.0.0.1:5000, tcp:localhost:5000 or"
            " tcp:[::1]:5000; a server that is to choose its port says 0"
        )
    return body


def _grpc_target(body: str) -> str:
    body = body.removeprefix("//")
    _check_characters(body)
    name, _, rest = body.partition(":")
    scheme = SCHEMES.get(name)
    # gRPC has Unix sockets too, and a host may have any name.
    if scheme and not name.startswith("unix") and not re.fullmatch(r"[0-9]*", rest):
        raise ValueError(f"gRPC itself knows no {name}: targets; write {body}")
    return body


SCHEMES: Mapping[str, Scheme] = MappingProxyType(
    {
        scheme.name: scheme
        for scheme in (
            Scheme("shm", "shm:NAME", ("wakeup", "signo", "spin", "ring", "memory"), _shm_name),
            Scheme("unix", "unix:PATH", ("spin",), _socket_path),
            Scheme("unix-abstract", "unix-abstract:NAME", ("spin",), _abstract_name),
            Scheme("pipe", "pipe:PATH", ("spin",), _fifo_path, nameless=True),
            Scheme("mq", "mq:NAME", ("spin",), _plain_name),
            Scheme("sysvmq", "sysvmq:NAME", ("spin",), _plain_name),
            Scheme(
                "file",
                "file:DIR",
                ("spin", "watch", "interval", "write", "heartbeat"),
                _folder,
            ),
            Scheme("tcp", "tcp:HOST:PORT", ("spin", "interfaces"), _host_and_port),
            Scheme("grpc", "grpc:TARGET", (), _grpc_target, verbatim=True),
            Scheme("inproc", "inproc:NAME", ("spin",), _own_name, meets=False),
            Scheme("fd", "fd:N", ("spin", "interfaces"), _descriptor, meets=False),
        )
    }
)


def _wakeup(text: str) -> OptionValue:
    if text not in ("eventfd", "futex", "signal", "spin"):
        raise ValueError("use eventfd, futex, signal or spin")
    return text


def _signo(text: str) -> OptionValue:
    if text in ("SIGURG", "SIGUSR1", "SIGUSR2"):
        return int(signal.Signals[text])
    count = signal.SIGRTMAX - signal.SIGRTMIN
    match = re.fullmatch(r"SIGRTMIN(?:\+([0-9]{1,2}))?", text)
    if match is None or int(match[1] or 0) > count:
        raise ValueError(f"use SIGURG, SIGUSR1, SIGUSR2 or SIGRTMIN+n with n up to {count}")
    return int(signal.SIGRTMIN) + int(match[1] or 0)


def _spin(text: str) -> OptionValue:
    if text in ("auto", "off"):
        return SPIN_AUTO if text == "auto" else 0
    if not re.fullmatch(r"[0-9]{1,7}", text) or int(text) > _SPIN_MAX_US:
        raise ValueError(f"use auto, off or a number of microseconds up to {_SPIN_MAX_US}")
    return int(text)


def _ring(text: str) -> OptionValue:
    match = re.fullmatch(r"([0-9]{1,9})(?:([kKmM])(?:i?[bB])?)?", text)
    size = 0
    if match:
        size = int(match[1]) << {"": 0, "k": 10, "m": 20}[(match[2] or "").lower()]
    if not RING_MIN <= size <= RING_MAX or size & (size - 1):
        raise ValueError("use a power of two from 128k to 64M, such as 256k or 4M")
    return size


def _memory(text: str) -> OptionValue:
    if text not in ("memfd", "posix", "sysv"):
        raise ValueError("use memfd, posix or sysv")
    return text


def _interfaces(text: str) -> OptionValue:
    if text not in ("loopback", "any"):
        raise ValueError("use loopback or any")
    return text


def _watch(text: str) -> OptionValue:
    if text not in ("inotify", "poll"):
        raise ValueError("use inotify or poll")
    return text


def _write(text: str) -> OptionValue:
    if text not in ("append", "rename"):
        raise ValueError("use append or rename")
    return text


def _milliseconds(text: str) -> OptionValue:
    if not re.fullmatch(r"[0-9]{1,5}", text) or not 1 <= int(text) <= _INTERVAL_MAX_MS:
        raise ValueError(f"use a number of milliseconds from 1 to {_INTERVAL_MAX_MS}")
    return int(text)


_OPTIONS: Mapping[str, Callable[[str], OptionValue]] = MappingProxyType(
    {
        "wakeup": _wakeup,
        "signo": _signo,
        "spin": _spin,
        "ring": _ring,
        "memory": _memory,
        "interfaces": _interfaces,
        "watch": _watch,
        "interval": _milliseconds,
        "write": _write,
        "heartbeat": _milliseconds,
    }
)


def parse_target(text: str, schemes: Mapping[str, Scheme] = SCHEMES) -> Address:
    """Raises AddressError, whose text names the target, what is wrong and the fix.

    The body is percent-decoded as gRPC does it: a path with a question mark is
    written with %3F. What follows grpc: is for gRPC to decode.
    """
    if not isinstance(text, str):
        raise TypeError(f"a target is a str, not {type(text).__name__}")
    name, colon, rest = text.partition(":")
    known = ", ".join(scheme.example for scheme in schemes.values())
    if not colon:
        raise AddressError(f"target {text!r} has no scheme; write one of {known}")
    scheme = schemes.get(name)
    if scheme is None:
        hint = ""
        if re.fullmatch(r"[0-9]+", rest):
            hint = f" (write tcp:{text}, or grpc:{text} for gRPC over the network)"
        raise AddressError(
            f"target {text!r}: unknown scheme {name!r}; localrpc knows {known}{hint}"
        )
    body, _, query = (rest, "", "") if scheme.verbatim else rest.partition("?")
    try:
        body = scheme.check(body if scheme.verbatim else _unquote(body))
    except (ValueError, UnicodeError) as error:
        raise AddressError(f"target {text!r}: {error}") from None
    if not body and not scheme.nameless:
        raise AddressError(f"target {text!r} has an empty name; write {scheme.example}")
    return Address(scheme.name, body, _parse_options(text, scheme, query), text)


def _parse_options(text: str, scheme: Scheme, query: str) -> Mapping[str, OptionValue]:
    options: dict[str, OptionValue] = {}
    for item in query.split("&") if query else ():
        key, _, value = item.partition("=")
        if key not in scheme.options:
            known = ", ".join(f"?{option}=" for option in scheme.options)
            raise AddressError(
                f"target {text!r}: unknown option {key!r}; {scheme.name}: knows {known}"
            )
        if key in options:
            raise AddressError(f"target {text!r}: option {key!r} is given twice")
        try:
            options[key] = _OPTIONS[key](value)
        except ValueError as error:
            raise AddressError(f"target {text!r}: {key}={value!r} is no value; {error}") from None
    if "signo" in options and options.get("wakeup") != "signal":
        raise AddressError(
            f"target {text!r}: signo= chooses the signal of ?wakeup=signal, which the target"
            " does not say; add wakeup=signal or leave signo= out"
        )
    if "spin" in options and options.get("wakeup") == "spin":
        raise AddressError(
            f"target {text!r}: wakeup=spin never stops to spin while a call is awaited; leave"
            " spin= out, or choose another wakeup="
        )
    return MappingProxyType(options)
