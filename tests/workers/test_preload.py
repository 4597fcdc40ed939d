"""`localrpc serve --preload`: one process loads the application, and forks the workers."""

from __future__ import annotations

import ast
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

import localrpc
from localrpc.observe import process
from localrpc.workers import control, forking
from tests.ports import free_port
from tests.workers.served import APP, PATIENCE, Served, ask, serving, who
from tests.workers.test_serve import HANGS, Load, eventually, gone

PRELOADED = """
import random, threading
open("imports", "a").write(f"{os.getpid()}\\n")
BIG = bytearray(os.urandom(1 << 20) * 32)
FORKS = []
os.register_at_fork(
    before=lambda: FORKS.append("before"), after_in_child=lambda: FORKS.append(os.getpid())
)
MODULES = set()
os.register_at_fork(after_in_child=lambda: MODULES.update(sys.modules))

def evaluate(request, context):
    return repr(eval(request, globals())).encode()

KINDS["evaluate"] = grpc.unary_unary_rpc_method_handler(evaluate)
"""
NUMBERS = (1, 2)
"""Of the workers."""


class Preloaded:
    """Two workers, and the process that has forked them."""

    def __init__(self, folder: Path, served: Served, preloader: int, others: str) -> None:
        self.folder = folder
        self.served = served
        self.preloader = preloader
        self.others = others
        """The target that grpcio serves."""

    def evaluate(self, number: int, expression: str) -> Any:
        """What it is in this worker."""
        with localrpc.insecure_channel(f"shm:{self.folder}/s.{number}") as channel:
            return ast.literal_eval(ask(channel, "evaluate", expression.encode()).decode())

    def pid(self, number: int) -> int:
        return int(self.evaluate(number, "os.getpid()"))


def loaded(served: Served) -> int:
    """The pid of the next preloader that has loaded the application."""
    return int(served.until(" is loaded (pid ").split("(pid ")[1].split(",")[0])


@pytest.fixture(scope="module")
def preloaded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Preloaded]:
    folder = tmp_path_factory.mktemp("preloaded")
    (folder / "app.py").write_text(APP + PRELOADED)
    others = f"grpc:127.0.0.1:{free_port()}"
    words = ["--target", f"shm:{folder}/s", "--target", others, "--workers", "2"]
    with Served(folder, "app:setup", *words, "--preload") as served:
        preloader = loaded(served)
        served.ready(2)
        yield Preloaded(folder, served, preloader, others)
        assert served.stop() == 0


# ---- what workers have from the preloader, and what they do not ----


def test_the_application_is_imported_once(preloaded: Preloaded) -> None:
    assert (preloaded.folder / "imports").read_text() == f"{preloaded.preloader}\n"
    (one, other) = (preloaded.evaluate(number, "id(BIG), hash('a')") for number in NUMBERS)
    assert one == other


def test_workers_share_the_memory_of_what_was_imported(preloaded: Preloaded) -> None:
    for number in NUMBERS:
        sizes = {}
        for line in Path(f"/proc/{preloaded.pid(number)}/smaps_rollup").read_text().splitlines():
            key, _, rest = line.partition(":")
            sizes[key] = rest.split()
        assert int(sizes["Rss"][0]) > 32 << 10  # KiB
        assert int(sizes["Private_Dirty"][0]) < 24 << 10


def test_workers_are_children_of_the_supervisor(preloaded: Preloaded) -> None:
    pids = [preloaded.pid(number) for number in NUMBERS]
    assert sorted(preloaded.served.workers()) == sorted([preloaded.preloader, *pids])


def sockets(pid: int) -> set[str]:
    links = []
    for path in Path(f"/proc/{pid}/fd").iterdir():
        try:
            links.append(os.readlink(path))
        except FileNotFoundError:  # of a connection that has ended
            pass
    return {link for link in links if link.startswith("socket:")}


