"""Channels to children: which process gets their descriptors, and how each side ends."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc
import pytest

import localrpc
from localrpc._core import links
from localrpc.errors import ListenError
from localrpc.transports import inherited
from tests.gc.heap import uncollected
from tests.peers.interpreters import Interpreter, fork_server

from .house import PATIENCE, await_that

Code = grpc.StatusCode
TARGETS = {"pipe": "pipe:", "unix": "unix:", "shm": "shm:"}
over_each = pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
ROOT = Path(__file__).parents[2]

PROGRAM = """
import os, signal, subprocess, sys
from concurrent import futures
import grpc, localrpc

def handler(answer):
    return grpc.unary_unary_rpc_method_handler(lambda request, context: answer(request, context))

def run(request, context):
    return subprocess.run(request.decode(), shell=True, stdout=subprocess.PIPE).stdout

def show(request, context):
    words = request.decode()
    print("print", words, flush=True)
    os.write(1, b"write " + request + b"\\n")
    subprocess.run(["echo", "echo", words])
    return words.encode()

server = localrpc.server(futures.ThreadPoolExecutor(4))
server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("s", {
    "pid": handler(lambda request, context: b"%d" % os.getpid()),
    "parent": handler(lambda request, context: b"%d" % localrpc.peer_credentials(context).pid),
    "variable": handler(lambda request, context: os.environ.get(request.decode(), "").encode()),
    "folder": handler(lambda request, context: os.getcwd().encode()),
    "run": handler(run),
    "show": handler(show),
    "exit": handler(lambda request, context: os._exit(int(request))),
}),))
server.add_insecure_port("pipe:")
server.start()
"""
SERVE = PROGRAM + "server.wait_for_termination()"
STUBBORN = (
    PROGRAM
    + """
signal.signal(signal.SIGTERM, signal.SIG_IGN)
while True:
    signal.pause()
"""
)


def program(script: str = SERVE) -> list[str]:
    return [sys.executable, "-c", script]


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


@pytest.fixture(autouse=True)
def files_before() -> Iterator[Counter[str]]:
    """Of this process; at the end nothing more is left, and no child or zombie."""
    fork_server()  # for the parents below
    before = files_of(os.getpid()), offspring()

    def no_more() -> bool:
        return files_of(os.getpid()) <= before[0] and offspring() <= before[1]

    yield before[0]
    if not no_more():
        gc.collect()
        await_that(no_more, f"the end of everything but {before}")


def files_of(pid: int) -> Counter[str]:
    """What its descriptors refer to."""
    found: Counter[str] = Counter()
    for number in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(FileNotFoundError):
            found[os.readlink(f"/proc/{pid}/fd/{number}")] += 1
    return found


def ways_of(pid: int) -> set[str]:
    """Its pipes and sockets."""
    return {link for link in files_of(pid) if link.startswith(("pipe:", "socket:"))}


def offspring() -> set[str]:
    """Children of this process, zombies too."""
    found: set[str] = set()
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(FileNotFoundError):
            found |= set((task / "children").read_text().split())
    return found


def exists(pid: int) -> bool:
    """Return True if that process exists and is not a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def ask(channel: Any, method: str, request: bytes = b"") -> bytes:
    answer: bytes = channel.unary_unary(f"/s/{method}")(request, timeout=PATIENCE)
    return answer


def refusal(call: Callable[[], object]) -> Any:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return caught.value


def answers(server: grpc.Server) -> None:
    """What a forked child serves."""

    def handler(answer: Callable[[bytes, Any], bytes]) -> Any:
        return grpc.unary_unary_rpc_method_handler(answer)

    def parent(request: bytes, context: Any) -> bytes:
        return b"%d" % localrpc.peer_credentials(context).pid

    def leave(request: bytes, context: Any) -> bytes:
        os._exit(int(request))

    def hold(request: bytes, context: Any) -> bytes:
        threading.Event().wait()
        return b""

    methods = {
        "pid": handler(lambda request, context: b"%d" % os.getpid()),
        "parent": handler(parent),
        "threads": handler(lambda request, context: b"%d" % threading.active_count()),
        "exit": handler(leave),
        "hold": handler(hold),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("s", methods),))


