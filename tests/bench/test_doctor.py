"""`localrpc doctor`: what its checks make of machines that are not like this one."""

from __future__ import annotations

import errno
import json
import resource
from collections.abc import Callable
from typing import Any

import pytest
from click.testing import CliRunner

from localrpc.bench import checks
from localrpc.bench.checks import CHECKS, Finding, System, Verdict, examine
from localrpc.cli.doctor import doctor

Answers = dict[str, Any]


def refuses(error: BaseException) -> Callable[..., Any]:
    def refuse(*_: object) -> Any:
        raise error

    return refuse


class Fake(System):
    """A machine without troubles, but for what it is made with: answers and files."""

    def __init__(self, files: dict[str, str] | None = None, **answers: Any) -> None:
        self._files = {
            "/proc/self/status": "CapEff:\t0000000000000000",
            "/proc/self/mounts": "tmpfs /dev/shm tmpfs rw 0 0",
            "/proc/sysvipc/msg": "key msqid",
            "/proc/sys/kernel/msgmni": "32000",
            "/proc/sys/fs/pipe-max-size": "1048576",
            "/proc/sys/fs/pipe-user-pages-soft": "16384",
            **(files or {}),
        }
        calm: Answers = {
            "cores": 4,
            "release": "6.18.0",
            "python": ("CPython", (3, 11, 7)),
            "requirements": ["grpcio>=1.60", "rich>=13; extra == 'cli'"],
            "version": "1.85.3",
            "compiler": "/usr/bin/gcc",
            "exists": True,
            "is_privileged": False,
            "free": 1 << 30,
            "writable": True,
            "limit": 1_000_000,
            "runtime_directory": "/tmp/localrpc-7",
            "runtime_path": "/tmp/localrpc-7",
            **{name: None for name in vars(System) if name.startswith("try_")},
        }
        for name, answer in {**calm, **answers}.items():
            if callable(answer):
                setattr(self, name, answer)
            else:
                setattr(self, name, lambda *_, answer=answer: answer)

    def read(self, path: str) -> str | None:
        return self._files.get(path)


def finding(name: str, system: System) -> Finding:
    return CHECKS[name](system)


def test_a_machine_without_troubles_has_none() -> None:
    findings = examine(Fake())
    assert [one.name for one in findings] == list(CHECKS)
    assert [one for one in findings if one.verdict is not Verdict.OK] == []


NO = refuses(OSError(errno.ENOSYS, "Function not implemented"))


@pytest.mark.parametrize(
    ("check", "system", "verdict", "said"),
    [
        ("cores", Fake(cores=1), Verdict.WARNING, "take turns"),
        ("kernel", Fake(release="4.19.0-27"), Verdict.WARNING, "5.4"),
        ("Python", Fake(python=("PyPy", (3, 11, 0))), Verdict.WARNING, "CPython"),
        ("packages", Fake(version=None), Verdict.PROBLEM, "pip install 'grpcio>=1.60'"),
        ("packages", Fake(version="1.9.1"), Verdict.PROBLEM, "pip install 'grpcio>=1.60'"),
        ("the core", Fake(try_core=refuses(ImportError("x"))), Verdict.PROBLEM, "no transport"),
        ("pidfd", Fake(try_pidfd=NO), Verdict.WARNING, "sysvmq: cannot be used"),
        ("SO_PEERPIDFD", Fake(try_peer_pidfd=NO), Verdict.WARNING, "another container"),
        ("futex_waitv", Fake(try_futexes=NO), Verdict.WARNING, "eventfd instead"),
        ("sealed memory", Fake(try_memfd=NO), Verdict.PROBLEM, "Unix socket"),
        ("/dev/shm", Fake(writable=False), Verdict.WARNING, "memory=posix"),
        ("/dev/shm", Fake(free=4 << 20), Verdict.WARNING, "room for 1 connections"),
        ("POSIX queues", Fake(try_queue=NO), Verdict.WARNING, "mq: cannot be used"),
        ("POSIX queues", Fake(limit=200_000), Verdict.WARNING, "about 3 connections"),
        ("System V queues", Fake({"/proc/sys/kernel/msgmni": "9"}), Verdict.WARNING, "about 4"),
        ("pipes", Fake({"/proc/sys/fs/pipe-max-size": "65536"}), Verdict.WARNING, "smaller"),
        ("pipes", Fake({"/proc/sys/fs/pipe-user-pages-soft": "512"}), Verdict.WARNING, "8 KiB"),
        ("descriptors", Fake(limit=256), Verdict.WARNING, "ulimit -n"),
        ("loopback", Fake(try_loopback=NO), Verdict.WARNING, "tcp: cannot be used"),
        (
            "runtime directory",
            Fake(runtime_directory=refuses(OSError(1, "it is not yours; remove it"))),
            Verdict.PROBLEM,
            "remove it",
        ),
        ("runtime directory", Fake(writable=False), Verdict.PROBLEM, "is not writable"),
        (
            "runtime directory",
            Fake(runtime_directory=refuses(FileNotFoundError()), writable=False),
            Verdict.PROBLEM,
            "LOCALRPC_RUNTIME_DIR",
        ),
        ("runtime directory", Fake(runtime_directory="/" + "d" * 95), Verdict.WARNING, "shorter"),
    ],
)
def test_a_finding_explains_what_it_means(
    check: str, system: System, verdict: Verdict, said: str
) -> None:
    found = finding(check, system)
    assert found.verdict is verdict
    assert said in f"{found.found}; {found.meaning}; {found.fix}"
    assert found.fix


