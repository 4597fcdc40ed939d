"""A terminal that is drawn on as a whole, and is as it was before, whatever ends the program."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import termios
import time
from collections.abc import Iterable
from types import FrameType
from typing import Any

from localrpc.cli.processes.keys import KeyParser

_ENTER = "\x1b[?1049h\x1b[?25l\x1b[?7l"
"""The other screen, no cursor, and no wrapping of long lines (xterm's control sequences)."""
_LEAVE = "\x1b[m\x1b[?7h\x1b[?25h\x1b[?1049l"
_ENDS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
_MOMENT = 0.05
"""Seconds within which the rest of a key's sequence follows its escape character."""


class Ended(BaseException):
    """A signal ends the program; `code` is the exit code."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.code = 128 + number


class Closed(Exception):
    """The terminal has gone."""


class Terminal:
    """A context manager, for the main thread. Within it a signal that ends is raised as Ended.

    `keys` is a descriptor of a terminal that is read from, `screen` of one that is written to.
    """

    def __init__(self, keys: int, screen: int, encoding: str = "utf-8") -> None:
        self._keys = keys
        self._screen = screen
        self._encoding = encoding
        self._parser = KeyParser()
        self._before: list[Any] | None = None
        self._handlers: dict[int, Any] = {}
        self._woken, self._waker = -1, -1
        self._old_waker = -1
        self._leaving = False

    def __enter__(self) -> Terminal:
        self._woken, self._waker = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        # select() goes on after a signal, unless there is something to read.
        self._old_waker = signal.set_wakeup_fd(self._waker, warn_on_full_buffer=False)
        try:
            self._before = termios.tcgetattr(self._keys)
            for number in _ENDS:
                # As with nohup: what the caller ignores stays ignored.
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self._handlers[number] = signal.signal(number, self._end)
            self._handlers[signal.SIGTSTP] = signal.signal(signal.SIGTSTP, self._stop)
            self._handlers[signal.SIGWINCH] = signal.signal(signal.SIGWINCH, _ignore)
            self._take()
        except BaseException:
            self._leave()
            raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        try:
            self._leave()
        except Ended:  # the signal came before anything was done
            self._leave()
            raise

    def size(self) -> tuple[int, int]:
        """Return columns and lines, as they are now."""
        try:
            found = os.get_terminal_size(self._screen)
        except OSError:
            return 80, 24
        return found.columns or 80, found.lines or 24

    def draw(self, lines: Iterable[str]) -> None:
        """Replace all that is shown; there is a line for each of the screen's. Raises Closed."""
        # Erased before it is written: behind a full line the cursor is at its last character.
        body = "\r\n".join(f"\x1b[K{line}\x1b[m" for line in lines)
        self._write(f"\x1b[H{body}")

    def wait(self, seconds: float) -> list[str]:
        """Return keys; none if the time is over or the size may have changed. Raises Closed."""
        if self._parser.waiting:
            seconds = min(seconds, _MOMENT)
        ready, _, _ = select.select([self._keys, self._woken], [], [], max(0.0, seconds))
        if self._woken in ready:
            with contextlib.suppress(BlockingIOError):
                os.read(self._woken, 4096)
        if self._keys not in ready:
            return self._parser.flush() if self._parser.waiting and not ready else []
        try:
            data = os.read(self._keys, 4096)
        except OSError as error:
            raise Closed from error
        if not data:
            raise Closed
        return self._parser.feed(data)

    # ---- taking it and giving it back ----

    def _take(self) -> None:
        attributes = termios.tcgetattr(self._keys)
        attributes[3] &= ~(termios.ICANON | termios.ECHO)
        attributes[6][termios.VMIN], attributes[6][termios.VTIME] = 1, 0
        termios.tcsetattr(self._keys, termios.TCSADRAIN, attributes)
        self._write(_ENTER)

    def _give_back(self) -> None:
        # The terminal may have gone, or its user may have stopped its output with Ctrl-S.
        with contextlib.suppress(OSError, termios.error):
            termios.tcflow(self._screen, termios.TCOON)
        with contextlib.suppress(Closed):
            self._write(_LEAVE)
        if self._before is not None:
            with contextlib.suppress(OSError, termios.error):
                termios.tcsetattr(self._keys, termios.TCSADRAIN, self._before)

    def _leave(self) -> None:
        self._leaving = True  # a signal waits from here on until the terminal is as it was
        self._give_back()
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._old_waker)
        os.close(self._woken)
        os.close(self._waker)

    def _end(self, number: int, frame: FrameType | None) -> None:
        if not self._leaving:
            self._leaving = True
            raise Ended(number)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        """Ctrl-Z: stop with the terminal as it was, and take it again with SIGCONT."""
        if self._leaving:
            return
        self._give_back()
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
        signal.signal(number, self._stop)
        self._before = termios.tcgetattr(self._keys)
        self._take()

    def _write(self, text: str) -> None:
        data = memoryview(text.encode(self._encoding, "replace"))
        while data:
            try:
                data = data[os.write(self._screen, data) :]
            except BlockingIOError:  # another program has made the terminal non-blocking
                time.sleep(0.01)
            except OSError as error:
                raise Closed from error


def _ignore(number: int, frame: FrameType | None) -> None:
    """Only the waking counts."""