# ---- programs ----


FACTS = {
    "pipe:": localrpc.ConnectionFacts("pipe", "pipe"),
    "unix:": localrpc.ConnectionFacts("unix", "socket"),
    "shm:": localrpc.ConnectionFacts("shm", "eventfd", None, 1 << 20, "memfd"),
}


@over_each
def test_a_program_serves_its_parent_and_prints(
    target: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with localrpc.spawn_channel(program(), target=target) as channel:
        assert int(ask(channel, "pid")) == channel.pid
        assert int(ask(channel, "parent")) == os.getpid()
        assert channel.facts == FACTS[target]
        session = channel._connector.peek()
        assert session is not None
        assert session.connection.peer[:2] == (channel.pid, os.geteuid())
        words = b"words " * 1000
        assert ask(channel, "show", words) == words
    assert channel.wait(0) == 0
    said = [f"{how} {words.decode()}" for how in ("print", "write", "echo")]
    assert capfd.readouterr().out.splitlines() == said


def test_a_missing_program_leaves_nothing() -> None:
    with pytest.raises(FileNotFoundError):
        localrpc.spawn_channel(["/nowhere/at/all"])


def test_a_missing_folder_leaves_nothing() -> None:
    with pytest.raises(FileNotFoundError):
        localrpc.spawn_channel(program(), cwd="/nowhere/at/all")


@pytest.mark.parametrize("script", ["raise SystemExit(3)", "import os; os._exit(3)"])
def test_a_program_that_ends_at_once_is_unavailable_with_its_status(script: str) -> None:
    with localrpc.spawn_channel(program(script)) as channel:
        error = refusal(lambda: ask(channel, "pid"))
        assert error.code() is Code.UNAVAILABLE
        assert "it ended with exit status 3" in error.details()
        assert f"the child process {channel.pid}" in error.details()
    assert channel.wait(0) == 3


def test_a_program_that_is_killed_is_unavailable_with_its_signal() -> None:
    with localrpc.spawn_channel(program()) as channel:
        ask(channel, "pid")
        os.kill(channel.pid, signal.SIGKILL)
        assert channel.wait(PATIENCE) == -signal.SIGKILL
        error = refusal(lambda: ask(channel, "pid"))
        assert error.code() is Code.UNAVAILABLE
        assert "it was killed by SIGKILL" in error.details()


def test_a_program_that_leaves_in_a_call_is_unavailable_then_and_later() -> None:
    with localrpc.spawn_channel(program()) as channel:
        assert refusal(lambda: ask(channel, "exit", b"5")).code() is Code.UNAVAILABLE
        error = refusal(lambda: ask(channel, "pid"))
        assert error.code() is Code.UNAVAILABLE
        assert "it ended with exit status 5" in error.details()


@over_each
def test_a_program_that_never_serves_is_given_up_by_the_deadline(target: str) -> None:
    sleep = ["sleep", "60"]
    with localrpc.spawn_channel(sleep, target=target, grace=0.05) as channel:
        error = refusal(lambda: channel.unary_unary("/s/pid")(b"", timeout=0.05))
        assert error.code() is Code.DEADLINE_EXCEEDED
        options = (("localrpc.connect_timeout_ms", 50),)
        with localrpc.spawn_channel(sleep, options, target=target, grace=0) as other:
            error = refusal(lambda: other.unary_unary("/s/pid")(b""))
            assert error.code() is Code.UNAVAILABLE
            assert f"the child {other.pid} has not answered yet" in error.details()
    assert channel.wait(0) == -signal.SIGTERM


def test_a_program_with_another_protocol_is_reported() -> None:
    script = """
import os
rx, tx, keep = map(int, os.environ["LOCALRPC_PIPE"].split(","))
os.write(tx, b"HTTP/1.1 200 OK" * 9)
while os.read(rx, 4096):
    pass
"""
    with localrpc.spawn_channel(program(script)) as channel:
        error = refusal(lambda: ask(channel, "pid"))
        assert error.code() is Code.UNAVAILABLE
        assert "exit status 0" in error.details() or "HTTP/1" in error.details()


def test_a_shell_may_stand_in_between() -> None:
    script = '"$0" -c "$1"; echo over >&2; exit 7'
    with localrpc.spawn_channel(["sh", "-c", script, sys.executable, SERVE]) as channel:
        pid = int(ask(channel, "pid"))
        assert pid != channel.pid
        assert int(ask(channel, "parent")) == os.getpid()
    assert channel.wait(0) == 7
    assert not exists(pid)


def test_the_death_of_a_server_started_by_a_shell_is_noticed() -> None:
    with localrpc.spawn_channel(["sh", "-c", '"$0" -c "$1"', sys.executable, SERVE]) as channel:
        os.kill(int(ask(channel, "pid")), signal.SIGKILL)
        error = refusal(lambda: ask(channel, "pid"))
        assert error.code() is Code.UNAVAILABLE
        assert channel.wait(PATIENCE) == 128 + signal.SIGKILL


def test_environment_and_folder_are_the_callers_choice(tmp_path: Path) -> None:
    environment = {"PYTHONPATH": str(ROOT), "MINE": "yes"}
    with localrpc.spawn_channel(program(), env=environment, cwd=str(tmp_path)) as channel:
        assert ask(channel, "variable", b"MINE") == b"yes"
        assert ask(channel, "variable", b"HOME") == b""
        assert ask(channel, "folder") == os.fsencode(tmp_path)
    assert inherited.ENVIRONMENT not in environment


def test_a_grandchild_gets_neither_the_descriptors_nor_the_variables() -> None:
    look = b"ls -l /proc/self/fd | grep -cE 'pipe:|socket:'; env | grep -c LOCALRPC_; true"
    tail: Any = {"stderr": "tail", "grace": 20}
    with localrpc.spawn_channel(program(), target="unix:", **tail) as channel:
        # ls has as its output the pipe to grep; sh's own is the one to its parent.
        alone = subprocess.run(look, shell=True, stdout=subprocess.PIPE).stdout.split()
        pipe_for_stderr, variables = 1, len([name for name in os.environ if "LOCALRPC_" in name])
        inside = list(map(int, ask(channel, "run", look).split()))
        assert inside == [int(alone[0]) + pipe_for_stderr, variables]


def test_siblings_do_not_hold_each_others_ends(files_before: Counter[str]) -> None:
    with contextlib.ExitStack() as stack:
        channels = [stack.enter_context(localrpc.spawn_channel(program())) for _ in range(2)]
        pids = [int(ask(channel, "pid")) for channel in channels]
        assert_only_their_own(pids, files_before)


def assert_only_their_own(pids: list[int], files_before: Counter[str]) -> None:
    """Of our pipes each has two, and no process has another's; our sockets have other inodes."""
    ours = ways_of(os.getpid()) - set(files_before)
    held = [ways_of(pid) & ours for pid in pids]
    pipes = any(way.startswith("pipe:") for way in ours)
    assert ours
    assert [len(each) for each in held] == [2 * pipes] * len(pids)
    assert len(set().union(*held)) == 2 * pipes * len(pids)


@over_each
def test_children_started_on_many_threads_hold_only_their_own_ends(
    target: str, files_before: Counter[str]
) -> None:
    def start(_: int) -> localrpc.ChildChannel:
        return localrpc.fork_channel(answers, target=target)

    with futures.ThreadPoolExecutor(4) as pool:
        channels = list(pool.map(start, range(6)))
        pids = list(pool.map(lambda channel: int(ask(channel, "pid")), channels))
    assert pids == [channel.pid for channel in channels]
    assert_only_their_own(pids, files_before)
    for channel in channels:
        channel.close()
        assert channel.wait(0) == 0


@over_each
def test_a_child_holds_no_end_of_a_link_that_is_opened_meanwhile(
    target: str, files_before: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A link on a socket has two descriptors of it, one of which is new."""
    parent, opened, go_on = os.getpid(), threading.Event(), threading.Event()
    open_stream, open_ring, open_pipe = links.open_stream, links.open_ring, links.open_pipe

    def then_wait(make: Callable[..., Any]) -> Callable[..., Any]:
        def made(**named: Any) -> Any:
            link = make(**named)
            if os.getpid() == parent and not opened.is_set():
                opened.set()
                assert go_on.wait(PATIENCE)
            return link

        return made

    for make in (open_stream, open_ring, open_pipe):
        monkeypatch.setattr(links, make.__name__, then_wait(make))
    with localrpc.fork_channel(answers, target=target) as first:
        assert opened.wait(PATIENCE)
        ours = ways_of(os.getpid()) - set(files_before)
        assert ours
        with localrpc.fork_channel(answers, target=target) as second:
            assert int(ask(second, "pid")) == second.pid
            assert ways_of(second.pid) & ours == set()
            go_on.set()
        assert int(ask(first, "pid")) == first.pid


def test_a_child_that_ignores_sigterm_is_killed() -> None:
    channel = localrpc.spawn_channel(program(STUBBORN), grace=0.1)
    ask(channel, "pid")
    channel.close()
    assert channel.wait(0) == -signal.SIGKILL


def test_waiting_has_a_timeout() -> None:
    with localrpc.spawn_channel(program()) as channel:
        with pytest.raises(TimeoutError, match=f"{channel.pid} is still running after 0.01 s"):
            channel.wait(0.01)
        assert int(ask(channel, "pid")) == channel.pid


def test_closing_twice_is_closing() -> None:
    channel = localrpc.spawn_channel(program())
    channel.close()
    channel.close()
    with pytest.raises(ValueError, match="closed channel"):
        ask(channel, "pid")


def test_a_closed_channel_ends_a_child_that_has_just_begun() -> None:
    channel = localrpc.spawn_channel(program())
    channel.close()
    assert channel.wait(0) is not None


@over_each
@pytest.mark.parametrize("called", [True, False], ids=["called", "uncalled"])
def test_a_channel_without_references_ends_its_child(target: str, called: bool) -> None:
    with uncollected():
        channel = localrpc.fork_channel(answers, target=target)
        pid = channel.pid
        if called:
            ask(channel, "pid")
        del channel
        await_that(lambda: not Path(f"/proc/{pid}").exists(), "the child to be waited for")


def test_a_stub_keeps_the_child_of_a_channel_without_other_references() -> None:
    stub = localrpc.fork_channel(answers).unary_unary("/s/pid")
    gc.collect()
    assert int(stub(b"", timeout=PATIENCE))


# ---- forked children ----


def test_a_forked_child_serves_its_parent() -> None:
    with localrpc.fork_channel(answers) as channel:
        assert int(ask(channel, "pid")) == channel.pid
        assert int(ask(channel, "parent")) == os.getpid()
    assert channel.wait(0) == 0


def test_a_setup_that_raises_ends_the_child_with_a_traceback(
    capfd: pytest.CaptureFixture[str],
) -> None:
    def fail(server: grpc.Server) -> None:
        raise LookupError("nothing to serve")

    with localrpc.fork_channel(fail) as channel:
        error = refusal(lambda: ask(channel, "pid"))
        assert error.code() is Code.UNAVAILABLE
        assert "exit status 1" in error.details()
    assert channel.wait(0) == 1
    assert "LookupError: nothing to serve" in capfd.readouterr().err


@pytest.mark.parametrize(("code", "status"), [(4, 4), (None, 0), ("words", 1)])
def test_a_setup_may_exit(code: Any, status: int) -> None:
    with localrpc.fork_channel(lambda server: sys.exit(code)) as channel:
        assert channel.wait(PATIENCE) == status


def test_a_forked_child_has_the_threads_of_its_own_pool() -> None:
    with (
        futures.ThreadPoolExecutor(8) as pool,
        localrpc.fork_channel(answers, thread_pool=lambda: futures.ThreadPoolExecutor(1)) as one,
    ):
        pool.submit(int).result()
        assert int(ask(one, "threads")) < 8


def test_a_child_forked_on_a_thread_serves() -> None:
    with futures.ThreadPoolExecutor(1) as pool:
        channel = pool.submit(localrpc.fork_channel, answers).result()
    with channel:
        assert int(ask(channel, "pid")) == channel.pid


@over_each
def test_a_sibling_forked_during_a_call_holds_nothing_of_it(
    target: str, files_before: Counter[str]
) -> None:
    with contextlib.ExitStack() as stack:
        first = stack.enter_context(localrpc.fork_channel(answers, target=target))
        held: Any = first.unary_unary("/s/hold").future(b"")
        ask(first, "pid")
        second = stack.enter_context(localrpc.fork_channel(answers, target=target))
        # Forked while the one before it is being greeted.
        third = stack.enter_context(localrpc.fork_channel(answers, target=target))
        pids = [int(ask(channel, "pid")) for channel in (first, second, third)]
        assert_only_their_own(pids, files_before)
        first.close()
        assert first.wait(0) == 0
    assert held.code() is Code.CANCELLED


@over_each
def test_a_sibling_cannot_use_a_childs_channel(target: str) -> None:
    def use(server: grpc.Server) -> None:
        error = refusal(lambda: ask(first, "pid"))
        assert "another process's child" in error.details()
        first.close()
        answers(server)

    with localrpc.fork_channel(answers, target=target) as first:
        ask(first, "pid")
        with localrpc.fork_channel(use, target=target) as second:
            assert int(ask(second, "pid")) == second.pid
        assert int(ask(first, "pid")) == first.pid


@over_each
def test_a_child_may_fork_children(target: str) -> None:
    def nest(server: grpc.Server) -> None:
        inner = localrpc.fork_channel(answers, target=target)

        def pids(request: bytes, context: Any) -> bytes:
            return b"%d %d %d" % (os.getpid(), int(ask(inner, "pid")), int(ask(inner, "parent")))

        handler: Any = grpc.unary_unary_rpc_method_handler(pids)
        server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler("s", {"pids": handler}),)
        )

    with localrpc.fork_channel(nest, target=target) as channel:
        child, grandchild, parent = map(int, ask(channel, "pids").split())
        assert child == parent == channel.pid
        assert exists(grandchild)
    await_that(lambda: not exists(grandchild), "the grandchild's end")


def test_a_server_without_a_pipe_from_its_parent_gets_an_error() -> None:
    server = localrpc.server(futures.ThreadPoolExecutor(1))
    with pytest.raises(ListenError, match="this process has no pipe from a parent"):
        server.add_insecure_port("pipe:")


@pytest.mark.parametrize("value", ["x", "1,2", "7,8,9,10", "1000,1001,1002", "1000", "1"])
def test_an_invalid_pipe_variable_is_reported(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(inherited.ENVIRONMENT, value)
    server = localrpc.server(futures.ThreadPoolExecutor(1))
    expected = "does not name three pipes of this process, or one connected Unix socket"
    with pytest.raises(ListenError, match=expected):
        server.add_insecure_port("pipe:")
    assert inherited.ENVIRONMENT not in os.environ


def test_pipe_without_a_path_cannot_be_dialled() -> None:
    with localrpc.insecure_channel("pipe:") as channel:
        error = refusal(lambda: ask(channel, "pid"))
        assert "localrpc.spawn_channel" in error.details()


# ---- parents ----

PARENT = """
import atexit, os, sys, threading
import grpc, localrpc

def say(*words):
    os.write(1, " ".join(map(str, words)).encode() + b"\\n")

def setup(server):
    handler = grpc.unary_unary_rpc_method_handler(lambda request, context: b"%d" % os.getpid())
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("s", {"pid": handler}),))