def test_a_worker_has_no_sockets_of_the_preloader_or_of_its_siblings(preloaded: Preloaded) -> None:
    one, other = (sockets(preloaded.pid(number)) for number in NUMBERS)
    own = sockets(preloaded.preloader)
    assert len(own) == 1
    assert not own & (one | other)
    assert len(one & other) == 1  # where they listen together
    assert one & other <= sockets(preloaded.served.pid)


def test_a_worker_has_its_own_page_of_counts(preloaded: Preloaded) -> None:
    for number in NUMBERS:
        before = preloaded.pid(number)
        found = process(before)
        assert found is not None
        assert found.pid == before
        (begun,) = [each.counts.begun for each in found.page.endpoints if each.role == "server"]
        preloaded.evaluate(number, "0")
        found = process(before)
        assert found is not None
        assert [each.counts.begun for each in found.page.endpoints if each.role == "server"] == [
            begun + 1
        ]
    assert process(preloaded.preloader) is None


def test_functions_of_the_application_at_forks_run_once_in_each_worker(
    preloaded: Preloaded,
) -> None:
    for number in NUMBERS:
        assert preloaded.evaluate(number, "FORKS") == ["before", preloaded.pid(number)]


def test_a_worker_has_its_own_random_numbers(preloaded: Preloaded) -> None:
    one, other = (preloaded.evaluate(number, "random.random()") for number in NUMBERS)
    assert one != other


def test_a_worker_has_imported_nothing_more_of_localrpc(preloaded: Preloaded) -> None:
    """What it would import after the fork, it would not share, and would make its start slow."""
    for number in NUMBERS:
        late = preloaded.evaluate(number, "sorted(set(sys.modules) - MODULES)")
        assert [name for name in late if name.startswith("localrpc.")] == []


def test_a_worker_has_the_signals_and_the_log_of_one_that_loads_the_application_itself(
    preloaded: Preloaded, tmp_path: Path
) -> None:
    (tmp_path / "app.py").write_text(APP + PRELOADED)
    with serving(tmp_path, "app:setup", f"shm:{tmp_path}/s") as served:
        itself = Preloaded(tmp_path, served, 0, "")
        states = []
        for each in (itself, preloaded):
            lines = Path(f"/proc/{each.pid(1)}/status").read_text().splitlines()
            state = [line for line in lines if line[:6] in ("SigBlk", "SigIgn", "SigCgt")]
            log = "[str(each) for each in __import__('logging').getLogger().handlers]"
            states.append((state, each.evaluate(1, log)))
        assert states[0] == states[1]


def test_what_grpcio_serves_is_preloaded_too(preloaded: Preloaded) -> None:
    assert who(preloaded.others)[0] in [preloaded.pid(number) for number in NUMBERS]


# ---- new code ----


def test_no_call_fails_while_preloaded_workers_are_replaced(folder: Path) -> None:
    target = f"shm:{folder}/s"
    module = folder / "app.py"
    text = module.read_text() + "sys.stdout = open('printed', 'a')\nprint('imported')\n"
    module.write_text(text)
    with Served(folder, "app:setup", "--target", target, "--workers", "2", "--preload") as served:
        first = loaded(served)
        seen = {first, *served.ready(2)}
        with Load(target) as load:
            module.write_text(text.replace('b"one"', 'b"two"') + "# longer, or its bytecode serves")
            for number in (signal.SIGHUP, signal.SIGUSR2):
                served.signal(number)
                preloader = loaded(served)
                new = {preloader, *served.ready(2)}
                assert not seen & new
                eventually(lambda: set(served.workers()) == new, "the others end")  # noqa: B023
                seen |= new
                assert who(target)[1] == "two"
                load.wait_for_more()
        assert load.failures == []
        assert served.stop() == 0
        assert all(map(gone, seen))
    assert (folder / "printed").read_text() == "imported\n" * 3


