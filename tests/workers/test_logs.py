"""A reader of the log that has stopped: the supervisor supervises, and says what is lost."""

from __future__ import annotations

import fcntl
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import localrpc
from localrpc.workers import logs
from tests.workers.served import PATIENCE, ask, children_of

_SIZE = 4096


@pytest.fixture
def full_pipe() -> Iterator[tuple[int, int]]:
    """A pipe into which nothing more fits until it is read."""
    reader, writer = os.pipe()
    assert fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, _SIZE) == _SIZE
    os.write(writer, b"\n" * _SIZE)
    yield reader, writer
    os.close(reader)


def test_a_supervisor_whose_log_is_not_read_replaces_and_stops_workers(
    folder: Path, full_pipe: tuple[int, int]
) -> None:
    _, writer = full_pipe
    target = f"shm:{folder}/s"
    process = subprocess.Popen(
        [sys.executable, "-m", "localrpc", "serve", "app:setup", "--target", target],
        cwd=folder,
        stderr=writer,
    )
    os.close(writer)
    try:
        with localrpc.insecure_channel(target) as channel:
            first = int(ask(channel, wait_for_ready=True).split()[0])
            os.kill(first, signal.SIGKILL)
            second = int(ask(channel, wait_for_ready=True).split()[0])
            assert [second] == children_of(process.pid)
            assert second != first
        process.terminate()
        assert process.wait(PATIENCE) == 0
    finally:
        process.kill()
        process.wait()
    assert not (folder / "s").exists()


@pytest.fixture
def handler(full_pipe: tuple[int, int]) -> Iterator[logs.ThreadHandler]:
    """Of a log whose reader has stopped."""
    handler = logs.ThreadHandler(full_pipe[1])
    handler.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
    yield handler
    handler.close()


def say(handler: logging.Handler, *texts: object) -> None:
    for text in texts:
        handler.handle(logging.makeLogRecord({"msg": str(text), "levelname": "INFO"}))


def lines_until(reader: int, last: str) -> list[str]:
    text = ""
    while not text.endswith(f"{last}\n"):
        text += os.read(reader, _SIZE).decode()
    return text.split("\n")[:-1]


def test_lines_wait_and_those_above_a_number_are_counted(
    handler: logs.ThreadHandler, full_pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    reader, writer = full_pipe
    monkeypatch.setattr(logs, "_FLUSH", 0.01)
    say(handler, *range(1500))
    handler.flush()  # gives up
    *written, note = filter(None, lines_until(reader, "are lost here"))
    count = len(written)
    assert count in (1000, 1001)  # the thread has taken one, or not yet
    assert written == [f"INFO {number}" for number in range(count)]
    assert note == f"WARNING stderr was not read for some time: {1500 - count} lines are lost here"
    say(handler, "after")
    assert lines_until(reader, "after") == ["INFO after"]
    os.close(writer)


def test_a_pipe_that_does_not_block_gets_whole_lines(
    handler: logs.ThreadHandler, full_pipe: tuple[int, int]
) -> None:
    reader, writer = full_pipe
    os.set_blocking(writer, False)
    text = "x" * 3 * _SIZE
    say(handler, text, "after")
    assert lines_until(reader, "after")[-2:] == [f"INFO {text}", "INFO after"]
    os.close(writer)


def test_lines_are_written_again_after_a_reader_that_has_gone() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    handler = logs.ThreadHandler(writer)
    say(handler, "lost")
    handler.flush()
    reader, another = os.pipe()
    os.dup2(another, writer)
    say(handler, "after", "\udcff")
    handler.close()
    assert lines_until(reader, "udcff") == ["after", "\\udcff"]
    for fd in (reader, writer, another):
        os.close(fd)
