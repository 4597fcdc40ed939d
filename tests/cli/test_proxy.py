"""`localrpc proxy`: its options, its process and its end; tests/proxy has the calls."""

from __future__ import annotations

import json
import os
import signal
import socket
from pathlib import Path
from queue import Queue
from typing import Any

import grpc
import pytest

import localrpc
from localrpc.proxy import process
from localrpc.proxy.process import Settings, proxying
from tests.conftest import fresh_target
from tests.ports import free_port
from tests.proxy.conftest import Loop, loop
from tests.remote.conftest import CERTIFICATE, KEY
from tests.rpc.house import House, dial
from tests.workers.served import PATIENCE, Served

from .scene import COMMAND, SERVICES, run, served
from .test_completion import offered

__all__ = ["loop"]


# ---- the process ----


class Manager:
    """A service manager's socket."""

    def __init__(self, folder: Path) -> None:
        self.path = f"{folder}/notify"
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(self.path)
        self._socket.settimeout(PATIENCE)

    def until(self, state: str) -> str:
        while True:
            came = self._socket.recv(1000).decode()
            if state in came:
                return came

    def __enter__(self) -> Manager:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()


class Talk:
    """A call in progress, message by message."""

    def __init__(self, channel: Any, method: str = "/house/mirror") -> None:
        self._requests: Queue[bytes | None] = Queue()
        self.call = channel.stream_stream(method)(iter(self._requests.get, None), timeout=PATIENCE)

    def say(self, request: bytes) -> bytes:
        self._requests.put(request)
        answer: bytes = next(self.call)
        return answer

    def end(self) -> grpc.StatusCode:
        self._requests.put(None)
        code: grpc.StatusCode = self.call.code()
        return code


def test_a_proxy_passes_calls_on_until_a_signal_and_lets_them_end(
    one_target: str, tmp_path: Path
) -> None:
    with (
        House(one_target),
        Manager(tmp_path) as manager,
        Served(
            tmp_path,
            *("grpc:127.0.0.1:0", one_target),
            command="proxy",
            NOTIFY_SOCKET=manager.path,
            WATCHDOG_USEC="100000",
        ) as proxy,
    ):
        place = proxy.until("listening on ").split("listening on ")[1].split(",")[0]
        assert proxy.lines[-1].endswith(f", in front of {one_target}")
        assert not place.endswith(":0")
        ready = manager.until("READY=1")
        assert f"STATUS={place} in front of {one_target}" in ready
        manager.until("WATCHDOG=1")
        with dial(place) as channel:
            talk = Talk(channel)
            assert talk.say(b"one") == b"one"
            proxy.signal(signal.SIGTERM)
            proxy.until("SIGTERM: stopping; calls in progress have 30 s")
            manager.until("STOPPING=1")
            assert talk.say(b"two") == b"two"
            assert talk.end() is grpc.StatusCode.OK
            assert proxy.ended() == 0
        assert proxy.lines[-1].endswith(" stopped")
        assert len(proxy.lines) == 3


def test_a_second_signal_ends_it_at_once(one_target: str, tmp_path: Path) -> None:
    front = fresh_target("unix", str(tmp_path))
    arguments = (front, one_target, "--grace", "1000", "--log-json")
    with House(one_target), Served(tmp_path, *arguments, command="proxy") as proxy:
        line = json.loads(proxy.until("listening on "))
        assert (line["logger"], line["level"]) == ("localrpc.proxy", "info")
        with dial(front) as channel:
            talk = Talk(channel)
            assert talk.say(b"one") == b"one"
            proxy.signal(signal.SIGINT)
            proxy.until("SIGINT: stopping; calls in progress have 1000 s")
            proxy.signal(signal.SIGINT)
            assert proxy.ended() == 128 + signal.SIGINT
            assert talk.end() is not grpc.StatusCode.OK
    assert not os.path.exists(front.removeprefix("unix:"))


def test_a_child_is_a_proxy_until_its_parent_closes_the_channel(one_target: str) -> None:
    with House(one_target):
        argv = [*COMMAND, "proxy", "pipe:", one_target, "--log-level", "error"]
        with localrpc.spawn_channel(argv) as channel:
            echo: Any = channel.unary_unary("/house/echo")
            assert echo(b"x", timeout=PATIENCE) == b"x"
        assert channel.wait(PATIENCE) == 0


# ---- the command line ----


