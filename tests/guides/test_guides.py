"""The programs and commands of the guides, word for word."""

from __future__ import annotations

import json
import urllib.request

from tests.guides.page import Folder, commands, text_of
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


def test_the_recipes_for_metrics_traces_and_health_work(greeter: Folder) -> None:
    need(("py-grpc-prometheus", "grpcio-health-checking", "opentelemetry-distro"))
    page = ".docs/guides/observability.md"
    port = str(free_port())
    greeter.write(page, "server.py", **{"9464": port})
    greeter.write(page, "facts.py")
    greeter.write("README.md", "client.py")
    with greeter.serving("python server.py", "run/greeter.shm"):
        assert greeter.repeat(page) == 2
        # The server has counted the call when its client has the answer, or a moment later.
        (line,) = (line for line in commands(page) if line.startswith("opentelemetry"))
        traced = greeter.run(line)
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as page_of_metrics:
            metrics = page_of_metrics.read().decode()
    said, _, spans = traced.partition("\n")
    assert said == "Hello, Ada!"
    assert json.loads(spans)["name"] == "/Greeter/Greet"
    (counted,) = (line for line in text_of(page).splitlines() if "_handled_total{" in line)
    name = counted.rpartition(" ")[0]
    assert any(line.startswith(name) for line in metrics.splitlines()), metrics
