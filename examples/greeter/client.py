"""A client for the four kinds of call. Run: python client.py [TARGET]"""

import sys

from generated.greeter_localrpc import GreeterStub
from generated.greeter_pb2 import Name

import localrpc


def main(target: str = "shm:greeter") -> None:
    people = [Name(name="Ada"), Name(name="Grace"), Name(name="Barbara")]
    with localrpc.insecure_channel(target) as channel:
        greeter = GreeterStub(channel)

        print(greeter.Greet(people[0], timeout=5, wait_for_ready=True).text)

        for greeting in greeter.GreetInTongues(people[0]):
            print(greeting.text)

        print(greeter.GreetAll(iter(people)).text)

        for greeting in greeter.GreetEach(iter(people)):
            print(greeting.text)


if __name__ == "__main__":
    main(*sys.argv[1:])
