"""unix: and unix-abstract:, frames on the socket itself."""

from __future__ import annotations

import os

from localrpc.address import SUN_PATH_MAX, Address
from localrpc.options import Options
from localrpc.transports import limits, names
from localrpc.transports.attempt import Attempt
from localrpc.transports.base import Connection, Listener, Offer, Scope, Transport
from localrpc.transports.door import SocketGreeting, SocketListener
from localrpc.transports.greet import dial_socket

_DIRECTION = "full duplex"
_CREDENTIALS = "pid, uid, gid, groups: SO_PEERCRED, SO_PEERGROUPS"


def _limits() -> dict[str, int]:
    return {
        "RLIMIT_NOFILE": limits.rlimit("RLIMIT_NOFILE"),
        "name bytes": SUN_PATH_MAX,
        **limits.settings("net/core", "somaxconn", "wmem_max"),
    }


class UnixTransport(Transport):
    scheme = "unix"

    def offers(self) -> tuple[Offer, ...]:
        return (
            Offer(
                target="unix:PATH",
                scope=Scope.MACHINE,
                direction=_DIRECTION,
                technique="a Unix stream socket",
                credentials=_CREDENTIALS,
                zero_copy=False,
                limits=_limits(),
            ),
        )

    def closed_to_others(self, address: Address) -> str | None:
        return None

    def listen(self, address: Address, options: Options) -> Listener:
        sock, identity = names.take(address.body, str(address), others=options.access.others)
        return SocketListener(address, options, sock, SocketGreeting, address.body, identity)

    def dial(self, address: Address, options: Options, attempt: Attempt) -> Connection:
        return dial_socket(address.body, address, options, attempt)


class AbstractTransport(Transport):
    scheme = "unix-abstract"

    def offers(self) -> tuple[Offer, ...]:
        return (
            Offer(
                target="unix-abstract:NAME",
                scope=Scope.MACHINE,
                direction=_DIRECTION,
                technique="a Unix stream socket with a name that is not a file",
                credentials=_CREDENTIALS,
                zero_copy=False,
                limits=_limits(),
            ),
        )

    def closed_to_others(self, address: Address) -> str | None:
        return None

    def listen(self, address: Address, options: Options) -> Listener:
        sock = names.take_abstract(address.body, str(address))
        return SocketListener(address, options, sock, SocketGreeting)

    def dial(self, address: Address, options: Options, attempt: Attempt) -> Connection:
        return dial_socket(b"\0" + os.fsencode(address.body), address, options, attempt)
