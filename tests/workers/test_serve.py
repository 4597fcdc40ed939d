"""`localrpc serve`: one target, several worker processes."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from time import monotonic

import grpc
import pytest

import localrpc
from localrpc.workers import processes, supervisor
from localrpc.workers.settings import Settings
from tests.cli.scene import run
from tests.conftest import FULL
from tests.ports import free_port
from tests.workers.served import PATIENCE, Served, ask, children_of, serving, who

SCHEMES = ["shm", "unix", "unix-abstract", "tcp"]


@pytest.fixture(params=SCHEMES)
def target(request: pytest.FixtureRequest, folder: Path) -> str:
    if request.param == "tcp":
        return f"tcp:127.0.0.1:{free_port()}"
    return f"{request.param}:{folder}/s"


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def eventually(condition: Callable[[], bool], what: str) -> None:
    until = monotonic() + PATIENCE
    while not condition():
        assert monotonic() < until, what
        threading.Event().wait(0.01)


# ---- serving, and the end ----


def test_workers_serve_a_target_and_leave_nothing(folder: Path, target: str) -> None:
    """Kludex/uvicorn#852: SIGTERM to the process that starts the workers made it wait forever."""
    with serving(folder, "app:setup", target, workers=2) as served:
        pids = served.workers()
        assert len(pids) == 2
        for _ in range(5):
            pid, version = who(target)
            assert pid in pids
            assert version == "one"
        assert served.stop() == 0
        assert f"serving app:setup on {target}, 2 workers" in served.lines[0]
        assert "SIGTERM: stopping; calls in progress have 30 s" in served.lines[-2]
        assert "stopped" in served.lines[-1]
        assert all(map(gone, pids))
    assert not (folder / "s").exists()
    with localrpc.insecure_channel(target) as channel, pytest.raises(grpc.RpcError) as caught:
        ask(channel)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


@pytest.mark.parametrize(
    "app", ["app:setup", "app:async_setup", "app:Demo", "app:demo", "app:AsyncDemo"]
)
def test_an_application_is_a_function_a_servicer_or_its_class(folder: Path, app: str) -> None:
    target = f"shm:{folder}/s"
    with serving(folder, app, target) as served:
        assert who(target)[0] in served.workers()
        listed = run("list", target)
        assert listed.exit_code == 0, listed.output
        assert "demo.App" in listed.output.split()
        assert run("health", target).output == "SERVING\n"
        assert run("health", target, "demo.App").output == "SERVING\n"
        assert served.stop() == 0


def test_health_and_reflection_can_be_left_out(folder: Path) -> None:
    target = f"unix:{folder}/s"
    with serving(folder, "app:setup", target, "--no-health", "--no-reflection"):
        assert run("health", target).exit_code == 76
        assert run("list", target).exit_code != 0


def test_several_targets_with_their_options_are_served_side_by_side(folder: Path) -> None:
    shm, port = f"shm:{folder}/s", free_port()
    places = [f"{shm}?ring=256k", "tcp:127.0.0.1:0", f"grpc:127.0.0.1:{port}"]
    arguments = [word for place in places for word in ("--target", place)]
    with Served(folder, "app:setup", *arguments) as served:
        chosen = served.until("serving app:setup").split("tcp:127.0.0.1:")[1].split(",")[0]
        (pid,) = served.ready()
        for target in (f"{shm}?ring=256k", f"tcp:127.0.0.1:{chosen}", f"grpc:127.0.0.1:{port}"):
            assert who(target)[0] == pid
        with localrpc.insecure_channel(shm) as channel:  # 1M is more than the server allows
            ask(channel)
            assert channel.facts is not None
            assert "?ring= allows 262144" in str(channel.facts.fell_back)
        assert served.stop() == 0


def test_one_worker_may_serve_what_processes_cannot_share(folder: Path) -> None:
    target = f"file:{folder}/spool"
    with serving(folder, "app:setup", target) as served:
        assert who(target)[0] in served.workers()
        assert served.stop() == 0
    with Served(folder, "app:setup", "--target", target, "--workers", "2") as served:
        assert served.ended() == 1
        assert "file: targets have no socket that several processes can serve" in served.lines[-1]


