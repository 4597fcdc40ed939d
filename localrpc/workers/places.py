"""The targets of a supervisor: sockets that it holds for its workers, or names that they take."""

from __future__ import annotations

import logging
import socket
from typing import Any, NamedTuple

from localrpc.errors import ListenError
from localrpc.options import parse_options
from localrpc.transports import names, parse_target, transport_for
from localrpc.transports.names import BoundSocket, Permissions

_logger = logging.getLogger("localrpc.serve")

_PATIENCE = 0.1
"""Seconds that another process may keep a folder locked before a worker goes without a name, or the
name stays behind until it is taken again."""
_ALONE = (
    "{scheme}: targets have no socket that several processes can serve; use one worker, or shm:,"
    " unix:, unix-abstract:, tcp: or grpc:"
)


_CONNECTED = (
    "a connected socket is one connection, and cannot be served by workers; pass one that listens"
)
_NO_FILE = (
    "a mode or group of sockets (--uds-mode, --uds-group) is for files, as unix: and shm: targets"
    " have them, and {scheme}: targets have none; serve this one by a command of its own"
)
_NO_PORT = "each worker would choose another port; name one"


class Place(NamedTuple):
    """Where workers listen."""

    target: str
    bound: BoundSocket | None = None
    """None: each worker listens at the target itself."""

    @property
    def shown(self) -> str:
        """The target for a client, with the port that was chosen."""
        if self.bound is not None and self.bound.port != 1:
            place, _, options = self.target.partition("?")
            head = place.rpartition(":")[0]
            return f"{head}:{self.bound.port}{'?' if options else ''}{options}"
        return self.target

    def for_worker(self, number: int) -> str:
        """Return the target in a worker where the socket is the descriptor `number`."""
        _, mark, options = self.target.partition("?")
        return f"fd:{number}{mark}{options}"


def open_places(
    targets: tuple[str, ...],
    options: tuple[tuple[str, Any], ...],
    workers: int,
    permissions: Permissions | None = None,
) -> list[Place]:
    """Take every name. Raises ListenError, or AddressInUse, with nothing taken."""
    if not targets:
        raise ListenError("", "there is no target to serve; name one, such as shm:greeter")
    parsed = parse_options(options)
    places: list[Place] = []
    try:
        for target in targets:
            address = parse_target(target)
            if address.scheme == "grpc":  # grpcio's servers share a port
                if permissions is not None:
                    raise ListenError(target, _NO_FILE.format(scheme=address.scheme))
                if workers > 1 and address.body.endswith(":0"):
                    raise ListenError(target, _NO_PORT)
                places.append(Place(target))
                continue
            transport = transport_for(address.scheme)
            if parsed.access.others and (reason := transport.closed_to_others(address)):
                raise ListenError(target, reason)
            try:
                if permissions is None:
                    bound = transport.bind(address, parsed)
                else:
                    bound = transport.bind_file(address, permissions)
            except OSError as error:  # not of the target: no descriptor or memory is left
                raise ListenError(target, error.strerror or str(error)) from None
            if bound is None and permissions is not None:
                raise ListenError(target, _NO_FILE.format(scheme=address.scheme))
            if bound is None and address.scheme == "fd":
                raise ListenError(target, _CONNECTED)
            if bound is None and workers > 1:
                raise ListenError(target, _ALONE.format(scheme=address.scheme))
            places.append(Place(target, bound))
    except BaseException:
        close_places(places)
        raise
    return places


def open_for_worker(
    shared: list[Place],
    options: tuple[tuple[str, Any], ...],
    number: int,
    permissions: Permissions | None = None,
) -> list[Place]:
    """Take the names at which clients find worker `number` alone, beside the shared places; none
    where there is no such name, or it is taken or too long."""
    own: list[Place] = []
    parsed = parse_options(options)
    for place in shared:
        if place.bound is None:
            continue
        address = parse_target(place.target)
        transport = transport_for(address.scheme)
        theirs = transport.worker_address(address, number)
        if theirs is None:
            continue
        try:
            with names.patience_of(_PATIENCE):
                if permissions is None:
                    bound = transport.bind(theirs, parsed)
                else:
                    bound = transport.bind_file(theirs, permissions)
            own.append(Place(place.target, bound))
        except (ListenError, OSError) as error:
            _logger.warning("clients of %s do not choose worker %d: %s", place.shown, number, error)
    return own


def close_own(places: list[Place]) -> None:
    """Give back what open_for_worker() has taken."""
    with names.patience_of(_PATIENCE):
        close_places(places)


def target_of_worker(target: str, number: int) -> str | None:
    """Return the target at which worker `number` of this one listens alone; None without one.

    Raises AddressError.
    """
    address = parse_target(target)
    if address.scheme == "grpc":
        return None
    theirs = transport_for(address.scheme).worker_address(address, number)
    return None if theirs is None else str(theirs)


def close_places(places: list[Place]) -> None:
    """Give the names back."""
    for place in places:
        if place.bound is not None:
            place.bound.release()
            place.bound.sock.close()
    places.clear()


def dump(places: list[Place]) -> list[Any]:
    """Return what load() needs after an exec, and have the sockets outlive that."""
    dumped: list[Any] = []
    for target, bound in places:
        if bound is None:
            dumped.append([target, None])
        else:
            bound.sock.set_inheritable(True)
            dumped.append([target, [bound.sock.fileno(), bound.path, bound.identity, bound.port]])
    return dumped


def load(dumped: list[Any]) -> list[Place]:
    places = []
    for target, fields in dumped:
        bound = None
        if fields is not None:
            number, path, identity, port = fields
            sock = socket.socket(fileno=number)
            sock.set_inheritable(False)
            bound = BoundSocket(sock, path, tuple(identity), port)
        places.append(Place(target, bound))
    return places
