"""grpc.Channel over a local link."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from localrpc import _grpc
from localrpc._later import Later
from localrpc.address import Address
from localrpc.calls.request import text
from localrpc.drive.connector import ChannelClosed, Connector
from localrpc.drive.instruments import Instruments
from localrpc.options import parse_options
from localrpc.sync.streams import StreamStream, StreamUnary, UnaryStream
from localrpc.sync.unary import UnaryUnary
from localrpc.transports import parse_target
from localrpc.transports.base import ConnectionFacts, Dialer

if TYPE_CHECKING:
    import grpc

    _Base = grpc.Channel
else:
    grpc = Later("grpc")
    _Base = _grpc.base("Channel")

_Serializer = Callable[[Any], bytes] | None
_Deserializer = Callable[[bytes], Any] | None


instruments: Instruments[grpc.Channel, grpc.ServerInterceptor] = Instruments()
"""The wrappers of localrpc.instrument()."""


def open_channel(
    target: str,
    options: Iterable[tuple[str, Any]] | None = None,
    compression: grpc.Compression | None = None,
) -> grpc.Channel:
    """Return a localrpc channel or, for a grpc: target, one of grpcio."""
    return _open(target, None, options, compression)


def open_secure_channel(
    target: str,
    credentials: grpc.ChannelCredentials,
    options: Iterable[tuple[str, Any]] | None = None,
    compression: grpc.Compression | None = None,
) -> grpc.Channel:
    """Return a channel as open_channel(). Raises TypeError without credentials."""
    if credentials is None:
        raise TypeError("secure_channel needs credentials; without them use insecure_channel")
    return _open(target, credentials, options, compression)


def _open(
    target: str,
    credentials: grpc.ChannelCredentials | None,
    options: Iterable[tuple[str, Any]] | None,
    compression: grpc.Compression | None,
) -> grpc.Channel:
    address = parse_target(text(target))
    if address.scheme == "grpc":
        from localrpc.sync import remote

        return remote.channel(address, credentials, options, compression)
    if credentials is not None:
        from localrpc.drive import security

        security.check_channel(address, credentials)
    return Channel(address, options)


_KEPT = 1000


class Methods(_Base):
    """The methods of a channel without its other properties: the object to instrument."""

    def __init__(self, connector: Connector) -> None:
        self._connector = connector
        self._made: dict[str, UnaryUnary] = {}
        """By name, because grpc.intercept_channel asks for the method again with each call."""

    def subscribe(
        self,
        callback: Callable[[grpc.ChannelConnectivity], None],
        try_to_connect: bool | None = False,
    ) -> None:
        self._connector.subscribe(callback, try_to_connect=bool(try_to_connect))

    def unsubscribe(self, callback: Callable[[grpc.ChannelConnectivity], None]) -> None:
        self._connector.unsubscribe(callback)

    def unary_unary(
        self,
        method: str,
        request_serializer: _Serializer = None,
        response_deserializer: _Deserializer = None,
        _registered_method: bool | None = False,
    ) -> UnaryUnary:
        made = self._made.get(method)
        if made is not None and made.converts(request_serializer, response_deserializer):
            return made
        made = UnaryUnary(self._connector, text(method), request_serializer, response_deserializer)
        if len(self._made) < _KEPT:
            self._made[method] = made
        return made

    def unary_stream(
        self,
        method: str,
        request_serializer: _Serializer = None,
        response_deserializer: _Deserializer = None,
        _registered_method: bool | None = False,
    ) -> UnaryStream:
        return UnaryStream(self._connector, text(method), request_serializer, response_deserializer)

    def stream_unary(
        self,
        method: str,
        request_serializer: _Serializer = None,
        response_deserializer: _Deserializer = None,
        _registered_method: bool | None = False,
    ) -> StreamUnary:
        return StreamUnary(self._connector, text(method), request_serializer, response_deserializer)

    def stream_stream(
        self,
        method: str,
        request_serializer: _Serializer = None,
        response_deserializer: _Deserializer = None,
        _registered_method: bool | None = False,
    ) -> StreamStream:
        return StreamStream(
            self._connector, text(method), request_serializer, response_deserializer
        )

    def _get_registered_call_handle(self, method: str) -> int:
        """Return 1: grpc.experimental's calls without a channel pass it back as a flag.

        localrpc has no such handles: every method has a number from its first call on.
        """
        return 1

    def close(self) -> None:
        self._connector.close()

    def __enter__(self) -> Methods:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


class Channel(Methods):
    """A channel to a local target, as insecure_channel returns it.

    It connects with the first call, and again after its connection is lost. It is used as any
    grpc.Channel; `facts` is localrpc's own.
    """

    def __init__(
        self,
        address: Address,
        options: Iterable[tuple[str, Any]] | None,
        dialer: Dialer | None = None,
    ) -> None:
        super().__init__(Connector(address, parse_options(options), dialer))
        plain = Methods(self._connector)
        instrumented = instruments.around(plain)
        if instrumented is not plain:
            # Inside the channel, which keeps its class, its facts and a child's pid.
            for kind in ("unary_unary", "unary_stream", "stream_unary", "stream_stream"):
                setattr(self, kind, getattr(instrumented, kind))

    def __repr__(self) -> str:
        connector = self._connector
        return f"<localrpc.{type(self).__name__} to {connector.address}: {connector.state}>"

    @property
    def facts(self) -> ConnectionFacts | None:
        """How the present connection carries calls; None while there is none."""
        connector = self._connector
        try:
            session = connector.peek()
        except ChannelClosed:
            return None
        return None if session is None else session.connection.facts

    def __enter__(self) -> Channel:
        return self

    def __del__(self) -> None:
        # A stub may outlive its channel, so only the subscriptions end here.
        connector = self.__dict__.get("_connector")
        if connector is not None:
            connector.forsake()
