"""Names: never stolen, always reclaimed, one winner, nothing left behind."""

from __future__ import annotations

import fcntl
import os
import socket
import tempfile
from pathlib import Path

import pytest

from localrpc.errors import AddressInUse, ConnectError, ListenError
from localrpc.options import Options
from localrpc.transports import names, parse_target, transport_for
from localrpc.transports.unix import UnixTransport

from . import request_places
from .helpers import (
    HOLD,
    NOBODY,
    AcceptingServer,
    as_ordinary_user,
    dial,
    listening,
    outcome,
    reachable,
    run_python,
    wait_until,
)


def test_the_directory_is_the_users_own_whatever_the_session_says(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("LOCALRPC_RUNTIME_DIR")
    for value in ("/run/user/1", "/nowhere"):
        monkeypatch.setenv("XDG_RUNTIME_DIR", value)
        monkeypatch.setenv("TMPDIR", value)
        monkeypatch.setattr(tempfile, "tempdir", None)
        assert names.runtime_directory() == f"/tmp/localrpc-{os.geteuid()}"


def test_the_directory_is_made_for_its_user_alone(runtime_directory: Path) -> None:
    old = os.umask(0o777)
    try:
        assert names.check_runtime_directory(create=True) == str(runtime_directory)
    finally:
        os.umask(old)
    assert runtime_directory.stat().st_mode & 0o777 == 0o700


def test_dialling_makes_no_directory(runtime_directory: Path) -> None:
    with pytest.raises(FileNotFoundError):
        names.check_runtime_directory(create=False)
    assert not runtime_directory.exists()


def test_a_directory_open_to_others_is_refused(runtime_directory: Path) -> None:
    runtime_directory.mkdir()
    runtime_directory.chmod(0o750)
    with pytest.raises(ListenError) as caught:
        AcceptingServer("shm:server")
    for word in ("shm:server", str(runtime_directory), "open to others", "0750", "chmod 700"):
        assert word in str(caught.value)


def test_another_users_directory_is_refused(
    runtime_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = "/"
    if os.geteuid() == 0:
        runtime_directory.mkdir(mode=0o700)
        os.chown(runtime_directory, NOBODY, NOBODY)
        directory = str(runtime_directory)
    monkeypatch.setenv("LOCALRPC_RUNTIME_DIR", directory)
    with pytest.raises(ListenError) as caught:
        AcceptingServer("shm:server")
    for word in (f"directory {directory} belongs to uid", "LOCALRPC_RUNTIME_DIR"):
        assert word in str(caught.value)


def test_a_planted_link_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    planted = tmp_path / "planted"
    planted.symlink_to(tmp_path)
    monkeypatch.delenv("LOCALRPC_RUNTIME_DIR")
    monkeypatch.setattr(names, "runtime_directory", lambda: str(planted))
    with pytest.raises(names.DirectoryRefused, match="is not a directory"):
        names.check_runtime_directory(create=True)


def test_a_file_in_the_directorys_place_is_refused(runtime_directory: Path) -> None:
    runtime_directory.touch()
    with pytest.raises(ListenError, match="is not a directory"):
        AcceptingServer("shm:server")


def test_a_relative_directory_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCALRPC_RUNTIME_DIR", "here")
    with pytest.raises(ListenError, match="is not absolute"):
        AcceptingServer("shm:server")


def test_a_directory_that_cannot_be_made_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCALRPC_RUNTIME_DIR", "/proc/localrpc")
    with pytest.raises(ListenError) as caught:
        AcceptingServer("shm:server")
    for word in ("/proc/localrpc", "cannot be made", "LOCALRPC_RUNTIME_DIR"):
        assert word in str(caught.value)


def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    with pytest.raises(ListenError, match=f"directory {tmp_path}/nowhere does not exist"):
        AcceptingServer(f"unix:{tmp_path}/nowhere/socket")


def test_an_unwritable_directory_is_named(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o755)
    closed.chmod(0o555)
    target = parse_target(f"unix:{closed}/socket")
    reachable(tmp_path)
    said = as_ordinary_user(lambda: str(UnixTransport().listen(target, Options())))
    assert said.startswith("ListenError")
    assert f"directory {closed} cannot be written" in said


def test_a_path_too_long_for_a_socket_is_refused_with_its_length(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOCALRPC_RUNTIME_DIR", str(tmp_path / ("d" * 90)))
    with pytest.raises(ListenError, match="at most 107; use a shorter name"):
        AcceptingServer("shm:server")


def test_a_file_is_never_removed(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    path.write_text("precious")
    with pytest.raises(ListenError, match="is not a socket"):
        AcceptingServer(f"unix:{path}")
    assert path.read_text() == "precious"


def test_another_kind_of_socket_is_never_removed(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        other.bind(str(path))
        with pytest.raises(ListenError, match="is another user's socket"):
            AcceptingServer(f"unix:{path}")
        assert path.is_socket()


def test_a_live_name_is_never_stolen(any_target: str) -> None:
    with AcceptingServer(any_target) as accepting:
        with pytest.raises(AddressInUse, match="a live server already listens there") as caught:
            AcceptingServer(any_target)
        assert caught.value.target == any_target
        client = dial(any_target)
        assert client.peer == accepting.connection().peer
        client.close()


def test_a_live_name_whose_queue_is_full_is_never_stolen(tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    with socket.socket(socket.AF_UNIX) as swamped:
        swamped.bind(path)
        swamped.listen(0)
        with socket.socket(socket.AF_UNIX) as first:
            first.connect(path)
            with pytest.raises(AddressInUse):
                AcceptingServer(f"unix:{path}")


def test_a_dead_servers_name_is_reclaimed(lasting_target: str, tmp_path: Path) -> None:
    with listening(lasting_target) as child:
        child.kill()
        child.wait()
        with pytest.raises(ConnectError, match=r"no server listens on .*start the server again"):
            dial(lasting_target)
        with AcceptingServer(lasting_target) as accepting:
            client = dial(lasting_target)
            assert client.peer == accepting.connection().peer
            client.close()
    assert request_places.entries(lasting_target, tmp_path) == set()


def test_a_name_in_use_names_the_target(lasting_target: str) -> None:
    with listening(lasting_target) as child:
        assert outcome(HOLD, lasting_target).startswith(
            f"AddressInUse Failed to bind to address {lasting_target}: "
        )
        child.communicate()


@pytest.mark.parametrize("stale", [False, True], ids=["free", "stale"])
def test_of_servers_that_start_at_once_one_wins(lasting_target: str, stale: bool) -> None:
    if stale:
        with run_python(HOLD, lasting_target) as dead:
            dead.line()
            dead.kill()
    children = [run_python(HOLD, lasting_target) for _ in range(4)]
    try:
        said = []
        for child in children:
            said.append(child.line().split()[0])
        assert sorted(said) == ["AddressInUse"] * 3 + ["listening"]
    finally:
        for child in children:
            child.communicate()


def test_nothing_is_left_after_close(lasting_target: str, tmp_path: Path) -> None:
    with AcceptingServer(lasting_target) as accepting:
        dial(lasting_target).close()
        accepting.connection()
    assert request_places.entries(lasting_target, tmp_path) == set()


def test_closing_leaves_a_successors_name_alone(tmp_path: Path) -> None:
    target = f"unix:{tmp_path}/socket"
    with AcceptingServer(target) as old:
        (tmp_path / "socket").unlink()
        with AcceptingServer(target) as new:
            old.close()
            dial(target).close()
            new.connection()


def test_the_name_is_readable_by_its_user_alone(tmp_path: Path) -> None:
    with AcceptingServer(f"unix:{tmp_path}/socket"):
        assert (tmp_path / "socket").stat().st_mode & 0o777 & 0o077 == 0


def test_a_directory_that_stays_locked_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(names, "_LOCK_PATIENCE", 0.0)
    fd = os.open(tmp_path, os.O_RDONLY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        with pytest.raises(ListenError, match=f"the directory {tmp_path} locked"):
            AcceptingServer(f"unix:{tmp_path}/socket")
    finally:
        os.close(fd)


def test_a_forked_child_does_not_keep_the_name_alive(named_target: str) -> None:
    address = parse_target(named_target)
    listener = transport_for(address.scheme).listen(address, Options())
    ready, stay = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        os.close(stay[1])
        os.write(ready[1], b"x")
        os.read(stay[0], 1)
        os._exit(0)
    try:
        os.read(ready[0], 1)
        listener.forget()  # type: ignore[attr-defined]  # as if this process had died
        with AcceptingServer(named_target) as successor:
            dial(named_target).close()
            successor.connection()
    finally:
        for fd in (*ready, *stay):
            os.close(fd)
        os.waitpid(child, 0)


def test_a_forked_childs_exit_leaves_the_name(named_target: str) -> None:
    with AcceptingServer(named_target) as accepting:
        child = os.fork()
        if child == 0:
            accepting.listener.close()
            os._exit(0)
        os.waitpid(child, 0)
        dial(named_target).close()
        accepting.connection()


def test_users_of_one_directory_meet(runtime_directory: Path) -> None:
    with listening("shm:server", env={"TMPDIR": "/nowhere"}) as child:
        assert (runtime_directory / "server.shm").is_socket()
        child.communicate()
    wait_until(lambda: not (runtime_directory / "server.shm").exists())
