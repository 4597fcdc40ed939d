"""No exit hangs or prints anything, whatever an asyncio program has left open."""

from __future__ import annotations

import signal
import sys
import textwrap

import pytest

from tests.conftest import DISTINCT, FULL, TWO_PROCESSES, fresh_target, spread
from tests.exits.programs import Program, in_fresh_interpreter
from tests.skips import only_where

PRELUDE = """
import asyncio
import localrpc.aio

class Handlers(grpc.GenericRpcHandler):
    async def echo(self, request, context):
        return request

    async def hold(self, request, context):
        say("held")
        try:
            await asyncio.Event().wait()
        finally:
            say("left")

    async def produce(self, request, context):
        while True:
            yield request

    async def trickle(self, request, context):
        yield request
        try:
            await asyncio.Event().wait()
        finally:
            say("left")

    async def mirror(self, requests, context):
        async for request in requests:
            yield request

    def plain(self, request, context):
        return request

    def service(self, details):
        name = details.method.rpartition("/")[2]
        if name in ("produce", "trickle"):
            return grpc.unary_stream_rpc_method_handler(getattr(self, name))
        if name == "mirror":
            return grpc.stream_stream_rpc_method_handler(self.mirror)
        return grpc.unary_unary_rpc_method_handler(getattr(self, name))

async def serve():
    server = localrpc.aio.server(handlers=(Handlers(),))
    server.add_insecure_port(target)
    await server.start()
    return server

def dial():
    channel = localrpc.aio.insecure_channel(target)
    return channel, channel.unary_unary("/s/echo")
"""

EXITS = {
    "all closed": """
        async def main():
            server = await serve()
            channel, echo = dial()
            assert await echo(b"x") == b"x"
            await channel.close()
            await server.stop(None)
        asyncio.run(main())
        """,
    "nothing closed": """
        async def main():
            server = await serve()
            channel, echo = dial()
            assert await echo(b"x") == b"x"
        asyncio.run(main())
        """,
    "nothing closed, and all of it still referred to": """
        async def main():
            global server, channel, echo
            server = await serve()
            channel, echo = dial()
            assert await echo(b"x") == b"x"
        asyncio.run(main())
        """,
    "a call in flight": """
        async def main():
            global server, channel, call
            server = await serve()
            channel, _ = dial()
            call = channel.unary_unary("/s/hold")(b"")
            await call.wait_for_connection()
        asyncio.run(main())
        """,
    "a task that waits for a call": """
        async def main():
            global server, task
            server = await serve()
            channel, _ = dial()
            async def wait():
                await channel.unary_unary("/s/hold")(b"")
            task = asyncio.ensure_future(wait())
            await asyncio.sleep(0)
        asyncio.run(main())
        """,
    "in the middle of a stream": """
        async def main():
            global server, call
            server = await serve()
            channel, _ = dial()
            call = channel.unary_stream("/s/produce")(b"x" * 1000)
            for _ in range(100):
                await call.read()
        asyncio.run(main())
        """,
    # grpc/grpc#34139: an exception in a callback of the poller.
    "an exit right after a stream": """
        async def main():
            server = await serve()
            channel, _ = dial()
            call = channel.stream_stream("/s/mirror")()
            await call.write(b"x")
            assert await call.read() == b"x"
            await call.done_writing()
            assert await call.read() is grpc.aio.EOF
            await channel.close()
            sys.exit(0)
        asyncio.run(main())
        """,
    "a call that waits for a server that never comes": """
        async def main():
            global call
            channel, echo = dial()
            call = echo(b"x", wait_for_ready=True)
            await asyncio.sleep(0)
        asyncio.run(main())
        """,
    "a loop that is closed by hand": """
        loop = asyncio.new_event_loop()
        server = loop.run_until_complete(serve())
        channel, echo = dial()
        async def call():
            return await echo(b"x")
        assert loop.run_until_complete(call()) == b"x"
        loop.close()
        """,
    "a loop that is closed while a call waits for a server": """
        loop = asyncio.new_event_loop()
        async def main():
            global channel, call
            channel, echo = dial()
            call = echo(b"x", wait_for_ready=True)
            await asyncio.sleep(0.01)
        loop.run_until_complete(main())
        loop.close()
        del call
        """,
    "a loop that is never closed": """
        loop = asyncio.new_event_loop()
        server = loop.run_until_complete(serve())
        channel, echo = dial()
        async def call():
            return await echo(b"x")
        assert loop.run_until_complete(call()) == b"x"
        """,
    "two loops in a row": """
        channel, echo = dial()
        async def main():
            global server
            server = await serve()
            assert await echo(b"x", wait_for_ready=True) == b"x"
        asyncio.run(main())
        asyncio.run(main())
        """,
    "a server that was never started": """
        async def main():
            global server
            server = localrpc.aio.server(handlers=(Handlers(),))
            server.add_insecure_port(target)
        asyncio.run(main())
        """,
    "a loop in a daemon thread": """
        up = threading.Event()
        async def main():
            server = await serve()
            channel, echo = dial()
            assert await echo(b"x") == b"x"
            up.set()
            await asyncio.Event().wait()
        threading.Thread(target=asyncio.run, args=(main(),), daemon=True).start()
        assert up.wait(20)
        """,
    "a handler on a pool": """
        async def main():
            server = await serve()
            channel, _ = dial()
            assert await channel.unary_unary("/s/plain")(b"x") == b"x"
        asyncio.run(main())
        """,
    "a forked child that leaves by itself": """
        async def main():
            server = await serve()
            channel, echo = dial()
            assert await echo(b"x") == b"x"
            pid = os.fork()
            if pid == 0:
                os._exit(0)
            assert os.waitpid(pid, 0)[1] == 0
            assert await echo(b"z") == b"z"
            await channel.close()
            await server.stop(None)
        asyncio.run(main())
        """,
}


