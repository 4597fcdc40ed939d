"""Index a tree of source files and search it, over each transport in turn.

Run: python run.py [DIRECTORY] [--over NAME]...
The tree is Python's own standard library unless another one is given.
"""

from __future__ import annotations

import argparse
import socket
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import grpc
from generated.search_localrpc import SearchStub
from generated.search_pb2 import File, Query, Ranking, Summary

import localrpc

HERE = Path(__file__).parent
QUERIES = ("namedtuple", "async def wait", "class ThreadPoolExecutor", "maxsize lru", "utf-16")
TYPED = "def read_until"
LINES = "return"
REPEATS = 100


@dataclass(frozen=True)
class Way:
    """A way to reach the server."""

    name: str
    target: str
    grpcio: bool = False

    def channel(self) -> grpc.Channel:
        connect = grpc.insecure_channel if self.grpcio else localrpc.insecure_channel
        return connect(self.target)


@dataclass
class Timing:
    """Seconds that each part took over one way."""

    way: str
    parts: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def of(self, part: str) -> Iterator[None]:
        begun = time.perf_counter()
        yield
        self.parts[part] = time.perf_counter() - begun


def ways(directory: Path) -> dict[str, Way]:
    found = (
        Way("shm", f"shm:{directory.name}"),
        Way("unix", f"unix:{directory}/search.sock"),
        Way("tcp", f"tcp:127.0.0.1:{free_port()}"),
        Way("grpcio", f"unix:{directory}/grpcio.sock", grpcio=True),
    )
    return {way.name: way for way in found}


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        port: int = found.getsockname()[1]
        return port


@contextmanager
def serving(way: Way) -> Iterator[None]:
    """Run the server in a process of its own."""
    command = [sys.executable, str(HERE / "server.py"), way.target]
    server = subprocess.Popen(command + ["--grpcio"] * way.grpcio)
    try:
        yield
    finally:
        server.terminate()
        server.wait(timeout=10)


def tree(root: Path) -> list[File]:
    """Return the Python files below `root`, read in advance so that the disk is not timed."""
    files = []
    for path in sorted(root.rglob("*.py")):
        relative = path.relative_to(root)
        if not {"test", "tests", "site-packages", "idlelib"}.intersection(relative.parts):
            text = path.read_text(encoding="utf-8", errors="replace")
            files.append(File(path=relative.as_posix(), text=text))
    return files


def search(way: Way, files: list[File], *, show: bool) -> Timing:
    """Make all four kinds of call over one way, timed; print the results if `show`."""
    timing = Timing(way.name)
    with serving(way), way.channel() as channel:
        stub = SearchStub(channel)
        # The server has just been started: the first call waits for it.
        stub.Find(Query(text="warm-up"), wait_for_ready=True, timeout=20)

        with timing.of("index"):
            summary = stub.Index(iter(files))
        with timing.of("find"):
            rankings = [stub.Find(Query(text=text, limit=3)) for text in QUERIES]
        with timing.of("again"):
            for _ in range(REPEATS):
                for text in QUERIES:
                    stub.Find(Query(text=text, limit=3))
        with timing.of("lines"):
            lines = list(stub.Lines(Query(text=LINES)))
        with timing.of("refine"):
            steps = list(stub.Refine(typing(TYPED)))
    timing.parts["find"] /= len(QUERIES)
    timing.parts["again"] /= REPEATS * len(QUERIES)
    timing.parts["lines"] /= len(lines)
    if show:
        show_found(summary, rankings, steps)
        print(f"\nLines with {LINES!r}: {len(lines):,}; the first of the best file:")
        for line in lines[:3]:
            print(f"  {line.path}:{line.number}: {line.text.strip()}")
    return timing


def typing(text: str) -> Iterator[Query]:
    """Yield what a session sends while its user types."""
    return (Query(text=text[:end], limit=1) for end in range(1, len(text) + 1))


def show_found(summary: Summary, rankings: list[Ranking], steps: list[Ranking]) -> None:
    print(
        f"Indexed {summary.files:,} files, {summary.lines:,} lines, "
        f"{summary.characters / 1e6:.1f} million characters, "
        f"{summary.trigrams:,} distinct trigrams.\n"
    )
    for ranking in rankings:
        best = ", ".join(f"{hit.path} ({hit.matches})" for hit in ranking.hits)
        print(f"{ranking.query!r}: {ranking.files} of {ranking.examined} candidates match: {best}")
    print(f"\nTyping {TYPED!r}:")
    for ranking in steps:
        best = ranking.hits[0].path if ranking.hits else "-"
        print(f"  {ranking.query:<16} {ranking.files:>5} of {ranking.examined:>5} examined: {best}")


def show_timings(timings: list[Timing]) -> None:
    print(f"\n{'':<8}{'index':>10}{'session':>12}{'a query':>14}{'again':>12}{'a line':>12}")
    for timing in timings:
        parts = timing.parts
        print(
            f"{timing.way:<8}{parts['index']:>8.2f} s{parts['refine'] * 1e3:>9.1f} ms"
            f"{parts['find'] * 1e6:>11.0f} us{parts['again'] * 1e6:>9.0f} us"
            f"{parts['lines'] * 1e6:>9.1f} us"
        )
    print(
        "\nindex: the tree, sent as one stream of files, and indexed. session: the typed text,\n"
        f"{len(TYPED)} queries and their answers as two streams. a query: a unary call. These are\n"
        "mostly the server's own work. again: the same queries, which the server remembers.\n"
        "a line: a message of a server stream. These are mostly the transport."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="Search source files over each transport.")
    parser.add_argument("directory", nargs="?", type=Path, default=sysconfig.get_path("stdlib"))
    parser.add_argument("--over", action="append", choices=("shm", "unix", "grpcio"))
    arguments = parser.parse_args()

    root = Path(arguments.directory).resolve()
    files = tree(root)
    if not files:
        parser.error(f"no Python files below {root}")
    print(f"Python files below {root}")
    timings: list[Timing] = []
    with tempfile.TemporaryDirectory(prefix="search-") as directory:
        for way in ways(Path(directory)).values():
            if not arguments.over or way.name in arguments.over:
                timings.append(search(way, files, show=not timings))
    show_timings(timings)


if __name__ == "__main__":
    main()
