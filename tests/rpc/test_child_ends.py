"""How children end, and what a parent learns of it: exit status, signal, standard error."""

from __future__ import annotations

import contextlib
import math
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent import futures
from typing import Any

import grpc
import pytest

import localrpc
from localrpc.drive import stderr_tail
from localrpc.transports import to_child
from tests.endings import at_end
from tests.forks.children import Child
from tests.skips import root_only

from .house import PATIENCE, await_that
from .test_children import (
    PROGRAM,
    _importable,
    ask,
    exists,
    files_before,
    over_each,
    program,
    refusal,
)

__all__ = ["_importable", "files_before"]

Code = grpc.StatusCode


def shown(capfd: pytest.CaptureFixture[str]) -> str:
    """Standard error without what grpcio says of a fork in a process that has used it."""
    return re.sub(r"(?m)^[IWE][0-9]{4} .*fork.*\n", "", capfd.readouterr().err)


def ends(server: Any) -> None:
    """What a forked child serves, as threads or as coroutines."""

    def kill(request: bytes, context: Any) -> bytes:
        os.kill(os.getpid(), int(request))
        threading.Event().wait()
        return b""

    def kill_in_stream(request: bytes, context: Any) -> Iterator[bytes]:
        yield b"begun"
        os.kill(os.getpid(), signal.SIGKILL)

    def hold_in_stream(request: bytes, context: Any) -> Iterator[bytes]:
        yield b"begun"
        threading.Event().wait()

    def kill_in_upload(requests: Iterator[bytes], context: Any) -> bytes:
        next(requests)
        os.kill(os.getpid(), signal.SIGKILL)
        return b""

    def write(request: bytes, context: Any) -> bytes:
        os.write(2, request)
        return b""

    def write_and_die(request: bytes, context: Any) -> bytes:
        os.write(2, request)
        os.kill(os.getpid(), signal.SIGKILL)
        return b""

    def flood(request: bytes, context: Any) -> bytes:
        for _ in range(64):
            os.write(2, b"x" * (1 << 15))
        os.write(2, b"\n" + b"y" * 3000)
        os._exit(9)

    def start(request: bytes, context: Any) -> bytes:
        """Another process that has the standard error, too."""
        heir = os.fork()
        if heir == 0:
            signal.alarm(60)
            signal.pause()
        return b"%d" % heir

    def hold(request: bytes, context: Any) -> bytes:
        threading.Event().wait()
        return b""

    unary: Any = grpc.unary_unary_rpc_method_handler
    methods = {
        "echo": unary(lambda request, context: request),
        "kill": unary(kill),
        "kill_in_stream": grpc.unary_stream_rpc_method_handler(kill_in_stream),
        "hold_in_stream": grpc.unary_stream_rpc_method_handler(hold_in_stream),
        "kill_in_upload": grpc.stream_unary_rpc_method_handler(kill_in_upload),
        "exit": unary(lambda request, context: os._exit(int(request))),
        "write": unary(write),
        "write_and_die": unary(write_and_die),
        "flood": unary(flood),
        "start": unary(start),
        "hold": unary(hold),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("s", methods),))


# ---- calls in which a child ends ----


@over_each
@pytest.mark.parametrize(
    ("method", "request_", "how"),
    [
        ("kill", b"9", "it was killed by SIGKILL"),
        ("kill", b"%d" % (signal.SIGRTMIN + 6), f"it was killed by signal {signal.SIGRTMIN + 6}"),
        ("exit", b"5", "it ended with exit status 5"),
    ],
    ids=["killed", "unnamed", "exits"],
)
def test_a_call_in_which_the_child_ends_says_how(
    target: str, method: str, request_: bytes, how: str
) -> None:
    with localrpc.fork_channel(ends, target=target) as channel:
        error = refusal(lambda: ask(channel, method, request_))
        assert error.code() is Code.UNAVAILABLE
        assert error.details() == f"the child process {channel.pid} is gone: {how}"
        later = refusal(lambda: ask(channel, "echo"))
        assert later.code() is Code.UNAVAILABLE
        assert later.details().endswith(f": {error.details()}")


