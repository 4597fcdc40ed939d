"""unix: and unix-abstract:, frames on the socket itself."""

from __future__ import annotations

import os

from localrpc.address import Address
from localrpc.options import Options
from localrpc.transports import names
from localrpc.transports.base import Connection, Listener, Transport
from localrpc.transports.door import SocketGreeting, SocketListener
from localrpc.transports.greet import dial_socket


class UnixTransport(Transport):
    scheme = "unix"

    def closed_to_others(self, address: Address) -> str | None:
        return None

    def listen(self, address: Address, options: Options) -> Listener:
        sock, identity = names.take(address.body, str(address), others=options.access.others)
        return SocketListener(address, options, sock, SocketGreeting, address.body, identity)

    def dial(self, address: Address, options: Options, deadline: float | None) -> Connection:
        return dial_socket(address.body, address, options, deadline)


class AbstractTransport(Transport):
    scheme = "unix-abstract"

    def closed_to_others(self, address: Address) -> str | None:
        return None

    def listen(self, address: Address, options: Options) -> Listener:
        sock = names.take_abstract(address.body, str(address))
        return SocketListener(address, options, sock, SocketGreeting)

    def dial(self, address: Address, options: Options, deadline: float | None) -> Connection:
        return dial_socket(b"\0" + os.fsencode(address.body), address, options, deadline)