def test_preloaded_workers_with_an_event_loop_are_replaced_when_they_are_spent(
    folder: Path,
) -> None:
    target = f"shm:{folder}/s"
    words = ["--target", target, "--preload", "--max-requests", "100"]
    with Served(folder, "app:async_setup", *words) as served:
        preloader = loaded(served)
        (old,) = served.ready()
        with Load(target, threads=1) as load:
            served.until("worker 1 is replaced: it has had ")
            served.ready()
            eventually(lambda: gone(old), "it ends")
        assert load.failures == []
        assert preloader in served.workers()
        assert served.stop() == 0


@pytest.mark.parametrize("broken", ["def setup(:\n", "def setup(server):\n    raise ValueError\n"])
def test_code_that_fails_is_not_that_of_later_workers(folder: Path, broken: str) -> None:
    target = f"shm:{folder}/s"
    module = folder / "app.py"
    text = module.read_text()
    with Served(folder, "app:setup", "--target", target, "--preload") as served:
        preloader = loaded(served)
        (worker,) = served.ready()
        module.write_text(broken + "# longer, or its bytecode serves")
        served.signal(signal.SIGHUP)
        served.until("the replacing stops, and the other workers serve on")
        eventually(lambda: {*served.workers()} == {preloader, worker}, "the new ones end")
        os.kill(worker, signal.SIGKILL)
        (worker,) = served.ready()
        assert who(target) == (worker, "one")
        module.write_text(text.replace('b"one"', 'b"two"') + "# longer, or its bytecode serves")
        served.signal(signal.SIGHUP)
        (worker,) = served.ready()
        eventually(lambda: who(target) == (worker, "two"), "the new worker serves")
        assert served.stop() == 0


def test_an_application_that_cannot_be_loaded_waits_for_a_change_or_ends(folder: Path) -> None:
    target = f"shm:{folder}/s"
    module = folder / "app.py"
    text = module.read_text()
    module.write_text("def setup(:\n")
    words = ["app:setup", "--target", target, "--preload"]
    with Served(folder, *words) as served:
        assert served.ended() == 3
        said = "\n".join(served.lines)
        for each in ("the preloader cannot load app:setup: Traceback", "app.py", "SyntaxError",
                     "ended with exit code 1 before it had loaded the application"):  # fmt: skip
            assert each in said
        assert "workers/" not in said
    with Served(folder, *words, "--reload") as served:
        served.until("waiting for a change")
        module.write_text(text)
        served.ready()
        who(target)
        assert served.stop() == 0


# ---- the ends of processes ----


def test_a_preloader_that_is_killed_is_replaced_for_the_next_worker(folder: Path) -> None:
    target = f"shm:{folder}/s"
    with Served(folder, "app:setup", "--target", target, "--preload") as served:
        preloader = loaded(served)
        (worker,) = served.ready()
        os.kill(preloader, signal.SIGKILL)
        served.until(f"the preloader (pid {preloader}) was killed by SIGKILL; another is started")
        assert who(target)[0] == worker
        served.signal(signal.SIGTTIN)
        another = loaded(served)
        (second,) = served.ready()
        assert sorted(served.workers()) == sorted([another, worker, second])
        assert served.stop() == 0


def test_a_worker_that_its_preloader_cannot_fork_is_a_failure(folder: Path) -> None:
    with (folder / "app.py").open("a") as module:
        module.write(
            "def dies():\n"
            "    if os.path.exists('dies'):\n"
            "        os.remove('dies')\n"
            "        os._exit(9)\n"
            "os.register_at_fork(before=dies)\n"
        )
    with Served(folder, "app:setup", "--target", f"shm:{folder}/s", "--preload") as served:
        served.ready()
        (folder / "dies").touch()
        served.signal(signal.SIGTTIN)
        served.until("the preloader cannot fork a worker: ")
        served.until("worker 2 could not be forked by the preloader before it was ready; another")
        served.ready()
        assert served.stop() == 0