@pytest.mark.parametrize(
    ("app", "words"),
    [
        ("app", ["'app' is not MODULE:NAME", "greeter:Greeter"]),
        ("nowhere:setup", ["there is no module 'nowhere'", "--app-dir"]),
        ("app:setu", ["has no 'setu'; did you mean 'setup'?"]),
        ("app:a_number", ["'app:a_number' is 5: it has to be a servicer"]),
        ("app:Nothing", ["Nothing is not a servicer", "add_GreeterServicer_to_server()"]),
        ("app:adds_nothing", ["app:adds_nothing has added no service"]),
        ("app:fails", ["Traceback", 'raise ValueError("no configuration")']),
        ("broken:setup", ["Traceback", "broken.py", "SyntaxError"]),
    ],
)
def test_what_cannot_start_ends_with_3_and_leaves_nothing(
    folder: Path, app: str, words: list[str]
) -> None:
    """Kludex/uvicorn#1115: the parent of several workers stayed, without them."""
    (folder / "broken.py").write_text("def setup(:\n")
    workers = "2" if app == "app:fails" else "1"
    with Served(folder, app, "--target", f"shm:{folder}/s", "--workers", workers) as served:
        assert served.ended() == 3
    said = "\n".join(served.lines)
    for word in words:
        assert word in said
    assert "workers/" not in said  # no frames of localrpc's own
    assert "before it was ready" in said
    assert not (folder / "s").exists()


def test_a_program_serves_as_the_command_does(folder: Path) -> None:
    target = f"shm:{folder}/s"
    (folder / "main.py").write_text(
        "import sys, localrpc\n"
        f"sys.exit(localrpc.serve('app:setup', {target!r}, workers=2, grace=1))\n"
    )
    command = [sys.executable, "main.py"]
    process = subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, text=True)
    with localrpc.insecure_channel(target) as channel:
        assert int(ask(channel, wait_for_ready=True).split()[0]) != process.pid
    process.send_signal(signal.SIGHUP)
    before, _ = who(target)
    eventually(lambda: gone(before), "the worker is replaced")
    process.terminate()
    assert process.communicate(timeout=PATIENCE)[1] == ""  # it has set up no log
    assert process.returncode == 0


def test_what_a_program_cannot_serve_raises(folder: Path) -> None:
    with (
        localrpc.testing.serving(target=f"unix:{folder}/s"),
        pytest.raises(localrpc.AddressInUse),
    ):
        localrpc.serve("app:setup", f"unix:{folder}/s", app_dir=str(folder))
    with pytest.raises(localrpc.AddressError):
        localrpc.serve("app:setup", "nothing", app_dir=str(folder))
    with pytest.raises(localrpc.ListenError, match="no target"):
        localrpc.serve("app:setup", app_dir=str(folder))
    with pytest.raises(ValueError, match="main thread"), ThreadPoolExecutor(1) as pool:
        pool.submit(localrpc.serve, "app:setup", f"unix:{folder}/s").result()
    assert not (folder / "s").exists()


def test_a_name_in_use_ends_with_4_and_its_server_serves_on(folder: Path) -> None:
    target = f"shm:{folder}/s"
    with serving(folder, "app:setup", target):
        with Served(
            folder, "app:setup", "--target", f"unix:{folder}/t", "--target", target
        ) as other:
            assert other.ended() == 4
        assert "a live server already listens there" in other.lines[-1]
        assert not (folder / "t").exists()
        who(target)


def test_settings_come_from_the_environment_too(folder: Path) -> None:
    with Served(folder, "app:setup", LOCALRPC_SERVE_TARGETS=f"unix:{folder}/s",
                LOCALRPC_SERVE_WORKERS="2") as served:  # fmt: skip
        served.ready(2)
        who(f"unix:{folder}/s")
        assert served.stop() == 0


