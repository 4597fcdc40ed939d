"""The mode and group of the sockets' files, and whom the servers serve then."""

from __future__ import annotations

import os
import signal
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from localrpc.errors import ListenError
from localrpc.options import parse_options
from localrpc.transports import names
from localrpc.transports.names import Permissions
from localrpc.workers import access, places
from localrpc.workers.settings import Settings
from tests.cli.scene import run
from tests.skips import root_only
from tests.transports.helpers import NOBODY, as_ordinary_user
from tests.workers.served import serving, who

GROUP = 54321
OTHER = 65533
USERS, GROUPS = "localrpc.allow_users", "localrpc.allow_groups"


def resolved(**settings: Any) -> tuple[Settings, Permissions | None]:
    return access.resolved(Settings("app:setup", ("unix:s",), **settings))


@pytest.mark.parametrize(
    ("settings", "permissions", "groups"),
    [
        ({}, None, set()),
        ({"options": ((USERS, "*"),)}, None, {-1}),
        ({"uds_mode": 0o600}, (0o600, None), set()),
        ({"uds_mode": 0o666, "options": ((USERS, "*"),)}, (0o666, None), {-1}),
        ({"uds_mode": 0o660, "options": ((GROUPS, [5]),)}, (0o660, None), {5}),
        ({"uds_group": "root"}, (0o660, 0), {0}),
        ({"uds_group": "54321"}, (0o660, GROUP), {GROUP}),
        ({"uds_group": GROUP, "uds_mode": 0o666}, (0o666, GROUP), {GROUP}),
        ({"uds_group": GROUP, "options": ((GROUPS, "7,root"),)}, (0o660, GROUP), {0, 7, GROUP}),
        ({"uds_group": GROUP, "options": ((USERS, "*"),)}, (0o660, GROUP), {-1}),
    ],
)
def test_a_group_is_allowed_by_the_servers_and_may_open_the_file(
    settings: dict[str, Any], permissions: tuple[int, int | None] | None, groups: set[int]
) -> None:
    made, found = resolved(**settings)
    assert found == permissions
    options = parse_options(made.options)
    assert groups == ({-1} if options.access.everybody else set(options.allow_groups))


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--uds-mode", "0660"], 2, "0660 opens the sockets to other users, and the servers serve"),
        (["--uds-mode", "0606"], 2, "set the option localrpc.allow_users"),
        (["--uds-mode", "0600", "--uds-group", "0"], 2, "0600 keeps the group out"),
        (["--uds-mode", "0440"], 2, "'0440' is not a mode such as 0660, with the owner's 0600"),
        (["--uds-mode", "660x"], 2, "'660x' is not a mode such as 0660"),
        (["--uds-mode", "1777"], 2, "'1777' is not a mode"),
        (["--uds-group", "no such group"], 2, "there is no group 'no such group' on this machine"),
        (["--uds-group", "-1"], 2, "there is no group '-1'"),
        (["--uds-group", "99999999999"], 2, "99999999999 is not a valid group number"),
        (["--uds-group", "0", "--target", "tcp:[::1]:0"], 1, "and tcp: targets have none"),
        (
            ["--uds-group", "0", "--target", "unix-abstract:s"],
            1,
            "unix-abstract: targets have none",
        ),
        (
            ["--uds-mode", "600", "--target", "unix-abstract:s"],
            1,
            "(--uds-mode, --uds-group) is for",
        ),
        (["--uds-mode", "600", "--target", "grpc:[::1]:0"], 1, "grpc: targets have none"),
        (["--uds-mode", "600", "--target", "fd:0"], 1, "fd: targets have none"),
        (["--uds-mode", "600", "--target", "pipe:{}/f"], 1, "pipe: targets have none"),
        (
            ["--uds-group", "0", "--target", "shm:s"],
            1,
            "runtime directory is closed to other users",
        ),
    ],
)
def test_what_contradicts_itself_is_refused_and_nothing_is_left(
    tmp_path: Path, words: list[str], code: int, said: str
) -> None:
    words = [word.format(tmp_path) for word in words]
    done = run("serve", "app:setup", "--target", f"unix:{tmp_path}/s", *words)
    assert said in " ".join(done.output.split())
    assert done.exit_code == code
    assert list(tmp_path.iterdir()) == []


