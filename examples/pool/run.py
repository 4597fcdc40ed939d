"""Paint a picture with one worker process, then with several, which are replaced meanwhile.

Run: python run.py [--target TARGET] [--workers N] [--width N] [--height N] [--depth N]
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from generated.pool_localrpc import PainterStub
from generated.pool_pb2 import Painted, Row

import localrpc

HERE = Path(__file__).parent
PATIENCE = 60.0
SHADES = " .:-=+*#%@"


@dataclass(frozen=True)
class Picture:
    rows: list[Painted]
    seconds: float


@contextmanager
def serving(target: str, workers: int) -> Iterator[subprocess.Popen[str]]:
    """Run `localrpc serve` until the end of the block."""
    command = [sys.executable, "-m", "localrpc", "serve", "painter:Painter", "--target", target]
    command += ["--workers", str(workers), "--log-level", "warning"]
    with subprocess.Popen(command, cwd=HERE, text=True) as supervisor:
        try:
            yield supervisor
            supervisor.terminate()
            assert supervisor.wait(PATIENCE) == 0
        finally:
            supervisor.kill()


def paint(
    target: str, threads: int, size: Row, supervisor: subprocess.Popen[str] | None
) -> Picture:
    """Paint with many calls at a time on one channel; have `supervisor` replace its workers."""
    rows = [
        Row(number=number, width=size.width, height=size.height, depth=size.depth)
        for number in range(size.height)
    ]
    with localrpc.insecure_channel(target) as channel, ThreadPoolExecutor(threads) as pool:
        painter = PainterStub(channel)

        def paint_one(row: Row) -> Painted:
            if supervisor is not None and row.number == size.height // 4:
                supervisor.send_signal(signal.SIGHUP)
            return painter.Paint(row, timeout=PATIENCE)

        # The server has just been started: the first call waits for it.
        painter.Paint(rows[0], timeout=PATIENCE, wait_for_ready=True)
        begun = time.perf_counter()
        painted = list(pool.map(paint_one, rows))
        return Picture(painted, time.perf_counter() - begun)


def show(picture: Picture) -> None:
    lines = picture.rows[:: max(1, len(picture.rows) // 24)]
    across = max(1, len(lines[0].points) // 78)
    for line in lines:
        print("".join(SHADES[point * (len(SHADES) - 1) // 255] for point in line.points[::across]))


def tell(name: str, picture: Picture, alone: float) -> None:
    by = Counter(row.pid for row in picture.rows)
    print(f"\n{name}: {picture.seconds:.2f} s, {alone / picture.seconds:.2f} times as fast as one")
    for pid, count in by.most_common():
        print(f"  pid {pid:<8} {count:>4} rows")


def main() -> None:
    parser = argparse.ArgumentParser(description="Paint with several worker processes.")
    parser.add_argument("--target", help="Where they serve. Default: a name in shared memory.")
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)), metavar="N")
    parser.add_argument("--width", type=int, default=390, metavar="N")
    parser.add_argument("--height", type=int, default=240, metavar="N")
    parser.add_argument("--depth", type=int, default=120, metavar="N")
    arguments = parser.parse_args()
    size = Row(width=arguments.width, height=arguments.height, depth=arguments.depth)
    with tempfile.TemporaryDirectory() as folder:
        target = arguments.target or f"shm:{folder}/painter"
        threads = 2 * arguments.workers
        with serving(target, 1):
            one = paint(target, threads, size, None)
        with serving(target, arguments.workers) as supervisor:
            several = paint(target, threads, size, supervisor)
    assert [row.points for row in one.rows] == [row.points for row in several.rows]
    show(several)
    tell("one worker", one, one.seconds)
    tell(f"{arguments.workers} workers, replaced while they painted", several, one.seconds)


if __name__ == "__main__":
    main()
