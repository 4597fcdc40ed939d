# pyright: reportDeprecated=error
"""Mistakes as users make them: each line marked `# CODE` is reported, and no other.

The code is mypy's; pyright reports the same lines but for those marked `(mypy)`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import grpc
from google.protobuf.empty_pb2 import Empty
from google.protobuf.timestamp_pb2 import Timestamp
from protocol.shop.common.money_pb2 import Money
from protocol.shop.v1 import catalog_localrpc as shop
from protocol.shop.v1.catalog_pb2 import GetRequest, Item, ListRequest

import localrpc.aio


class Partial(shop.CatalogServicer):
    def Get(self, request: GetRequest, context: grpc.ServicerContext) -> Item:
        return Item(name=3)  # arg-type


class Mistaken(shop.CatalogServicer):
    def Get(self, request: ListRequest, context: grpc.ServicerContext) -> Item:  # override
        return Item()

    def List(self, request: ListRequest, context: grpc.ServicerContext) -> Item:  # override
        return Item()

    def Import(self, items: Item, context: grpc.ServicerContext) -> Timestamp:  # override
        return Timestamp()

    def Prices(self, requests: Iterator[GetRequest]) -> Iterator[Money]:  # override
        yield Money()

    async def Old(  # override
        self, request: Empty, context: grpc.ServicerContext
    ) -> Iterator[Item]:
        return iter(())


class AsyncMistaken(shop.CatalogAsyncServicer):
    def Get(  # override
        self, request: GetRequest, context: grpc.aio.ServicerContext[GetRequest, Item]
    ) -> Item:
        return Item()

    async def Prices(  # override
        self,
        requests: AsyncIterator[GetRequest],
        context: grpc.aio.ServicerContext[GetRequest, Money],
    ) -> AsyncIterator[Item]:
        yield Item()


def calls(stub: shop.CatalogStub, channel: grpc.Channel) -> None:
    stub.Get(ListRequest())  # arg-type
    stub.Get(iter([GetRequest()]))  # arg-type
    stub.Get(GetRequest(), timeout="soon")  # arg-type
    stub.Get(GetRequest(), metadata={"key": "value"})  # arg-type
    stub.Get(GetRequest(), dead_line=1)  # call-arg
    stub.Get.with_call(ListRequest())  # arg-type
    stub.Get.future(GetRequest(), timeout="soon")  # arg-type
    stub.List.future(ListRequest())  # attr-defined
    stub.Got(GetRequest())  # attr-defined
    wrong: ListRequest = stub.Get(GetRequest())  # assignment
    number: int = stub.Get.future(GetRequest()).result()  # assignment
    answer, call = stub.Get.with_call(GetRequest())
    print(answer.missing)  # attr-defined
    print(stub.List(ListRequest()).name)  # attr-defined
    for item in stub.List(ListRequest()):
        print(item.shelve)  # attr-defined
    for letter in stub.Get(GetRequest()):  # attr-defined
        print(letter)
    stub.Import(Item())  # arg-type
    stub.Prices(iter([Item()]))  # list-item
    stub.Old(Empty())  # deprecated
    shop.CatalogStub()  # call-arg
    shop.CatalogStub("localhost:1")  # arg-type
    shop.CatalogAsyncStub(channel)  # arg-type
    print(wrong, number, call)


async def calls_async(stub: shop.CatalogAsyncStub) -> None:
    item: Item = stub.Get(GetRequest())  # assignment
    for each in stub.List(ListRequest()):  # attr-defined
        print(each)
    await stub.List(ListRequest())  # misc
    print(item)


def serve(server: grpc.Server, aio: grpc.aio.Server, servicer: shop.CatalogAsyncServicer) -> None:
    Partial()  # abstract
    shop.add_CatalogServicer_to_server(servicer, server)  # call-overload
    shop.add_CatalogServicer_to_server(object(), aio)  # call-overload
    shop.add_CatalogServicer_to_server(servicer, aio)
    print(shop.AdminStub)  # deprecated
    shop.CATALOG_GET = ""  # misc (mypy)


async def local(stub: shop.CatalogStub) -> None:
    channel = localrpc.aio.insecure_channel(1)  # arg-type
    channel.unary_unary()  # call-arg
    shop.CatalogStub(channel)  # arg-type
    localrpc.aio.server(maximum_concurrent_rpcs="many")  # arg-type
    server = localrpc.aio.server()
    shop.add_CatalogServicer_to_server(Partial, server)  # call-overload
    port: str = server.add_insecure_port("shm:shop")  # assignment
    localrpc.aio.stop_on_signals(channel)  # arg-type
    print(channel.fact, port)  # attr-defined