def test_the_log_can_be_json(folder: Path) -> None:
    with serving(folder, "app:setup", f"unix:{folder}/s", "--log-json") as served:
        served.stop()
    records = [json.loads(line) for line in served.lines]
    assert {record["logger"] for record in records} == {"localrpc.serve"}
    assert {record["pid"] for record in records} == {served.pid}
    assert [record["level"] for record in records] == ["info"] * len(records)
    assert records[-1]["message"] == "stopped"
    assert records[0]["time"].endswith("Z")


# ---- workers come and go ----


class Load:
    """Calls from steady and from fresh channels, until the end of the block.

    Nearly always a call of each thread is in progress, but a handler that waits in it takes no
    processor time from the workers that start meanwhile.
    """

    def __init__(self, target: str, threads: int = 3) -> None:
        self.target = target
        self.done = 0
        self.failures: list[str] = []
        self.pids: set[int] = set()
        self._end = threading.Event()
        self._some = threading.Semaphore(0)
        self._threads = [threading.Thread(target=self._steady) for _ in range(threads)]
        self._threads.append(threading.Thread(target=self._fresh))

    def _note(self, call: Callable[[], bytes]) -> None:
        try:
            self.pids.add(int(call().split()[0]))
        except grpc.RpcError as error:
            self.failures.append(f"{error.code()}: {error.details()}")
        self.done += 1
        self._some.release()

    def _steady(self) -> None:
        with localrpc.insecure_channel(self.target) as channel:
            while not self._end.is_set():
                self._note(lambda: ask(channel, "who_after_a_moment"))

    def _fresh(self) -> None:
        while not self._end.is_set():
            with localrpc.insecure_channel(self.target) as channel:
                self._note(lambda: ask(channel))
                self._note(lambda: ask(channel, "who_after_a_moment"))

    def wait_for_more(self, calls: int = 200) -> None:
        for _ in range(calls):
            assert self._some.acquire(timeout=PATIENCE)

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        self.wait_for_more()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        for thread in self._threads:
            thread.join()


@pytest.mark.parametrize("target", SCHEMES if FULL else ["shm", "tcp"], indirect=True)
def test_no_call_fails_while_workers_are_replaced_added_and_removed(
    folder: Path, target: str
) -> None:
    with serving(folder, "app:setup", target) as served, Load(target) as load:
        seen = set(served.workers())
        for number, fresh, count in (
            (signal.SIGHUP, 1, 1),
            (signal.SIGTTIN, 1, 2),
            (signal.SIGUSR2, 2, 2),
            (signal.SIGTTOU, 0, 1),
            (signal.SIGHUP, 1, 1),
        ):
            served.signal(number)
            new = served.ready(fresh)
            assert not seen.intersection(new)
            seen.update(new)
            load.wait_for_more()
            while len(served.workers()) != count:
                load.wait_for_more(1)
        load.wait_for_more()
        assert load.failures == []
        assert served.process.poll() is None
    assert load.failures == []
    assert len(load.pids) > 2


def test_new_code_is_loaded_and_broken_code_is_not(folder: Path) -> None:
    target = f"shm:{folder}/s"
    module = folder / "app.py"
    text = module.read_text()
    with serving(folder, "app:setup", target, workers=2) as served, Load(target) as load:
        before = set(served.workers())
        module.write_text("def setup(:\n")
        served.signal(signal.SIGHUP)
        served.until("the replacing stops, and the other workers serve on")
        assert set(served.workers()) == before
        module.write_text(text.replace('b"one"', 'b"two"') + "# longer, or its bytecode serves")
        served.signal(signal.SIGHUP)
        served.ready(2)
        eventually(lambda: before.isdisjoint(served.workers()), "the old workers end")
        assert who(target)[1] == "two"
        load.wait_for_more()
    assert load.failures == []


