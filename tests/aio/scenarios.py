"""What user code does with an asyncio API. Each scenario returns what it has seen."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
from grpc import aio

from .world import PATIENCE, Scenario, World, ended, outcome, plain

SCENARIOS: dict[str, Scenario] = {}


def scenario(function: Scenario) -> Scenario:
    SCENARIOS[function.__name__] = function
    return function


async def echo(request: bytes, context: Any) -> bytes:
    return request


async def numbers(request: bytes, context: Any) -> AsyncIterator[bytes]:
    for number in range(int(request)):
        yield b"%d" % number


async def joined(requests: Any, context: Any) -> bytes:
    return b",".join([request async for request in requests])


async def back(requests: Any, context: Any) -> AsyncIterator[bytes]:
    async for request in requests:
        yield request


async def some(*items: bytes) -> AsyncIterator[bytes]:
    for item in items:
        yield item


async def become(condition: Callable[[], Any]) -> None:
    for _ in range(int(PATIENCE * 200)):
        if condition():
            return
        await asyncio.sleep(0.005)
    raise AssertionError("it has not come to that")


@scenario
async def all_kinds_answer(w: World) -> Any:
    async with w.serving(uu=echo, us=numbers, su=joined, ss=back) as m:
        uu, us, su, ss = m.uu(b"x"), m.us(b"3"), m.su(some(b"a", b"b")), m.ss(iter([b"c", b"d"]))
        return {
            "kinds": [plain(each) for each in (uu, us, su, ss)],
            "uu": await outcome(uu),
            "us": [each async for each in us],
            "su": await outcome(su),
            "ss": [each async for each in ss],
            "ended": [await ended(each) for each in (uu, us, su, ss)],
        }


@scenario
async def a_unary_call_is_awaited_twice(w: World) -> Any:
    async with w.serving(uu=echo) as m:
        call = m.uu(b"x")
        return [await outcome(call), await outcome(call)]


@scenario
async def metadata_of_every_kind(w: World) -> Any:
    async def shown(context: Any) -> None:
        got = sorted(tuple(pair) for pair in context.invocation_metadata())
        w.noted.append([pair for pair in got if pair[0].startswith("k")])
        await context.send_initial_metadata((("i", "1"), ("i-bin", b"\x00")))
        context.set_trailing_metadata((("t", "2"),))

    async def uu(request: bytes, context: Any) -> bytes:
        await shown(context)
        return request

    async def us(request: bytes, context: Any) -> AsyncIterator[bytes]:
        await shown(context)
        yield request

    async with w.serving(uu=uu, us=us) as m:
        sent = (("k", "v"), ("k-bin", b"\xff"))
        one, two = m.uu(b"x", metadata=sent), m.us(b"y", metadata=aio.Metadata(*sent))
        seen = [await outcome(one.initial_metadata()), await outcome(two.initial_metadata())]
        await one
        seen += [[each async for each in two]]
        return [seen, await ended(one), await ended(two), w.noted]


@scenario
async def a_handler_aborts(w: World) -> Any:
    async def uu(request: bytes, context: Any) -> bytes:
        await context.abort(grpc.StatusCode.NOT_FOUND, "gone", (("t", "1"),))
        return request

    async def us(request: bytes, context: Any) -> AsyncIterator[bytes]:
        yield b"one"
        await context.abort(grpc.StatusCode.DATA_LOSS, "lost")

    async with w.serving(uu=uu, us=us) as m:
        stream = m.us(b"")
        got = [await outcome(stream.read()), await outcome(stream.read())]
        return [await outcome(m.uu(b"")), got, await ended(stream)]


@scenario
async def a_handler_aborts_with_a_status(w: World) -> Any:
    class Status(grpc.Status):
        code = grpc.StatusCode.ABORTED
        details = "as a status"
        trailing_metadata = (("t", "x"),)

    async def uu(request: bytes, context: Any) -> bytes:
        await context.abort_with_status(Status())
        return request

    async with w.serving(uu=uu) as m:
        return await outcome(m.uu(b""))


@scenario
async def a_handler_raises(w: World) -> Any:
    async def uu(request: bytes, context: Any) -> bytes:
        raise ValueError("by intent")

    async def uu_code(request: bytes, context: Any) -> bytes:
        context.set_code(grpc.StatusCode.OUT_OF_RANGE)
        raise ValueError("by intent")

    async def us(request: bytes, context: Any) -> AsyncIterator[bytes]:
        yield b"one"
        raise ValueError("by intent")

    async with w.serving(uu=uu, uu_code=uu_code, us=us) as m:
        stream = m.us(b"")
        got = [await outcome(stream.read()), await outcome(stream.read())]
        return [await outcome(m.uu(b"")), (await outcome(m.uu_code(b"")))[:2], got]


@scenario
async def a_handler_sets_code_and_details(w: World) -> Any:
    async def uu(request: bytes, context: Any) -> bytes:
        context.set_code(grpc.StatusCode.INVALID_ARGUMENT)
        context.set_details("not that")
        w.noted.append([plain(context.code()), plain(context.details())])
        return request

    async with w.serving(uu=uu) as m:
        call = m.uu(b"x")
        return [await outcome(call), await ended(call), w.noted]


@scenario
async def a_method_is_missing(w: World) -> Any:
    async with w.serving(uu=echo) as m:
        return [await outcome(m.uu_other(b"")), await outcome(m.us_other(b"").read())]


@scenario
async def a_deadline_passes(w: World) -> Any:
    async def uu(request: bytes, context: Any) -> bytes:
        w.noted.append(plain(context.time_remaining()))
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            w.noted.append("cancelled")
            raise
        return request

    async with w.serving(uu=uu) as m:
        call = m.uu(b"", timeout=0.3)
        remaining = plain(call.time_remaining())
        result = await outcome(call)
        await become(lambda: "cancelled" in w.noted)
        return [remaining, result, await ended(call), w.noted]


@scenario
async def a_deadline_has_passed_already(w: World) -> Any:
    async with w.serving(uu=echo, us=numbers) as m:
        return [await outcome(m.uu(b"", timeout=-1)), await outcome(m.us(b"1", timeout=-1).read())]


@scenario
async def a_call_is_cancelled(w: World) -> Any:
    began = asyncio.Event()

    async def uu(request: bytes, context: Any) -> bytes:
        context.add_done_callback(lambda c: w.noted.append(["done", c.cancelled(), c.done()]))
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            w.noted.append("over")
        return request

    async with w.serving(uu=uu) as m:
        call = m.uu(b"")
        await began.wait()
        first, second = call.cancel(), call.cancel()
        result = await outcome(call)
        await become(lambda: "over" in w.noted)
        return [first, second, result, await ended(call), "over" in w.noted]


@scenario
async def a_call_is_cancelled_at_once(w: World) -> Any:
    async with w.serving(uu=echo) as m:
        call = m.uu(b"")
        return [call.cancel(), await outcome(call), await ended(call)]


@scenario
async def the_task_of_an_await_is_cancelled(w: World) -> Any:
    began = asyncio.Event()

    async def uu(request: bytes, context: Any) -> bytes:
        began.set()
        await asyncio.Event().wait()
        return request

    async with w.serving(uu=uu) as m:
        call = m.uu(b"")

        async def wait() -> None:
            await call

        task = asyncio.ensure_future(wait())
        await began.wait()
        task.cancel()
        result = await outcome(task)
        return [result[0], await ended(call)]


@scenario
async def a_stream_is_cancelled_after_a_read(w: World) -> Any:
    async def us(request: bytes, context: Any) -> AsyncIterator[bytes]:
        try:
            yield b"one"
            await asyncio.Event().wait()
        finally:
            w.noted.append("over")

    async with w.serving(us=us) as m:
        call = m.us(b"")
        first = await outcome(call.read())
        call.cancel()
        result = await outcome(call.read())
        await become(lambda: w.noted == ["over"])
        return [first, result, await ended(call)]


@scenario
async def eof_comes_again_and_again(w: World) -> Any:
    async with w.serving(us=numbers, ss=back) as m:
        one, two = m.us(b"2"), m.ss()
        await two.write(b"x")
        await two.done_writing()
        await two.done_writing()
        return [
            [await outcome(one.read()) for _ in range(5)],
            [await outcome(two.read()) for _ in range(4)],
            await outcome(two.write(b"late")),
        ]


@scenario
async def styles_are_not_mixed(w: World) -> Any:
    async with w.serving(us=numbers, ss=back) as m:
        one, two = m.us(b"2"), m.ss(iter([b"x"]))
        async for _ in one:
            break
        seen = [(await outcome(one.read()))[0], (await outcome(two.write(b"x")))[0]]
        one.cancel()
        two.cancel()
        return seen


@scenario
async def writing_after_done_writing_and_after_the_end(w: World) -> Any:
    async with w.serving(su=joined) as m:
        call = m.su()
        await call.write(b"a")
        await call.done_writing()
        late = await outcome(call.write(b"b"))
        result = await outcome(call)
        return [late, result, await outcome(call.write(b"c")), await outcome(call.done_writing())]


@scenario
async def callbacks_of_the_end(w: World) -> Any:
    async with w.serving(uu=echo) as m:
        called: list[Any] = []
        call = m.uu(b"x")
        call.add_done_callback(lambda c: called.append(c is call))
        await call
        await become(lambda: called)
        call.add_done_callback(lambda c: called.append(c is call))
        await become(lambda: len(called) == 2)
        return called


@scenario
async def a_handler_reads_and_writes(w: World) -> Any:
    async def ss(requests: Any, context: Any) -> None:
        while (request := await context.read()) is not aio.EOF:
            await context.write(request + b"!")
        w.noted.append(plain(await context.read()))

    async def us(request: bytes, context: Any) -> None:
        for _ in range(3):
            await context.write(request)

    async def su(requests: Any, context: Any) -> bytes:
        first = await context.read()
        second = await context.read()
        return bytes(first + second)

    async with w.serving(ss=ss, us=us, su=su) as m:
        return [
            [each async for each in m.ss(iter([b"a", b"b"]))],
            [each async for each in m.us(b"x")],
            await outcome(m.su(iter([b"1", b"2"]))),
            w.noted,
        ]


@scenario
async def contexts_tell_of_the_call(w: World) -> Any:
    async def uu(request: bytes, context: Any) -> bytes:
        w.noted.append(
            [
                ":" in context.peer(),
                plain(context.peer_identities()),
                plain(context.peer_identity_key()),
                sorted(context.auth_context()),
                context.cancelled(),
                context.done(),
                plain(context.code()),
                plain(context.details()),
                context.time_remaining() is None,
            ]
        )
        context.set_compression(grpc.Compression.Gzip)
        context.disable_next_message_compression()
        return request

    async with w.serving(uu=uu) as m:
        await m.uu(b"x")
        return w.noted


@scenario
async def a_request_iterator_raises(w: World) -> Any:
    async def requests() -> AsyncIterator[bytes]:
        yield b"one"
        raise ValueError("by intent")

    async def su(requests: Any, context: Any) -> bytes:
        return b"".join([request async for request in requests])

    async with w.serving(su=su) as m:
        call = m.su(requests())
        await outcome(call)
        return [plain(await call.code()) != "OK", call.done()]


@scenario
async def more_calls_than_allowed(w: World) -> Any:
    began = asyncio.Event()

    async def uu(request: bytes, context: Any) -> bytes:
        began.set()
        await asyncio.Event().wait()
        return request

    async with w.serving(uu=uu, server={"maximum_concurrent_rpcs": 1}) as m:
        first = m.uu(b"")
        await began.wait()
        refused = await outcome(m.uu(b""))
        first.cancel()
        return refused


@scenario
async def stop_waits_within_its_grace(w: World) -> Any:
    began, go = asyncio.Event(), asyncio.Event()

    async def uu(request: bytes, context: Any) -> bytes:
        began.set()
        await go.wait()
        return request

    async with w.serving(uu=uu) as m:
        call = m.uu(b"x")
        await began.wait()
        stopping = asyncio.ensure_future(m.server.stop(PATIENCE))
        await asyncio.sleep(0.05)
        waits = stopping.done()
        go.set()
        result = await outcome(call)
        await stopping
        return [waits, result, await outcome(m.server.wait_for_termination(1))]


@scenario
async def stop_without_grace_cancels_handlers(w: World) -> Any:
    began = asyncio.Event()

    async def uu(request: bytes, context: Any) -> bytes:
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            w.noted.append("over")
        return request

    async with w.serving(uu=uu) as m:
        call = m.uu(b"x")
        await began.wait()
        await m.server.stop(None)
        result = await outcome(call)
        return [result[:2], w.noted, await outcome(m.server.stop(None))]


@scenario
async def a_server_starts_once(w: World) -> Any:
    async with w.serving(uu=echo) as m:
        return [await outcome(m.server.start()), await outcome(m.uu(b"x"))]


@scenario
async def the_channel_is_closed(w: World) -> Any:
    began = asyncio.Event()

    async def uu(request: bytes, context: Any) -> bytes:
        began.set()
        await asyncio.Event().wait()
        return request

    async with w.serving(uu=uu) as m:
        call = m.uu(b"x")
        await began.wait()
        await m.channel.close()
        again = m.channel.close()
        late = None
        try:
            m.uu(b"x")
        except Exception as error:
            late = plain(error)
        return [
            await outcome(call),
            await ended(call),
            await outcome(again),
            late,
            plain(m.channel.get_state()),
        ]


@scenario
async def connectivity(w: World) -> Any:
    channel = w.api.insecure_channel(w.target)
    seen = [plain(channel.get_state())]
    async with w.serving(uu=echo):
        await asyncio.wait_for(channel.channel_ready(), PATIENCE)
        seen.append(plain(channel.get_state()))
    await channel.close()
    return seen


@scenario
async def wait_for_ready_waits(w: World) -> Any:
    async with w.api.insecure_channel(w.target) as channel:
        method = channel.unary_unary("/w/uu")
        failed = (await outcome(method(b"x")))[:2]
        late = (await outcome(method(b"x", wait_for_ready=True, timeout=0.2)))[:2]
        patient = method(b"x", wait_for_ready=True)
        async with w.serving(uu=echo):
            return [failed, late, await outcome(patient)]


@scenario
async def wait_for_connection_returns(w: World) -> Any:
    async with w.serving(uu=echo, us=numbers, ss=back) as m:
        one, two, three = m.uu(b"x"), m.us(b"1"), m.ss()
        seen = [await outcome(each.wait_for_connection()) for each in (two, three)]
        seen.append(await outcome(one.wait_for_connection()))
        three.cancel()
        return seen


@scenario
async def messages_are_converted(w: World) -> Any:
    async with w.serving(uu=echo) as m:
        doubled = m.channel.unary_unary(
            "/w/uu",
            request_serializer=lambda text: text.encode(),
            response_deserializer=lambda data: data.decode() * 2,
        )
        return await outcome(doubled("x"))


@scenario
async def responses_cannot_be_serialized(w: World) -> Any:
    async def uu(request: bytes, context: Any) -> Any:
        return object()

    async with w.serving(uu=uu) as m:
        return (await outcome(m.uu(b"")))[:1]


@scenario
async def contextvars_of_a_handler(w: World) -> Any:
    import contextvars

    variable = contextvars.ContextVar("variable", default="none")

    async def uu(request: bytes, context: Any) -> bytes:
        before = variable.get()
        variable.set("set")
        await asyncio.sleep(0)
        w.noted.append([before, variable.get()])
        return request

    async with w.serving(uu=uu) as m:
        for _ in range(3):
            await m.uu(b"")
        return w.noted


@scenario
async def interceptors_of_a_server(w: World) -> Any:
    class Noting(aio.ServerInterceptor):
        def __init__(self, name: str) -> None:
            self.name = name

        async def intercept_service(self, continuation: Any, details: Any) -> Any:
            w.noted.append([self.name, details.method])
            return await continuation(details)

    async with w.serving(uu=echo, server={"interceptors": [Noting("a"), Noting("b")]}) as m:
        await m.uu(b"")
        return w.noted


@scenario
async def interceptors_of_a_client(w: World) -> Any:
    class Noting(aio.UnaryUnaryClientInterceptor):
        async def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
            w.noted.append([details.method, plain(details.timeout), plain(details.metadata)])
            call = await continuation(details, request + b"+")
            w.noted.append(plain(call))
            return call

    class Answering(aio.UnaryUnaryClientInterceptor):
        async def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
            return b"answered"

    seen = []
    for each in ([Noting(), Noting()], [Answering()], [Noting(), Answering()]):
        async with w.serving(uu=echo, channel={"interceptors": each}) as m:
            call = m.uu(b"x", timeout=PATIENCE, metadata=(("k", "v"),))
            seen += [plain(call), await outcome(call), await ended(call)]
    return [seen, w.noted]


@scenario
async def interceptors_of_streams(w: World) -> Any:
    class Doubling(aio.UnaryStreamClientInterceptor):
        async def intercept_unary_stream(
            self, continuation: Any, details: Any, request: Any
        ) -> Any:
            call = await continuation(details, request)

            async def doubled() -> AsyncIterator[bytes]:
                async for response in call:
                    yield response * 2

            return doubled()

    class Adding(aio.StreamStreamClientInterceptor):
        async def intercept_stream_stream(
            self, continuation: Any, details: Any, request_iterator: Any
        ) -> Any:
            async def added() -> AsyncIterator[bytes]:
                async for request in request_iterator:
                    yield request + b"+"

            return await continuation(details, added())

    interceptors = [Doubling(), Adding()]
    async with w.serving(us=numbers, ss=back, channel={"interceptors": interceptors}) as m:
        one, two, three = m.us(b"2"), m.ss(some(b"a", b"b")), m.ss()
        await three.write(b"w")
        await three.done_writing()
        return [
            plain(one),
            [each async for each in one],
            await ended(one),
            [each async for each in two],
            await ended(two),
            [await outcome(three.read()) for _ in range(2)],
        ]


@scenario
async def sync_handlers_run_on_the_pool(w: World) -> Any:
    from concurrent import futures

    def uu(request: bytes, context: Any) -> bytes:
        context.set_trailing_metadata((("t", "1"),))
        return request

    def uu_abort(request: bytes, context: Any) -> bytes:
        context.abort(grpc.StatusCode.NOT_FOUND, "not on the pool")
        return request

    def us(request: bytes, context: Any) -> Any:
        yield from (request, request)

    def su(requests: Any, context: Any) -> bytes:
        return b"".join(requests)

    def ss(requests: Any, context: Any) -> Any:
        yield from requests

    with futures.ThreadPoolExecutor(2) as pool:
        handlers = {"uu": uu, "uu_abort": uu_abort, "us": us, "su": su, "ss": ss}
        async with w.serving(**handlers, server={"migration_thread_pool": pool}) as m:
            call = m.uu(b"x")
            return [
                await outcome(call),
                await outcome(call.trailing_metadata()),
                await outcome(m.uu_abort(b"")),
                [each async for each in m.us(b"y")],
                await outcome(m.su(iter([b"a", b"b"]))),
                [each async for each in m.ss(iter([b"c"]))],
            ]


@scenario
async def large_messages(w: World) -> Any:
    async with w.serving(uu=echo, ss=back) as m:
        large = b"x" * (3 << 20)
        got = [len(each) async for each in m.ss(iter([large, b"y", large]))]
        return [await m.uu(large) == large, got]


@scenario
async def messages_beyond_the_limit(w: World) -> Any:
    limits = {"options": [("grpc.max_receive_message_length", 1000)]}
    async with w.serving(uu=echo, server=limits) as m:
        return [(await outcome(m.uu(b"x" * 2000)))[:3], await outcome(m.uu(b"y"))]


@scenario
async def every_argument_of_a_call(w: World) -> Any:
    async def told(context: Any) -> list[Any]:
        pairs = [pair for pair in context.invocation_metadata() if pair[0] == "k"]
        return [plain(pairs), plain(context.time_remaining())]

    async def uu(request: bytes, context: Any) -> bytes:
        w.noted.append(await told(context))
        return request

    async def us(request: bytes, context: Any) -> AsyncIterator[bytes]:
        w.noted.append(await told(context))
        yield request

    async def su(requests: Any, context: Any) -> bytes:
        w.noted.append(await told(context))
        return b"".join([request async for request in requests])

    async def ss(requests: Any, context: Any) -> AsyncIterator[bytes]:
        w.noted.append(await told(context))
        async for request in requests:
            yield request

    extra: dict[str, Any] = {
        "timeout": PATIENCE,
        "metadata": (("k", "v"),),
        "wait_for_ready": True,
        "compression": grpc.Compression.Gzip,
    }
    async with w.serving(uu=uu, us=us, su=su, ss=ss) as m:
        one, two = m.uu(b"x", **extra), m.us(b"x", **extra)
        three = m.su(request_iterator=some(b"a"), **extra)
        four = m.ss(request_iterator=some(b"b"), **extra)
        seen = [plain(each.time_remaining()) for each in (one, two, three, four)]
        called: list[str] = []
        for name, each in (("one", one), ("two", two), ("three", three), ("four", four)):
            each.add_done_callback(lambda _, name=name: called.append(name))
        seen += [await one, [each async for each in two], await three]
        seen += [[each async for each in four]]
        await become(lambda: len(called) == 4)
        return [seen, sorted(called), w.noted]


@scenario
async def call_credentials_need_a_secure_channel(w: World) -> Any:
    credentials = grpc.access_token_call_credentials("token")
    async with w.serving(uu=echo, us=numbers, su=joined, ss=back) as m:
        seen = []
        for method, request in ((m.uu, b"x"), (m.us, b"1"), (m.su, None), (m.ss, None)):
            try:
                method(request, credentials=credentials)
            except aio.UsageError as error:
                seen.append(str(error))
        return seen


@scenario
async def messages_of_all_kinds_are_converted(w: World) -> Any:
    converters: dict[str, Any] = {
        "request_serializer": lambda text: text.encode(),
        "response_deserializer": lambda data: data.decode() * 2,
    }
    async with w.serving(us=numbers, su=joined, ss=back) as m:
        us = m.channel.unary_stream("/w/us", **converters)
        su = m.channel.stream_unary("/w/su", **converters)
        ss = m.channel.stream_stream("/w/ss", **converters)
        return [
            [each async for each in us("2")],
            await outcome(su(iter(["a", "b"]))),
            [each async for each in ss(iter(["c"]))],
        ]


@scenario
async def stream_unary_calls_have_all_of_a_call(w: World) -> Any:
    async with w.serving(su=joined) as m:
        call = m.su()
        await call.wait_for_connection()
        await call.write(b"a")
        return [call.cancel(), await outcome(call), await ended(call)]


@scenario
async def states_of_a_channel_are_waited_for(w: World) -> Any:
    channel = w.api.insecure_channel(
        w.target,
        options=[("grpc.max_receive_message_length", 1 << 20)],
        compression=grpc.Compression.NoCompression,
    )
    async with w.serving(uu=echo):
        state = channel.get_state(try_to_connect=True)
        while state is not grpc.ChannelConnectivity.READY:
            await asyncio.wait_for(channel.wait_for_state_change(state), PATIENCE)
            state = channel.get_state(try_to_connect=True)
        waiting = asyncio.ensure_future(channel.wait_for_state_change(state))
        await asyncio.sleep(0)
    await asyncio.wait_for(waiting, PATIENCE)
    await channel.close(grace=1)
    return plain(channel.get_state())


@scenario
async def closing_with_a_grace_lets_calls_end(w: World) -> Any:
    began, go = asyncio.Event(), asyncio.Event()

    async def uu(request: bytes, context: Any) -> bytes:
        began.set()
        await go.wait()
        return request

    async with w.serving(uu=uu) as m:
        call = m.uu(b"x")
        await began.wait()
        closing = asyncio.ensure_future(m.channel.close(PATIENCE))
        await asyncio.sleep(0.02)
        seen = [closing.done()]
        go.set()
        await closing
        return [*seen, await outcome(call)]


@scenario
async def handlers_are_added_in_every_way(w: World) -> Any:
    def named(name: str) -> Any:
        async def handler(request: bytes, context: Any) -> bytes:
            context.set_trailing_metadata((("by", name),))
            w.noted.append(plain(context.trailing_metadata()))
            return name.encode()

        return grpc.unary_unary_rpc_method_handler(handler)

    first = grpc.method_handlers_generic_handler("one", {"a": named("first")})
    second = grpc.method_handlers_generic_handler("two", {"a": named("second")})
    server = w.api.server(handlers=(first,), compression=grpc.Compression.Gzip)
    server.add_generic_rpc_handlers((second,))
    server.add_registered_method_handlers("three", {"a": named("third")})
    server.add_secure_port(w.target, grpc.local_server_credentials(grpc.LocalConnectionType.UDS))
    await server.start()
    credentials = grpc.local_channel_credentials(grpc.LocalConnectionType.UDS)
    try:
        async with w.api.secure_channel(w.target, credentials) as channel:
            names = ("/one/a", "/two/a", "/three/a", "/four/a")
            return [await outcome(channel.unary_unary(name)(b"")) for name in names]
    finally:
        await server.stop(grace=None)


@scenario
async def what_a_server_says_of_its_end(w: World) -> Any:
    async with w.serving(uu=echo) as m:
        seen = [await outcome(m.server.wait_for_termination(timeout=0.05))]
        ending = asyncio.ensure_future(m.server.wait_for_termination())
        await m.server.stop(0)
        return [*seen, await outcome(ending), await outcome(m.server.wait_for_termination(5))]
