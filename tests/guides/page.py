"""The files and commands that a page has in its code blocks, and running them."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.peers.scenes import await_that

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 60
"""Seconds after which a program has failed: an interpreter may have to start on a busy machine."""


class Folder:
    """A folder in which the files of pages are written and run, as their reader would."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.runtime = path / "run"
        self.runtime.mkdir(mode=0o700)
        self.environment = {
            **os.environ,
            "LOCALRPC_RUNTIME_DIR": str(self.runtime),
            "PYTHONPATH": str(ROOT),
            # This checkout's plugin, by its module: others would be loaded by their metadata.
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
            "PYTEST_ADDOPTS": "-p localrpc._pytest -p no:cacheprovider --rootdir=.",
        }

    def write(self, page: str, *names: str, **replaced: str) -> None:
        """The page's files, or these of them; `replaced` are the parts that a test cannot have."""
        found = files(page)
        for name in names or found:
            text = found[name]
            for old, new in replaced.items():
                assert old in text, old
                text = text.replace(old, new)
            (self.path / name).write_text(text)

    def command(self, line: str) -> tuple[list[str], dict[str, str]]:
        """A line of a shell, with this interpreter, and the environment it sets."""
        words = shlex.split(line)
        environment = dict(self.environment)
        while words and re.match(r"\w+=", words[0]):
            name, _, value = words.pop(0).partition("=")
            environment[name] = value
        if words[0] == "localrpc":
            words[:1] = ["python", "-m", "localrpc"]
        if words[0] != "python":
            scripts = os.pathsep.join([sysconfig.get_path("scripts"), os.environ.get("PATH", "")])
            words[0] = shutil.which(words[0], path=scripts) or words[0]
        return [sys.executable if word == "python" else word for word in words], environment

    def run(self, line: str) -> str:
        """What the command prints. It has to end well."""
        words, environment = self.command(line)
        done = subprocess.run(
            words,
            cwd=self.path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
        assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
        return done.stdout

    def repeat(self, page: str) -> int:
        """Run the page's console sessions and compare what they print; return their number."""
        sessions = consoles(page)
        for line, printed in sessions:
            assert self.run(line) == printed, line
        return len(sessions)

    @contextmanager
    def serving(self, line: str, place: str) -> Iterator[subprocess.Popen[bytes]]:
        """A server that listens at the socket `place`; it has to end well on SIGTERM."""
        words, environment = self.command(line)
        with subprocess.Popen(words, cwd=self.path, env=environment) as server:
            try:
                wait_for(self.path / place, server)
                yield server
            finally:
                server.terminate()
        assert server.returncode == 0


def text_of(page: str) -> str:
    return (ROOT / page).read_text()


def files(page: str) -> dict[str, str]:
    """The code blocks that begin with the name of a file, by that name."""
    found = re.findall(r"```\w+\n((?:#|//) (\S+\.\w+)\n.*?)```", text_of(page), re.DOTALL)
    return {name: text for text, name in found}


def commands(page: str) -> list[str]:
    """The commands of the page's shell blocks; a backslash continues one on the next line."""
    blocks = re.findall(r"```sh\n(.*?)```", text_of(page), re.DOTALL)
    return [line for block in blocks for line in re.sub(r"\\\n *", "", block).splitlines()]


def consoles(page: str) -> list[tuple[str, str]]:
    """The commands of the page's console blocks, with what they print."""
    blocks = re.findall(r"```console\n(.*?)```", text_of(page), re.DOTALL)
    parts = [part for block in blocks for part in re.split(r"^\$ ", block, flags=re.M) if part]
    return [(line, printed) for line, _, printed in (part.partition("\n") for part in parts)]


def wait_for(path: Path, server: subprocess.Popen[Any]) -> None:
    """Until the server listens: its name is not there before."""

    def listens() -> bool:
        assert server.poll() is None, "the server has ended"
        return path.exists()

    await_that(listens, f"the server listens at {path}", PATIENCE)
