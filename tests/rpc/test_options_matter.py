"""Each option changes what can be seen: a table, and nothing may be missing in it."""

from __future__ import annotations

import ast
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest

import localrpc
from localrpc.drive import connector as connector_module
from localrpc.drive.connector import Connector
from localrpc.drive.core import NEVER
from localrpc.errors import ConnectError
from localrpc.observe import own
from localrpc.options import DECLARED, parse_options
from localrpc.transports import Attempt, Connection, Dialer, parse_target
from tests.concurrency.engines import figures
from tests.conftest import fresh_target
from tests.hostile.raw import raw_client

from .house import PATIENCE, House, await_that, dial

Observe = Callable[[str, list[tuple[str, Any]]], object]
"""What is seen at a target of a server or channel with these options."""

TABLE: dict[str, tuple[Any, Observe]] = {}
"""Of each option a value that is not the default, and what shows the difference."""


def shows(option: str, value: Any) -> Callable[[Observe], Observe]:
    def register(observe: Observe) -> Observe:
        assert option not in TABLE
        TABLE[option] = (value, observe)
        return observe

    return register


def code_of(method: Any, *args: Any, **named: Any) -> str:
    try:
        method(*args, timeout=PATIENCE, **named)
    except grpc.RpcError as error:
        told: Any = error
        return str(told.code().name)
    return "OK"


# Messages and metadata


@shows("grpc.max_receive_message_length", 10)
def receives(target: str, options: Any) -> object:
    with House(target, options=options) as house:
        return code_of(house.channel.unary_unary("/house/echo"), b"x" * 11)


@shows("grpc.max_send_message_length", 10)
def sends(target: str, options: Any) -> object:
    with House(target, channel_options=options) as house:
        return code_of(house.channel.unary_unary("/house/echo"), b"x" * 11)


@shows("grpc.max_metadata_size", 100)
def metadata_now_and_then(target: str, options: Any) -> object:
    with House(target, options=options) as house:
        echo = house.channel.unary_unary("/house/echo")
        # Half of 200 calls, by chance, or none.
        return "RESOURCE_EXHAUSTED" in {
            code_of(echo, b"", metadata=[("k", "v" * 7900)]) for _ in range(200)
        }


@shows("grpc.absolute_max_metadata_size", 500)
def metadata_ever(target: str, options: Any) -> object:
    with House(target, options=options) as house:
        return code_of(house.channel.unary_unary("/house/echo"), b"", metadata=[("k", "v" * 600)])


def agent(target: str, options: Any) -> str:
    with House(target, channel_options=options) as house:
        call = house.channel.unary_unary("/house/wait").future(b"", timeout=PATIENCE)
        assert house.entered.acquire(timeout=PATIENCE)
        metadata: Any = house.contexts[-1].invocation_metadata()
        house.gate.set()
        call.result(timeout=PATIENCE)
        return str(dict(metadata)["user-agent"])


@shows("grpc.primary_user_agent", "program/1")
def agent_begins(target: str, options: Any) -> object:
    return agent(target, options).split()[0]


@shows("grpc.secondary_user_agent", "program/2")
def agent_ends(target: str, options: Any) -> object:
    return agent(target, options).split()[-1]


# Connecting


class _Enough(Exception):
    """The pauses have been seen."""


class _Nobody(Dialer):
    """Never finds a server."""

    def dial(self, attempt: Attempt) -> Connection:
        raise ConnectError("unix:nothing", "nothing listens")


def pauses(target: str, options: Any) -> list[float]:
    """Milliseconds between the first tries."""
    seen: list[float] = []
    connector = Connector(parse_target(target), parse_options(options), _Nobody())

    def record(until: float | None, *, expired_is_error: bool = True) -> None:
        assert until is not None
        seen.append(round(until * 1000))
        if len(seen) == 6:
            raise _Enough

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(connector_module, "monotonic", lambda: 0.0)
        patch.setattr(connector, "_wait", record)
        with pytest.raises(_Enough):
            connector.ready(NEVER, wait_for_ready=True)
    return seen


@shows("grpc.initial_reconnect_backoff_ms", 7)
def first_pause(target: str, options: Any) -> object:
    return pauses(target, options)[0]


@shows("grpc.max_reconnect_backoff_ms", 1000)
def longest_pause(target: str, options: Any) -> object:
    return max(pauses(target, options))