def test_a_change_of_the_code_reloads_it(folder: Path) -> None:
    """emmett-framework/granian#538: after an error in the code no change was noticed any more."""
    target = f"shm:{folder}/s"
    module = folder / "app.py"
    text = module.read_text()
    module.write_text("def setup(:\n")
    with Served(folder, "app:setup", "--target", target, "--reload") as served:
        served.until("waiting for a change")
        module.write_text(text)
        assert "app.py changed: the workers are replaced" in served.until("changed")
        served.ready()
        module.write_text("def setup(:\n# longer, or its bytecode serves")
        served.until("the other workers serve on")
        assert who(target)[1] == "one"
        module.write_text(text.replace('b"one"', 'b"two"') + "# longer, or its bytecode serves")
        (pid,) = served.ready()
        eventually(lambda: who(target) == (pid, "two"), "the new worker serves")
        assert served.stop() == 0


def test_a_worker_that_grows_is_replaced(folder: Path) -> None:
    target = f"shm:{folder}/s"
    with (folder / "app.py").open("a") as module:
        module.write(
            "from pathlib import Path\n"
            "def grows(server):\n"
            "    global kept\n"
            "    setup(server)\n"
            "    if not Path('grown').exists():\n"
            "        Path('grown').touch()\n"
            "        kept = b'x' * (200 << 20)\n"
        )
    words = ["app:grows", "--target", target, "--max-memory", "150M"]
    with Served(folder, *words) as served:
        (old,) = served.ready()
        assert "MiB of 150" in served.until("worker 1 is replaced: it uses")
        (new,) = served.ready()
        eventually(lambda: gone(old), "it ends")
        assert who(target)[0] == new
        assert served.stop() == 0


def test_a_worker_that_has_had_its_calls_is_replaced(folder: Path) -> None:
    target = f"shm:{folder}/s"
    with serving(folder, "app:setup", target, "--max-requests", "100", workers=2) as served:
        old = served.workers()
        with Load(target) as load:
            said = served.until("is replaced: it has had ")
            assert int(said.rpartition(" has had ")[2].split()[0]) >= 100
            served.ready()
            load.wait_for_more()
        assert load.failures == []
        assert served.workers() != old
        assert served.stop() == 0


HANGS = """
import ctypes

def hang(request, context):
    if request == b"a native function":
        ctypes.PyDLL(None).sleep(1000)  # and keep the GIL
    os.kill(os.getpid(), 19)  # SIGSTOP
    time.sleep(1000)

async def async_hang(request, context):
    time.sleep(1000)

def hangs(server):
    setup(server)
    handlers = {"hang": grpc.unary_unary_rpc_method_handler(hang)}
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("demo.Bad", handlers)])

async def async_hangs(server):
    await async_setup(server)
    handlers = {"hang": grpc.unary_unary_rpc_method_handler(async_hang)}
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("demo.Bad", handlers)])
"""


@pytest.mark.parametrize(
    ("app", "how"),
    [
        ("hangs", "a native function"),
        ("hangs", "SIGSTOP"),
        ("async_hangs", "an event loop"),
    ],
)
def test_a_watchdog_replaces_a_worker_that_hangs(folder: Path, app: str, how: str) -> None:
    target = f"shm:{folder}/s"
    with (folder / "app.py").open("a") as module:
        module.write(HANGS)
    with serving(folder, f"app:{app}", target, "--watchdog", "1") as served:
        (old,) = served.workers()
        with localrpc.insecure_channel(target) as channel:
            hang = channel.unary_unary("/demo.Bad/hang").future(how.encode(), timeout=PATIENCE)
            # The supervisor's lines and the worker's come in any order.
            wanted = [f"worker 1 (pid {old}) hangs: it has run no Python code for 1 s; another"]
            if how == "SIGSTOP":
                wanted.append("worker 1 is killed: it has not written")
            else:
                wanted += ["Fatal Python error: Aborted", f"in {app.removesuffix('s')}"]
            for text in wanted:
                if not any(text in line for line in served.lines):
                    served.until(text)
            assert hang.code() is grpc.StatusCode.UNAVAILABLE
            assert int(ask(channel, wait_for_ready=True).split()[0]) != old
        eventually(lambda: gone(old), "it ends")
        assert served.stop() == 0