atexit.register(say, "exit handler")
"""
FORK = "channel = localrpc.fork_channel(setup)\n"
FORKS = """
channels = [localrpc.fork_channel(setup, target=each) for each in ("pipe:", "unix:", "shm:")]
"""
SPAWNS = """
channels = [
    localrpc.spawn_channel([sys.executable, "-c", sys.argv[1]], target=each, stderr="tail")
    for each in ("pipe:", "unix:", "shm:")
]
"""
CALLS = "pids = [each.unary_unary('/s/pid')(b'', timeout=20) for each in channels]\n"
SAY_ALL = "say(*[each.pid for each in channels])\n"
CALL = "channel.unary_unary('/s/pid')(b'', timeout=20)\n"
SAY = "say(channel.pid)\n"


def parent(script: str) -> Interpreter:
    return Interpreter(PARENT + script, SERVE)


def end_of(script: str) -> tuple[int, str, str]:
    """Exit code, output and errors of a parent."""
    with parent(script) as process:
        return process.finish()


@pytest.mark.parametrize(
    ("make", "call"),
    [(FORKS, CALLS), (FORKS, ""), (SPAWNS, "")],
    ids=["called-fork", "uncalled-fork", "uncalled-spawn"],
)
def test_the_children_of_a_killed_parent_end(make: str, call: str) -> None:
    with parent(make + call + SAY_ALL + "sys.stdin.read()") as process:
        pids = list(map(int, process.readline().split()))
        process.signal(signal.SIGKILL)
        await_that(lambda: not any(map(exists, pids)), "the children's end")
    assert len(pids) == 3


@pytest.mark.parametrize(
    ("make", "call"),
    [(FORKS, CALLS), (FORKS, ""), (SPAWNS, CALLS)],
    ids=["called-fork", "uncalled-fork", "called-spawn"],
)
def test_a_parent_may_leave_its_children_open_at_its_exit(make: str, call: str) -> None:
    code, out, err = end_of(make + call + SAY_ALL)
    pids, *said = out.split("\n")
    assert (code, err, said) == (0, "", ["exit handler", ""])
    await_that(lambda: not any(map(exists, map(int, pids.split()))), "the children's end")


def test_a_forked_child_does_not_run_its_parents_exit_handlers() -> None:
    code, out, err = end_of(FORK + CALL + "channel.close()")
    assert (code, out, err) == (0, "exit handler\n", "")


def test_what_the_parent_has_not_flushed_is_printed_once() -> None:
    code, out, err = end_of("sys.stdout.write('once')\n" + FORK + CALL + "channel.close()")
    assert (code, err) == (0, "")
    assert out.count("once") == 1


def test_a_forked_child_ignores_ctrl_c_and_its_parent_does_not() -> None:
    script = "import signal, time\n" + FORK + CALL + SAY + "signal.pause()"
    with parent(script) as process:
        pid = int(process.readline())
        os.kill(pid, signal.SIGINT)
        assert exists(pid)
        process.signal(signal.SIGINT)
        _, _, err = process.finish()
    assert "KeyboardInterrupt" in err
    await_that(lambda: not exists(pid), "the child's end")


def test_a_parent_may_reap_all_of_its_children() -> None:
    script = """
import signal
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
"""
    code, out, err = end_of(script + FORK + CALL + "channel.close()")
    assert (code, out, err) == (0, "exit handler\n", "")
