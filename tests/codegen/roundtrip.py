"""Serve and call every method of every service under the package `protocol`.

    python -m tests.codegen.roundtrip grpcio|grpcio-aio|localrpc TARGET [FOLDER]

Run where `import protocol` works, or with the FOLDER that holds the modules on sys.path. Prints
each full method name that answered with the right kind and number of messages, then one that was
left out of its servicer.
"""

from __future__ import annotations

import asyncio
import importlib
import pkgutil
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent import futures
from typing import Any

import grpc
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from localrpc_codegen.model import Method, Service
from localrpc_codegen.read import index_messages, read_module

COUNT = 3
FOLDER = sys.argv[3] if len(sys.argv) > 3 else ""


def modules() -> Iterator[tuple[Any, Any]]:
    """Each `_localrpc` module with its `_pb2`."""
    if FOLDER:
        found = pkgutil.walk_packages([FOLDER])
    else:
        import protocol  # type: ignore[import-not-found]

        found = pkgutil.walk_packages(protocol.__path__, "protocol.")
    for info in found:
        module = importlib.import_module(info.name)
        if info.name.endswith("_localrpc"):
            yield module, importlib.import_module(info.name.removesuffix("_localrpc") + "_pb2")


def describe(messages: Any) -> tuple[Service, ...]:
    """The names in the generated module, by the generator's own rules."""
    files: dict[str, FileDescriptorProto] = {}

    def collect(descriptor: Any) -> None:
        file = FileDescriptorProto()
        descriptor.CopyToProto(file)
        files[file.name] = file
        for dependency in descriptor.dependencies:
            if dependency.name not in files:
                collect(dependency)

    file = file_descriptor(messages)
    collect(file)
    return read_module(files[file.name], index_messages(files.values())).services


def file_descriptor(messages: Any) -> Any:
    """Of a module, which may have a message or enum of that name."""
    found = messages.DESCRIPTOR
    return found if hasattr(found, "services_by_name") else found.DESCRIPTOR.file


def message_class(messages: Any, service: Service, method: Method, which: str) -> Any:
    descriptor = (
        file_descriptor(messages).services_by_name[service.name].methods_by_name[method.name]
    )
    return getattr(descriptor, which)._concrete_class


def sample(kind: Any) -> Any:
    """A message that says something, if it has a plain field to say it in."""
    message = kind()
    for field in kind.DESCRIPTOR.fields:
        if field.type == field.TYPE_STRING and not field.is_repeated:
            setattr(message, field.name, "ä")
    return message