def test_programs_of_a_worker_inherit_its_standard_streams_alone(folder: Path) -> None:
    target = f"shm:{folder}/s"
    with serving(folder, "app:setup", target) as served:
        with localrpc.insecure_channel(target) as channel:
            assert ask(channel, "inheritable") == b"[0, 1, 2]"
        assert served.stop() == 0


def test_calls_in_progress_end_before_their_worker(folder: Path) -> None:
    target = f"shm:{folder}/s"
    name = str(folder / "released")
    with serving(folder, "app:setup", target) as served:
        (old,) = served.workers()
        with localrpc.insecure_channel(target) as channel:
            call = channel.unary_unary("/demo.App/until_released")
            future = call.future(name.encode(), timeout=PATIENCE)
            eventually(lambda: os.path.exists(f"{name}.begun"), "the call has begun")
            served.signal(signal.SIGHUP)
            (new,) = served.ready()
            eventually(lambda: who(target)[0] == new, "the new worker serves")
            assert not future.done()
            Path(name).touch()
            assert future.result() == b"%d" % old
        eventually(lambda: gone(old), "it ends")


def test_a_worker_that_is_killed_fails_its_own_calls_and_is_replaced(folder: Path) -> None:
    """emmett-framework/granian#148: it was not replaced, and nothing was logged."""
    target = f"shm:{folder}/s"
    name = str(folder / "never")
    with serving(folder, "app:setup", target, workers=2) as served:
        with localrpc.insecure_channel(target) as channel:
            call = channel.unary_unary("/demo.App/until_released")
            future = call.future(name.encode(), timeout=PATIENCE)
            eventually(lambda: os.path.exists(f"{name}.begun"), "the call has begun")
            victim = int(ask(channel).split()[0])
            os.kill(victim, signal.SIGKILL)
            assert future.code() is grpc.StatusCode.UNAVAILABLE
            assert int(ask(channel, wait_for_ready=True).split()[0]) != victim
        assert "was killed by SIGKILL; another is started" in served.until("SIGKILL")
        assert str(victim) in served.lines[-1]
        served.ready()
        assert served.stop() == 0


def test_a_worker_that_is_terminated_ends_its_calls_first(folder: Path) -> None:
    target = f"shm:{folder}/s"
    with serving(folder, "app:setup", target, workers=2) as served, Load(target) as load:
        for victim in served.workers():
            os.kill(victim, signal.SIGTERM)
            served.until("ends by itself")
            served.ready()
            load.wait_for_more()
    assert load.failures == []


