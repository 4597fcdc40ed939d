"""Small programs that run in an interpreter of their own and should end by themselves."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.peers.journal import PATIENCE

ROOT = Path(__file__).parents[2]

_PRELUDE = """
import os, signal, sys, threading
from concurrent import futures
import grpc, localrpc

target = sys.argv[1]
ever = threading.Event()

def say(word):
    os.write(1, word.encode() + b"\\n")

def echo(request, context):
    return request

def hold(request, context):
    say("held")
    ever.wait(60)
    return request

def end_of(context):
    over = threading.Event()
    if not context.add_callback(over.set):
        over.set()  # its client has gone before the handler came
    return over

def until_over(request, context):
    over = end_of(context)
    say("held")
    over.wait(60)
    return request

def produce(request, context):
    say("held")
    while True:
        yield request

def consume(requests, context):
    for _ in requests:
        pass
    return b""

HANDLERS = grpc.method_handlers_generic_handler("s", {
    "echo": grpc.unary_unary_rpc_method_handler(echo),
    "hold": grpc.unary_unary_rpc_method_handler(hold),
    "until_over": grpc.unary_unary_rpc_method_handler(until_over),
    "produce": grpc.unary_stream_rpc_method_handler(produce),
    "consume": grpc.stream_unary_rpc_method_handler(consume),
})

def serve(pool):
    server = localrpc.server(pool, (HANDLERS,))
    server.add_insecure_port(target)
    server.start()
    return server

channel = localrpc.insecure_channel(target)
call = channel.unary_unary("/s/echo")
hold = channel.unary_unary("/s/hold")
produce = channel.unary_stream("/s/produce")
consume = channel.stream_unary("/s/consume")
"""


# From 3.12 on Python itself complains of every fork of a process with threads.
_QUIET = "ignore:This process:DeprecationWarning"


class Program:
    """`body` after a prelude with handlers and a channel; what it says comes line by line."""

    def __init__(self, target: str, body: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-W", _QUIET, "-c", _PRELUDE + body, target],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            # Its main thread has to handle signals, even if this run has disabled timers.
            env=os.environ
            | {
                "PYTHONPATH": str(ROOT),
                "LOCALRPC_TIMERS": "on",
                # A signal may come between two instructions: one that opens a file, in Python's
                # own import too, and the one from which on it is closed in any case.
                "PYTHONWARNINGS": os.environ["PYTHONWARNINGS"] + ",ignore::ResourceWarning",
            },
        )

    def __enter__(self) -> Program:
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.communicate()

    def hear(self, word: str) -> None:
        assert self._process.stdout is not None
        said = b""
        # Not readline(): what that takes beyond the line is lost to communicate().
        while not said.endswith(b"\n") and (byte := os.read(self._process.stdout.fileno(), 1)):
            said += byte
        assert said.decode() == f"{word}\n", (said, self.finish())

    def signal(self, number: int) -> None:
        self._process.send_signal(number)

    def finish(self) -> tuple[int, str, str]:
        """Exit code, the rest of its output, its errors; it has to end by itself."""
        try:
            out, err = self._process.communicate(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            out, err = self._process.communicate()
            raise AssertionError(f"the program does not end: {out!r} {err!r}") from None
        return self._process.returncode, out, err
