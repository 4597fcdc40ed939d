"""A service of all four kinds of call, with reflection and health, and the command beside it."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import grpc
from click.testing import CliRunner, Result
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from localrpc_codegen.driver import compile_protos

import localrpc
from localrpc.cli._group import commands

PROTO = Path(__file__).with_name("demo.proto")
COMMAND = [sys.executable, "-m", "localrpc"]
SERVICES = ("demo.v1.Echo", "demo.v1.Plain")
HEALTH = "grpc.health.v1.Health"
UNDESCRIBED = "other.Undescribed"
REFLECTION = "grpc.reflection.v1alpha.ServerReflection"


def run(*arguments: str) -> Result:
    """The command, in this process."""
    return CliRunner().invoke(commands, arguments)


def on_terminal(*arguments: str, columns: int = 80) -> str:
    """What the command writes to a terminal; it must end with OK."""
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    environment = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
    program = subprocess.Popen(
        [*COMMAND, *arguments],
        stdin=follower,
        stdout=follower,
        stderr=follower,
        env=environment | {"TERM": "xterm"},
    )
    os.close(follower)
    shown = b""
    try:
        while data := os.read(leader, 4096):
            shown += data
    except OSError:
        pass  # a terminal reports in this way that no process has its other end open
    os.close(leader)
    assert program.wait(60) == 0, shown
    return shown.decode().replace("\r\n", "\n")


@cache
def demo_pool() -> DescriptorPool:
    pool = DescriptorPool()
    for file in compile_protos([PROTO], []):
        pool.AddSerializedFile(file.SerializeToString())
    return pool


def word(**fields: Any) -> Any:
    return GetMessageClass(demo_pool().FindMessageTypeByName("demo.v1.Word"))(**fields)


class Echo:
    def One(self, request: Any, context: Any) -> Any:
        sent = [(f"got-{k}", v) for k, v in context.invocation_metadata() if k.startswith("x-")]
        context.send_initial_metadata((("first", "1"),))
        context.set_trailing_metadata((*sent, ("last-bin", b"\1\2")))
        if request.text.isupper():
            context.abort(grpc.StatusCode[request.text], "as you wish")
        return request

    def Many(self, request: Any, context: Any) -> Iterator[Any]:
        for number in range(request.number):
            yield word(text=request.text, number=number + 1)
        if request.note:
            context.abort(grpc.StatusCode.DATA_LOSS, request.note)

    def Gather(self, requests: Iterator[Any], context: Any) -> Any:
        return word(tags=[request.text for request in requests])

    def Talk(self, requests: Iterator[Any], context: Any) -> Iterator[Any]:
        for request in requests:
            if request.text == "end":
                return
            yield request


class Plain:
    def Values(self, request: Any, context: Any) -> Any:
        return request


def handlers_of(servicer: object) -> grpc.GenericRpcHandler:
    """What generated code would register."""
    service = demo_pool().FindServiceByName(f"demo.v1.{type(servicer).__name__}")
    kinds = {True: "stream", False: "unary"}
    handlers = {}
    for method in service.methods:
        kind = f"{kinds[method.client_streaming]}_{kinds[method.server_streaming]}"
        handlers[method.name] = getattr(grpc, f"{kind}_rpc_method_handler")(
            getattr(servicer, method.name),
            GetMessageClass(method.input_type).FromString,
            GetMessageClass(method.output_type).SerializeToString,
        )
    return grpc.method_handlers_generic_handler(service.full_name, handlers)


@contextmanager
def served(target: str, *, reflection: bool = True) -> Iterator[Any]:
    """The demo services at `target`; the HealthServicer of grpcio-health-checking."""
    from grpc_health.v1 import health, health_pb2, health_pb2_grpc  # type: ignore[import-untyped]
    from grpc_reflection.v1alpha import (  # type: ignore[import-untyped]
        reflection as reflecting,
    )
    from grpc_reflection.v1alpha import (
        reflection_pb2,
    )

    server = localrpc.server(ThreadPoolExecutor(4))
    server.add_generic_rpc_handlers((handlers_of(Echo()), handlers_of(Plain())))
    servicer = health.HealthServicer()
    servicer.set(SERVICES[1], health_pb2.HealthCheckResponse.NOT_SERVING)
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    if reflection:
        pool = demo_pool()
        for file in (health_pb2.DESCRIPTOR, reflection_pb2.DESCRIPTOR):
            pool.AddSerializedFile(file.serialized_pb)
        names = (*SERVICES, HEALTH, REFLECTION, UNDESCRIBED)
        reflecting.enable_server_reflection(names, server, pool=pool)
    server.add_insecure_port(target)
    server.start()
    try:
        yield servicer
    finally:
        server.stop(None).wait()
