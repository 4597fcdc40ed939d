"""unix: and unix-abstract:, frames on the socket itself."""

from __future__ import annotations

import os
from functools import partial

from localrpc.address import Address, numbered
from localrpc.options import Options
from localrpc.transports import names
from localrpc.transports.base import (
    EVERYBODY,
    Admission,
    Dialer,
    Listener,
    Redialer,
    Transport,
)
from localrpc.transports.names import BoundSocket
from localrpc.transports.scheme import Kind, Scope
from localrpc.transports.sockets import SocketListener, dial_socket, unix_side
from localrpc.transports.targets import (
    SPIN,
    SUN_PATH_MAX,
    check_characters,
    check_length,
    socket_path,
)

_DIRECTION = "full duplex"
_CREDENTIALS = "pid, uid, gid, groups: SO_PEERCRED, SO_PEERGROUPS"


def _limits() -> dict[str, int]:
    from localrpc.transports import limits

    return {
        "RLIMIT_NOFILE": limits.rlimit("RLIMIT_NOFILE"),
        "name bytes": SUN_PATH_MAX,
        **limits.settings("net/core", "somaxconn", "wmem_max"),
    }


class UnixTransport(Transport):
    scheme = "unix"
    options = (SPIN,)
    kinds = (
        Kind(
            form="PATH",
            spellings={
                "unix:PATH": "a socket's path, relative or absolute",
                "unix:///PATH": "a socket's absolute path",
            },
            scope=Scope.MACHINE,
            direction=_DIRECTION,
            technique="a Unix stream socket",
            credentials=_CREDENTIALS,
            limits=_limits,
        ),
    )
    quality = "A file is the server's name, so containers meet by sharing its folder."

    def check(self, name: str) -> str:
        return socket_path(name)

    def closed_to_others(self, address: Address) -> str | None:
        return None

    def listen(
        self, address: Address, options: Options, admission: Admission = EVERYBODY
    ) -> Listener:
        return SocketListener(address, options, admission, self.bind(address, options), unix_side)

    def bind(self, address: Address, options: Options) -> BoundSocket:
        return self.bind_file(address, names.permissions_for(options))

    def bind_file(self, address: Address, permissions: names.Permissions) -> BoundSocket:
        sock, identity = names.take(address.body, str(address), permissions)
        return BoundSocket(sock, address.body, identity)

    def worker_address(self, address: Address, number: int) -> Address:
        return numbered(address, number)

    def dialer(self, address: Address, options: Options) -> Dialer:
        return Redialer(partial(dial_socket, address.body, address, options))


class AbstractTransport(Transport):
    scheme = "unix-abstract"
    options = (SPIN,)
    kinds = (
        Kind(
            form="NAME",
            spellings={
                "unix-abstract:NAME": "a name without a file; it lasts as long as the server"
            },
            scope=Scope.MACHINE,
            direction=_DIRECTION,
            technique="a Unix stream socket with a name that is not a file",
            credentials=_CREDENTIALS,
            limits=_limits,
        ),
    )
    quality = "As unix:, with a name that leaves no file behind."

    def check(self, name: str) -> str:
        name = name.removeprefix("//")
        check_characters(name)
        check_length(name, "the name")
        return name

    def closed_to_others(self, address: Address) -> str | None:
        return None

    def listen(
        self, address: Address, options: Options, admission: Admission = EVERYBODY
    ) -> Listener:
        return SocketListener(address, options, admission, self.bind(address, options), unix_side)

    def bind(self, address: Address, options: Options) -> BoundSocket:
        return BoundSocket(names.take_abstract(address.body, str(address)))

    def worker_address(self, address: Address, number: int) -> Address:
        return numbered(address, number)

    def dialer(self, address: Address, options: Options) -> Dialer:
        name = b"\0" + os.fsencode(address.body)
        return Redialer(partial(dial_socket, name, address, options))
