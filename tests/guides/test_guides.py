"""The programs and commands of the guides, word for word."""

from __future__ import annotations

import json
import re
import threading
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

import localrpc
from tests.guides.page import Folder, commands, files, text_of
from tests.libraries.needed import need
from tests.ports import free_port


def test_a_service_moves_from_grpcio_and_its_clients_one_by_one(folder: Folder) -> None:
    page = ".docs/guides/coming-from-grpcio.md"
    folder.write("README.md", "greeter.proto")
    folder.write(page)
    for line in commands(page):
        folder.run(line)
    with folder.serving("python server.py", "run/greeter.shm"):
        assert folder.repeat(page) == 3


def test_the_program_of_the_asyncio_page_runs(folder: Folder) -> None:
    folder.write("README.md", "greeter.proto")
    for line in commands(".docs/guides/coming-from-grpcio.md")[:1]:
        folder.run(line)
    folder.write("localrpc/aio/README.md")
    assert folder.run("python hello.py") == "Hello, Ada\n"


APP = """
import asyncio, json
from app import app

async def main():
    sent = []
    async def receive():
        return {"type": "http.request"}
    async def send(message):
        sent.append(message)
    scope = {
        "type": "http", "method": "GET", "path": "/latest/tide", "headers": [],
        "query_string": b"", "app": app,
    }
    async with app.router.lifespan_context(app):
        await app(scope, receive, send)
    print(sent[0]["status"], json.loads(sent[1]["body"]))

asyncio.run(main())
"""


def test_the_programs_of_the_asyncio_guide_run(folder: Folder) -> None:
    need(("starlette",))
    page = ".docs/guides/asyncio.md"
    folder.write(page)
    for line in commands(page):
        folder.run(line)
    (folder.path / "get.py").write_text(APP)
    with folder.serving("python server.py", "run/feed.shm"):
        assert folder.repeat(page) == 1
        assert folder.run("python get.py") == "200 {'text': 'tide 3'}\n"
    assert "'error': " in folder.run("python get.py")
    assert "1 passed" in folder.run("python -m pytest -q test_feed.py")


def test_the_tests_of_the_guide_pass(greeter: Folder) -> None:
    page = ".docs/guides/testing.md"
    greeter.write(page)
    targets = text_of(page).count("def test_") - 2  # the program's tests have targets of their own
    said = greeter.run("python -m pytest -q")
    assert f"{3 * targets + 2} passed" in said, said
    greeter.run("python without_pytest.py")


def test_arrays_travel_in_one_message_in_a_stream_and_bare(folder: Folder) -> None:
    page = ".docs/guides/large-messages.md"
    folder.write(page)
    for line in commands(page):
        folder.run(line)
    with folder.serving("python server.py", "run/arrays.shm"):
        assert folder.repeat(page) == 1


OBSERVABILITY = ".docs/guides/observability.md"


def counters(page: str) -> set[str]:
    """Names and labels of the lines that `/metrics` has, in a text block."""
    blocks = re.findall(r"```text\n(.*?)```", text_of(page), re.DOTALL)
    return {line.rpartition(" ")[0] for block in blocks for line in block.splitlines()}


def documents(text: str) -> Iterator[Any]:
    """JSON values, one after the other."""
    while text := text.lstrip():
        value, end = json.JSONDecoder().raw_decode(text)
        yield value
        text = text[end:]


def exported_by(program: str, pid: int, monkeypatch: pytest.MonkeyPatch) -> str:
    """What the exporter shows of one process. It runs in this one, and has no port."""
    import prometheus_client

    from localrpc.integrations import prometheus

    of_one = [each for each in localrpc.observe.processes() if each.pid == pid]
    shown: list[str] = []

    def start(port: int, addr: str, registry: Any) -> tuple[None, threading.Thread]:
        text = prometheus_client.generate_latest(registry).decode()
        thread = threading.Thread(target=shown.append, args=(text,))
        thread.start()
        return None, thread

    monkeypatch.setattr(prometheus, "processes", lambda: of_one)
    monkeypatch.setattr(prometheus_client, "start_http_server", start)
    exec(program, {})
    (text,) = shown
    return text


def test_the_recipes_for_metrics_traces_and_health_work(
    greeter: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    need(("prometheus-client", "py-grpc-prometheus", "grpcio-health-checking"))
    need(("opentelemetry-distro",))
    page = OBSERVABILITY
    port = str(free_port())
    greeter.write(page, "server.py", **{"9464": port})
    greeter.write(page, "facts.py", "counted.py")
    greeter.write("README.md", "client.py")
    with greeter.serving("python server.py", "run/greeter.shm") as server:
        assert greeter.repeat(page) == 3
        # The server has counted the call when its client has the answer, or a moment later.
        (line,) = (line for line in commands(page) if line.startswith("opentelemetry"))
        traced = greeter.run(line)
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as page_of_metrics:
            metrics = page_of_metrics.read().decode()
        of_user = exported_by(files(page)["exporter.py"], server.pid, monkeypatch)
    said, _, told = traced.partition("\n")
    assert said == "Hello, Ada!"
    spans = [each for each in documents(told) if "resource_metrics" not in each]
    assert [span["name"] for span in spans] == ["/Greeter/Greet"]
    assert '"name": "grpc.client.attempt.started"' in told
    assert len(counters(page)) == 5
    assert counters(page) <= {line.rpartition(" ")[0] for line in metrics.splitlines()}
    assert f'_started_total{{grpc_target="shm:greeter",pid="{server.pid}"}}' in of_user
