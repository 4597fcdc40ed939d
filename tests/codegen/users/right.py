"""Code as a user writes it: type checkers report nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from concurrent import futures
from typing import Any

import grpc
from google.protobuf.empty_pb2 import Empty
from google.protobuf.timestamp_pb2 import Timestamp
from protocol.names import keywords_localrpc, types_pb2
from protocol.odd import methods_pb2, property_localrpc, property_pb2, v3_pb2, words_pb2
from protocol.odd.v2 import types_pb2 as v2_pb2
from protocol.shop.common.money_pb2 import Money
from protocol.shop.v1 import catalog_localrpc
from protocol.shop.v1.catalog_pb2 import GetRequest, Item, ListRequest

import localrpc.aio


class Catalog(catalog_localrpc.CatalogServicer):
    def Get(self, request: GetRequest, context: grpc.ServicerContext) -> Item:
        return Item(name=request.name)

    def List(self, _request: ListRequest, _context: grpc.ServicerContext) -> Iterator[Item]:
        yield Item()

    def Import(self, items: Iterator[Item], context: grpc.ServicerContext) -> Timestamp:
        return Timestamp(seconds=len([item.name for item in items]))

    def Prices(
        self, requests: Iterator[GetRequest], context: grpc.ServicerContext
    ) -> Iterator[Money]:
        for request in requests:
            yield Money(currency=request.name)

    def Old(self, request: Empty, context: grpc.ServicerContext) -> Iterator[Item]:
        return iter([Item()])


class AsyncCatalog(catalog_localrpc.CatalogAsyncServicer):
    async def Get(
        self, request: GetRequest, context: grpc.aio.ServicerContext[GetRequest, Item]
    ) -> Item:
        user: int = localrpc.peer_credentials(context).uid
        return Item(name=f"{request.name} {user}")

    async def List(
        self, request: ListRequest, context: grpc.aio.ServicerContext[ListRequest, Item]
    ) -> AsyncIterator[Item]:
        yield Item(name=request.filter.prefix)

    async def Import(
        self,
        items: AsyncIterator[Item],
        context: grpc.aio.ServicerContext[Item, Timestamp],
    ) -> Timestamp:
        return Timestamp(seconds=len([item.name async for item in items]))

    async def Prices(
        self,
        requests: AsyncIterator[GetRequest],
        context: grpc.aio.ServicerContext[GetRequest, Money],
    ) -> AsyncIterator[Money]:
        async for request in requests:
            yield Money(currency=request.name)

    async def Old(
        self, request: Empty, context: grpc.aio.ServicerContext[Empty, Item]
    ) -> AsyncIterator[Item]:
        yield Item()


def call(stub: catalog_localrpc.CatalogStub) -> list[str]:
    item: Item = stub.Get(GetRequest(name="a"), timeout=1.5, metadata=(("k", "v"),))
    answer, details = stub.Get.with_call(GetRequest(), wait_for_ready=True)
    later: Item = stub.Get.future(GetRequest()).result(timeout=1)
    names = [each.name for each in stub.List(ListRequest())]
    done: Timestamp = stub.Import(iter([item, answer, later]))
    prices = [money.currency for money in stub.Prices(iter([GetRequest()]))]
    return [*names, *prices, str(details.code()), str(done.seconds)]


async def call_async(stub: catalog_localrpc.CatalogAsyncStub) -> list[str]:
    item: Item = await stub.Get(GetRequest(name="a"), timeout=1.5)
    names = [each.name async for each in stub.List(ListRequest())]
    done: Timestamp = await stub.Import(iter([item]))
    prices = [money.currency async for money in stub.Prices(iter([GetRequest()]))]
    return [*names, *prices, str(done.seconds)]


def keyword(stub: keywords_localrpc.TrueStub) -> None:
    print(stub.class_.with_call)


def keyword_fields() -> object:
    """A field that Python cannot spell is given by `**`, and read by `getattr`."""
    fields: dict[str, Any] = {"class": "a", "import": types_pb2._r_None()}
    message = types_pb2._r_None(self=1, **fields)
    setattr(message, "class", "b")
    return getattr(message, "class")


def odd_names(stub: property_localrpc.EstateStub) -> str:
    """A module's own message goes before a public import's, and the later import's before both."""
    code: int = v2_pb2.Status(code=1, old=v2_pb2.Only() and None).code
    code += v3_pb2.Status(code=1).code
    outer = words_pb2.Outer(Outer=words_pb2.Outer.V, Kind_=words_pb2.Outer())
    kind: words_pb2.Outer.Kind.ValueType = outer.Outer
    values: dict[str, Any] = {"del": {"a": words_pb2._r_lambda._r_nonlocal()}}
    inner = words_pb2._r_lambda(foo=0 or words_pb2._r_while.Value("None"), **values)
    inner.bar.ClearField("is")
    taken: str = methods_pb2.Fields(HasField="a", Clear=[1]).HasField
    number: words_pb2._r_lambda._r_def.ValueType = words_pb2._r_lambda.FINE
    answer: str = stub.property(property_pb2.Q()).s
    return f"{code} {kind} {taken} {answer} {number}"


def main() -> None:
    server = grpc.server(futures.ThreadPoolExecutor())
    catalog_localrpc.add_CatalogServicer_to_server(Catalog(), server)
    with grpc.insecure_channel("localhost:1") as channel:
        call(catalog_localrpc.CatalogStub(channel))
    service: str = catalog_localrpc.CATALOG_SERVICE
    print(service, catalog_localrpc.CATALOG_GET)


async def main_async() -> None:
    server = grpc.aio.server()
    catalog_localrpc.add_CatalogServicer_to_server(AsyncCatalog(), server)
    catalog_localrpc.add_CatalogServicer_to_server(Catalog(), server)
    async with grpc.aio.insecure_channel("localhost:1") as channel:
        await call_async(catalog_localrpc.CatalogAsyncStub(channel))


class Passing(grpc.aio.UnaryUnaryClientInterceptor):
    async def intercept_unary_unary(
        self, continuation: Any, client_call_details: grpc.aio.ClientCallDetails, request: Any
    ) -> Any:
        return await continuation(client_call_details, request)


async def main_local() -> None:
    server = localrpc.aio.server(
        futures.ThreadPoolExecutor(), options=[("localrpc.max_calls_per_user", 10)]
    )
    catalog_localrpc.add_CatalogServicer_to_server(AsyncCatalog(), server)
    port: int = server.add_insecure_port("shm:shop")
    await server.start()
    localrpc.aio.stop_on_signals(server, grace=1)
    async with localrpc.aio.insecure_channel("shm:shop", interceptors=[Passing()]) as channel:
        names: list[str] = await call_async(catalog_localrpc.CatalogAsyncStub(channel))
        facts = channel.facts
        if facts is not None:
            print(facts.wakeup.upper(), names, port)
    stopped: bool = await server.wait_for_termination(1)
    async with localrpc.aio.fork_channel(lambda server: None) as child:
        pid: int = child.pid
        print(stopped, pid, await child.wait(1))