def test_a_killed_supervisor_leaves_no_preloader_and_workers_end_after_their_calls(
    folder: Path,
) -> None:
    target = f"shm:{folder}/s"
    name = folder / "released"
    with Served(folder, "app:setup", "--target", target, "--preload") as served:
        preloader = loaded(served)
        (worker,) = served.ready()
        with localrpc.insecure_channel(target) as channel:
            call = channel.unary_unary("/demo.App/until_released")
            future = call.future(str(name).encode(), timeout=PATIENCE)
            eventually(name.with_suffix(".begun").exists, "the call has begun")
            served.process.kill()
            eventually(lambda: gone(preloader), "the preloader ends")
            name.touch()
            assert int(future.result()) == worker
        eventually(lambda: gone(worker), "the worker ends")


def test_a_preloader_that_hangs_ends_with_its_supervisor(folder: Path) -> None:
    (folder / "app.py").write_text(
        "import ctypes\nopen('begun', 'w').close()\nctypes.PyDLL(None).sleep(600)  # with the GIL\n"
    )
    with Served(folder, "app:setup", "--target", f"shm:{folder}/s", "--preload") as served:
        eventually((folder / "begun").exists, "it hangs")
        (preloader,) = served.workers()
        served.process.kill()
        eventually(lambda: gone(preloader), "the preloader ends")


@pytest.mark.parametrize("where", ["before", "after_in_child"])
def test_a_stop_ends_a_worker_that_hangs_while_it_is_forked(folder: Path, where: str) -> None:
    with (folder / "app.py").open("a") as module:
        module.write(
            "def hangs():\n"
            "    if os.path.exists('hang'):\n"
            "        open('hanging', 'w').write(str(os.getpid()))\n"
            "        os.rename('hanging', 'hangs')\n"
            "        time.sleep(600)\n"
            f"os.register_at_fork({where}=hangs)\n"
        )
    with Served(folder, "app:setup", "--target", f"shm:{folder}/s", "--preload") as served:
        served.ready()
        (folder / "hang").touch()
        served.signal(signal.SIGTTIN)
        eventually((folder / "hangs").exists, "it hangs")
        pid = int((folder / "hangs").read_text())
        assert served.stop() == 0
        eventually(lambda: gone(pid), "it ends")


def test_a_watchdog_replaces_a_forked_worker_that_hangs(folder: Path) -> None:
    target = f"shm:{folder}/s"
    with (folder / "app.py").open("a") as module:
        module.write(HANGS)
    words = ["--target", target, "--preload", "--watchdog", "2"]
    with Served(folder, "app:hangs", *words) as served:
        (old,) = served.ready()
        with localrpc.insecure_channel(target) as channel:
            hang = channel.unary_unary("/demo.Bad/hang")
            future = hang.future(b"a native function", timeout=PATIENCE)
            served.until("Fatal Python error: Aborted")
            assert "hang" in served.until('app.py", line ')
            assert future.code() is grpc.StatusCode.UNAVAILABLE
            assert int(ask(channel, wait_for_ready=True).split()[0]) != old
        assert served.stop() == 0


# ---- threads, orphans, descriptors ----


def test_threads_that_importing_starts_are_named_in_a_warning(folder: Path) -> None:
    target = f"shm:{folder}/s"
    with (folder / "app.py").open("a") as module:
        module.write(
            "import ctypes, threading\n"
            "def poll():\n"
            "    ctypes.CDLL(None).prctl(15, b'native')  # PR_SET_NAME\n"
            "    threading.Event().wait()\n"
            "threading.Thread(target=poll, name='poller', daemon=True).start()\n"
        )
    with Served(folder, "app:setup", "--target", target, "--workers", "2", "--preload") as served:
        said = served.until("WARNING")
        assert "importing app:setup has started threads, which workers do not have" in said
        assert ": poller; start them in the function" in said
        workers = served.ready(2)
        assert who(target)[0] in workers
        assert served.stop() == 0
    assert len([line for line in served.lines if "WARNING" in line]) == 1