def settings_of(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> Settings:
    """What the command line says."""
    found: list[Settings] = []

    def take(settings: Settings) -> int:
        found.append(settings)
        return 7

    with monkeypatch.context() as patch:
        patch.setattr(process, "run", take)
        done = run("proxy", *arguments)
    assert done.exit_code == 7, done.output
    return found[0]


def test_settings_come_from_the_command_line_and_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plain = settings_of(monkeypatch, "grpc:0.0.0.0:5", "shm:x")
    assert plain == Settings("grpc:0.0.0.0:5", "shm:x", 30.0, ())
    options = ("--option", "localrpc.server_user=root", "--option", "grpc.keepalive_time_ms=5")
    pairs = (("localrpc.server_user", "root"), ("grpc.keepalive_time_ms", 5))
    assert settings_of(monkeypatch, "shm:a", "shm:b", *options, "--grace", "1.5") == Settings(
        "shm:a", "shm:b", 1.5, pairs
    )
    monkeypatch.setenv("LOCALRPC_PROXY_GRACE", "4")
    assert settings_of(monkeypatch, "shm:a", "shm:b").grace == 4


@pytest.mark.parametrize(
    ("line", "code", "words"),
    [
        ("shm:a", 2, "Missing argument 'TARGET'"),
        ("nowhere shm:a", 1, "target 'nowhere'"),
        ("shm:a shmem:b", 1, "unknown scheme 'shmem'"),
        ("shm:a inproc:b", 1, "inproc:b: a name of inproc: is private to a process"),
        ("inproc:a shm:b", 1, "inproc:a: a name of inproc: is private to a process"),
        ("shm:a pipe:", 1, "pipe: without a path leads to a child, and a proxy has none"),
        ("shm:a shm://a?ring=1M", 1, "a proxy cannot be in front of itself; name two targets"),
        ("shm:a shm:b --grace nan", 2, "grace has to be a number of seconds, not nan"),
        ("shm:a shm:b --option localrpc.windw=1", 2, "unknown option 'localrpc.windw'"),
        ("shm:a shm:b --tls", 2, "shm:b is a local target and has no TLS: omit --tls and --ca"),
        ("shm:a shm:b --cert {pem} --key {pem}", 2, "shm:a is a local target and has no TLS"),
        ("grpc:[::1]:0 shm:b --cert {pem}", 2, "give both --cert and --key"),
        ("grpc:[::1]:0 shm:b --client-ca {pem}", 2, "give both --cert and --key"),
        ("grpc:[::1]:0 shm:b --cert /no --key /no", 2, "'/no' does not exist"),
    ],
)
def test_an_error_names_the_fix(line: str, code: int, words: str) -> None:
    done = run("proxy", *line.format(pem=CERTIFICATE).split())
    assert done.exit_code == code, done.output
    assert words in done.output.replace("\n", " ")


def test_a_target_that_has_a_server_is_not_taken(one_target: str) -> None:
    with House(one_target):
        done = run("proxy", one_target, "shm:other")
        assert (done.exit_code, "a live server already listens there" in done.output) == (4, True)
    port = free_port()
    with House(f"grpc:127.0.0.1:{port}"):
        done = run("proxy", f"grpc:127.0.0.1:{port}", "shm:other")
        assert (done.exit_code, "gRPC cannot listen there" in done.output) == (1, True)


def test_the_help_fits_a_terminal_and_has_examples() -> None:
    text = run("proxy", "--help").output
    assert max(map(len, text.splitlines())) <= 80
    assert "localrpc proxy grpc:0.0.0.0:50051 shm:greeter\n" in text


def test_targets_are_completed(one_target: str) -> None:
    assert offered("proxy", "grp") == ["grpc:"]
    with House(one_target):
        name = one_target.partition("?")[0]
        assert name not in offered("proxy", name[:-1])
        assert name in offered("proxy", "grpc:0.0.0.0:50051", name[:-1])


# ---- what is behind it ----


def test_reflection_and_health_are_those_of_the_server(
    loop: Loop, one_target: str, runtime_directory: str
) -> None:
    front = fresh_target("grpc", runtime_directory)
    with served(one_target):
        proxy = proxying(Settings(front, one_target))
        loop.run(proxy.__aenter__())
        assert run("list", front).output == run("list", one_target).output
        described = run("describe", front, SERVICES[0])
        assert described.exit_code == 0
        assert described.output == run("describe", one_target, SERVICES[0]).output
        assert run("health", front).output == "SERVING\n"
        assert run("health", front, SERVICES[1]).output == "NOT_SERVING\n"
        done = run("call", front, "demo.v1.Echo/Gather", "-d", '{"text": "a"} {"text": "b"}')
        assert json.loads(done.output) == {"tags": ["a", "b"]}
        loop.run(proxy.__aexit__(None, None, None))


def test_calls_travel_with_tls_between_two_proxies(
    loop: Loop, one_target: str, runtime_directory: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = free_port()
    near = fresh_target("unix", runtime_directory)
    files = ("--cert", str(CERTIFICATE), "--key", str(KEY))
    there = settings_of(monkeypatch, f"grpc:localhost:{port}", one_target, *files)
    here = settings_of(monkeypatch, near, f"grpc:localhost:{port}", "--ca", str(CERTIFICATE))
    with House(one_target), dial(near) as channel, dial(f"grpc:localhost:{port}") as plain:
        proxies = [proxying(there), proxying(here)]
        for proxy in proxies:
            loop.run(proxy.__aenter__())
        assert channel.unary_unary("/house/echo")(b"x", timeout=PATIENCE) == b"x"
        call = plain.unary_unary("/house/echo").future(b"x", timeout=PATIENCE)
        assert call.code() is grpc.StatusCode.UNAVAILABLE
        for proxy in reversed(proxies):
            loop.run(proxy.__aexit__(None, None, None))


def test_only_clients_with_a_certificate_are_served_if_that_is_asked_for(
    loop: Loop, one_target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = f"localhost:{free_port()}"
    pem, key = CERTIFICATE.read_bytes(), KEY.read_bytes()
    files = ("--cert", str(CERTIFICATE), "--key", str(KEY), "--client-ca", str(CERTIFICATE))
    proxy = proxying(settings_of(monkeypatch, f"grpc:{place}", one_target, *files))
    with House(one_target):
        loop.run(proxy.__aenter__())
        for mine, code in (((key, pem), "OK"), ((None, None), "UNAVAILABLE")):
            credentials = grpc.ssl_channel_credentials(pem, *mine)
            with grpc.secure_channel(place, credentials) as channel:
                echo: Any = channel.unary_unary("/house/echo")
                call = echo.future(b"x", timeout=PATIENCE)
                assert call.code().name == code
        loop.run(proxy.__aexit__(None, None, None))
