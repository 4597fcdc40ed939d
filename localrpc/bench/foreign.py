"""Peers from other libraries; each is imported only where it runs."""

from __future__ import annotations

import asyncio
import atexit
import ctypes
import threading
from abc import abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import cache, partial
from importlib import import_module
from pathlib import Path
from typing import Any

from .drivers import Call, Loop
from .exchange import Conversation, ExchangePeer, Handle, Messages, beside
from .loops import serving
from .peer import Client, Dress, Peer, UnsupportedScenario, checked, noise


class LibraryPeer(ExchangePeer):
    """Echoes over a library's own sockets, which preserve message boundaries."""

    def listen(self, directory: Path, kind: str, handle: Handle) -> AbstractContextManager[None]:
        sock, end, closed = self.answering(self.address(directory, kind))
        serve = partial(_messages(sock).serve, handle, closed)
        return beside(serve, end)

    def dial(self, directory: Path, kind: str) -> Conversation:
        return _messages(self.asking(self.address(directory, kind)))

    def address(self, directory: Path, kind: str) -> str:
        return f"ipc://{self.path(directory, kind)}"

    @abstractmethod
    def answering(self, address: str) -> tuple[Any, Callable[[], object], type[BaseException]]:
        """Return the server's socket, a function that ends its wait, and the exception of that."""

    @abstractmethod
    def asking(self, address: str) -> Any:
        """Return a client's socket."""


def _messages(sock: Any) -> Messages:
    return Messages(sock.send, sock.recv, sock.close)


class ZmqPeer(LibraryPeer):
    name = "pyzmq"
    what = "ZeroMQ: a request and a reply socket over ipc://"
    module = "zmq"
    package = "pyzmq"

    def answering(self, address: str) -> tuple[Any, Callable[[], object], type[BaseException]]:
        zmq: Any = import_module(self.module)
        context = zmq.Context()
        sock = context.socket(zmq.REP)
        sock.linger = 0
        sock.bind(address)
        # Waits until the socket is closed.
        return sock, context.term, zmq.ContextTerminated

    def asking(self, address: str) -> Any:
        zmq: Any = import_module(self.module)
        sock = zmq.Context.instance().socket(zmq.REQ)
        sock.linger = 0
        sock.connect(address)
        return sock


class NngPeer(LibraryPeer):
    name = "pynng"
    what = "nng: a request and a reply socket over ipc://"
    module = "pynng"
    package = "pynng"

    def answering(self, address: str) -> tuple[Any, Callable[[], object], type[BaseException]]:
        pynng: Any = import_module(self.module)
        sock = pynng.Rep0(listen=address, recv_max_size=0)
        return sock, sock.close, pynng.Closed

    def asking(self, address: str) -> Any:
        pynng: Any = import_module(self.module)
        return pynng.Req0(dial=address, recv_max_size=0)


class RpycPeer(ExchangePeer):
    name = "rpyc"
    what = "RPyC over a Unix socket"
    module = "rpyc"
    package = "rpyc"

    @contextmanager
    def listen(self, directory: Path, kind: str, handle: Handle) -> Iterator[None]:
        rpyc: Any = import_module(self.module)
        utils: Any = import_module("rpyc.utils.server")

        class Echo(rpyc.Service):  # type: ignore[misc]
            def exposed_echo(self, data: bytes) -> bytes:
                return handle(data)

        server = utils.ThreadedServer(Echo, socket_path=self.path(directory, kind))
        with beside(server.start, server.close):
            yield

    def dial(self, directory: Path, kind: str) -> Conversation:
        factory: Any = import_module("rpyc.utils.factory")
        return _Rpyc(factory.unix_connect(self.path(directory, kind)))


class _Rpyc(Conversation):
    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._echo = connection.root.echo

    def exchange(self, data: bytes) -> bytes:
        answer: bytes = self._echo(data)
        return answer

    def close(self) -> None:
        self._connection.close()


class CapnpPeer(Peer):
    """Cap'n Proto's calls have an encoding of their own: no protobuf is put into them."""

    name = "pycapnp"
    what = "Cap'n Proto's RPC over a Unix socket, on asyncio"
    module = "capnp"
    package = "pycapnp"

    @contextmanager
    def serve(self, directory: Path) -> Iterator[None]:
        with serving(partial(self._serve, directory)):
            yield

    async def _serve(self, directory: Path, ready: Callable[[], None], stop: asyncio.Event) -> None:
        capnp: Any = import_module(self.module)
        schema = _schema(directory)

        class Server(schema.Echo.Server):  # type: ignore[misc, name-defined]
            async def echo(self, data: bytes, **_: Any) -> bytes:
                return data

        async def welcome(stream: Any) -> None:
            await capnp.TwoPartyServer(stream, bootstrap=Server()).on_disconnect()

        async with capnp.kj_loop():
            path = str(directory / "pycapnp.sock")
            server = await capnp.AsyncIoStream.create_unix_server(welcome, path)
            ready()
            await stop.wait()
            server.close()

    def connect(self, directory: Path) -> Client:
        return _CapnpClient(_schema(directory), str(directory / "pycapnp.sock"))


