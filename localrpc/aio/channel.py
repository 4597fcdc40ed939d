"""grpc.aio.Channel over a local link."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import grpc
from grpc import aio

from localrpc.address import Address
from localrpc.aio import interceptors, methods
from localrpc.aio.binding import Binding
from localrpc.aio.call import Deserializer, Serializer
from localrpc.aio.instruments import instruments
from localrpc.calls.connectivity import State
from localrpc.calls.request import text
from localrpc.drive.greenlets import refuse_greenlets
from localrpc.transports import parse_target
from localrpc.transports.base import ConnectionFacts, Dialer


class Channel(aio.Channel):
    """A channel to a local target, on one event loop: the one that runs at its first call.

    It connects with the first call, and again after its connection is lost.
    """

    def __init__(
        self,
        address: Address,
        options: Sequence[tuple[str, Any]] | None,
        client_interceptors: Sequence[Any] | None = None,
        dialer: Dialer | None = None,
    ) -> None:
        intercepting = instruments.around(tuple(client_interceptors or ()))
        self._binding = Binding(address, options, intercepting, dialer)

    @property
    def facts(self) -> ConnectionFacts | None:
        """How the present connection carries calls; None while there is none."""
        bound = self._binding.bound
        session = None if bound is None else bound.peek()
        return None if session is None else session.connection.facts

    # What Google's generated clients append to; the methods made before have the same lists.

    @property
    def _unary_unary_interceptors(self) -> list[Any]:
        return self._binding.interceptors.of(interceptors.UNARY_UNARY)

    @property
    def _unary_stream_interceptors(self) -> list[Any]:
        return self._binding.interceptors.of(interceptors.UNARY_STREAM)

    @property
    def _stream_unary_interceptors(self) -> list[Any]:
        return self._binding.interceptors.of(interceptors.STREAM_UNARY)

    @property
    def _stream_stream_interceptors(self) -> list[Any]:
        return self._binding.interceptors.of(interceptors.STREAM_STREAM)

    # grpc.aio.Channel

    async def __aenter__(self) -> Channel:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()

    async def close(self, grace: float | None = None) -> None:
        """End the channel: no new calls, and those in progress end within `grace` seconds."""
        binding = self._binding
        if binding.closed:
            return
        if grace and grace < 0:
            raise ValueError(f"grace must be non-negative, got {grace}.")
        binding.closed = True
        connector = binding.bound
        if connector is None:
            return
        if grace:
            ends = [asyncio.ensure_future(call.until_over()) for call in connector.live_calls()]
            waits = {*binding.fronts, *ends}
            if waits:
                await asyncio.wait(waits, timeout=grace)
            for end in ends:
                end.cancel()
        for task in tuple(binding.fronts):
            task.cancel()
        connector.close()

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:
        if self._binding.closed:
            return grpc.ChannelConnectivity.SHUTDOWN
        connector = self._binding.connector()
        if try_to_connect:
            connector.connect()
        return grpc.ChannelConnectivity[connector.state.name]

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        await self._binding.connector().change_of(State[last_observed_state.name])

    async def channel_ready(self) -> None:
        state = self.get_state(try_to_connect=True)
        while state is not grpc.ChannelConnectivity.READY:
            await self.wait_for_state_change(state)
            state = self.get_state(try_to_connect=True)

    def unary_unary(
        self,
        method: str,
        request_serializer: Serializer = None,
        response_deserializer: Deserializer = None,
        _registered_method: bool | None = False,
    ) -> methods.UnaryUnary:
        return methods.UnaryUnary(
            self._binding, text(method), request_serializer, response_deserializer
        )

    def unary_stream(
        self,
        method: str,
        request_serializer: Serializer = None,
        response_deserializer: Deserializer = None,
        _registered_method: bool | None = False,
    ) -> methods.UnaryStream:
        return methods.UnaryStream(
            self._binding, text(method), request_serializer, response_deserializer
        )

    def stream_unary(
        self,
        method: str,
        request_serializer: Serializer = None,
        response_deserializer: Deserializer = None,
        _registered_method: bool | None = False,
    ) -> methods.StreamUnary:
        return methods.StreamUnary(
            self._binding, text(method), request_serializer, response_deserializer
        )

    def stream_stream(
        self,
        method: str,
        request_serializer: Serializer = None,
        response_deserializer: Deserializer = None,
        _registered_method: bool | None = False,
    ) -> methods.StreamStream:
        return methods.StreamStream(
            self._binding, text(method), request_serializer, response_deserializer
        )

    def __repr__(self) -> str:
        binding = self._binding
        state = "closed" if binding.closed else "idle"
        if binding.bound is not None and not binding.closed:
            state = str(binding.bound.state.name).lower()
        return f"<localrpc.aio.{type(self).__name__} to {binding.address}: {state}>"


def open_channel(
    target: str,
    options: Sequence[tuple[str, Any]] | None,
    compression: grpc.Compression | None,
    client_interceptors: Sequence[Any] | None,
    credentials: grpc.ChannelCredentials | None = None,
) -> Any:
    """Return a localrpc channel or, for a grpc: target, one of grpc.aio."""
    refuse_greenlets()
    address = parse_target(text(target))
    if address.scheme == "grpc":
        from localrpc.drive import remote

        return remote.channel(aio, address, credentials, options, compression, client_interceptors)
    if credentials is not None:
        from localrpc.drive import security

        security.check_channel(address, credentials)
    channel = Channel(address, options, client_interceptors)
    channel._binding.secure = credentials is not None
    return channel
