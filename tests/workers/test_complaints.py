"""What users of process managers have complained of in public, as what they expected instead."""

from __future__ import annotations

from pathlib import Path

from tests.workers.served import APP, Served
from tests.workers.test_serve import eventually


def add(folder: Path, code: str) -> None:
    """Add code to the application."""
    with (folder / "app.py").open("a") as module:
        module.write(code)


def test_a_change_is_not_lost_while_a_worker_starts(folder: Path) -> None:
    """emmett-framework/granian#529: nothing was reloaded any more after it."""
    module = folder / "app.py"
    module.write_text(
        "import os, time\n"
        "open('begun', 'w').close()\n"
        "while not os.path.exists('released'):\n"
        "    time.sleep(0.005)\n"
        "raise ValueError('not finished')\n"
    )
    with Served(folder, "app:setup", "--target", f"shm:{folder}/s", "--reload") as served:
        eventually((folder / "begun").exists, "it starts")
        module.write_text(APP)
        served.until("app.py changed")
        (folder / "released").touch()
        served.ready()
        assert served.stop() == 0
    assert "ValueError: not finished" in "\n".join(served.lines)