@pytest.mark.parametrize("kind", ["future", "callback", "stream", "upload"])
def test_every_kind_of_call_says_how_the_child_has_ended(kind: str) -> None:
    channel: Any
    with localrpc.fork_channel(ends, target="shm:") as channel:
        if kind == "stream":
            call = channel.unary_stream("/s/kill_in_stream")(b"", timeout=PATIENCE)
            assert next(call) == b"begun"
            error = refusal(lambda: next(call))
        elif kind == "upload":
            upload = channel.stream_unary("/s/kill_in_upload")
            error = refusal(lambda: upload(iter([b"x"]), timeout=PATIENCE))
        else:
            call = channel.unary_unary("/s/kill").future(b"9", timeout=PATIENCE)
            if kind == "callback":
                ended = threading.Event()
                at_end(call, ended.set)
                assert ended.wait(PATIENCE)
            error = refusal(call.result)
        assert error.code() is Code.UNAVAILABLE
        assert error.details() == (
            f"the child process {channel.pid} is gone: it was killed by SIGKILL"
        )


def stop_and_hang_up(pid: int, dialer: Any) -> None:
    """End the connection, but not the process."""
    os.kill(pid, signal.SIGSTOP)
    os.waitid(os.P_PID, pid, os.WSTOPPED)
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            facts = os.fstat(int(name))
            if (facts.st_dev, facts.st_ino) in dialer._files:
                number = int(name)
    with socket.socket(fileno=os.dup(number)) as sock:
        sock.shutdown(socket.SHUT_RDWR)


TIMEOUTS = (0.2, 1.0, 5.0, PATIENCE)
"""For calls that have begun before and end by their deadlines, on machines that are as busy."""


