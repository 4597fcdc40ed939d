"""Passes the calls of a server on to a channel, without knowing their methods."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from functools import partial
from typing import Any, NamedTuple

import grpc
from grpc import aio

from localrpc.proxy.metadata import passed_on

DOUBT = 0.005
"""Seconds for which the end of the requests of a grpcio client is held back: see Forwarder."""


class Forwarder(grpc.GenericRpcHandler):
    """Passes every call of an asyncio server on to `channel`.

    A call of any kind is a stream of messages each way. One message at a time is taken from a side
    and sent to the other before the next one is taken, so that a slow reader holds up its sender
    through both connections. What either side has sent is passed on at once, headers and the end
    of the requests included; the status is the channel's own if no server can be reached.

    grpcio reports a cancelled call to a handler as an end of the requests, and an instant later as
    cancelled. So that a server never takes a cancelled upload for a complete one, `doubt` is the
    time in seconds for which an end is held back; 0 for a localrpc server, which tells them apart.
    """

    def __init__(self, channel: aio.Channel, *, doubt: float) -> None:
        self._channel = channel
        self._doubt = doubt

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        return grpc.stream_stream_rpc_method_handler(
            partial(self._forward, handler_call_details.method)
        )

    async def _forward(self, method: str, _: Any, context: Any) -> None:
        call: Any = self._channel.stream_stream(method)(
            timeout=context.time_remaining(), metadata=passed_on(context.invocation_metadata())
        )
        outcome = _Outcome(call)
        requests = asyncio.get_running_loop().create_task(self._pass_requests(context, call))
        try:
            await _pass_responses(call, context)
            await outcome.pass_on(context)
        except aio.BaseError as error:
            # The client has gone, and this handler would be cancelled in a moment. grpcio logs any
            # other exception.
            raise asyncio.CancelledError from error
        finally:
            requests.cancel()
            call.cancel()

    async def _pass_requests(self, context: Any, call: Any) -> None:
        try:
            while (request := await context.read()) is not aio.EOF:
                await call.write(request)
            if self._doubt:
                await asyncio.sleep(self._doubt)
            await call.done_writing()
        except Exception:
            # Either side is over. If it is the server's, the status of the call says why.
            call.cancel()


async def _pass_responses(call: Any, context: Any) -> None:
    initial = passed_on(await call.initial_metadata())
    # A call that fails at once has no headers: with them, no client would try it again.
    if initial or not call.done():
        await context.send_initial_metadata(initial)
    try:
        async for response in call:
            await context.write(response)
    except aio.AioRpcError:
        pass  # the outcome has it


class _Status(NamedTuple):
    code: grpc.StatusCode
    details: str


_UNSENT = _Status(grpc.StatusCode.INTERNAL, "Internal error from Core")
_PAUSES = (0.0, 0.001, 0.01, 0.1, 1.0)
"""Seconds."""


class _Outcome:
    """How a call ends.

    If a request cannot be sent because the server has ended the call, grpc.aio gives the call the
    status _UNSENT, before the server's or in place of it. So the first one is kept, but for this.
    """

    def __init__(self, call: Any) -> None:
        self._call = call
        self._status = _UNSENT
        self._trailing: Any = ()
        call.add_done_callback(self._take)

    def _take(self, call: Any) -> None:
        self._status = _Status(_result(call.code()), _result(call.details()))
        self._trailing = _result(call.trailing_metadata())

    async def pass_on(self, context: Any) -> None:
        """Answer with the status of the call, of which there are no more messages."""
        await self._call.code()
        for pause in _PAUSES:
            if self._status != _UNSENT:
                break
            await asyncio.sleep(pause)
            self._take(self._call)
        context.set_trailing_metadata(passed_on(self._trailing))
        if self._status.code is not grpc.StatusCode.OK:
            context.set_code(self._status.code)
            context.set_details(self._status.details)


def _result(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Return the result of a coroutine that has nothing to wait for."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return stop.value
    raise AssertionError("a call that has ended knows its status")
