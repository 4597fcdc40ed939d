"""A headless Chromium, driven through the pipe that it offers for its DevTools protocol."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from tests.skips import need

_SWITCHES = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--disable-dev-shm-usage", "--hide-scrollbars", "--remote-debugging-pipe"),
)
_PATIENCE = 60.0
# Chromium reads from descriptor 3 and writes to 4. A program arranges them, not preexec_fn: see
# test_no_process_is_started_with_preexec_fn.
_LAUNCHER = """
import os, sys
theirs_in, theirs_out, *command = sys.argv[1:]
os.dup2(int(theirs_in), 3)
os.dup2(int(theirs_out), 4)
os.execv(command[0], command)
"""


class Browser:
    """A separate Chromium, which takes questions and sends events of all its pages."""

    def __init__(self, directory: Path) -> None:
        program = need("chromium")
        self._number = 0
        self._buffer = b""
        self.take: Callable[[dict[str, Any]], None] = lambda event: None
        """Called with each event while an answer is awaited."""
        theirs_in, self._out = os.pipe()
        self._in, theirs_out = os.pipe()
        high = [fcntl.fcntl(fd, fcntl.F_DUPFD, 20) for fd in (theirs_in, theirs_out)]
        self._process = subprocess.Popen(
            [
                *(sys.executable, "-I", "-S", "-c", _LAUNCHER, *map(str, high)),
                *(program, *_SWITCHES, f"--user-data-dir={directory}"),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=high,
        )
        for fd in (theirs_in, theirs_out, *high):
            os.close(fd)

    def ask(self, method: str, session: str | None = None, **parameters: Any) -> Any:
        self._number += 1
        question = {"id": self._number, "method": method, "params": parameters}
        if session is not None:
            question["sessionId"] = session
        os.write(self._out, json.dumps(question).encode() + b"\0")
        while True:
            answer = self.receive()
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']['message']}")
                return answer["result"]
            self.take(answer)

    def receive(self) -> dict[str, Any]:
        deadline = time.monotonic() + _PATIENCE
        while b"\0" not in self._buffer:
            left = deadline - time.monotonic()
            if left <= 0 or not wait([self._in], left):
                raise RuntimeError("Chromium gives no answer")
            chunk = os.read(self._in, 1 << 20)
            if not chunk:
                raise EOFError("Chromium has ended")
            self._buffer += chunk
        text, _, self._buffer = self._buffer.partition(b"\0")
        message: dict[str, Any] = json.loads(text)
        return message

    def close(self) -> None:
        try:
            self.ask("Browser.close")
        except (OSError, RuntimeError, EOFError):
            self._process.kill()
        try:
            self._process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._in)
        os.close(self._out)


class Page:
    """A new page of a browser, which has one at a time. All that it logs or requests is kept."""

    def __init__(self, browser: Browser, width: int, height: int, *, dark: bool = False) -> None:
        self._browser = browser
        self._events: list[str] = []
        self.errors: list[str] = []
        self.requests: list[str] = []
        self._session: str | None = None
        browser.take = self._take
        self._target = browser.ask("Target.createTarget", url="about:blank")["targetId"]
        attached = browser.ask("Target.attachToTarget", targetId=self._target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Network", "Runtime", "Log"):
            self.ask(f"{domain}.enable")
        self.ask(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.ask("Emulation.setEmulatedMedia", features=[scheme])

    def open(self, file: Path) -> None:
        self.ask("Page.navigate", url=file.absolute().as_uri())
        while "Page.loadEventFired" not in self._events:
            self._take(self._browser.receive())

    def ask(self, method: str, **parameters: Any) -> Any:
        return self._browser.ask(method, self._session, **parameters)

    def run(self, script: str) -> Any:
        """What an expression is worth."""
        answer = self.ask(
            "Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True
        )
        if "exceptionDetails" in answer:
            raise RuntimeError(str(answer["exceptionDetails"]))
        return answer["result"].get("value")

    def point(self, selector: str, part: float = 0.5) -> None:
        """Moves the pointer to an element, `part` of its width from its left."""
        x, y = self._find(selector, part)
        self.ask("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    def click(self, selector: str) -> None:
        x, y = self._find(selector, 0.5)
        for kind in ("mousePressed", "mouseReleased"):
            self.ask("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def tap(self, selector: str) -> None:
        x, y = self._find(selector, 0.5)
        self.ask("Input.dispatchTouchEvent", type="touchStart", touchPoints=[{"x": x, "y": y}])
        self.ask("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])

    def _find(self, selector: str, part: float) -> tuple[float, float]:
        place = self.run(
            f"""(async () => {{
              const element = document.querySelector({json.dumps(selector)});
              element.scrollIntoView({{block: "center", inline: "nearest", behavior: "instant"}});
              // The page is notified of scrolling with its next frame.
              await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
              const box = element.getBoundingClientRect();
              return [box.left + box.width * {part}, box.top + box.height / 2];
            }})()"""
        )
        return place[0], place[1]

    def screenshot(self, file: Path) -> None:
        shot = self.ask("Page.captureScreenshot", captureBeyondViewport=True)
        file.write_bytes(base64.b64decode(shot["data"]))

    def close(self) -> None:
        self._browser.ask("Target.closeTarget", targetId=self._target)

    def _take(self, event: dict[str, Any]) -> None:
        if event.get("sessionId") != self._session:
            return
        method, about = event.get("method", ""), event.get("params", {})
        self._events.append(method)
        if method == "Network.requestWillBeSent":
            self.requests.append(about["request"]["url"])
        elif method == "Runtime.exceptionThrown":
            self.errors.append(str(about["exceptionDetails"]))
        elif method == "Runtime.consoleAPICalled":
            self.errors.append(str(about["args"]))
        elif method == "Log.entryAdded":
            self.errors.append(about["entry"]["text"])
