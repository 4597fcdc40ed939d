"""`localrpc health`, against grpcio-health-checking."""

from __future__ import annotations

import subprocess

import pytest

from tests.conftest import fresh_target
from tests.rpc.house import House

from .scene import COMMAND, SERVICES, run, served


def test_health_works_over_every_transport(any_target: str) -> None:
    with served(any_target):
        done = run("health", any_target)
        other = run("health", any_target, SERVICES[1])
    assert (done.exit_code, done.stdout) == (0, "SERVING\n"), done.output
    assert (other.exit_code, other.stdout) == (1, "NOT_SERVING\n")


def test_an_unknown_service_is_not_found(one_demo: str) -> None:
    assert run("health", one_demo, "unknown").exit_code == 64 + 5


@pytest.mark.parametrize("options", [(), ("--watch",)])
def test_an_error_says_what_a_server_without_a_health_service_needs(
    one_target: str, options: tuple[str, ...]
) -> None:
    with House(one_target):
        done = run("health", one_target, *options)
    assert done.exit_code == 64 + 12
    assert f"no health service at {one_target}" in done.stderr
    assert "grpcio-health-checking's HealthServicer" in done.stderr


def test_a_target_without_a_server_is_unavailable(one_target: str) -> None:
    assert run("health", one_target).exit_code == 64 + 14


@pytest.mark.parametrize("target", ["tcp:127.0.0.1:1", "grpc:127.0.0.1:1", "mq:x"])
def test_a_worker_is_chosen_only_where_each_has_a_place(target: str) -> None:
    done = run("health", target, "--worker", "1")
    assert done.exit_code == 2
    assert "has no place for each worker" in done.stderr


@pytest.mark.parametrize("kind", ["shm-eventfd", "unix", "grpc"])
def test_watch_prints_each_change_until_the_server_ends(kind: str, runtime_directory: str) -> None:
    target = fresh_target(kind, runtime_directory)
    with served(target) as servicer:
        watch = subprocess.Popen(
            [*COMMAND, "health", target, "--watch"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert watch.stdout is not None
        try:
            assert watch.stdout.readline() == "SERVING\n"
            servicer.enter_graceful_shutdown()
            assert watch.stdout.readline() == "NOT_SERVING\n"
        except BaseException:
            watch.kill()
            raise
    _, told = watch.communicate(timeout=60)
    assert watch.returncode > 64, told
    assert told.startswith("Error: ")


def test_watch_ends_with_the_timeout(one_demo: str) -> None:
    done = run("health", one_demo, "--watch", "--timeout", "0.2")
    assert done.stdout == "SERVING\n"
    assert done.exit_code == 64 + 4