KINDS = [kind for kind in TWO_PROCESSES if kind in DISTINCT]


@pytest.fixture(params=KINDS)
def target(request: pytest.FixtureRequest, runtime_directory: str) -> str:
    return fresh_target(request.param, runtime_directory)


def program(target: str, body: str, *, fresh: bool = FULL) -> Program:
    return Program(target, PRELUDE + textwrap.dedent(body), fresh=fresh)


@pytest.mark.parametrize(("target", "name"), spread(KINDS, EXITS), indirect=["target"])
def test_no_exit_hangs_or_complains(target: str, name: str) -> None:
    with program(target, EXITS[name], fresh=in_fresh_interpreter(target)) as running:
        code, out, err = running.finish()
    assert (code, err) == (0, ""), out


WAITS = {
    "a call": """await channel.unary_unary("/s/hold")(b"")""",
    "a stream": """
        call = channel.unary_stream("/s/produce")(b"x" * 1000)
        say("held")
        async for _ in call: pass
        """,
    "a server": """
        say("held")
        await server.wait_for_termination()
        """,
}


@only_where(sys.version_info >= (3, 11), "Python 3.10 interrupts whichever task runs")
@pytest.mark.parametrize(("target", "name"), spread(KINDS, WAITS), indirect=["target"])
def test_sigint_interrupts(target: str, name: str) -> None:
    body = f"""
async def main():
    server = await serve()
    channel, _ = dial()
    try:
{textwrap.indent(textwrap.dedent(WAITS[name]), "        ")}
    finally:
        await channel.close()
        await server.stop(None)

try:
    asyncio.run(main())
except KeyboardInterrupt:
    say("interrupted")
"""
    with program(target, body) as running:
        running.hear("held")
        running.signal(signal.SIGINT)
        if name == "a call":
            running.hear("left")
        running.hear("interrupted")
        assert running.finish() == (0, "", "")


def test_a_second_signal_ends_the_calls_that_the_first_one_let_go_on(target: str) -> None:
    body = """
    async def main():
        server = await serve()
        localrpc.aio.stop_on_signals(server, 30)
        channel, _ = dial()
        call = channel.unary_unary("/s/hold")(b"")
        try:
            await call
        except grpc.aio.AioRpcError as error:
            say(error.code().name)
        await server.wait_for_termination()
        await channel.close()
    asyncio.run(main())
    """
    with program(target, body) as running:
        running.hear("held")
        # Of another kind: two pending signals of one kind are one.
        running.signal(signal.SIGTERM)
        running.signal(signal.SIGINT)
        running.hear("left")
        running.hear("UNAVAILABLE")
        assert running.finish() == (0, "", "")


def test_a_client_that_exits_in_a_call_ends_it_at_the_server(target: str) -> None:
    server = """
    async def main():
        server = await serve()
        say("up")
        await server.wait_for_termination()
    asyncio.run(main())
    """
    client = """
    async def main():
        channel, _ = dial()
        call = channel.unary_stream("/s/trickle")(b"first", wait_for_ready=True)
        assert await call.read() == b"first"
        say("begun")
    asyncio.run(main())
    """
    with program(target, server) as serving:
        serving.hear("up")
        with program(target, client) as calling:
            calling.hear("begun")
            code, _, err = calling.finish()
        assert (code, err) == (0, "")
        serving.hear("left")


def test_an_interrupt_in_a_handler_loses_nothing_else(one_target: str) -> None:
    """The loop stops with it; what had come together with the call is there when it runs again."""
    body = """
    class Interrupting(Handlers):
        async def hold(self, request, context):
            raise KeyboardInterrupt

    async def start():
        global server, channel, calls
        server = localrpc.aio.server(handlers=(Interrupting(),))
        server.add_insecure_port(target)
        await server.start()
        channel, echo = dial()
        await channel.channel_ready()
        # One turn of the loop: one batch at the server.
        hold = channel.unary_unary("/s/hold")
        calls = [echo(b"1"), hold(b""), echo(b"2"), hold(b""), echo(b"3")]

    async def finish():
        await asyncio.wait_for(asyncio.gather(*(call.code() for call in calls)), 20)
        assert [await calls[n] for n in (0, 2, 4)] == [b"1", b"2", b"3"]
        assert [(await calls[n].code()).name for n in (1, 3)] == ["CANCELLED"] * 2
        await channel.close()
        await server.stop(None)

    loop = asyncio.new_event_loop()
    interrupts = 0

    def run(work):
        global interrupts
        task = loop.create_task(work)
        while True:
            try:
                return loop.run_until_complete(task)
            except KeyboardInterrupt:
                interrupts += 1

    run(start())
    run(finish())
    loop.close()
    say(str(interrupts))
    """
    with program(one_target, body) as running:
        running.hear("2")
        code, out, err = running.finish()
        # Where handlers have tasks from the start, asyncio reports those that ended so.
        assert (code, out) == (0, ""), err