@pytest.mark.parametrize(
    ("patience", "timeouts"), [(0.05, [None]), (1000, TIMEOUTS)], ids=["a-moment", "deadline"]
)
def test_a_call_does_not_wait_for_the_end_of_a_child_that_has_only_hung_up(
    patience: float, timeouts: list[float | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(to_child, "_LAST_WORDS", patience)
    channel: Any
    with localrpc.fork_channel(ends, target="unix:", grace=0) as channel:
        ask(channel, "echo")
        for timeout in timeouts:
            call = channel.unary_stream("/s/hold_in_stream")(b"", timeout=timeout)
            with contextlib.suppress(grpc.RpcError):
                assert next(call) == b"begun"
                break
        stop_and_hang_up(channel.pid, channel._dialer)
        error = refusal(lambda: next(call))
        late = [(Code.DEADLINE_EXCEEDED, "Deadline Exceeded")] * (timeout is not None)
        assert (error.code(), error.details()) in [(Code.UNAVAILABLE, "Socket closed"), *late]


def test_a_channel_may_be_closed_by_several_threads_during_a_call() -> None:
    with futures.ThreadPoolExecutor(2) as pool:
        channel = localrpc.fork_channel(ends)
        held: Any = channel.unary_unary("/s/hold").future(b"")
        ask(channel, "echo")
        for closing in [pool.submit(channel.close) for _ in range(2)]:
            closing.result(PATIENCE)
        assert held.code() is Code.CANCELLED
        assert channel.wait(0) == 0


# ---- standard error ----


@over_each
def test_the_last_lines_of_standard_error_are_in_the_error_and_all_are_shown(
    target: str, capfd: pytest.CaptureFixture[str]
) -> None:
    lines = [f"line {number}" for number in range(30)]
    with localrpc.fork_channel(ends, target=target, stderr="tail") as channel:
        request = "\n".join(lines).encode()
        error = refusal(lambda: ask(channel, "write_and_die", request))
        assert error.code() is Code.UNAVAILABLE
        head, *said = error.details().splitlines()
        assert head.endswith("it was killed by SIGKILL; the end of its standard error:")
        assert said == lines[-stderr_tail.LINES :]
        assert refusal(lambda: ask(channel, "echo")).details().endswith(error.details())
    assert shown(capfd) == request.decode()


def test_standard_error_is_not_captured_by_default(capfd: pytest.CaptureFixture[str]) -> None:
    with localrpc.fork_channel(ends) as channel:
        error = refusal(lambda: ask(channel, "write_and_die", b"visible"))
        assert error.details().endswith("it was killed by SIGKILL")
    assert shown(capfd) == "visible"


def test_a_program_that_fails_to_start_says_why(capfd: pytest.CaptureFixture[str]) -> None:
    failing = program("import no_such_module")
    with localrpc.spawn_channel(failing, target="shm:", stderr="tail") as channel:
        error = refusal(lambda: ask(channel, "pid"))
        assert error.details().endswith(
            "it ended with exit status 1; the end of its standard error:\n"
            + capfd.readouterr().err.rstrip("\n")
        )
        assert "ModuleNotFoundError: No module named 'no_such_module'" in error.details()


def test_a_child_that_floods_standard_error_goes_on_and_costs_no_memory(
    capfd: pytest.CaptureFixture[str],
) -> None:
    with localrpc.fork_channel(ends, stderr="tail") as channel:
        error = refusal(lambda: ask(channel, "flood"))
        head, *said = error.details().splitlines()
        assert "it ended with exit status 9" in head
        assert said == ["y" * 3000]  # of the line before only a part is left
        tail = channel._child._tail
        assert tail is not None
        assert len(tail._kept) == stderr_tail.BYTES
    assert shown(capfd).count("x") == 64 << 15


def test_a_process_that_goes_on_to_hold_standard_error_delays_nothing(
    capfd: pytest.CaptureFixture[str],
) -> None:
    with localrpc.fork_channel(ends, stderr="tail") as channel:
        heir = int(ask(channel, "start"))
        try:
            error = refusal(lambda: ask(channel, "write_and_die", b"last words"))
            assert error.details().endswith("last words")
        finally:
            os.kill(heir, signal.SIGKILL)
    assert shown(capfd) == "last words"


OUTLIVED = """
import sys
import localrpc
argv = [sys.executable, "-c", sys.argv[1], sys.argv[3]]
channel = localrpc.spawn_channel(argv, target=sys.argv[2], stderr="tail")
channel.unary_unary("/s/pid")(b"", timeout=20)
print(channel.pid, flush=True)
sys.stdin.read()
"""
SERVE_OTHERS = (
    PROGRAM + "server.add_insecure_port(sys.argv[1])\nprint('here', file=sys.stderr, flush=True)\n"
    "server.wait_for_termination()"
)


@pytest.mark.parametrize("over", ["pipe:", "shm:"], ids=["pipe", "shm"])
def test_a_child_that_outlives_its_parent_writes_to_the_parents_standard_error(
    over: str, one_target: str
) -> None:
    argv = [sys.executable, "-c", OUTLIVED, SERVE_OTHERS, over, one_target]
    pipe = subprocess.PIPE
    with subprocess.Popen(argv, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as maker:
        assert maker.stdout is not None
        assert maker.stderr is not None
        pid = int(maker.stdout.readline())
        try:
            assert maker.stderr.readline() == "here\n"
            original = f"pipe:[{os.fstat(maker.stderr.fileno()).st_ino}]"
            assert os.readlink(f"/proc/{pid}/fd/2") != original
            maker.kill()
            await_that(lambda: os.readlink(f"/proc/{pid}/fd/2") == original, "the way back")
            with localrpc.insecure_channel(one_target) as channel:
                ask(channel, "run", b"echo still here >&2")
            assert maker.stderr.readline() == "still here\n"
        finally:
            os.kill(pid, signal.SIGKILL)
            await_that(lambda: not exists(pid), "the child's end")


UNREAD = """
import signal, sys
import localrpc
from tests.rpc.test_child_ends import ends
signal.signal(signal.SIGPIPE, signal.SIG_DFL)
with localrpc.fork_channel(ends, stderr="tail") as channel:
    sys.stdin.readline()
    write = channel.unary_unary("/s/write")
    for _ in range(100):
        write(b"not read" * 1000, timeout=20)
print("alive")
"""


def test_a_parent_whose_standard_error_is_not_read_goes_on() -> None:
    argv = [sys.executable, "-c", UNREAD]
    pipe = subprocess.PIPE
    with subprocess.Popen(argv, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as process:
        assert process.stderr is not None
        process.stderr.close()
        process.stderr = None
        assert process.communicate("go on\n", timeout=2 * PATIENCE)[0] == "alive\n"


# ---- standard streams that are closed ----

CLOSED = """
import os, sys

def closed(fd):
    try:
        os.fstat(fd)
    except OSError:
        return True
    return False

report = int(sys.argv[2])
assert all(map(closed, range(3)))
import localrpc
argv = [sys.executable, "-c", sys.argv[1]]
for target in ("pipe:", "unix:", "shm:"):
    with localrpc.spawn_channel(argv, target=target, stderr="tail") as channel:
        show = channel.unary_unary("/s/show")
        assert show(b"words" * 1000, timeout=20) == b"words" * 1000
        assert show(b"more", timeout=20) == b"more"
    os.write(report, f"{target} {channel.wait(0)}\\n".encode())
"""


def test_children_of_a_parent_without_standard_streams_may_print() -> None:
    """Its next descriptors have the numbers of these streams, and are no streams to print to."""
    reader, writer = os.pipe()
    shell = 'exec "$0" "$@" <&- >&- 2>&-'
    serve = PROGRAM + "server.wait_for_termination()"
    argv = ["sh", "-c", shell, sys.executable, "-c", CLOSED, serve, str(writer)]
    with os.fdopen(reader) as report:
        with subprocess.Popen(argv, pass_fds=[writer]) as process:
            os.close(writer)
            said = report.read()
        assert (process.returncode, said) == (0, "pipe: 0\nunix: 0\nshm: 0\n")


# ---- what a caller chooses ----


def test_without_grace_a_child_is_killed_at_once() -> None:
    reader, writer = os.pipe()

    def ignore(server: grpc.Server) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        os.write(writer, b"x")
        signal.pause()

    channel = localrpc.fork_channel(ignore, grace=0)
    os.close(writer)
    with os.fdopen(reader, "rb") as said:
        assert said.read(1) == b"x"
    channel.close()
    assert channel.wait(0) == -signal.SIGKILL


def test_an_endless_grace_is_one_of_years() -> None:
    with localrpc.fork_channel(ends, grace=math.inf) as channel:
        ask(channel, "echo")
    assert channel.wait(0) == 0


@pytest.mark.parametrize(
    ("named", "error", "text"),
    [
        ({"grace": -1}, ValueError, "grace is a number of seconds, 0 or more, not -1"),
        ({"grace": math.nan}, ValueError, "grace is a number of seconds, 0 or more, not nan"),
        ({"grace": "5"}, TypeError, "grace is a number of seconds, not str"),
        ({"stderr": "pipe"}, ValueError, "stderr is 'inherit' or 'tail', not 'pipe'"),
        ({"target": b"shm:"}, TypeError, "the target of a child is a str, not bytes"),
        ({"target": "shm"}, ValueError, "'shm' is not for a child: write pipe:, unix: or shm:"),
        ({"target": "shm:x"}, ValueError, "without a name"),
        ({"target": "tcp:"}, ValueError, "'tcp:' is not for a child"),
        ({"target": "shm:?ring=3"}, ValueError, "invalid value '3' for ring"),
        ({"target": "pipe:?ring=1M"}, ValueError, "unknown option 'ring'; pipe: has"),
    ],
)
def test_invalid_arguments_are_explained_before_a_process_starts(
    named: Any, error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        localrpc.spawn_channel(["/nowhere/at/all"], **named)
    with pytest.raises(error, match=text):
        localrpc.fork_channel(ends, **named)


def test_a_signal_that_the_program_handles_cannot_wake_it() -> None:
    before = signal.signal(signal.SIGUSR1, lambda signo, frame: None)
    try:
        with pytest.raises(ValueError, match="SIGUSR1"):
            localrpc.fork_channel(ends, target="shm:?wakeup=signal&signo=SIGUSR1")
    finally:
        signal.signal(signal.SIGUSR1, before)


@pytest.mark.parametrize(
    ("options", "facts"),
    [
        ("ring=256k&wakeup=futex", ("futex", 256 << 10, "memfd")),
        ("wakeup=signal", ("signal", 1 << 20, "memfd")),
        # Used only if both sides ask for it.
        ("memory=sysv", ("eventfd", 1 << 20, "sysv")),
    ],
)
def test_options_of_the_target_are_for_both_sides(options: str, facts: tuple[Any, ...]) -> None:
    with localrpc.fork_channel(ends, target=f"shm:?{options}") as channel:
        for _ in range(20):
            assert ask(channel, "echo", b"x" * 1000) == b"x" * 1000
        assert channel.facts is not None
        assert (channel.facts.wakeup, channel.facts.ring_size, channel.facts.memory) == facts


def test_without_shared_memory_calls_stay_on_the_socket(caplog: pytest.LogCaptureFixture) -> None:
    options = [("localrpc.shared_memory", 0)]
    with localrpc.fork_channel(ends, target="shm:", options=options) as channel:
        assert ask(channel, "echo", b"x") == b"x"
        assert channel.facts is not None
        assert channel.facts.ring_size == 0
        assert "localrpc.shared_memory is 0 on the client" in str(channel.facts.fell_back)


@root_only
@over_each
def test_a_parent_of_another_user_may_call_the_child_that_it_made(target: str) -> None:
    """The kernel names the user that the parent had then, whom no option allows."""

    def setup(server: grpc.Server) -> None:
        os.seteuid(0)
        ends(server)

    def work() -> None:
        with localrpc.fork_channel(ends, target=target) as channel:
            ask(channel, "echo")  # that user may not be able to import anything
        os.seteuid(12345)
        with localrpc.fork_channel(setup, target=target) as channel:
            assert ask(channel, "echo", b"x") == b"x"

    Child(work).join()


# ---- failures and forks while a child is started ----


@pytest.mark.parametrize("name", ["localrpc-greet", "localrpc-child", "localrpc-stderr"])
@pytest.mark.parametrize("target", ["pipe:", "unix:"], ids=["pipe", "unix"])
def test_a_child_whose_parent_can_start_no_thread_is_ended(
    target: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fixture finds what would be left."""
    start = threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        if thread.name == name:
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with pytest.raises(RuntimeError, match="can't start new thread"):
        localrpc.fork_channel(ends, target=target, stderr="tail")


@over_each
def test_a_process_that_another_thread_forks_meanwhile_gets_nothing(
    target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    popen: Any = subprocess.Popen
    before = set(os.listdir("/proc/self/fd"))

    def start(argv: list[str], **named: Any) -> Any:
        made = set(os.listdir("/proc/self/fd")) - before
        assert {str(fd) for fd in named["pass_fds"]} < made

        def look() -> None:
            # The last is the one that lists the folder.
            assert len(set(os.listdir("/proc/self/fd")) - before) <= 1

        with futures.ThreadPoolExecutor(1) as pool:
            pool.submit(lambda: Child(look).join()).result()
        return popen(argv, **named)

    monkeypatch.setattr(subprocess, "Popen", start)
    with localrpc.spawn_channel(["true"], target=target, stderr="tail") as channel:
        assert channel.wait(PATIENCE) == 0