def test_the_narrowest_quota_above_counts() -> None:
    version_2 = {
        "/proc/self/cgroup": "0::/pod/box",
        "/sys/fs/cgroup/pod/box/cpu.max": "max 100000",
        "/sys/fs/cgroup/pod/cpu.max": "150000 100000",
    }
    found = finding("CPU quota", Fake(version_2))
    assert (found.verdict, found.found) == (Verdict.WARNING, "1.5 of 4 cores")
    version_1 = {
        "/proc/self/cgroup": "3:cpu,cpuacct:/box\n0::/",
        "/sys/fs/cgroup/cpu,cpuacct/box/cpu.cfs_quota_us": "50000",
        "/sys/fs/cgroup/cpu,cpuacct/box/cpu.cfs_period_us": "100000",
    }
    assert finding("CPU quota", Fake(version_1)).found == "0.5 of 4 cores"


def test_a_virtual_machine_is_known_by_its_processor() -> None:
    guest = Fake({"/proc/cpuinfo": "flags\t\t: fpu hypervisor avx2"}, exists=False)
    assert "virtual machine" in finding("virtualization", guest).found
    assert finding("virtualization", Fake(exists=False)).found == "none found"


def test_a_missing_compiler_matters_only_without_a_core() -> None:
    without = Fake(compiler=None)
    assert finding("compiler", without).verdict is Verdict.OK
    without = Fake(compiler=None, try_core=refuses(ImportError("no core")))
    assert finding("compiler", without).verdict is Verdict.PROBLEM


def test_the_pipe_limit_of_users_does_not_apply_to_root() -> None:
    few = {"/proc/sys/fs/pipe-user-pages-soft": "512"}
    assert finding("pipes", Fake(few, is_privileged=True)).verdict is Verdict.OK


def test_an_unlimited_resource_is_not_a_problem() -> None:
    unlimited = Fake(limit=resource.RLIM_INFINITY)
    assert all(one.verdict is Verdict.OK for one in examine(unlimited))


def test_a_check_that_fails_is_a_warning_and_the_others_go_on() -> None:
    findings = {one.name: one for one in examine(Fake(cores=refuses(ValueError("odd"))))}
    assert findings["cores"].verdict is Verdict.WARNING
    assert findings["cores"].meaning == "ValueError: odd"
    assert findings["loopback"].verdict is Verdict.OK


def test_the_exit_code_is_1_for_a_problem_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for system, code in ((Fake(cores=1), 0), (Fake(try_memfd=NO), 1)):
        monkeypatch.setattr(checks, "System", lambda system=system: system)
        done = CliRunner().invoke(doctor, ["--json"])
        assert done.exit_code == code
        assert {one["name"] for one in json.loads(done.stdout)} == set(CHECKS)


def test_the_command_prints_findings_about_this_machine() -> None:
    done = CliRunner().invoke(doctor)
    assert "runtime directory" in done.stdout
    assert not isinstance(done.exception, Exception)
