"""A worker process: one server, with the sockets and the settings that its supervisor has sent.

Or a preloader, which becomes a worker in each process that it forks.
"""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import logging
import os
import select
import signal
import socket
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import localrpc
from localrpc.workers import control, extras, loading, logs
from localrpc.workers.application import Application, BadApplication
from localrpc.workers.control import Control, Event, Order, Report
from localrpc.workers.fleet import BEATS
from localrpc.workers.preloader import preload
from localrpc.workers.settings import Settings

_logger = logging.getLogger("localrpc.serve")
_MARGIN = 5.0
"""Seconds after the grace, in which a worker without a supervisor has to end."""
CANNOT_START = 1
"""Exit code."""


class Worker:
    """This process's server, and the way to its supervisor."""

    def __init__(self, up: Control, job: control.Job, app: Application | None) -> None:
        """Without `app` it is loaded."""
        self.settings = Settings.load(job.settings)
        self._app = app
        self.number = job.number
        self._targets = job.targets
        self._group = job.group
        self._up = up
        self._began = time.monotonic()
        self._is_ready = False
        self._pause = self.settings.watchdog / BEATS
        """Seconds from one report that the interpreter runs to the next; 0: none."""

    def _watch_supervisor(self) -> None:
        """End this process, whatever it does, some time after its supervisor."""
        poller = select.poll()
        poller.register(self._up, 0)  # only for the end of it
        poller.poll()
        if self._is_ready:
            time.sleep(self.settings.grace + _MARGIN)
        os._exit(CANNOT_START)

    def run(self) -> int:
        """Serve until the supervisor or a signal ends it; return the exit code."""
        threading.Thread(
            target=self._watch_supervisor, name="localrpc-supervisor", daemon=True
        ).start()
        try:
            app = self._app or loading.load(self.settings)
            if app.is_async:
                asyncio.run(self._serve_async(app))
            else:
                self._serve(app)
        except localrpc.ListenError as error:
            return self._cannot_start(str(error))
        except Exception as error:
            if self._is_ready and not isinstance(error, BadApplication):
                raise
            return self._cannot_start(loading.reason(error, self.settings))
        return 0

    def _cannot_start(self, text: str) -> int:
        self._up.send_report(Report(Event.CANNOT_START, text))
        _logger.error("worker %d cannot start: %s", self.number, text)
        return CANNOT_START

    def _arguments(self) -> dict[str, Any]:
        options = list(self.settings.options)
        # Its ports are descriptors. A name that the user gives comes later, and so counts.
        name = " ".join(self.settings.targets)
        if name.isprintable() and len(name) <= 512:
            options.insert(0, ("localrpc.name", name))
        if self._group:
            options.append(("localrpc.worker", f"{self._group}.{self.number}"))
        return {"options": options}

    def _add_services(self, server: Any, is_async: bool) -> extras.Health | None:
        services = sorted(server._table.services())
        if not services:
            raise BadApplication(f"{self.settings.app} has added no service to the server")
        health = None
        if self.settings.health and "grpc.health.v1.Health" not in services:
            health = extras.add_health(server, services, is_async=is_async)
            services.append("grpc.health.v1.Health")
        if self.settings.reflection and "grpc.reflection.v1alpha.ServerReflection" not in services:
            extras.add_reflection(server, services)
        return health

    def _add_ports(self, server: Any) -> None:
        for target in self._targets:
            server.add_insecure_port(target)

    def _say_ready(self) -> None:
        self._is_ready = True
        self._up.send_report(Report(Event.READY, f"{time.monotonic() - self._began:.2f} s"))

    # Synchronous handlers

    def _serve(self, app: Application) -> None:
        pool = ThreadPoolExecutor(self.settings.threads)
        server = localrpc.server(pool, **self._arguments())
        app.setup(server)
        health = self._add_services(server, is_async=False)
        self._add_ports(server)
        with _Signals() as signals:
            self._up.send_report(Report(Event.OPENS))
            server.start()
            if health is not None:
                health.begin()
            self._say_ready()
            self._wait_for_the_end(signals)
            if health is not None:
                health.leave()
            server.stop(self.settings.grace).wait()

    def _wait_for_the_end(self, signals: _Signals) -> None:
        poller = select.poll()
        for source in (self._up, signals):
            poller.register(source, select.POLLIN)
        pause = self._pause * 1000 if self._pause else None
        while True:
            if pause is not None:
                self._up.send_beat()
            readable = [fd for fd, _ in poller.poll(pause)]
            if self._up.fileno() in readable:
                break
            if signals.fileno() in readable and signals.came(signal.SIGTERM):
                self._up.send_report(Report(Event.LEAVING))
                return
        order = self._up.receive_order()
        if order is not Order.DRAIN:
            _logger.warning("worker %d ends: its supervisor has gone", self.number)

    # Asynchronous handlers

    async def _serve_async(self, app: Application) -> None:
        from localrpc import aio

        pool = ThreadPoolExecutor(self.settings.threads)
        server = aio.server(pool, **self._arguments())
        done: Any = app.setup(server)
        if done is not None and hasattr(done, "__await__"):
            await done
        health = self._add_services(server, is_async=True)
        self._add_ports(server)
        loop = asyncio.get_running_loop()
        end = asyncio.Event()
        loop.add_reader(self._up.fileno(), end.set)

        def leave() -> None:
            self._up.send_report(Report(Event.LEAVING))
            end.set()

        loop.add_signal_handler(signal.SIGTERM, leave)
        self._up.send_report(Report(Event.OPENS))
        await server.start()
        if health is not None:
            for each in health.begin():
                if each is not None:
                    await each
        self._say_ready()
        beats = asyncio.create_task(self._beat()) if self._pause else None
        await end.wait()
        if beats is not None:
            beats.cancel()
        loop.remove_reader(self._up.fileno())
        if health is not None and (left := health.leave()) is not None:
            await left
        await server.stop(self.settings.grace)

    async def _beat(self) -> None:
        while True:
            self._up.send_beat()
            await asyncio.sleep(self._pause)


class _Signals:
    """Readable when a signal has come for which the program has a handler."""

    def __enter__(self) -> _Signals:
        self._reader, self._writer = socket.socketpair()
        self._writer.setblocking(False)
        signal.set_wakeup_fd(self._writer.fileno())
        signal.signal(signal.SIGTERM, lambda number, frame: None)
        return self

    def fileno(self) -> int:
        return self._reader.fileno()

    def came(self, number: int) -> bool:
        """Return True if it is among those that have come since the last time."""
        return number in self._reader.recv(4096)

    def __exit__(self, *_: object) -> None:
        signal.set_wakeup_fd(-1)
        self._reader.close()
        self._writer.close()


def main() -> int:
    # The terminal sends it to the supervisor, too, which then says what is to be done.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    up = control.inherited()
    job = up.receive_job() if up is not None else None
    if up is None or job is None:
        print("this program is started by `localrpc serve`", file=sys.stderr)
        return 2
    settings = Settings.load(job.settings)
    logs.set_up(settings.log_level, as_json=settings.log_json, may_block=True)
    # It would name the descriptors; the supervisor names the targets.
    if settings.log_level != "debug":
        logging.getLogger("localrpc.server").setLevel(logging.WARNING)
    app = None
    if job.number == control.PRELOADER:
        up, app = preload(up, settings)
        job = up.receive_job()
        if job is None:  # the supervisor has gone
            return CANNOT_START
    with contextlib.closing(up):
        if settings.watchdog:
            faulthandler.enable(2)  # SIGABRT writes where each thread is, even if the GIL is held
        return Worker(up, job, app).run()
