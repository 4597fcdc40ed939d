"""What localrpc.transports() says of this machine, and of one that lacks something."""

from __future__ import annotations

import errno
import json
import os
import socket
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import posix_ipc
import pytest
from click.testing import CliRunner

import localrpc
from localrpc._core import lib
from localrpc.cli._group import commands
from localrpc.transports import REGISTERED, Scope, limits, schemes


def offer(target: str) -> Any:
    return {offer.target: offer for offer in localrpc.transports()}[target]


def test_every_scheme_is_offered_and_nothing_else() -> None:
    assert {offer.scheme for offer in localrpc.transports()} == set(REGISTERED)


def test_a_target_is_spelled_as_errors_spell_it() -> None:
    spelled = {offer.target for offer in localrpc.transports()}
    assert {scheme.example for scheme in schemes().values()} <= spelled


def test_importing_the_package_of_that_name_does_not_hide_the_function() -> None:
    import localrpc.transports as package

    assert callable(package)
    assert localrpc.transports() == package.offers()


def test_scopes_are_told_apart() -> None:
    assert offer("shm:NAME").scope is Scope.MACHINE
    assert offer("pipe:").scope is Scope.FAMILY
    assert offer("mq:NAME").scope is Scope.USER
    assert offer("grpc:TARGET").scope is Scope.NETWORK


def test_limits_are_the_systems_as_they_are_now() -> None:
    most = int(Path("/proc/sys/fs/pipe-max-size").read_text())
    assert offer("pipe:PATH").limits["pipe-max-size"] == most
    assert offer("unix:PATH").limits["RLIMIT_NOFILE"] == limits.rlimit("RLIMIT_NOFILE")
    assert {"msgmax", "msgmnb", "msgmni"} <= set(offer("sysvmq:NAME").limits)


def test_what_is_served_is_listed_and_what_was_left_behind_is_not(runtime_directory: str) -> None:
    targets = [f"{scheme}:served" for scheme in ("shm", "mq", "sysvmq")]
    with ExitStack() as stack:
        for target in targets:
            stack.enter_context(localrpc.testing.serving(target=target))
        listed = [name for each in localrpc.transports() for name in each.served]
        assert set(targets) <= set(listed)
        shown = CliRunner().invoke(commands, ["transports"]).output
        assert all(target in shown for target in targets)
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(f"{runtime_directory}/left.shm")
    Path(runtime_directory, "left.mq").write_text("/gone\n1")
    listed = [name for each in localrpc.transports() for name in each.served]
    assert not {*targets, "shm:left", "mq:left"} & set(listed)


def test_asking_leaves_nothing_behind() -> None:
    descriptors, queues = len(os.listdir("/proc/self/fd")), _queues()
    localrpc.transports()
    # What other tests have left may be closed meanwhile.
    assert len(os.listdir("/proc/self/fd")) <= descriptors
    assert _queues() == queues


def _queues() -> str:
    own = f" {os.geteuid()} "
    lines = Path("/proc/sysvipc/msg").read_text().splitlines()
    return "".join(line for line in lines if own in line)


def _lacking(number: int) -> Any:
    def refuse(*_: Any, **__: Any) -> Any:
        raise OSError(number, os.strerror(number))

    return refuse


@pytest.mark.parametrize(
    ("target", "module", "name", "lack", "words"),
    [
        ("shm:NAME", os, "memfd_create", _lacking(errno.ENOSYS), "calls stay on the socket"),
        ("shm:NAME", os, "posix_fallocate", _lacking(errno.ENOSPC), "No space left"),
        ("mq:NAME", posix_ipc, "MessageQueue", _lacking(errno.ENOSYS), "CONFIG_POSIX_MQUEUE"),
        ("mq:NAME", posix_ipc, "MessageQueue", _lacking(errno.EMFILE), "ulimit -q"),
        ("tcp:HOST:PORT", socket.socket, "bind", _lacking(errno.EADDRNOTAVAIL), "set lo up"),
    ],
)
def test_what_is_missing_is_reported_with_the_fix(
    target: str, module: Any, name: str, lack: Any, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, name, lack)
    found = offer(target)
    assert not found.available
    assert words in found.missing


@pytest.mark.parametrize(("number", "words"), [(errno.ENOSYS, "SYSVIPC"), (errno.ENOSPC, "msgmni")])
def test_missing_system_v_queues_are_reported(
    number: int, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from localrpc.transports import sysv

    class Lacking:
        lr_msgctl_remove = lib.lr_msgctl_remove

        def lr_msgget(self, key: int, make: int) -> int:
            return -number

    monkeypatch.setattr(sysv, "lib", Lacking())
    assert words in offer("sysvmq:NAME").missing


def test_the_command_prints_them_all_for_people_and_for_programs() -> None:
    run = CliRunner().invoke
    table = run(commands, ["transports"])
    assert table.exit_code == 0
    listed = json.loads(run(commands, ["transports", "--json"]).output)
    assert [entry["target"] for entry in listed] == [
        offer.target for offer in localrpc.transports()
    ]
    for entry in listed:
        assert entry["target"] in table.output
        assert entry["scope"] in {scope.value for scope in Scope}


def test_the_places_of_single_workers_are_not_listed_beside_their_groups() -> None:
    servers = []
    for name in ("group", "group.1", "group.12", "alone.1"):
        server = localrpc.server(ThreadPoolExecutor(1))
        server.add_insecure_port(f"shm:{name}")
        servers.append(server)
    listed = [name for each in localrpc.transports() for name in each.served]
    assert {"shm:group", "shm:alone.1"} <= set(listed)
    assert not {"shm:group.1", "shm:group.12"}.intersection(listed)
    for server in servers:
        server.stop(None)
