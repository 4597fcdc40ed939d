"""Which users a server and a channel accept, and how many connections of each user at a time."""

from __future__ import annotations

import contextlib
import os
import pwd
import stat
from collections.abc import Iterator
from concurrent import futures
from pathlib import Path
from typing import Any

import pytest

import localrpc
from localrpc.drive.accept_loop import ConnectionQuota
from localrpc.errors import ListenError
from localrpc.options import Options, parse_options
from localrpc.transports import PeerCredentials
from localrpc.transports.credentials import (
    groups_of_user,
    refusal_of_client,
    refusal_of_server,
)
from tests.ports import free_port
from tests.skips import root_only

from .helpers import NOBODY, AcceptingServer, as_ordinary_user, dial, reachable

OTHER = 65533
GROUP = 54321


def open_target(scheme: str, folder: Path) -> str:
    """A target of that kind which every user can get to."""
    if scheme == "tcp":
        return f"tcp:127.0.0.1:{free_port()}"
    if scheme == "unix-abstract":
        return f"unix-abstract:{folder}"
    return f"{scheme}:{reachable(folder)}/socket"


every_open_scheme = pytest.mark.parametrize("scheme", ["unix", "unix-abstract", "shm", "tcp"])


def said_by(target: str, *pairs: tuple[str, Any], uid: int = NOBODY, groups: Any = ()) -> str:
    """What becomes of a client of that user."""

    def action() -> str:
        connection = dial(target, *pairs)
        said = f"connected, uid {connection.peer.uid}, {connection.facts.fell_back}"
        connection.close()
        return said

    return as_ordinary_user(action, uid, groups)


# ---- the rules by themselves ----


@pytest.mark.parametrize(
    ("pairs", "peer", "more", "serves"),
    [
        ([("localrpc.allow_users", 8)], PeerCredentials(1, 8, 1), (), True),
        ([("localrpc.allow_users", "8,9")], PeerCredentials(1, 9, 1), (), True),
        ([("localrpc.allow_users", [8])], PeerCredentials(1, 9, 8), (8,), False),
        ([("localrpc.allow_users", "*")], PeerCredentials(1, 9, 9), (), True),
        ([("localrpc.allow_users", "*")], PeerCredentials(0, -1, -1), (), False),
        ([("localrpc.allow_groups", 5)], PeerCredentials(1, 9, 5), (), True),
        ([("localrpc.allow_groups", 5)], PeerCredentials(1, 9, 9), (4, 5), True),
        ([("localrpc.allow_groups", 5)], PeerCredentials(1, 5, 9), (4,), False),
        ([("localrpc.allow_groups", 5)], PeerCredentials(0, -1, -1), (), False),
        ([("localrpc.allow_groups", "*")], PeerCredentials(1, 9, 9), (), True),
    ],
)
def test_an_allowed_user_can_connect(
    pairs: Any, peer: PeerCredentials, more: tuple[int, ...], serves: bool
) -> None:
    refusal = refusal_of_client(peer, parse_options(pairs), lambda: more)
    assert (refusal is None) is serves
    if refusal:
        assert "localrpc.allow_users" in refusal


def test_groups_are_asked_for_only_where_they_matter() -> None:
    def never() -> Iterator[int]:
        raise AssertionError

    options = parse_options([("localrpc.allow_users", "7")])
    assert refusal_of_client(PeerCredentials(1, 8, 8), options, never) is not None


def test_a_channel_that_names_a_user_talks_to_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 7)
    options = parse_options([("localrpc.server_user", 8)])
    assert refusal_of_server(PeerCredentials(1, 8, 8), options) is None
    for other in (0, 7, 9):
        assert "not to uid 8" in str(refusal_of_server(PeerCredentials(1, other, 8), options))
    refusal = refusal_of_server(PeerCredentials(1, 8, 8), Options())
    assert "localrpc.server_user" in str(refusal)


def test_a_users_groups_are_found_in_the_systems_database() -> None:
    entry = pwd.getpwuid(0)
    assert entry.pw_gid in groups_of_user(0)
    assert list(groups_of_user(2**31 - 17)) == []


def test_the_quota_of_a_user_is_released_with_each_connection() -> None:
    quota = ConnectionQuota(2)
    assert quota.enter(1) is quota.enter(1) is quota.enter(2) is None
    assert "uid 1 has 2 connections" in str(quota.enter(1))
    quota.leave(1)
    assert quota.enter(1) is None


# ---- names that others can get to ----


@pytest.mark.parametrize("scheme", ["unix", "shm"])
@pytest.mark.parametrize(("pairs", "mode"), [((), 0o600), ((("localrpc.allow_users", 1),), 0o666)])
def test_a_sockets_file_is_open_to_all_only_if_others_are_allowed(
    scheme: str, pairs: Any, mode: int, tmp_path: Path
) -> None:
    umask = os.umask(0o077)
    try:
        with AcceptingServer(f"{scheme}:{tmp_path}/socket", *pairs):
            assert stat.S_IMODE((tmp_path / "socket").stat().st_mode) == mode
    finally:
        os.umask(umask)


