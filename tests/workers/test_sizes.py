"""Settings and targets near their limits: they are served, or refused before anything is taken."""

from __future__ import annotations

import os
import resource
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from localrpc.errors import ListenError
from localrpc.workers import control, places
from localrpc.workers.control import Job
from localrpc.workers.settings import Settings
from tests.cli.scene import run
from tests.workers.served import Served, who
from tests.workers.test_serve import eventually

AGENT = "grpc.primary_user_agent"


def test_a_job_of_the_largest_settings_reaches_its_worker() -> None:
    targets = tuple(f"shm:{number}" for number in range(10, 4800))
    settings = Settings("app:setup", targets)
    options = ((AGENT, '"' * ((64 << 10) - len(settings.dump()))),)
    with pytest.raises(ValueError, match="sent at most 65536"):
        Settings("app:setup", targets, options=options).dump()
    options = ((AGENT, '"' * (((64 << 10) - len(settings.dump())) // 2 - 20)),)
    settings = Settings("app:setup", targets, options=options)
    fds = tuple(f"fd:{1000000 + each}" for each in range(2 * len(targets)))  # the worker's own, too
    job = Job(1000, settings.dump(), fds, "0123456789abcdef")
    ours, theirs = control.pair()
    try:
        ours.send_job(job)
        assert theirs.receive_job() == job
        assert Settings.load(job.settings) == settings
    finally:
        ours.close()
        theirs.close()


def test_many_targets_and_long_options_are_served_and_taken_over(folder: Path) -> None:
    targets = [f"unix:{folder}/{number}" for number in range(200)]
    words = [word for target in targets for word in ("--target", target)]
    with Served(folder, "app:setup", *words, "--option", f"{AGENT}={'x' * 20_000}") as served:
        (first,) = served.ready()
        assert [who(target)[0] for target in targets[::66]] == [first] * 4
        served.signal(signal.SIGUSR2)
        (second,) = served.ready()
        eventually(
            # The first still takes clients until it has heard that it is to end.
            lambda: all(who(target)[0] == second for target in targets[::-66]),
            "the second has taken over",
        )
        assert served.stop() == 0
    assert not (folder / "0").exists()


def test_settings_that_are_too_long_are_refused_before_a_name_is_taken(folder: Path) -> None:
    option = f"{AGENT}={'x' * 70_000}"
    done = run("serve", "app:setup", "--target", f"unix:{folder}/s", "--option", option)
    assert done.exit_code == 2
    assert "have 70" in done.output
    assert "worker processes are sent at most 65536" in done.output


def test_an_option_that_cannot_be_sent_is_named() -> None:
    settings = Settings("app:setup", ("shm:a",), options=((AGENT, b"x"),))
    with pytest.raises(TypeError, match=rf"option '{AGENT}': b'x' cannot be passed"):
        settings.dump()


@pytest.fixture
def few_descriptors() -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    fd = os.open("/", os.O_RDONLY)
    os.close(fd)
    resource.setrlimit(resource.RLIMIT_NOFILE, (fd + 3, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.usefixtures("few_descriptors")
@pytest.mark.parametrize("scheme", ["unix", "unix-abstract"])
def test_more_targets_than_descriptors_are_refused(tmp_path: Path, scheme: str) -> None:
    targets = tuple(f"{scheme}:{tmp_path}/{number}" for number in range(9))
    with pytest.raises(ListenError, match=f"{tmp_path}/.: .*Too many open files"):
        places.open_places(targets, (), 1)
