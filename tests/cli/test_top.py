"""`localrpc top`: what its keys do, what it draws on a terminal, and how it leaves it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

import localrpc
from localrpc import testing
from localrpc.cli.processes import terminal as terminals
from localrpc.cli.processes.keys import KeyParser
from localrpc.cli.processes.terminal import Closed, Ended, Terminal
from localrpc.cli.processes.text import columns_of
from localrpc.cli.processes.view import Style, View

from .readings import EVERYTHING, counts, endpoint, process, rows
from .scene import COMMAND, run

PATIENCE = 60.0


@pytest.fixture(autouse=True)
def _no_width(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pipe is as wide as COLUMNS says, which runners of tests may set."""
    monkeypatch.delenv("COLUMNS", raising=False)


# ---- keys ----


@pytest.mark.parametrize(
    ("data", "keys"),
    [
        (b"q", ["q"]),
        (b"\r", ["enter"]),
        (b"\x1b[A\x1bOBx", ["up", "down", "x"]),
        (b"\x1b[5~\x1b[6~", ["page up", "page down"]),
        (b"\x1b\x1b[D", ["escape", "left"]),
        (b"\x1b[1;5C\x1b[200~\x1bq\x00\x07", ["q"]),
        ("é".encode(), ["é"]),
    ],
)
def test_bytes_are_keys(data: bytes, keys: list[str]) -> None:
    assert KeyParser().feed(data) == keys


def test_an_escape_character_is_a_key_if_nothing_follows() -> None:
    parser = KeyParser()
    assert (parser.feed(b"\x1b"), parser.waiting) == ([], True)
    assert (parser.flush(), parser.waiting) == (["escape"], False)
    assert parser.feed(b"\x1b") == []
    assert parser.feed(b"[") == []
    assert (parser.feed(b"A"), parser.waiting) == (["up"], False)
    assert parser.feed(b"\x1b[") == parser.flush() == []


@given(st.lists(st.binary(max_size=40)))
def test_any_bytes_are_keys_or_nothing_and_little_is_kept(chunks: list[bytes]) -> None:
    """Invariant: any bytes give strings, and what waits for more is no longer than a sequence."""
    parser = KeyParser()
    for chunk in chunks:
        assert all(key.isprintable() for key in parser.feed(chunk))
        assert len(parser._rest) <= 32
    parser.flush()
    assert parser.feed(b"q") == ["q"]


# ---- the view ----


def a_view(*targets: str) -> View:
    view = View("TARGET")
    view.show(rows(process(*(endpoint(target=target) for target in targets))))
    return view


def lines_of(view: View, width: int = 80, height: int = 10) -> list[str]:
    return [line.text for line in view.draw(width, height)]


def selected_in(view: View, height: int = 10) -> list[str]:
    found = view.draw(200, height)
    return [line.text.split()[3] for line in found if line.style is Style.SELECTED]


def test_arrows_move_the_selection_and_it_stays_with_its_row() -> None:
    view = a_view("a:", "b:", "c:")
    assert selected_in(view) == []
    view.press("down")
    assert selected_in(view) == ["a:"]
    view.press("end")
    view.press("down")
    assert selected_in(view) == ["c:"]
    view.press("r")
    assert [row.endpoint.target for row in view.rows] == ["c:", "b:", "a:"]
    assert selected_in(view) == ["c:"]
    view.press("j")
    assert selected_in(view) == ["b:"]
    view.press("escape")
    assert selected_in(view) == []
    view.press("up")
    assert selected_in(view) == ["c:"]


def test_the_selected_row_is_scrolled_to() -> None:
    view = a_view(*(f"t{number:02}:" for number in range(30)))
    view.press("end")
    assert selected_in(view, height=6) == ["t29:"]
    view.press("page up")
    assert selected_in(view, height=6) == ["t27:"]
    view.press("home")
    assert selected_in(view, height=6) == ["t00:"]


