"""A server for the four kinds of call. Run: python server.py [TARGET]"""

import sys
from collections.abc import Iterator
from concurrent import futures

import grpc
from generated.greeter_localrpc import GreeterServicer, add_GreeterServicer_to_server
from generated.greeter_pb2 import Greeting, Name

import localrpc


class Greeter(GreeterServicer):
    def Greet(self, request: Name, context: grpc.ServicerContext) -> Greeting:
        return Greeting(text=f"Hello, {request.name}!")

    def GreetInTongues(self, request: Name, context: grpc.ServicerContext) -> Iterator[Greeting]:
        for hello in ("Hello", "Bonjour", "Ciao", "Hallo"):
            yield Greeting(text=f"{hello}, {request.name}!")

    def GreetAll(self, request_iterator: Iterator[Name], context: grpc.ServicerContext) -> Greeting:
        return Greeting(text=f"Hello, {', '.join(name.name for name in request_iterator)}!")

    def GreetEach(
        self, request_iterator: Iterator[Name], context: grpc.ServicerContext
    ) -> Iterator[Greeting]:
        for name in request_iterator:
            yield Greeting(text=f"Welcome, {name.name}!")


def main(target: str = "shm:greeter") -> None:
    server = localrpc.server(futures.ThreadPoolExecutor(max_workers=10))
    add_GreeterServicer_to_server(Greeter(), server)
    server.add_insecure_port(target)
    server.start()
    localrpc.stop_on_signals(server, grace=1)
    server.wait_for_termination()


if __name__ == "__main__":
    main(*sys.argv[1:])
