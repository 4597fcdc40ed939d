"""What killed processes have left is found and removed; what a living one uses never is."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from localrpc.transports import leftovers, memory, mq, names, posix, records, sysv
from localrpc.transports.leftovers import Leftover, remove_leftovers
from tests.peers.processes import idle_client, server

KINDS = {
    "shm:{}": ("socket", "{}.shm"),
    "unix:{folder}/{}.sock": ("socket", "{}.sock"),
    "pipe:{folder}/{}.fifo": ("FIFO", "{}.fifo"),
    "mq:{}": ("POSIX queue", "{}.mq"),
    "sysvmq:{}": ("System V queue", "{}.sysvmq"),
}


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A runtime directory of this test's own."""
    with tempfile.TemporaryDirectory(prefix="lrt") as directory:
        monkeypatch.setenv("LOCALRPC_RUNTIME_DIR", directory)
        yield directory


def found_in(folder: str) -> list[Leftover]:
    """Without memory, which belongs to no folder."""
    return [each for each in leftovers.leftovers() if each.place.startswith(folder)]


def removed_from(folder: str) -> list[Leftover]:
    """What was removed, all of it without an error."""
    done = [(each, error) for each, error in remove_leftovers() if each.place.startswith(folder)]
    assert [error for _, error in done if error] == []
    return [each for each, _ in done]


def dead_record(path: str, *lines: str) -> None:
    records.make(path, *lines).close()


@pytest.mark.parametrize("form", KINDS)
def test_the_name_of_a_live_server_is_kept_and_that_of_a_killed_one_removed(
    form: str, runtime_directory: str
) -> None:
    kind, file = KINDS[form]
    target = form.format("left", folder=runtime_directory)
    path = f"{runtime_directory}/{file.format('left')}"
    with server(target) as peer:
        with idle_client(target):
            peer.stop()
            assert found_in(path) == removed_from(path) == []
        peer.kill()
        peer.join()
    expected = Leftover(target, kind, path)
    # With sysvmq: the killed client has left something, too.
    found = found_in(path)
    assert expected in found
    assert removed_from(path) == found
    assert not os.path.exists(path)


def test_nothing_is_left_where_no_server_was_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCALRPC_RUNTIME_DIR", "/nowhere/at/all")
    assert found_in("/nowhere") == removed_from("/nowhere") == []


def test_a_socket_that_another_process_has_only_bound_is_kept(folder: str) -> None:
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(f"{folder}/foreign.sock")
        assert removed_from(folder) == []
    assert [each.kind for each in removed_from(folder)] == ["socket"]


def test_a_live_server_of_another_network_namespace_is_kept(
    folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The system's table does not list its socket, but a client can connect to it."""
    monkeypatch.setattr(names, "bound", set)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(f"{folder}/a.shm")
        listening.listen(0)
        # The first takes the only place in its queue, as if the server were stopped.
        assert found_in(folder) == removed_from(folder) == found_in(folder) == []
    assert [each.target for each in removed_from(folder)] == ["shm:a"]


def test_a_socket_that_still_has_a_connection_is_left_over(folder: str) -> None:
    """An accepted socket has the listener's path, and no client can connect to it."""
    with socket.socket(socket.AF_UNIX) as client:
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(f"{folder}/a.shm")
            listening.listen()
            client.connect(f"{folder}/a.shm")
            accepted, _ = listening.accept()
        with accepted:
            assert [each.target for each in removed_from(folder)] == ["shm:a"]


def test_the_fifos_of_a_client_that_is_connecting_are_kept(folder: str) -> None:
    """They exist before anything reads them, and only the record says that they are in use."""
    ends = [f"{folder}/x.0123.up", f"{folder}/x.0123.down"]
    # Relative, as those of a client with a relative target are.
    record = records.make(f"{folder}/x.0123.made", *map(os.path.basename, ends))
    for end in ends:
        os.mkfifo(end)
    assert removed_from(folder) == []
    record.close()
    expected = Leftover(f"pipe:{folder}/x", "FIFOs, of a connection", f"{folder}/x.0123.made")
    assert found_in(folder) == removed_from(folder) == [expected]
    assert os.listdir(folder) == []


def test_the_queues_of_a_record_are_removed_with_it(folder: str) -> None:
    queue = f"/localrpc-{os.geteuid()}-0123456789abcdef-up"
    made = mq._Queue(queue, depth=1, size=32)
    os.close(made.fd)
    dead_record(f"{folder}/a.mq.0123456789abcdef.made", queue)
    key = sysv.new_key()
    sysv.make(key)
    dead_record(f"{folder}/a.sysvmq.0123456789abcdef.made", str(key))
    assert [(each.target, each.kind) for each in removed_from(folder)] == [
        ("mq:a", "POSIX queue, of a connection"),
        ("sysvmq:a", "System V queue, of a connection"),
    ]
    with pytest.raises(OSError):
        sysv.find(key)
    with pytest.raises(FileNotFoundError):
        mq._Queue(queue)


def test_a_queue_that_cannot_be_removed_keeps_its_record(
    folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    dead_record(f"{folder}/a.mq", "/localrpc-1-0123456789abcdef-requests", "1")

    def missing() -> None:
        raise OSError("posix_ipc is not installed")

    monkeypatch.setattr(posix, "load", missing)
    ((left, error),) = [each for each in remove_leftovers() if each[0].place.startswith(folder)]
    assert str(error) == "posix_ipc is not installed"
    assert found_in(folder) == [left]


def test_other_files_are_kept(folder: str) -> None:
    for name in ("notes.txt", "x.made", ".made", "a.sock"):
        Path(folder, name).write_text("mine")
    os.mkdir(f"{folder}/a.mq")
    os.symlink("/nowhere", f"{folder}/b.shm")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as datagrams:
        datagrams.bind(f"{folder}/log")
        before = sorted(os.listdir(folder))
        assert removed_from(folder) == []
        assert sorted(os.listdir(folder)) == before


@pytest.mark.parametrize("kind", ["posix", "sysv"])
def test_memory_of_dead_processes_is_removed(kind: str) -> None:
    child = os.fork()
    if not child:
        with contextlib.suppress(BaseException):
            memory.create(kind, 131072)
            os.kill(os.getpid(), signal.SIGKILL)
        os._exit(1)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL
    kinds = {"posix": "POSIX memory", "sysv": "System V memory"}
    own = memory.create(kind, 131072)
    try:
        found = [each for each in leftovers.leftovers() if each.kind == kinds[kind]]
        if kind == "posix":
            found = [each for each in found if f"-{child}-" in each.place]
        assert len(found) == 1
        removed = [each for each, error in remove_leftovers() if error is None]
        assert found[0] in removed
        assert not {each.place for each in removed} & {own.name, str(own.handle)}
        assert found[0] not in leftovers.leftovers()
    finally:
        own.close()


def test_another_process_that_keeps_the_directory_locked_is_named(
    folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leftovers, "_PATIENCE", 0)
    with names.locked(folder), pytest.raises(TimeoutError, match=folder):
        leftovers.leftovers()


def test_a_directory_that_others_can_write_is_refused(folder: str) -> None:
    os.chmod(folder, 0o777)
    with pytest.raises(names.DirectoryRefused, match="chmod 700"):
        remove_leftovers()