def test_keys_change_the_column_that_sorts() -> None:
    view = View("CALLS/S")
    view.show(
        rows(
            process(endpoint(counts(in_flight=1), target="a:")),
            process(endpoint(counts(in_flight=5), target="b:"), pid=1001),
        )
    )
    view.press("right")
    assert view.sort == "FLIGHT"
    assert [row.endpoint.target for row in view.rows] == ["b:", "a:"]
    view.press("r")
    assert [row.endpoint.target for row in view.rows] == ["a:", "b:"]
    for _ in range(100):
        view.press("left")
        (heading,) = [line for line in view.draw(200, 10) if line.style is Style.HEADING]
        assert heading.marked is not None
        assert heading.text[slice(*heading.marked)] == view.sort


def test_rows_without_a_value_are_last_in_either_order() -> None:
    view = View("P99")
    made = process(endpoint(target="a:"), endpoint(counts(5), target="b:"))
    view.show(rows(made))
    assert [row.endpoint.target for row in view.rows] == ["b:", "a:"]
    view.reverse = True
    view.show(rows(made))
    assert [row.endpoint.target for row in view.rows] == ["b:", "a:"]


def test_a_detail_goes_with_its_endpoint() -> None:
    view = a_view("a:", "b:")
    view.press("enter")
    assert any(line.startswith("target") and line.endswith("a:") for line in lines_of(view))
    view.show([])
    assert "It has ended, and is no longer listed." in lines_of(view)
    view.press("escape")
    assert "nothing here" in [line.text for line in view.draw(80, 10, "nothing here")]
    view.press("enter")
    assert not view.detail


def test_a_detail_that_is_longer_than_the_terminal_is_scrolled() -> None:
    view = a_view("a:")
    view.press("enter")
    assert lines_of(view)[1].startswith("process")
    view.press("end")
    assert lines_of(view)[-2] == "no call has ended"
    view.press("home")
    assert lines_of(view)[1].startswith("process")


KEYS = ["up", "down", "left", "right", "enter", "escape", "r", "a", "end", "home", "page up", "x"]


@given(st.lists(st.sampled_from(KEYS), max_size=20), st.integers(1, 120), st.integers(1, 40))
def test_every_drawing_fits(keys: list[str], width: int, height: int) -> None:
    view = a_view("a:", "b:" * 50, "c:")
    for key in keys:
        view.press(key)
        drawn = view.draw(width, height, "nothing")
        assert len(drawn) == height
        assert all(columns_of(line.text) <= width for line in drawn)
        for line in drawn:
            if line.marked is not None:
                assert line.text[slice(*line.marked)] == view.sort


# ---- the terminal ----


@pytest.fixture
def _heeding_signals() -> Iterator[None]:
    """nohup and shells have programs ignore some, which this one then does, too."""
    before = {number: signal.getsignal(number) for number in terminals._ENDS}
    for number, handler in before.items():
        if handler is signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def pair() -> Iterator[tuple[int, int]]:
    """The end of a terminal's user, and that of its programs."""
    leader, follower = pty.openpty()
    yield leader, follower
    for descriptor in (leader, follower):
        with contextlib.suppress(OSError):
            os.close(descriptor)


def written(leader: int) -> str:
    found = b""
    while select.select([leader], [], [], 0)[0]:
        found += os.read(leader, 65536)
    return found.decode()


@pytest.mark.usefixtures("_heeding_signals")
@pytest.mark.parametrize("end", [*terminals._ENDS, None])
def test_a_terminal_is_as_it_was_whatever_ends_the_program(
    pair: tuple[int, int], end: signal.Signals | None
) -> None:
    leader, follower = pair
    before = termios.tcgetattr(follower)
    handlers = [signal.getsignal(number) for number in signal.valid_signals()]
    with pytest.raises(Ended if end else ZeroDivisionError) as raised:  # noqa: PT012, SIM117
        with Terminal(follower, follower) as terminal:
            assert termios.tcgetattr(follower) != before
            terminal.draw(["text"])
            if end is None:
                raise ZeroDivisionError
            os.kill(os.getpid(), end)
            terminal.wait(PATIENCE)
    if end is not None:
        assert isinstance(raised.value, Ended)
        assert raised.value.code == 128 + end
    assert termios.tcgetattr(follower) == before
    assert written(leader).endswith(terminals._LEAVE)
    assert [signal.getsignal(number) for number in signal.valid_signals()] == handlers
    assert signal.set_wakeup_fd(-1) == -1