def silent(target: str) -> socket.socket:
    """A server's socket that takes connections and says nothing."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(target.removeprefix("unix:"))
    listener.listen()
    return listener


@shows("localrpc.connect_timeout_ms", 50)
def gives_up(target: str, options: Any) -> object:
    with silent(target), dial(target, options) as channel:
        with pytest.raises(grpc.RpcError) as caught:
            channel.unary_unary("/a/b")(b"", timeout=2)
        error: Any = caught.value
        return error.code()


@shows("localrpc.greeting_timeout_ms", 50)
def hangs_up(target: str, options: Any) -> object:
    with House(target, options=options), socket.socket(socket.AF_UNIX) as client:
        client.settimeout(1)
        client.connect(target.removeprefix("unix:"))
        try:
            return client.recv(1)
        except TimeoutError:
            return "it waits"


@shows("localrpc.window", 1 << 17)
def window(target: str, options: Any) -> object:
    with House(target, options=options), raw_client(target) as client:
        return client.connection.hello.window


@shows("localrpc.shared_memory", 0)
def memory(target: str, options: Any) -> object:
    target = target.replace("unix:", "shm:")
    with House(target, options=options), raw_client(target) as client:
        return client.connection.hello.ring_size


# Groups of workers


@shows("localrpc.worker", "group.2")
def worker(target: str, options: Any) -> object:
    with House(target, options=options), raw_client(target) as client:
        return client.connection.hello.group, client.connection.hello.worker


@shows("localrpc.spread", "off")
def spread(target: str, options: Any) -> object:
    server = [("localrpc.worker", "group.1")]
    with House(target, options=server, channel_options=options) as house:
        assert code_of(house.channel.unary_unary("/house/echo"), b"") == "OK"
        return house.channel._connector.peek().load is None


# What others see


@shows("localrpc.name", "the greeter")
def name(target: str, options: Any) -> object:
    with House(target, options=options):
        page = own()
        assert page is not None
        names = [each.target for each in page.endpoints if each.role == "server" and each.live]
        return target in names, "the greeter" in names


# Users


def mode(target: str, options: Any) -> int:
    with House(target, options=options):
        return os.stat(target.removeprefix("unix:")).st_mode


shows("localrpc.allow_users", "*")(mode)
shows("localrpc.allow_groups", 12345)(mode)


@shows("localrpc.server_user", os.getuid() + 1)
def whose_server(target: str, options: Any) -> object:
    with House(target, channel_options=options) as house:
        return code_of(house.channel.unary_unary("/house/echo"), b"")


@shows("localrpc.max_connections_per_user", 1)
def connections(target: str, options: Any) -> object:
    with House(target, options=options) as house, dial(target) as other:
        assert code_of(house.channel.unary_unary("/house/echo"), b"") == "OK"
        return code_of(other.unary_unary("/house/echo"), b"")


def beside_a_busy_one(target: str, options: Any, message: bytes, calls: int = 1) -> object:
    """The first of some calls to end while the only worker is busy, or None: they wait."""
    with House(target, options=options, workers=1) as house:
        busy = house.channel.unary_unary("/house/wait").future(b"", timeout=PATIENCE)
        assert house.entered.acquire(timeout=PATIENCE)
        echo = house.channel.unary_unary("/house/echo")
        waiting = [echo.future(message, timeout=PATIENCE) for _ in range(calls)]
        await_that(
            lambda: figures(house.server).waiting_calls + sum(c.done() for c in waiting) == calls,
            "each to wait, or to be refused",
        )
        refused = [call.details() for call in waiting if call.done()]
        house.gate.set()
        busy.result(timeout=PATIENCE)
        return refused


@shows("localrpc.max_calls_per_user", 1)
def calls_in_progress(target: str, options: Any) -> object:
    return beside_a_busy_one(target, options, b"")


@shows("localrpc.max_waiting_calls_per_user", 2)
def calls_that_wait(target: str, options: Any) -> object:
    return beside_a_busy_one(target, options, b"", calls=3)


@shows("localrpc.max_memory_per_user", 1 << 16)
def memory_of_a_user(target: str, options: Any) -> object:
    return beside_a_busy_one(target, options, bytes(30_000), calls=3)


# The tests


@pytest.mark.parametrize("option", sorted(TABLE))
def test_an_option_changes_what_is_seen(option: str, runtime_directory: str) -> None:
    value, observe = TABLE[option]
    without = observe(fresh_target("unix", runtime_directory), [])
    given = observe(fresh_target("unix", runtime_directory), [(option, value)])
    assert given != without


def test_a_refusal_names_the_limit_that_was_met(runtime_directory: str) -> None:
    for option in (
        "localrpc.max_calls_per_user",
        "localrpc.max_waiting_calls_per_user",
        "localrpc.max_memory_per_user",
    ):
        value, observe = TABLE[option]
        refused: Any = observe(fresh_target("unix", runtime_directory), [(option, value)])
        assert len(refused) == 1
        assert option in refused[0]
        assert str(value) in refused[0]


def test_the_table_has_every_option() -> None:
    assert set(TABLE) == {option.key for option in DECLARED}


def test_every_field_of_the_options_is_read() -> None:
    read: set[str] = set()
    for path in Path(localrpc.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
                read.add(node.attr)
    assert {option.name for option in DECLARED} - read == set()
