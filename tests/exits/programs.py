"""Small programs that run in an interpreter of their own and should end by themselves."""

from __future__ import annotations

from tests.conftest import FULL
from tests.peers.interpreters import Interpreter

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


class Program(Interpreter):
    """`body` after a prelude with handlers and a channel; what it says comes line by line."""

    def __init__(self, target: str, body: str, *, fresh: bool = FULL) -> None:
        super().__init__(_PRELUDE + body, target, fresh=fresh)


def in_fresh_interpreter(target: str) -> bool:
    """Each exit is tried so with one kind of target: the end of all modules takes longest there."""
    return FULL or target.startswith("unix:")