@pytest.fixture
def quick(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A worker's program that is ready at once, and ends at once when it is to."""
    program = folder / "quick.py"
    program.write_text(
        "import os, _socket\n"  # which has a socket, and is imported sooner
        "up = _socket.socket(fileno=int(os.environ['LOCALRPC_CONTROL']))\n"
        "up.recv(1 << 16)\n"
        'up.send(b\'["ready", "0 s"]\')\n'
        "up.recv(1 << 16)\n"
    )
    return program


SUPERVISE = """
import logging, sys
import localrpc.workers.processes
import localrpc
logging.basicConfig(level="INFO", format="%(message)s")
localrpc.workers.processes._WORKER = sys.argv[2]
sys.exit(localrpc.serve("app:setup", sys.argv[1], workers=int(sys.argv[3])))
"""


def supervised(folder: Path, quick: Path, workers: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", SUPERVISE, f"unix:{folder}/s", str(quick), str(workers)]
    process = subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    for line in process.stderr:
        workers -= "is ready" in line
        if not workers:
            break
    return process


def is_replaced(workers: list[int], supervisor: int) -> bool:
    present = children_of(supervisor)
    return bool(present) and set(workers).isdisjoint(present)


@pytest.mark.parametrize("how", ["stop", "kill", "reload"])
def test_many_workers_may_end_at_the_same_time(folder: Path, quick: Path, how: str) -> None:
    """The end of a worker and the signal that tells of it come in either order."""
    for _ in range(5 if FULL else 3):
        process = supervised(folder, quick, 8)
        workers = children_of(process.pid)
        assert len(workers) == 8
        if how == "kill":
            for pid in workers:
                os.kill(pid, signal.SIGKILL)
        elif how == "reload":
            process.send_signal(signal.SIGHUP)
        if how != "stop":
            eventually(partial(is_replaced, workers, process.pid), "others are started")
        process.terminate()
        _, said = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0, said
        assert not (folder / "s").exists()


def test_a_process_that_cannot_be_started_is_tried_again(folder: Path) -> None:
    target = f"shm:{folder}/s"
    interpreter = folder / "python"
    interpreter.symlink_to(sys.executable)
    with serving(folder, "app:setup", target, python=str(interpreter)) as served:
        (old,) = served.workers()
        interpreter.unlink()
        served.signal(signal.SIGHUP)
        assert "the replacing stops" in served.until("could not be started")
        assert who(target)[0] == old
        served.signal(signal.SIGUSR2)
        served.until("a new supervisor cannot start")
        interpreter.symlink_to(sys.executable)
        served.signal(signal.SIGHUP)
        served.ready()
        assert served.stop() == 0


def test_a_new_supervisor_that_hangs_replaces_no_other(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    hangs = folder / "python"
    hangs.write_text("#!/bin/sh\nexec sleep 600\n")
    hangs.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(hangs))
    monkeypatch.setattr(processes, "_TRIAL", 0.1)
    assert not processes.can_start("")
    assert "a new supervisor cannot start" in caplog.text


def test_a_supervisor_without_its_name_watches_no_files(folder: Path) -> None:
    target = f"unix:{folder}/s"
    server = localrpc.server(ThreadPoolExecutor(1))
    server.add_insecure_port(target)
    settings = Settings("app:setup", (target,), reload=True, app_dir=str(folder))
    with pytest.raises(localrpc.AddressInUse):
        supervisor.Supervisor(settings)
    assert not [each for each in threading.enumerate() if each.name == "localrpc-changes"]
    server.stop(None)


def test_a_stop_is_not_lost_by_a_supervisor_that_is_replaced(folder: Path) -> None:
    target = f"shm:{folder}/s"
    for _ in range(3 if FULL else 2):
        with serving(folder, "app:setup", target) as served:
            served.signal(signal.SIGUSR2)
            served.until("takes over")
            served.signal(signal.SIGTERM)
            assert served.ended() == 0


@pytest.mark.parametrize("where", ["import", "handler"])
def test_a_worker_that_hangs_ends_with_its_supervisor(folder: Path, where: str) -> None:
    target = f"shm:{folder}/s"
    (folder / "hangs.py").write_text("import time\nopen('begun', 'w').close()\ntime.sleep(600)\n")
    with (folder / "app.py").open("a") as module:
        module.write("def hangs(request, context):\n    open('begun', 'w').close()\n"
                     "    time.sleep(600)\n"
                     "KINDS['hangs'] = grpc.unary_unary_rpc_method_handler(hangs)\n")  # fmt: skip
    app = "hangs:setup" if where == "import" else "app:setup"
    with Served(folder, app, "--target", target, "--grace", "0.1") as served:
        if where == "handler":
            served.ready()
            channel = localrpc.insecure_channel(target)
            channel.unary_unary("/demo.App/hangs").future(b"")
        eventually(lambda: (folder / "begun").exists(), "it hangs")
        (worker,) = served.workers()
        served.process.kill()
        eventually(lambda: gone(worker), "the worker ends")
        if where == "handler":
            channel.close()
    with serving(folder, "app:setup", target):
        who(target)


def test_a_worker_may_have_many_descriptors(folder: Path) -> None:
    target = f"shm:{folder}/s"
    with (folder / "app.py").open("a") as module:
        module.write(
            "import resource\n"
            "resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096))\n"
            "kept = [open('app.py') for _ in range(1100)]\n"
        )
    with serving(folder, "app:setup", target) as served:
        who(target)
        assert served.stop() == 0


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--target", "shm:a", "--option", "localrpc.allow_users=*"], 1, "closed to other users"),
        (["--target", "shm:a", "--option", "localrpc.window=x"], 2, "localrpc.window"),
        (["--target", "shm:a", "--option", "localrpc.nothing=1"], 2, "localrpc.nothing"),
        (["--target", "shm:a", "--option", "nothing"], 2, "not KEY=VALUE"),
        (["--target", "shm:a", "--grace", "nan"], 2, "grace has to be a number of seconds"),
        (["--target", "shm:a", "--boot-timeout", "inf"], 2, "boot_timeout has to be a number"),
        (["--target", "shm:a", "--max-memory", "much"], 2, "'much' is not a size"),
        (["--target", "grpc:[::1]:0", "--workers", "2"], 1, "each worker would choose another"),
        ([], 2, "Missing option '--target'"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_anything_starts(
    words: list[str], code: int, said: str
) -> None:
    done = run("serve", "app:setup", *words)
    assert done.exit_code == code
    assert said in " ".join(done.output.split())
    assert done.exception is None or isinstance(done.exception, SystemExit)


def test_a_long_grace_is_no_error(folder: Path) -> None:
    words = ["--grace", "3e6", "--boot-timeout", "3e6"]
    with serving(folder, "app:setup", f"shm:{folder}/s", *words) as served:
        assert served.stop() == 0


def test_a_program_keeps_its_own_children(folder: Path) -> None:
    (folder / "main.py").write_text(
        "import subprocess, sys, localrpc\n"
        "child = subprocess.Popen([sys.executable, '-c', 'raise SystemExit(9)'])\n"
        f"localrpc.serve('app:setup', 'unix:{folder}/s')\n"
        "sys.exit(child.wait())\n"
    )
    process = subprocess.Popen([sys.executable, "main.py"], cwd=folder)
    with localrpc.insecure_channel(f"unix:{folder}/s") as channel:
        ask(channel, wait_for_ready=True)
    process.terminate()
    assert process.wait(PATIENCE) == 9


def test_an_application_that_starts_itself_is_refused(folder: Path) -> None:
    with (folder / "app.py").open("a") as module:
        module.write("import localrpc\nlocalrpc.serve('app:setup', 'tcp:127.0.0.1:0')\n")
    with Served(folder, "app:setup", "--target", f"unix:{folder}/s") as served:
        assert served.ended() == 3
    assert "if __name__ == '__main__':" in "\n".join(served.lines)


@pytest.mark.parametrize("app", ["app:setup", "app:async_setup"])
def test_no_worker_outlives_a_supervisor_that_is_killed(folder: Path, app: str) -> None:
    target = f"shm:{folder}/s"
    with serving(folder, app, target, workers=2) as served:
        workers = served.workers()
        with localrpc.insecure_channel(target) as channel:
            ask(channel)
            served.process.kill()
            eventually(lambda: all(map(gone, workers)), "the workers end")
    with serving(folder, app, target) as served:  # the name is free
        who(target)


def test_an_endless_stream_ends_with_the_grace(folder: Path) -> None:
    target = f"shm:{folder}/s"
    with (
        serving(folder, "app:setup", target, "--grace", "0.2") as served,
        localrpc.insecure_channel(target) as channel,
    ):
        stream = channel.unary_stream("/demo.App/ticks")(b"", timeout=PATIENCE)
        assert next(stream) == b"tick"
        assert served.stop() == 0
        with pytest.raises(grpc.RpcError):
            list(stream)
        assert stream.details() == "Cancelling all calls"


def test_a_second_signal_ends_it_at_once(folder: Path) -> None:
    target = f"shm:{folder}/s"
    name = str(folder / "never")
    with serving(folder, "app:setup", target) as served:
        workers = served.workers()
        with localrpc.insecure_channel(target) as channel:
            call = channel.unary_unary("/demo.App/until_released")
            future = call.future(name.encode(), timeout=PATIENCE)
            eventually(lambda: os.path.exists(f"{name}.begun"), "the call has begun")
            served.signal(signal.SIGINT)
            served.until("SIGINT: stopping")
            assert not future.done()
            served.signal(signal.SIGINT)
            assert served.ended() == 128 + signal.SIGINT
            assert future.code() is grpc.StatusCode.UNAVAILABLE
        assert all(map(gone, workers))
    assert not (folder / "s").exists()


def test_workers_ignore_the_terminals_interrupt(folder: Path) -> None:
    """Ctrl-C reaches all processes of a terminal; the supervisor says what the workers do."""
    target = f"shm:{folder}/s"
    with serving(folder, "app:setup", target, workers=2) as served:
        for pid in served.workers():
            os.kill(pid, signal.SIGINT)
        for _ in range(5):
            who(target)
        assert len(served.lines) == 3


def test_a_supervisor_runs_no_grpc_and_no_application(folder: Path) -> None:
    """Kludex/uvicorn#2984: it had a copy of the application in memory, for nothing."""
    with serving(folder, "app:setup", f"shm:{folder}/s") as served:
        assert "cygrpc" not in Path(f"/proc/{served.pid}/maps").read_text()
        assert "cygrpc" in Path(f"/proc/{served.workers()[0]}/maps").read_text()
        threads = [path.read_text() for path in Path(f"/proc/{served.pid}/task").glob("*/comm")]
        assert len(threads) == 2  # one writes the log


# ---- service managers ----


def test_states_are_sent_to_a_service_manager(folder: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(f"{folder}/notify")
        manager.settimeout(PATIENCE)
        with Served(folder, "app:setup", "--target", f"unix:{folder}/s", "--workers", "2",
                    NOTIFY_SOCKET=f"{folder}/notify") as served:  # fmt: skip
            assert manager.recv(1000) == b"READY=1\nSTATUS=2 workers"
            served.ready(2)
            who(f"unix:{folder}/s")
            served.signal(signal.SIGHUP)
            assert manager.recv(1000).startswith(b"RELOADING=1\nMONOTONIC_USEC=")
            assert manager.recv(1000) == b"READY=1\nSTATUS=2 workers"
            assert served.stop() == 0
            assert manager.recv(1000) == b"STOPPING=1"


def test_a_service_manager_that_watches_is_kept_informed(folder: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(f"{folder}/notify")
        manager.settimeout(PATIENCE)
        with Served(folder, "app:setup", "--target", f"unix:{folder}/s", WATCHDOG_USEC="100000",
                    NOTIFY_SOCKET=f"{folder}/notify"):  # fmt: skip
            came = [manager.recv(1000) for _ in range(10)]
    assert came.count(b"WATCHDOG=1") >= 9


def test_sockets_of_a_service_manager_are_served_by_all_workers(folder: Path) -> None:
    """benoitc/gunicorn#3430: with systemd's sockets `ps` did not show what a process serves."""
    script = """
import os, sys
os.dup2(int(sys.argv[1]), 3, inheritable=True)
os.environ.update(LISTEN_FDS="1", LISTEN_PID=str(os.getpid()))
os.execv(sys.executable, [sys.executable, "-m", "localrpc", "serve", *sys.argv[2:]])
"""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(f"{folder}/s")
        sock.listen()
        words = ["app:setup", "--target", "fd:3", "--workers", "2"]
        process = subprocess.Popen(
            [sys.executable, "-c", script, str(sock.fileno()), *words],
            cwd=folder,
            stderr=subprocess.PIPE,
            pass_fds=[sock.fileno()],
            text=True,
        )
        pids = {who(f"shm:{folder}/s")[0] for _ in range(3)}
        for pid in {process.pid, *pids}:
            words = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
            assert {"app:setup", "fd:3"}.issubset(words)
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0, said
        assert "serving app:setup on fd:3, 2 workers" in said
        assert process.pid not in pids
    assert (folder / "s").exists()