def test_orphans_are_adopted_only_while_a_worker_is_forked_and_are_reaped(folder: Path) -> None:
    target = f"shm:{folder}/s"
    for name in ("adopted", "later"):
        os.mkfifo(folder / name)
    with (folder / "app.py").open("a") as module:
        module.write(
            "import subprocess\n"
            "def leave(name):\n"
            "    command = f'(read line; exit 3) > /dev/null < {name} & echo $!'\n"
            "    done = subprocess.run(['sh', '-c', command], stdout=-1, check=True)\n"
            "    return done.stdout\n"
            "def leaves(request, context):\n"
            "    return leave('later')\n"
            "KINDS['leaves'] = grpc.unary_unary_rpc_method_handler(leaves)\n"
            "def hold():\n"
            "    if os.path.exists('held'):\n"
            "        leave('adopted')\n"
            "        while os.path.exists('held'):\n"
            "            time.sleep(0.005)\n"
            "os.register_at_fork(after_in_child=hold)\n"
        )
    with Served(folder, "app:setup", "--target", target, "--preload") as served:
        served.ready()
        before = set(served.workers())
        (folder / "held").touch()
        served.signal(signal.SIGTTIN)
        # The next worker is one of them, and the orphan the other.
        eventually(lambda: len({*served.workers()} - before) == 2, "both are adopted")
        (folder / "held").unlink()
        (worker,) = served.ready()
        with localrpc.insecure_channel(target) as channel:
            later = int(ask(channel, "leaves"))
        assert later not in served.workers()
        (folder / "adopted").write_text("line\n")
        eventually(lambda: {*served.workers()} == before | {worker}, "it is reaped")
        (folder / "later").write_text("line\n")
        assert served.stop() == 0
    assert not [line for line in served.lines if "ERROR" in line]


def test_a_program_that_preloads_keeps_its_own_children(folder: Path) -> None:
    (folder / "main.py").write_text(
        "import subprocess, sys, localrpc\n"
        "from localrpc.workers import forking\n"
        "child = subprocess.Popen([sys.executable, '-c', 'raise SystemExit(9)'])\n"
        f"localrpc.serve('app:setup', 'unix:{folder}/s', preload=True)\n"
        "sys.exit(child.wait() + forking.is_subreaper())\n"
    )
    process = subprocess.Popen([sys.executable, "main.py"], cwd=folder)
    with localrpc.insecure_channel(f"unix:{folder}/s") as channel:
        ask(channel, wait_for_ready=True)
    process.terminate()
    assert process.wait(PATIENCE) == 9


def test_a_process_is_a_subreaper_while_it_says_so() -> None:
    assert not forking.is_subreaper()
    forking.set_subreaper(True)
    try:
        assert forking.is_subreaper()
    finally:
        forking.set_subreaper(False)
    assert not forking.is_subreaper()


def test_more_descriptors_than_a_packet_takes_come_with_a_job() -> None:
    ours, theirs = control.pair()
    sent = [os.open(os.devnull, os.O_RDONLY) for _ in range(600)]
    targets = tuple(f"fd:{fd}?ring={fd}" for fd in sent)
    try:
        ours.send_job(control.Job(7, b"{}", (*targets, "grpc:a"), "g"), sent)
        job = theirs.receive_job()
        assert job is not None
        assert job[:2] == (7, b"{}")
        *came, last = job.targets
        assert last == "grpc:a"
        received = [int(target.partition("?")[0].removeprefix("fd:")) for target in came]
        assert [each.partition("?")[2] for each in came] == [f"ring={fd}" for fd in sent]
        assert set(sent).isdisjoint(received)
        for fd in received:
            assert not os.get_inheritable(fd)
            os.close(fd)
    finally:
        for fd in sent:
            os.close(fd)
        ours.close()
        theirs.close()


def test_a_preloader_is_sent_its_worker_and_notices_the_end() -> None:
    ours, theirs = control.pair()
    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with one, other:
        ours.send_worker(control.Control(other))
        assert not theirs.has_ended()
        ours.close()
        assert theirs.has_ended()
        worker = theirs.receive_worker()
        assert worker is not None
        worker.send_report(control.Report(control.Event.FORKED, "5"))
        assert one.recv(100) == b'["forked", "5"]'
        worker.close()
        assert theirs.receive_worker() is None
    theirs.close()