def sync_handler(request_kind: Any, answer_kind: Any, method: Method) -> Callable[..., Any]:
    def check(request: Any) -> None:
        requests = list(request) if method.arity.client_streaming else [request]
        assert requests == [sample(request_kind)] * len(requests)
        assert len(requests) == (COUNT if method.arity.client_streaming else 1)

    def one(self: Any, request: Any, context: grpc.ServicerContext) -> Any:
        check(request)
        return sample(answer_kind)

    def many(self: Any, request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        check(request)
        yield from [sample(answer_kind)] * COUNT

    return many if method.arity.server_streaming else one


def async_handler(request_kind: Any, answer_kind: Any, method: Method) -> Callable[..., Any]:
    async def check(request: Any) -> None:
        requests = [each async for each in request] if method.arity.client_streaming else [request]
        assert requests == [sample(request_kind)] * len(requests)

    async def one(self: Any, request: Any, context: Any) -> Any:
        await check(request)
        return sample(answer_kind)

    async def many(self: Any, request: Any, context: Any) -> AsyncIterator[Any]:
        await check(request)
        for _ in range(COUNT):
            yield sample(answer_kind)

    return many if method.arity.server_streaming else one


def servicer(messages: Any, service: Service, base: type, handler: Callable[..., Any]) -> Any:
    methods = {
        method.attribute: handler(
            message_class(messages, service, method, "input_type"),
            message_class(messages, service, method, "output_type"),
            method,
        )
        for method in service.methods
    }
    return type("Servicer", (base,), methods)()


def asked(messages: Any, service: Service, method: Method) -> Any:
    request = sample(message_class(messages, service, method, "input_type"))
    return iter([request] * COUNT) if method.arity.client_streaming else request


def verify(messages: Any, service: Service, method: Method, answers: list[Any]) -> None:
    kind = message_class(messages, service, method, "output_type")
    assert answers == [sample(kind)] * (COUNT if method.arity.server_streaming else 1)
    print(method.full_name)


def fail(call: Any, request: Any) -> tuple[grpc.StatusCode, str | None]:
    try:
        list(call(request, timeout=20))
    except grpc.RpcError as error:
        return error.code(), error.details()
    return grpc.StatusCode.OK, None


def run_sync(backend: Any, address: str) -> None:
    """Everything through `backend.server` and `backend.insecure_channel`."""
    everything = [(*pair, service) for pair in modules() for service in describe(pair[1])]
    server = backend.server(futures.ThreadPoolExecutor(max_workers=4))
    empty = backend.server(futures.ThreadPoolExecutor(max_workers=4))
    for module, messages, service in everything:
        base = getattr(module, service.servicer)
        add = getattr(module, service.adder)
        add(servicer(messages, service, base, sync_handler), server)
        add(base(), empty)
    for each, target in ((server, address), (empty, address + "2")):
        each.add_insecure_port(target)
        each.start()
    with backend.insecure_channel(address) as channel:
        for module, messages, service in everything:
            stub = getattr(module, service.stub)(channel)
            for method in service.methods:
                call = getattr(stub, method.attribute)
                assert isinstance(call, getattr(grpc, method.arity.multicallable))
                got = call(asked(messages, service, method), timeout=20)
                answers = list(got) if method.arity.server_streaming else [got]
                verify(messages, service, method, answers)
    with backend.insecure_channel(address + "2") as channel:
        for module, messages, service in everything:
            stub = getattr(module, service.stub)(channel)
            for method in service.methods:
                call = getattr(stub, method.attribute)
                status = fail(call, asked(messages, service, method))
                wanted = (grpc.StatusCode.UNIMPLEMENTED, "Method not implemented!")
                assert status == wanted, (method.full_name, status)
    server.stop(None)
    empty.stop(None)
    print("left out: UNIMPLEMENTED")


async def run_async(backend: Any, address: str) -> None:
    """The same with the asynchronous stubs and servicers."""
    everything = [(*pair, service) for pair in modules() for service in describe(pair[1])]
    server, empty = backend.server(), backend.server()
    for module, messages, service in everything:
        base = getattr(module, service.async_servicer)
        add = getattr(module, service.adder)
        add(servicer(messages, service, base, async_handler), server)
        add(base(), empty)
    for each, target in ((server, address), (empty, address + "2")):
        each.add_insecure_port(target)
        await each.start()
    async with backend.insecure_channel(address) as channel:
        for module, messages, service in everything:
            stub = getattr(module, service.async_stub)(channel)
            for method in service.methods:
                call = getattr(stub, method.attribute)
                assert isinstance(call, getattr(grpc.aio, method.arity.multicallable))
                got = call(asked(messages, service, method), timeout=20)
                if method.arity.server_streaming:
                    answers = [each async for each in got]
                else:
                    answers = [await got]
                verify(messages, service, method, answers)
    async with backend.insecure_channel(address + "2") as channel:
        for module, messages, service in everything:
            stub = getattr(module, service.async_stub)(channel)
            for method in service.methods:
                # grpcio answers INTERNAL if it is still writing when the status comes.
                none: Iterator[Any] = iter(())
                request = (
                    none if method.arity.client_streaming else asked(messages, service, method)
                )
                got = getattr(stub, method.attribute)(request, timeout=20)
                status = (await got.code(), await got.details())
                wanted = (grpc.StatusCode.UNIMPLEMENTED, "Method not implemented!")
                assert status == wanted, (method.full_name, status)
    await server.stop(None)
    await empty.stop(None)
    print("left out: UNIMPLEMENTED")


def main(backend: str, target: str) -> None:
    if backend == "grpcio":
        run_sync(grpc, target)
    elif backend == "grpcio-aio":
        asyncio.run(run_async(grpc.aio, target))
    else:
        import localrpc

        run_sync(localrpc, target)


if __name__ == "__main__":
    main(*sys.argv[1:3])