def test_a_program_gives_a_mode_as_a_number_with_the_permissions_of_the_owner() -> None:
    with pytest.raises(TypeError, match="a number such as 0o660, not '0660'"):
        resolved(uds_mode="0660")
    for mode in (0o440, 660, 0o1600):
        with pytest.raises(ValueError, match=f"mode {mode:04o} has to include 0600"):
            resolved(uds_mode=mode)


@pytest.mark.parametrize("scheme", ["unix", "shm"])
@pytest.mark.parametrize("umask", [0, 0o77, 0o777])
def test_a_file_never_has_wider_permissions_than_those_that_are_wanted(
    tmp_path: Path, scheme: str, umask: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "s"
    seen: list[tuple[int, int]] = []

    def note() -> None:
        facts = path.stat()
        seen.append((stat.S_IMODE(facts.st_mode), facts.st_gid))

    for name in ("lstat", "open", "chown", "chmod"):
        real = getattr(os, name)

        def noting(*arguments: Any, real: Any = real) -> Any:
            try:
                return real(*arguments)
            finally:
                if path.exists():
                    note()

        monkeypatch.setattr(os, name, noting)
    group = GROUP if os.geteuid() == 0 else os.getegid()
    before = os.umask(umask)
    try:
        (place,) = places.open_places((f"{scheme}:{path}",), (), 1, Permissions(0o660, group))
    finally:
        os.umask(before)
    monkeypatch.undo()
    note()
    assert seen[-1] == (0o660, group)
    assert all(mode & ~0o600 == 0 for mode, _ in seen if mode != 0o660)
    assert all(owner == group for mode, owner in seen if mode == 0o660)
    assert len(seen) > 3
    places.close_places([place])
    assert not path.exists()


@pytest.fixture
def place(folder: Path) -> Iterator[Path]:
    """A folder that every user may enter: pytest's own are closed."""
    with tempfile.TemporaryDirectory(prefix="lrt") as name:
        os.chmod(name, 0o711)
        yield Path(name)


@root_only
def test_one_option_lets_a_group_in_and_no_other_user(folder: Path, place: Path) -> None:
    path = place / "s"
    target = f"shm:{path}"

    def calls() -> str:
        return f"answered by {who(target, timeout=5)[1]}"

    with pytest.raises(grpc.RpcError):  # imports what other users may not be able to read
        who(target)
    with serving(folder, "app:setup", target, "--uds-group", str(GROUP)) as served:
        assert calls() == "answered by one"
        for again in (False, True):
            assert stat.S_IMODE(path.stat().st_mode) == 0o660
            assert path.stat().st_gid == GROUP
            assert as_ordinary_user(calls, NOBODY, (GROUP,)) == "answered by one"
            assert "Permission denied" in as_ordinary_user(calls, OTHER)
            if not again:
                served.signal(signal.SIGUSR2)
                served.ready()
        path.chmod(0o666)
        assert f"do not allow uid {OTHER}" in as_ordinary_user(calls, OTHER)
        assert served.stop() == 0
    assert not path.exists()


@root_only
def test_a_group_of_which_the_user_is_no_member_is_refused(place: Path) -> None:
    place.chmod(0o777)

    def takes() -> str:
        places.open_places((f"unix:{place}/s",), (), 1, Permissions(0o660, GROUP))
        return "taken"

    said = as_ordinary_user(takes)
    assert "ListenError" in said
    assert f"cannot be given to the group {GROUP}: Operation not permitted" in said
    assert list(place.iterdir()) == []
    assert as_ordinary_user(takes, NOBODY, (GROUP,)) == "taken"


def test_a_file_that_takes_the_place_of_a_socket_keeps_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "s"
    real = os.lstat

    def swapping(name: str) -> os.stat_result:
        facts = real(name)
        path.unlink()
        path.write_text("another's")
        path.chmod(0o600)
        monkeypatch.setattr(os, "lstat", real)
        return facts

    def swap_later(*arguments: Any) -> None:
        monkeypatch.setattr(os, "lstat", swapping)

    monkeypatch.setattr(names, "_clear", swap_later)
    with pytest.raises(ListenError, match="another process has taken the name"):
        names.take(str(path), "unix:s", Permissions(0o666))
    assert path.read_text() == "another's"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
