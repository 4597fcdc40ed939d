"""shm:, a ring in shared memory per direction, greeted over a Unix socket."""

from __future__ import annotations

import os
from functools import partial
from typing import Any

from localrpc.address import Address, numbered
from localrpc.errors import ConnectError, ListenError
from localrpc.options import Options
from localrpc.transports import memory, names, rings
from localrpc.transports.attempt import Attempt
from localrpc.transports.base import (
    EVERYBODY,
    Admission,
    Connection,
    Dialer,
    Listener,
    Redialer,
    Transport,
)
from localrpc.transports.handshake import MemoryRefused
from localrpc.transports.names import BoundSocket
from localrpc.transports.scheme import Kind, Scope, what_is_missing
from localrpc.transports.sockets import SocketListener, dial_socket, unix_side
from localrpc.transports.targets import (
    SUN_PATH_MAX,
    plain_name,
    socket_path,
)


def _try_memory() -> None:
    try:
        os.close(memory.create_ring(rings.RING_MIN))
    except OSError as error:
        reason = (
            f"no sealed memory (memfd_create: {error.strerror}): calls stay on the socket, as with"
            " unix:; the kernel needs CONFIG_MEMFD_CREATE, a container room in its memory"
        )
        raise OSError(error.errno, reason) from None


def _limits() -> dict[str, int]:
    from localrpc.transports import limits

    return {
        "ring bytes, least": rings.RING_MIN,
        "ring bytes, default": rings.RING.default,
        "ring bytes, most": rings.RING_MAX,
        "name bytes": SUN_PATH_MAX,
        "RLIMIT_NOFILE": limits.rlimit("RLIMIT_NOFILE"),
    }


class ShmTransport(Transport):
    scheme = "shm"
    options = rings.OPTIONS
    kinds = (
        Kind(
            form="NAME",
            spellings={
                "shm:NAME": "letters, digits, `.`, `-` and `_`; a socket `NAME.shm` in the runtime"
                " directory, over which both sides exchange the memory",
                "shm:/PATH": "the same, with the socket at this absolute path",
            },
            scope=Scope.MACHINE,
            direction="two one-way rings",
            technique="rings in shared memory, one each way",
            credentials="pid, uid, gid, groups: SO_PEERCRED, SO_PEERGROUPS",
            zero_copy=True,
            limits=_limits,
            served=lambda: names.listening(".shm"),
            missing=lambda: what_is_missing(_try_memory),
        ),
    )
    quality = (
        "Both processes run as one user of one machine. Each connection has two rings of memory,"
        " and falls back to its socket where shared memory is refused."
    )

    def check(self, name: str) -> str:
        name = name.removeprefix("//")
        if name.startswith("/"):
            return socket_path(name)
        return plain_name(name, " (a path must be absolute: shm:/run/me/socket)")

    def combine(self, options: dict[str, Any]) -> None:
        rings.combine(options)

    def closed_to_others(self, address: Address) -> str | None:
        if address.body.startswith("/"):
            return None
        return (
            "the runtime directory is closed to other users, and the options allow some; name a"
            " socket where they can get to it: shm:/PATH"
        )

    def listen(
        self, address: Address, options: Options, admission: Admission = EVERYBODY
    ) -> Listener:
        bound = self.bind(address, options)
        sides = partial(unix_side, welcome=rings.welcome)
        return SocketListener(address, options, admission, bound, sides)

    def bind(self, address: Address, options: Options) -> BoundSocket:
        return self.bind_file(address, names.permissions_for(options))

    def bind_file(self, address: Address, permissions: names.Permissions) -> BoundSocket:
        try:
            rings.prepare_server(address)
            path = _path(address, create=True)
        except (OSError, ValueError) as error:
            raise ListenError(str(address), rings.reason_of(error)) from None
        sock, identity = names.take(path, str(address), permissions)
        return BoundSocket(sock, path, identity)

    def worker_address(self, address: Address, number: int) -> Address:
        return numbered(address, number)

    def dialer(self, address: Address, options: Options) -> Dialer:
        return Redialer(partial(_dial, address, options))


def _dial(address: Address, options: Options, attempt: Attempt) -> Connection:
    try:
        rings.claim_wakeup(address)
        path = _path(address, create=False)
    except FileNotFoundError as error:
        raise ConnectError(
            str(address),
            "connect failed: No such file or directory (no server of this user has been"
            f" started: its runtime directory {error.filename} does not exist)",
        ) from None
    except (OSError, ValueError) as error:
        raise ConnectError(str(address), rings.reason_of(error)) from None
    if not options.shared_memory:
        return dial_socket(
            path, address, options, attempt, None, f"{rings.SWITCHED_OFF} on the client"
        )
    try:
        return dial_socket(path, address, options, attempt, rings.Rings(address))
    except MemoryRefused as refusal:
        return dial_socket(path, address, options, attempt, None, f"on the client: {refusal}")


def _path(address: Address, *, create: bool) -> str:
    """Return the socket's path, in a runtime directory that can be trusted."""
    if not address.body.startswith("/"):
        names.check_runtime_directory(create=create)
    path = names.shm_path(address.body)
    names.check_path(path)
    return path
