"""A generated client whose transport has a localrpc channel,
`CloudTasksGrpcTransport(channel=channel)`: pages, retries, timeouts, errors by their classes."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import grpc
import pytest

from localrpc.testing import serving_aio

from .scene import SERVICE, TARGETS, Service, at

LIBRARIES = ("google-api-core", "google-cloud-tasks")

PARENT = "projects/p/locations/l"


class Tasks:
    """As much of Google's Cloud Tasks as the test calls."""

    def __init__(self) -> None:
        from google.cloud.tasks_v2 import types

        self.types = types
        self.seen: list[tuple[str, Any]] = []
        self.failures = 2
        self.release = threading.Event()

    def handler(self) -> Any:
        types = self.types

        def method(behaviour: Callable[[Any, Any], Any], request: Any, response: Any) -> Any:
            return grpc.unary_unary_rpc_method_handler(
                behaviour,
                request_deserializer=request.deserialize,
                response_serializer=response.serialize,
            )

        return grpc.method_handlers_generic_handler(
            "google.cloud.tasks.v2.CloudTasks",
            {
                "ListQueues": method(
                    self.list_queues, types.ListQueuesRequest, types.ListQueuesResponse
                ),
                "GetQueue": method(self.get_queue, types.GetQueueRequest, types.Queue),
                "CreateQueue": method(self.create_queue, types.CreateQueueRequest, types.Queue),
            },
        )

    def list_queues(self, request: Any, context: Any) -> Any:
        first = int(request.page_token or "0")
        names = [f"{request.parent}/queues/{number}" for number in range(first, min(first + 2, 5))]
        following = str(first + 2) if first + 2 < 5 else ""
        queues = [self.types.Queue(name=name) for name in names]
        return self.types.ListQueuesResponse(queues=queues, next_page_token=following)

    def get_queue(self, request: Any, context: Any) -> Any:
        """Found at the third try, which only a client that tries again makes."""
        self.seen.extend(context.invocation_metadata())
        if self.failures:
            self.failures -= 1
            context.abort(grpc.StatusCode.UNAVAILABLE, "not yet")
        return self.types.Queue(name=request.name)

    def create_queue(self, request: Any, context: Any) -> Any:
        name = request.queue.name
        if name.endswith("slow"):
            self.release.wait(20)
        if name.endswith("taken"):
            context.abort(grpc.StatusCode.ALREADY_EXISTS, f"{name} is there")
        return request.queue


@pytest.mark.parametrize("target", TARGETS)
def test_google_s_generated_client_works_over_every_target(target: str) -> None:
    from google.api_core import exceptions
    from google.cloud.tasks_v2 import CloudTasksClient
    from google.cloud.tasks_v2.services.cloud_tasks.transports import CloudTasksGrpcTransport

    served = Tasks()
    queue = served.types.Queue
    with at(target)(served.handler()) as channel:
        client = CloudTasksClient(transport=CloudTasksGrpcTransport(channel=channel))
        names = [each.name for each in client.list_queues(parent=PARENT)]
        assert names == [f"{PARENT}/queues/{number}" for number in range(5)]

        found = client.get_queue(name=f"{PARENT}/queues/7")
        assert (found.name, served.failures) == (f"{PARENT}/queues/7", 0)
        assert ("x-goog-request-params", f"name={PARENT}/queues/7") in served.seen
        assert "x-goog-api-client" in dict(served.seen)

        made = client.create_queue(parent=PARENT, queue=queue(name=f"{PARENT}/queues/new"))
        assert made == queue(name=f"{PARENT}/queues/new")
        with pytest.raises(exceptions.AlreadyExists, match="taken is there") as taken:
            client.create_queue(parent=PARENT, queue=queue(name=f"{PARENT}/queues/taken"))
        assert taken.value.response.code() is grpc.StatusCode.ALREADY_EXISTS
        slow = queue(name=f"{PARENT}/queues/slow")
        with pytest.raises(exceptions.DeadlineExceeded):
            client.create_queue(parent=PARENT, queue=slow, timeout=0.2)
        served.release.set()
        with pytest.raises(exceptions.MethodNotImplemented, match="Method not found"):
            client.delete_queue(name=f"{PARENT}/queues/1")


@pytest.mark.parametrize("target", TARGETS)
def test_google_s_wrapped_streams_raise_its_exceptions(target: str) -> None:
    from google.api_core import exceptions, grpc_helpers

    with at(target)(Service().handler()) as channel:

        def wrapped(kind: str, method: str) -> Any:
            return grpc_helpers.wrap_errors(getattr(channel, kind)(f"/{SERVICE}/{method}"))

        assert list(wrapped("unary_stream", "Count")(b"3")) == [b"0", b"1", b"2"]
        assert list(wrapped("stream_stream", "Mirror")(iter([b"a", b"b"]))) == [b"a", b"b"]
        broken = wrapped("unary_stream", "Break")(b"")
        assert next(broken) == b"first"
        with pytest.raises(exceptions.ServiceUnavailable, match="enough"):
            next(broken)
        assert broken.code() is grpc.StatusCode.UNAVAILABLE
        with pytest.raises(exceptions.NotFound, match="nothing"):
            wrapped("unary_unary", "Refuse")(b"")


@pytest.mark.parametrize("target", TARGETS)
def test_google_s_generated_asyncio_client_works_over_every_target(target: str) -> None:
    """Its server is asyncio's as well, with the plain functions of Tasks on a pool."""
    from google.api_core import exceptions
    from google.cloud.tasks_v2 import CloudTasksAsyncClient
    from google.cloud.tasks_v2.services.cloud_tasks.transports import (
        CloudTasksGrpcAsyncIOTransport,
    )

    served = Tasks()
    queue = served.types.Queue

    async def run() -> None:
        async with serving_aio(served.handler(), target=target) as channel:
            transport = CloudTasksGrpcAsyncIOTransport(channel=channel)
            client = CloudTasksAsyncClient(transport=transport)
            names = [each.name async for each in await client.list_queues(parent=PARENT)]
            assert names == [f"{PARENT}/queues/{number}" for number in range(5)]
            found = await client.get_queue(name=f"{PARENT}/queues/7")
            assert (found.name, served.failures) == (f"{PARENT}/queues/7", 0)
            assert ("x-goog-request-params", f"name={PARENT}/queues/7") in served.seen
            taken = queue(name=f"{PARENT}/queues/taken")
            with pytest.raises(exceptions.AlreadyExists, match="taken is there"):
                await client.create_queue(parent=PARENT, queue=taken)
            slow = queue(name=f"{PARENT}/queues/slow")
            with pytest.raises(exceptions.DeadlineExceeded):
                await client.create_queue(parent=PARENT, queue=slow, timeout=0.2)
            served.release.set()
            with pytest.raises(exceptions.MethodNotImplemented, match="Method not found"):
                await client.delete_queue(name=f"{PARENT}/queues/1")

    asyncio.run(run())
