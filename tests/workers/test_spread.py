"""A channel spreads its calls over the workers of `localrpc serve`."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest

import localrpc
from localrpc.workers import control, places
from tests.cli.scene import run
from tests.conftest import FULL
from tests.workers.served import PATIENCE, ask, serving
from tests.workers.test_serve import eventually

SCHEMES = ["shm", "unix", "unix-abstract"]


@pytest.fixture(params=SCHEMES)
def target(request: pytest.FixtureRequest, folder: Path) -> str:
    return f"{request.param}:{folder}/s"


class Client:
    def __init__(self, target: str, folder: Path) -> None:
        self.channel: Any = localrpc.insecure_channel(target)
        self._who: Any = self.channel.unary_unary("/demo.App/who")
        self._hold: Any = self.channel.unary_unary("/demo.App/until_released")
        self._folder = folder
        self._held = 0

    def who(self) -> int:
        return int(self._who(b"", timeout=PATIENCE).split()[0])

    def hold(self) -> tuple[Any, Path]:
        """Begin a call that ends when there is this file."""
        self._held += 1
        path = self._folder / f"release{self._held}"
        call = self._hold.future(str(path).encode(), timeout=PATIENCE)
        begun = path.with_suffix(".begun")
        eventually(begun.exists, "it has begun")
        return call, path

    def occupy(self, count: int) -> dict[int, tuple[Any, Path]]:
        """Hold a call in each of so many workers; by their pids."""
        held: dict[int, tuple[Any, Path]] = {}
        free = self.who()
        while len(held) < count:
            held[free] = self.hold()
            if len(held) < count:
                eventually(lambda: self.who() not in held, "another worker is found")
                free = self.who()
        return held


def test_a_channel_uses_all_workers_and_those_that_come(folder: Path, target: str) -> None:
    with serving(folder, "app:setup", target, workers=2) as served:
        client = Client(target, folder)
        held = client.occupy(2)
        assert set(held) == set(served.workers())
        served.signal(signal.SIGTTIN)
        (third,) = served.ready()
        eventually(lambda: client.who() == third, "it is found")
        for call, path in held.values():
            path.touch()
            assert int(call.result()) in held
        client.channel.close()
        assert served.stop() == 0


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if path.is_socket()}


def test_a_worker_has_a_name_of_its_own_while_it_serves(folder: Path) -> None:
    target = f"unix:{folder}/s"
    with serving(folder, "app:setup", target, workers=2) as served:
        assert names(folder) == {"s", "s.1", "s.2"}
        with localrpc.insecure_channel(f"{target}.2") as channel:
            who: Any = channel.unary_unary("/demo.App/who")
            second = int(who(b"", timeout=PATIENCE).split()[0])
        assert second in served.workers()
        done = run("health", target, "--worker", "2")
        assert (done.exit_code, done.stdout) == (0, "SERVING\n")
        done = run("list", f"{target}?spin=0", "--worker", "3")
        assert done.exit_code == 64 + 14
        assert f"{target}.3?spin=0" in done.stderr
        client = Client(target, folder)
        held = client.occupy(2)
        served.signal(signal.SIGTTOU)  # one of them drains
        eventually(lambda: names(folder) == {"s", "s.1"}, "its name is gone")
        assert len(served.workers()) == 2
        for _, path in held.values():
            path.touch()
        client.channel.close()
        served.signal(signal.SIGUSR2)
        served.ready()
        eventually(lambda: len(names(folder)) == 2, "the new supervisor has the old one's names")
        assert served.stop() == 0
        assert names(folder) == set()


def test_a_name_that_another_has_costs_only_the_choice(folder: Path) -> None:
    target = f"unix:{folder}/s"
    other = localrpc.server(ThreadPoolExecutor(1))
    other.add_insecure_port(f"{target}.1")
    with serving(folder, "app:setup", target, workers=2) as served:
        assert "clients of" in "".join(served.lines)
        client = Client(target, folder)
        assert client.who() in served.workers()
        client.channel.close()
        assert served.stop() == 0
        assert names(folder) == {"s.1"}
    other.stop(None)


@pytest.mark.parametrize("target", SCHEMES if FULL else ["shm", "unix"], indirect=True)
def test_a_killed_worker_fails_its_calls_and_no_others(folder: Path, target: str) -> None:
    with serving(folder, "app:setup", target, workers=2) as served:
        client = Client(target, folder)
        held = client.occupy(2)
        (dead, (lost, _)), (alive, (kept, path)) = held.items()
        os.kill(dead, signal.SIGKILL)
        assert lost.exception().code() is grpc.StatusCode.UNAVAILABLE
        for _ in range(50):
            assert client.who() != dead
        (new,) = served.ready()
        eventually(lambda: client.who() == new, "its successor is found")
        path.touch()
        assert int(kept.result()) == alive
        client.channel.close()
        assert served.stop() == 0


@pytest.mark.parametrize("target", SCHEMES if FULL else ["shm", "unix"], indirect=True)
def test_threads_of_one_channel_see_no_replacing(folder: Path, target: str) -> None:
    with serving(folder, "app:setup", target, workers=2) as served:
        client = Client(target, folder)
        client_over = threading.Event()
        seen: set[int] = set()
        failures: list[BaseException] = []

        def call() -> None:
            while not client_over.is_set():
                try:
                    answer = ask(client.channel, "who_after_a_moment")
                    seen.add(int(answer.split()[0]))
                except grpc.RpcError as error:
                    failures.append(error)

        threads = [threading.Thread(target=call) for _ in range(4)]
        for thread in threads:
            thread.start()
        try:
            eventually(lambda: len(seen) == 2, "both serve")
            for count in (4, 6):
                served.signal(signal.SIGHUP)
                served.ready(2)
                eventually(lambda: len(seen) == count, "the new ones serve")  # noqa: B023
        finally:
            client_over.set()
            for thread in threads:
                thread.join()
        assert failures == []
        client.channel.close()
        assert served.stop() == 0


def test_a_locked_folder_costs_a_worker_its_name_and_no_time(folder: Path) -> None:
    shared = places.open_places((f"unix:{folder}/s",), (), 2)
    own = places.open_for_worker(shared, (), 1)
    lock = os.open(folder, os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)
    places.close_own(own)
    assert names(folder) == {"s", "s.1"}
    assert places.open_for_worker(shared, (), 2) == []
    os.close(lock)
    own = places.open_for_worker(shared, (), 1)  # what was left is taken
    assert len(own) == 1
    places.close_own(own)
    places.close_places(shared)
    assert names(folder) == set()


def test_a_worker_understands_a_supervisor_without_groups() -> None:
    ours, theirs = control.pair()
    ours.sock.send(json.dumps((1, ["fd:3"])).encode() + b"\n{}")
    assert theirs.receive_job() == control.Job(1, b"{}", ("fd:3",), "")
    ours.close()
    theirs.close()
