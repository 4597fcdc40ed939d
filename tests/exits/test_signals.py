"""SIGINT interrupts every wait; stop_on_signals turns it into a stop."""

from __future__ import annotations

import signal
import textwrap
from time import monotonic

import pytest

from tests.conftest import spread
from tests.exits.conftest import KINDS
from tests.exits.programs import Program

BOUND = 5.0
"""Seconds that "within a second" may take on a machine under load."""

SERVE = "server = serve(futures.ThreadPoolExecutor(4))\n"

WAITS = {
    "a blocking call": "hold(b'')",
    "a call with a timeout": "hold(b'', timeout=50)",
    "with_call": "hold.with_call(b'')",
    "a future's result": "hold.future(b'').result()",
    "a future's code": "hold.future(b'').code()",
    "an iteration": "for _ in channel.unary_stream('/s/silent')(b''): pass",
    "the metadata of a call": "hold.future(b'').initial_metadata()",
    "a stream of requests": """
        main = threading.main_thread().ident
        def requests():
            # Not while it starts this thread: what an interrupt does there is CPython's affair.
            while sys._current_frames()[main].f_code.co_filename == threading.__file__:
                ever.wait(0.001)
            say("held")
            ever.wait(60)
            yield b""
        consume(requests())
        """,
    "a stream that is not read": """
        stream = channel.stream_unary('/s/hold_stream')
        stream(iter([b'x' * 30000] * 1000))
        """,
    "a large request that is not read": "channel.unary_unary('/s/hold')(bytes(1 << 20))",
    "a waiting server": "say('held'); server.wait_for_termination()",
    "a connection to come": """
        server.stop(None)
        say("held")
        call(b"", wait_for_ready=True)
        """,
}

MORE = """
def silent(request, context):
    yield b""
    say("held")
    ever.wait(60)

def hold_stream(requests, context):
    next(requests)
    say("held")
    ever.wait(60)
    return b""

server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("s", {
    "silent": grpc.unary_stream_rpc_method_handler(silent),
    "hold_stream": grpc.stream_unary_rpc_method_handler(hold_stream),
}),))
"""


@pytest.mark.parametrize(("target", "name"), spread(KINDS, WAITS), indirect=["target"])
def test_sigint_interrupts(target: str, name: str) -> None:
    body = f"""
try:
{textwrap.indent(textwrap.dedent(WAITS[name]), "    ")}
except KeyboardInterrupt:
    say("interrupted")
# What was interrupted has left the channel as it should be.
ever.set()
if not server.stop(0).wait(0):
    server.wait_for_termination(10)
"""
    with Program(target, SERVE + MORE + body) as program:
        program.hear("held")
        begin = monotonic()
        program.signal(signal.SIGINT)
        program.hear("interrupted")
        assert monotonic() - begin < BOUND
        assert program.finish() == (0, "", "")


def test_an_uncaught_sigint_ends_the_process(target: str) -> None:
    with Program(target, SERVE + "ever.set\nhold(b'')\n") as program:
        program.hear("held")
        program.signal(signal.SIGINT)
        # The pool's thread is in a handler of the program's: its exit waits for that.
        program.signal(signal.SIGTERM)
        code, _, _ = program.finish()
    assert code in (-signal.SIGINT, -signal.SIGTERM)


def test_the_channel_works_on_after_an_interrupted_call(target: str) -> None:
    body = """
    for _ in range(3):
        try:
            hold(b"")
        except KeyboardInterrupt:
            say("interrupted")
        assert call(b"x") == b"x"
    ever.set()
    """
    with Program(target, SERVE + textwrap.dedent(body)) as program:
        for _ in range(3):
            program.hear("held")
            program.signal(signal.SIGINT)
            program.hear("interrupted")
        assert program.finish() == (0, "", "")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stop_on_signals_stops_an_idle_server_at_once(target: str, number: int) -> None:
    body = """
    localrpc.stop_on_signals(server, 30)
    assert call(b"x") == b"x"
    say("up")
    server.wait_for_termination()
    say("down")
    """
    with Program(target, SERVE + textwrap.dedent(body)) as program:
        program.hear("up")
        program.signal(number)
        program.hear("down")
        assert program.finish() == (0, "", "")


def test_the_first_signal_lets_a_call_finish(target: str) -> None:
    body = """
    localrpc.stop_on_signals(server, 30)
    future = hold.future(b"done")
    def refuse():
        try:
            while True:
                call(b"")
        except grpc.RpcError as error:
            say(error.code().name)
            ever.set()
    threading.Thread(target=refuse).start()
    server.wait_for_termination()
    say(future.result().decode())
    say("down")
    """
    with Program(target, SERVE + textwrap.dedent(body)) as program:
        program.hear("held")
        program.signal(signal.SIGTERM)
        program.hear("UNAVAILABLE")
        assert program.finish() == (0, "done\ndown\n", "")


def test_the_second_signal_ends_it_at_once(target: str) -> None:
    body = """
    localrpc.stop_on_signals(server, 30)
    future = channel.unary_unary("/s/until_over").future(b"")
    def watch():
        try:
            while True:
                call(b"")
        except grpc.RpcError as error:
            say("stopping")
    threading.Thread(target=watch).start()
    server.wait_for_termination()
    say(future.code().name)
    """
    with Program(target, SERVE + textwrap.dedent(body)) as program:
        program.hear("held")
        program.signal(signal.SIGTERM)
        program.hear("stopping")
        program.signal(signal.SIGTERM)
        program.hear("UNAVAILABLE")
        assert program.finish() == (0, "", "")