@contextlib.contextmanager
def serving(*pairs: tuple[str, Any]) -> Iterator[Any]:
    with futures.ThreadPoolExecutor(1) as pool:
        server = localrpc.server(pool, options=pairs)
        yield server
        server.stop(None)


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("shm:server", "closed to other users.*shm:/PATH"),
        ("pipe:{}/fifo", "pipe: is for one user.*unix:PATH"),
        ("mq:server", "mq: is for one user"),
        ("sysvmq:server", "sysvmq: is for one user"),
    ],
)
def test_a_target_that_others_cannot_get_to_is_refused(
    target: str, words: str, tmp_path: Path
) -> None:
    with (
        serving(("localrpc.allow_users", NOBODY)) as server,
        pytest.raises(ListenError, match=words),
    ):
        server.add_insecure_port(target.format(tmp_path))


# ---- real users ----


@root_only
@every_open_scheme
def test_an_allowed_user_can_connect_and_another_cannot(scheme: str, tmp_path: Path) -> None:
    target = open_target(scheme, tmp_path)
    with AcceptingServer(target, ("localrpc.allow_users", f"root, {NOBODY}")) as accepting:
        assert said_by(target) == "connected, uid 0, None"
        assert accepting.connection().peer.uid == NOBODY
        assert f"do not allow uid {OTHER}" in said_by(target, uid=OTHER)
        assert f"do not allow uid {OTHER}" in str(accepting.error())


@root_only
@pytest.mark.parametrize("scheme", ["unix", "unix-abstract", "shm"])
def test_a_primary_or_supplementary_group_is_enough(scheme: str, tmp_path: Path) -> None:
    target = open_target(scheme, tmp_path)
    with AcceptingServer(target, ("localrpc.allow_groups", [GROUP, OTHER])):
        assert said_by(target, groups=(77, GROUP)).startswith("connected")
        assert said_by(target, uid=OTHER).startswith("connected")
        assert f"do not allow uid {NOBODY}" in said_by(target, groups=(77,))


@root_only
def test_over_tcp_the_groups_are_those_of_the_user(tmp_path: Path) -> None:
    entry = next(entry for entry in pwd.getpwall() if entry.pw_uid and entry.pw_gid)
    target = open_target("tcp", tmp_path)
    with AcceptingServer(target, ("localrpc.allow_groups", entry.pw_gid)):
        assert said_by(target, uid=entry.pw_uid).startswith("connected")
        # It has the group just now, which the kernel does not tell.
        assert "do not allow" in said_by(target, uid=OTHER, groups=(entry.pw_gid,))


@contextlib.contextmanager
def server_of(uid: int, target: str) -> Iterator[None]:
    """A server of another user, which allows all users."""
    ready, say_ready = os.pipe()
    stop, say_stop = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(say_stop)
            os.setgroups([])
            os.setgid(uid)
            os.setuid(uid)
            with AcceptingServer(target, ("localrpc.allow_users", "*")):
                os.write(say_ready, b"!")
                os.read(stop, 1)
        finally:
            os._exit(0)
    os.close(say_ready)
    try:
        assert os.read(ready, 1) == b"!"
        yield
    finally:
        os.close(say_stop)
        os.close(ready)
        os.close(stop)
        os.waitpid(child, 0)


@root_only
@every_open_scheme
def test_another_users_server_has_to_be_named(scheme: str, tmp_path: Path) -> None:
    target = open_target(scheme, tmp_path)
    tmp_path.chmod(0o777)
    with server_of(OTHER, target):
        assert "name the server's user with the option localrpc.server_user" in said_by(target)
        meant = ("localrpc.server_user", OTHER)
        assert said_by(target, meant) == f"connected, uid {OTHER}, None"
        dial(target, meant).close()
        dial(target).close()  # root may dial any server
        wrong = ("localrpc.server_user", "root")
        assert f"the server belongs to uid {OTHER}, not to uid 0" in said_by(target, wrong)


@root_only
def test_a_users_connections_are_counted_apart(tmp_path: Path) -> None:
    target = open_target("unix", tmp_path)
    options = [("localrpc.allow_users", "*"), ("localrpc.max_connections_per_user", 1)]
    with serving(*options) as server:
        server.add_insecure_port(target)
        server.start()
        ours = localrpc.insecure_channel(target)
        ping: Any = ours.unary_unary("/t/none")
        assert ping.future(b"", timeout=10).code().name == "UNIMPLEMENTED"
        assert said_by(target).startswith("connected")
        assert "uid 0 has 1 connections" in as_root(target)
        ours.close()


def as_root(target: str) -> str:
    try:
        dial(target).close()
    except Exception as error:
        return str(error)
    return "connected"