@cache
def _schema(directory: Path) -> Any:
    """Load the schema once: Cap'n Proto does not load the same types twice."""
    file = directory / "echo.capnp"
    file.write_text(
        "@0xb8a3c1f0d2e4f601;\ninterface Echo { echo @0 (data :Data) -> (data :Data); }\n"
    )
    capnp: Any = import_module("capnp")
    return capnp.load(str(file))


@cache
def _kj_loop() -> Loop:
    """One loop for all clients: Cap'n Proto's own is bound to its thread, and ends with it."""
    capnp: Any = import_module("capnp")
    driver = Loop()
    kj = capnp.kj_loop()
    driver.run(kj.__aenter__())
    atexit.register(lambda: driver.run(kj.__aexit__(None, None, None)))
    return driver


class _CapnpClient(Client):
    driver: Loop

    def __init__(self, schema: Any, path: str) -> None:
        capnp: Any = import_module("capnp")
        self.driver = _kj_loop()

        async def open_() -> Any:
            stream = await capnp.AsyncIoStream.create_unix_connection(path)
            client = capnp.TwoPartyClient(stream)
            return client, client.bootstrap().cast_as(schema.Echo)

        self._client, self._echo = self.driver.run(open_())

    def raw(self, size: int) -> Call:
        payload = noise(size)

        async def call() -> object:
            return (await self._echo.echo(payload)).data

        return checked(self.driver, call, payload)

    def unary(self, size: int, dress: Dress) -> Call:
        if dress is not Dress.PLAIN:
            raise UnsupportedScenario
        return self.raw(size)

    def close(self) -> None:
        del self._echo

        async def close() -> None:
            self._client.close()

        self.driver.run(close())


_MANY = 80
"""The number of clients, which iceoryx2 needs in advance."""


@cache
def _open_services(directory: Path, name: str) -> tuple[Any, Any, Any, Any]:
    """A process's request, answer and events, with one node for all."""
    iox: Any = import_module("iceoryx2")
    iox.set_log_level(iox.LogLevel.Fatal)
    config = iox.config.default()
    # In our own folder, so that whatever a kill leaves behind is removed with it.
    config.global_cfg.root_path = iox.Path.new(str(directory / "iceoryx2"))
    node = iox.NodeBuilder.new().config(config).create(iox.ServiceType.Ipc)
    both = [
        node.service_builder(iox.ServiceName.new(f"{name}/{end}"))
        .event()
        .max_listeners(_MANY)
        .max_notifiers(_MANY)
        .open_or_create()
        for end in ("asked", "answered")
    ]
    Bytes = iox.Slice[ctypes.c_uint8]
    service = (
        node.service_builder(iox.ServiceName.new(name))
        .request_response(Bytes, Bytes)
        .max_clients(_MANY)
        .open_or_create()
    )
    return iox, service, both[0], both[1]


class Iceoryx2Peer(ExchangePeer):
    """Requests and responses in shared memory, with an event in each direction to sleep on."""

    name = "iceoryx2"
    what = "iceoryx2: request and response in shared memory, woken by its events"
    module = "iceoryx2"
    package = "iceoryx2"

    @contextmanager
    def listen(self, directory: Path, kind: str, handle: Handle) -> Iterator[None]:
        iox, service, asked, answered = _open_services(directory, f"{directory.name}/{kind}")
        server = (
            service.server_builder()
            .initial_max_slice_len(4096)
            .allocation_strategy(iox.AllocationStrategy.PowerOfTwo)
            .create()
        )
        bell, listener = answered.notifier_builder().create(), asked.listener_builder().create()
        over = threading.Event()

        def serve() -> None:
            while not over.is_set():
                listener.timed_wait(iox.Duration.from_millis(200))
                while (request := server.receive()) is not None:
                    answer = handle(_bytes(request.payload()))
                    _fill(request.loan_slice_uninit(len(answer)), answer)
                    request.delete()
                    bell.notify()

        with beside(serve, over.set):
            yield

    def dial(self, directory: Path, kind: str) -> Conversation:
        return _Iceoryx2(*_open_services(directory, f"{directory.name}/{kind}"))


def _bytes(payload: Any) -> bytes:
    return ctypes.string_at(payload.data_ptr, payload.number_of_elements)


def _fill(loan: Any, data: bytes) -> Any:
    """Send a loaned sample with `data` in it."""
    ctypes.memmove(loan.payload().data_ptr, data, len(data))
    return loan.assume_init().send()


class _Iceoryx2(Conversation):
    def __init__(self, iox: Any, service: Any, asked: Any, answered: Any) -> None:
        self._client = (
            service.client_builder()
            .initial_max_slice_len(4096)
            .allocation_strategy(iox.AllocationStrategy.PowerOfTwo)
            .create()
        )
        self._bell = asked.notifier_builder().create()
        self._listener = answered.listener_builder().create()

    def exchange(self, data: bytes) -> bytes:
        pending = _fill(self._client.loan_slice_uninit(len(data)), data)
        self._bell.notify()
        while (response := pending.receive()) is None:
            self._listener.blocking_wait()
        answer = _bytes(response.payload())
        response.delete()
        pending.delete()
        return answer

    def close(self) -> None:
        for port in (self._client, self._bell, self._listener):
            port.delete()