def test_a_stopped_program_gives_the_terminal_back_and_takes_it_again(
    pair: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    leader, follower = pair
    before = termios.tcgetattr(follower)
    stops = []

    def stop(pid: int, number: int) -> None:
        assert (pid, number) == (os.getpid(), signal.SIGTSTP)
        assert signal.getsignal(number) is signal.SIG_DFL
        assert termios.tcgetattr(follower) == before
        assert written(leader).endswith(terminals._LEAVE)
        stops.append(number)

    with Terminal(follower, follower) as terminal:
        within = termios.tcgetattr(follower)
        monkeypatch.setattr(os, "kill", stop)
        signal.raise_signal(signal.SIGTSTP)
        assert terminal.wait(PATIENCE) == []  # it is woken, to draw
        assert stops == [signal.SIGTSTP]
        assert termios.tcgetattr(follower) == within
        assert written(leader) == terminals._ENTER
    assert termios.tcgetattr(follower) == before


def test_a_terminal_that_is_gone_ends_the_program(pair: tuple[int, int]) -> None:
    leader, follower = pair
    with pytest.raises(Closed), Terminal(follower, follower) as terminal:  # noqa: PT012
        os.close(leader)
        terminal.wait(PATIENCE)


def test_a_signal_that_is_ignored_stays_so(pair: tuple[int, int]) -> None:
    """As nohup and shells without job control have it."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Terminal(pair[1], pair[1]):
            os.kill(os.getpid(), signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)


# ---- the program ----


class Screen:
    """A terminal with `localrpc top` on it, and what the last drawing has left there."""

    def __init__(self, *arguments: str, columns: int = 80, lines: int = 24) -> None:
        self.leader, self.follower = pty.openpty()
        self.resize(columns, lines)
        self.before = termios.tcgetattr(self.follower)
        environment = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
        self.program = subprocess.Popen(
            [*COMMAND, "top", *arguments],
            stdin=self.follower,
            stdout=self.follower,
            stderr=self.follower,
            env=environment | {"TERM": "xterm"},
        )
        self.written = ""

    def __enter__(self) -> Screen:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.program.kill()
        self.program.wait()
        os.close(self.leader)
        os.close(self.follower)

    def resize(self, columns: int, lines: int) -> None:
        fcntl.ioctl(self.leader, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def press(self, keys: str) -> None:
        os.write(self.leader, keys.encode())

    def await_that(self, condition: Callable[[list[str]], Any], what: str) -> list[str]:
        """Return the lines of the first whole drawing of which it is true."""
        until = time.monotonic() + PATIENCE
        while True:
            whole = [each for each in self.written.split("\x1b[H")[1:] if self._is_whole(each)]
            drawing = whole[-1] if whole else ""
            plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", drawing).split("\r\n")
            if condition(plain):
                return plain
            left = until - time.monotonic()
            assert left > 0, f"{what}; the last drawing: {plain}"
            if select.select([self.leader], [], [], left)[0]:
                self.written += os.read(self.leader, 65536).decode().replace("\r\r", "\r")

    @staticmethod
    def _is_whole(drawing: str) -> bool:
        """Each line begins and ends with a sequence, and the last one says how to quit."""
        *_, last = drawing.split("\r\n")
        return "q quit" in last and last.endswith("\x1b[m")

    def end(self) -> int:
        code = self.program.wait(PATIENCE)
        self.written += written(self.leader)
        assert self.written.endswith(terminals._LEAVE)
        assert termios.tcgetattr(self.follower) == self.before
        return code


def squeezed(lines: list[str]) -> list[str]:
    return [" ".join(line.split()) for line in lines]


def echo(request: bytes, context: object) -> bytes:
    return request


class Greeter:
    def __call__(self, server: grpc.Server) -> None:
        handlers: dict[str, Any] = {"Greet": grpc.unary_unary_rpc_method_handler(echo)}
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("G", handlers),))


@pytest.fixture
def greeted(unique_target: str) -> Iterator[str]:
    """A target at which this process has been called three times."""
    with testing.serving(Greeter(), target=unique_target) as channel:
        greet: Any = channel.unary_unary("/G/Greet")
        unknown: Any = channel.unary_unary("/G/Unknown")
        for _ in range(3):
            greet(b"Ada", timeout=PATIENCE)
        # Another channel, which ends.
        with localrpc.insecure_channel(unique_target) as other:
            grpc.channel_ready_future(other).result(PATIENCE)
        with pytest.raises(grpc.RpcError):
            unknown(b"", timeout=PATIENCE)
        yield unique_target


def test_a_session(greeted: str) -> None:
    """One for all that needs the program itself, because each costs its start."""
    name = greeted.partition("?")[0]
    with Screen("--target", name, "--interval", "0.1", columns=240) as screen:
        shown = screen.await_that(lambda lines: any(name in line for line in lines), "a row")
        assert "1 process  1 server  1 channel" in shown[0]
        assert len(shown) == 24
        assert [line.split()[2] for line in shown if name in line] == ["server", "channel"]
        assert "\x1b[4mCALLS/S\x1b[24m" in screen.written
        screen.press("\x1b[C")
        screen.await_that(lambda _: "\x1b[4mFLIGHT\x1b[24m" in screen.written, "another column")
        screen.resize(40, 12)
        screen.program.send_signal(signal.SIGWINCH)
        shown = screen.await_that(lambda lines: len(lines) == 12, "the new size")
        assert max(map(columns_of, shown)) <= 40
        screen.resize(60, 40)
        screen.program.send_signal(signal.SIGWINCH)
        screen.press("\r")
        shown = screen.await_that(lambda lines: "OK 3 0" in squeezed(lines), "a detail, with rates")
        plain = squeezed(shown)
        assert f"target {greeted}" in plain
        assert "UNIMPLEMENTED 1 0" in plain
        assert any("█" in line for line in shown)
        screen.press("\x1b")
        screen.await_that(lambda lines: "TARGET" in lines[1], "the table again")
        screen.press("a")
        screen.await_that(lambda lines: any("ended" in one for one in lines[1:-1]), "the ended")
        screen.press("q")
        assert screen.end() == 0


def test_sigterm_ends_it_with_its_code(unique_target: str) -> None:
    with Screen("--target", unique_target, "--interval", "60") as screen:
        expected = f"No server or channel of target {unique_target}."
        screen.await_that(lambda lines: expected in lines, "an empty table")
        screen.program.terminate()
        assert screen.end() == 128 + signal.SIGTERM


def test_a_pipe_gets_one_table(greeted: str) -> None:
    done = run("top", "--target", greeted, "--interval", "0.1", "--sort", "target", "--reverse")
    assert done.exit_code == 0, done.output
    heading, *lines = done.stdout.splitlines()
    assert {"PID", "CALLS/S", "ERRORS/S", "P50", "P99", "CPU%", "COMMAND"} <= {*heading.split()}
    assert [line.split()[2] for line in lines] == ["server", "channel"]
    assert "\x1b" not in done.output


def test_a_pipe_gets_an_error_if_nothing_matches(unique_target: str) -> None:
    done = run("top", "--target", unique_target, "--interval", "0.1")
    assert done.exit_code == 1
    assert f"No server or channel of target {unique_target}." in done.output


def test_the_keys_of_the_view_are_those_of_the_help() -> None:
    said = run("top", "--help").output
    view = View()
    view.show(rows(process(endpoint()), wanted=EVERYTHING))
    for key in ("r", "a", "q"):
        assert re.search(rf"^  {key}  ", said, re.MULTILINE), key
        before = dict(vars(view))
        view.press(key)
        assert vars(view) != before
