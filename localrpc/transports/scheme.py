"""How a transport describes itself: what its targets say, and what they offer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from enum import Enum
from types import MappingProxyType
from typing import Any, NamedTuple

from localrpc.address import Address, split_options, unquote
from localrpc.errors import AddressError
from localrpc.transports.targets import AnyOption


class Scope(Enum):
    """Between which processes a kind of target carries calls.

    The values are words for people.
    """

    PROCESS = "one process"
    FAMILY = "parent and child"
    USER = "any processes of one user"
    MACHINE = "any processes on this machine"
    NETWORK = "any machines"


class Offer(NamedTuple):
    """A kind of target, and what this machine has for it now.

    The words are for people: the documentation and `localrpc transports` show them.
    """

    target: str
    """How it is spelled."""
    scope: Scope
    """Between which processes it carries calls."""
    direction: str
    """If one channel carries both directions, or one each."""
    technique: str
    """The mechanism of the system that carries calls."""
    credentials: str
    """What each side knows of the other, and from where."""
    zero_copy: bool
    """True if messages are delivered without a copy by the kernel."""
    limits: Mapping[str, int]
    """By the system's names, or localrpc's own; -1 for no limit."""
    missing: str = ""
    """Why it is not available, and what to do about it."""
    served: tuple[str, ...] = ()
    """Targets in the runtime directory at which servers of this user listen now."""

    @property
    def scheme(self) -> str:
        return self.target.partition(":")[0]

    @property
    def available(self) -> bool:
        return not self.missing


def what_is_missing(probe: Callable[[], object]) -> str:
    """Return why `probe` fails, for an Offer; empty if it does not."""
    try:
        probe()
    except OSError as error:
        return error.strerror or str(error)
    except MemoryError:
        return "no memory"
    return ""


class Kind(NamedTuple):
    """One kind of a scheme's targets."""

    form: str
    """What stands in place of the name where a target is spelled, such as PATH."""
    spellings: Mapping[str, str]
    """How it is written, with the meaning of the name, in Markdown."""
    scope: Scope
    direction: str
    technique: str
    credentials: str
    zero_copy: bool = False
    limits: Callable[[], Mapping[str, int]] = dict
    """The system's limits, as they are now."""
    missing: Callable[[], str] = str
    """Why this machine does not have it now; empty if it does."""
    served: Callable[[], Iterable[str]] = tuple
    """Names in the runtime directory that have a server now."""

    def offer(self, scheme: str) -> Offer:
        return Offer(
            target=f"{scheme}:{self.form}",
            scope=self.scope,
            direction=self.direction,
            technique=self.technique,
            credentials=self.credentials,
            zero_copy=self.zero_copy,
            limits=self.limits(),
            missing=self.missing(),
            served=tuple(sorted(f"{scheme}:{name}" for name in self.served())),
        )


class Scheme:
    """One scheme, and what targets with it may say. Stateless."""

    scheme: str
    kinds: tuple[Kind, ...]
    options: tuple[AnyOption, ...] = ()
    quality: str = ""
    """What to know before choosing it, for the benchmark's report."""
    nameless = False
    """True if the name may be empty."""
    verbatim = False
    """True if all of the rest is the name: nothing is decoded, and there are no options."""
    connects_processes = True
    """True if two processes can connect through such a target."""

    @property
    def example(self) -> str:
        """Return a spelling that has a name."""
        return next(f"{self.scheme}:{kind.form}" for kind in self.kinds if kind.form)

    def offers(self) -> tuple[Offer, ...]:
        """Return its kinds of targets, as this machine is now."""
        return tuple(kind.offer(self.scheme) for kind in self.kinds)

    def check(self, name: str) -> str:
        """Return the name to use. Raises ValueError with the fix."""
        return name

    def combine(self, options: dict[str, Any]) -> None:
        """Settle what options mean together. Raises ValueError if they exclude each other."""

    def parse(self, text: str, rest: str) -> Address:
        """Parse the target `text`, which has `rest` after its scheme. Raises AddressError."""
        name, _, query = (rest, "", "") if self.verbatim else rest.partition("?")
        try:
            name = self.check(name if self.verbatim else unquote(name))
        except (ValueError, UnicodeError) as error:
            raise AddressError(f"target {text!r}: {error}") from None
        if not name and not self.nameless:
            raise AddressError(f"target {text!r} has an empty name; write {self.example}")
        return Address(self.scheme, name, self._parse_options(text, query), text)

    def _parse_options(self, text: str, query: str) -> Mapping[str, Any]:
        known = {option.key: option for option in self.options}
        options: dict[str, Any] = {}
        for key, value in split_options(query):
            if key not in known:
                listed = ", ".join(f"?{each}=" for each in known)
                raise AddressError(
                    f"target {text!r}: unknown option {key!r}; {self.scheme}: has {listed}"
                )
            if key in options:
                raise AddressError(f"target {text!r}: option {key!r} is given twice")
            try:
                options[key] = known[key].parse(value)
            except ValueError as error:
                raise AddressError(
                    f"target {text!r}: invalid value {value!r} for {key}; {error}"
                ) from None
        try:
            self.combine(options)
        except ValueError as error:
            raise AddressError(f"target {text!r}: {error}") from None
        return MappingProxyType(options)
