"""The supervisor: starts worker processes, watches them, and does what signals ask for.

It holds the listening sockets, so that no client is refused while workers come and go, and runs no
code of the application. SIGTERM or SIGINT ends it once the calls have, a second one at once;
SIGHUP replaces the workers, SIGTTIN adds one, SIGTTOU removes one; SIGUSR2 replaces the supervisor
itself by a new one of the same pid, with its sockets and workers, then the workers.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import selectors
import signal
import socket
import sys
import threading
import time
from types import FrameType
from typing import Any

from localrpc.workers import access, control, forking, places, processes
from localrpc.workers.control import Control, Event, Job, Order
from localrpc.workers.fleet import Drain, Dump, Exit, Fleet, Kill, Load, Say, Stage, Start, Unload
from localrpc.workers.notifying import Manager
from localrpc.workers.places import Place
from localrpc.workers.processes import KEPT, Child
from localrpc.workers.settings import Settings
from localrpc.workers.watching import Changes, calls_of, own_memory

_logger = logging.getLogger("localrpc.serve")
_SIGNALS = ("SIGTERM", "SIGINT", "SIGHUP", "SIGTTIN", "SIGTTOU", "SIGUSR2", "SIGCHLD")
_LONGEST_WAIT = 3600.0
_CHECK = 1.0
"""Seconds from one look at the workers' memory and calls to the next."""


class Supervisor:
    """Owns the sockets of the targets, and the workers."""

    def __init__(self, settings: Settings, *, trial: str = "", is_alone: bool = False) -> None:
        """Take the names.

        `trial` is a program that fails if this process could not begin anew: SIGUSR2 tries it
        first. `is_alone`: this process starts no other children, so that those which it does not
        know are orphans.

        Raises ListenError, AddressInUse, AddressError, and ValueError for settings that contradict
        each other, or if this is not the main thread.
        """
        if threading.current_thread() is not threading.main_thread():
            raise ValueError("a supervisor handles signals: start it in the main thread")
        if control.of_a_worker:
            raise RuntimeError(
                "this process is a worker, and has imported the program that starts workers: call"
                " localrpc.serve() below `if __name__ == '__main__':`"
            )
        settings, self._permissions = access.resolved(settings)
        self._dumped = settings.dump()
        self._settings = settings
        self._trial = trial
        self._fleet = Fleet(
            settings.workers,
            settings.grace,
            settings.boot_timeout,
            patient=settings.reload,
            watchdog=settings.watchdog,
            preloads=settings.preload,
        )
        self._group = os.urandom(8).hex()
        self._children: dict[int, Child] = {}
        """By worker number."""
        self._preloaders: dict[int, Child] = {}
        """By number."""
        self._was_subreaper: bool | None = None
        """Before it became one; None: it has not."""
        self._reaps_orphans = os.getpid() == 1 or (is_alone and settings.preload)
        self._manager = Manager()
        self._stops = 0
        self._execs = False
        self._reaps = True
        self._said_ready = False
        self._has_taken_over = False
        self._check_due = 0.0
        self._selector = selectors.DefaultSelector()
        self._changes: Changes | None = None
        self._signals, self._writer = socket.socketpair()
        for sock in (self._signals, self._writer):
            sock.setblocking(False)
        kept = os.environ.pop(KEPT, "")
        self._places: list[Place] = []
        try:
            if kept and (state := json.loads(kept))["pid"] == os.getpid():
                self._take_over(state)
            else:
                self._places = places.open_places(
                    settings.targets, settings.options, settings.workers, self._permissions
                )
            if settings.reload:  # once the names are taken, because it starts a thread
                self._changes = Changes(os.path.abspath(settings.app_dir))
        except BaseException:
            self._close()
            raise

    def _close(self) -> None:
        self._selector.close()
        if self._changes is not None:
            self._changes.close()
        self._signals.close()
        self._writer.close()
        for child in self._children.values():
            places.close_own(child.own)
        for preloader in self._preloaders.values():
            preloader.down.close()  # it ends then
        places.close_places(self._places)

    def run(self) -> int:
        """Supervise until the end; return the exit code."""
        count = f"{self._fleet.wanted} worker{'s' if self._fleet.wanted > 1 else ''}"
        _logger.info("serving %s on %s, %s", self._settings.app, self._targets(), count)
        if self._has_taken_over:
            self._reload("taken over")
        try:
            with self._receiving_signals(), self._noticing_changes():
                while True:
                    code = self._do_what_is_due()
                    if code is not None:
                        break
                    if self._execs:
                        self._exec()
                    self._wait()
        finally:
            self._close()
        _logger.info("stopped")
        return code

    def _targets(self) -> str:
        return ", ".join(place.shown for place in self._places)

    # Signals

    @contextlib.contextmanager
    def _receiving_signals(self) -> Any:
        before = {name: signal.signal(getattr(signal, name), _ignore) for name in _SIGNALS}
        old = signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        self._selector.register(self._signals, selectors.EVENT_READ, self._receive_signals)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _numbers())
        try:
            yield
        finally:
            signal.set_wakeup_fd(old)
            for name, handler in before.items():
                signal.signal(getattr(signal, name), handler)
            self._selector.unregister(self._signals)

    def _receive_signals(self, reader: Any) -> None:
        for number in reader.recv(4096):
            if number == signal.SIGCHLD:
                self._reaps = True
            elif number in (signal.SIGTERM, signal.SIGINT):
                self._stop(number)
            elif number == signal.SIGHUP:
                self._reload("SIGHUP")
            elif number == signal.SIGTTIN:
                self._fleet.more()
                _logger.info("SIGTTIN: %d workers are wanted", self._fleet.wanted)
            elif number == signal.SIGTTOU:
                self._fleet.fewer()
                _logger.info("SIGTTOU: %d workers are wanted", self._fleet.wanted)
            elif number == signal.SIGUSR2:
                self._execs = True

    def _stop(self, number: int) -> None:
        self._stops += 1
        if self._stops == 1:
            self._manager.stopping()
            _logger.info(
                "%s: stopping; calls in progress have %g s",
                signal.Signals(number).name,
                self._settings.grace,
            )
            self._fleet.stop()
            return
        _logger.warning("%s: stopping at once", signal.Signals(number).name)
        for child in self._children.values():
            self._kill(child)
        for preloader in self._preloaders.values():
            processes.kill(preloader.pid)
        self._fleet.stop_at_once(128 + number)

    def _reload(self, why: str) -> None:
        if self._fleet.stopping:
            return
        _logger.info("%s: the workers are replaced, one after another", why)
        self._manager.reloading()
        self._said_ready = False
        self._fleet.reload()

    @contextlib.contextmanager
    def _noticing_changes(self) -> Any:
        changes = self._changes
        if changes is None:
            yield
            return

        def receive(_: Any) -> None:
            self._reload(f"{', '.join(changes.take())} changed")

        self._selector.register(changes, selectors.EVENT_READ, receive)
        try:
            yield
        finally:
            self._selector.unregister(changes)

    # Workers

    def _do_what_is_due(self) -> int | None:
        """Do it; return the exit code once nothing is left to supervise."""
        for action in self._fleet.decide(time.monotonic()):
            if isinstance(action, Start):
                self._start(action.number, action.preloader)
            elif isinstance(action, Load):
                self._load(action.number)
            elif isinstance(action, Unload):
                preloader = self._preloaders[action.number]
                if action.why:
                    _logger.error("the preloader (pid %d) is killed: %s", preloader.pid, action.why)
                processes.kill(preloader.pid)
            elif isinstance(action, Drain):
                child = self._children[action.number]
                child.down.send_order(Order.DRAIN)
                places.close_own(child.own)
            elif isinstance(action, Dump):
                child = self._children[action.number]
                _logger.error(
                    "worker %d (pid %d) hangs: %s; another is started, and this one is killed after"
                    " its tracebacks",
                    action.number,
                    child.pid,
                    action.why,
                )
                places.close_own(child.own)
                processes.dump(child.pid)
            elif isinstance(action, Kill):
                level = logging.ERROR if action.is_error else logging.INFO
                _logger.log(level, "worker %d is killed: %s", action.number, action.why)
                self._kill(self._children[action.number])
            elif isinstance(action, Say):
                _logger.log(logging.ERROR if action.is_error else logging.INFO, "%s", action.text)
            elif isinstance(action, Exit):
                return action.code
        if self._fleet.settled and not self._said_ready:
            self._said_ready = True
            self._manager.ready(f"{self._fleet.wanted} workers")
        return None

    def _start(self, number: int, preloader: int) -> None:
        try:
            self._start_worker(number, preloader)
        except OSError as error:
            self._fleet.cannot_start(number)
            how = f"could not be started ({error})"
            self._fleet.ended(number, how, time.monotonic())

    def _start_worker(self, number: int, preloader: int) -> None:
        """Raises OSError: no descriptors, processes or memory are left, or no interpreter."""
        ours, theirs = control.pair()
        own = places.open_for_worker(
            self._places, self._settings.options, number, self._permissions
        )
        listening = (*self._places, *own)
        targets = tuple(
            place.target if place.bound is None else place.for_worker(place.bound.sock.fileno())
            for place in listening
        )
        job = Job(number, self._dumped, targets, self._group if own else "")
        try:
            if preloader:
                ours.send_job(job, processes.descriptors(listening))
                self._become_subreaper()
                self._preloaders[preloader].down.send_worker(theirs)
                child = Child(None, ours, own, preloader)
            else:
                child = Child(processes.start(self._shown(), theirs, listening), ours, own)
                with contextlib.suppress(OSError):  # it may have ended; then _reap() sees it
                    ours.send_job(job)
        except OSError:
            ours.close()
            places.close_own(own)
            raise
        finally:
            theirs.close()
        self._adopt(number, child)

    def _shown(self) -> list[str]:
        return [self._settings.app, *(place.shown for place in self._places)]

    def _kill(self, child: Child) -> None:
        if child.pid is None:  # it ends with the preloader, unless that has just forked it
            child.is_doomed = True
            if child.preloader in self._preloaders:
                processes.kill(self._preloaders[child.preloader].pid)
        processes.kill(child.pid)

    def _adopt(self, number: int, child: Child) -> None:
        self._children[number] = child

        def receive(_: Any) -> None:
            if child.heard:  # what came before in the same batch may have ended it
                self._receive(number, child)

        self._selector.register(child.down, selectors.EVENT_READ, receive)

    def _receive(self, number: int, child: Child) -> None:
        report = child.down.receive_report()
        if report is None:
            self._forget(child)
            if child.pid is None:
                self._take_leave(number, child, "could not be forked by the preloader")
            return
        if report.event in (Event.FORKED, Event.BEGINS):
            self._know(child, int(report.text))
            if report.event is Event.BEGINS:
                self._arrived(child)
        elif report.event is Event.OPENS:
            self._fleet.opens(number)
        elif report.event is Event.READY:
            self._fleet.ready(number, time.monotonic())
            _logger.info("worker %d is ready (pid %d, %s)", number, child.pid, report.text)
        elif report.event is Event.RUNS:
            self._fleet.runs(number, time.monotonic())
        elif report.event is Event.CANNOT_START:
            self._fleet.cannot_start(number)
        elif report.event is Event.LEAVING:
            places.close_own(child.own)
            self._fleet.leaving(number, time.monotonic())
            _logger.info("worker %d ends by itself (pid %d)", number, child.pid)

    def _reap(self) -> None:
        """Take notice of the workers and preloaders that have ended; of orphans, too, if no other
        part of the program waits for those."""
        for number, child in list(self._children.items()):
            code = processes.exit_code(child.pid)
            if code is not None:
                how = f"(pid {child.pid}) {processes.ending(code)}"
                self._take_leave(number, child, how)
        for number, preloader in list(self._preloaders.items()):
            code = processes.exit_code(preloader.pid)
            if code is not None:
                self._take_leave_of_preloader(number, preloader, code)
        # Not while a worker whose pid is not known yet may be among them.
        if self._reaps_orphans and all(child.pid for child in self._children.values()):
            self._reap_orphans()

    def _reap_orphans(self) -> None:
        known = {child.pid for child in (*self._children.values(), *self._preloaders.values())}
        waiting = os.WEXITED | os.WNOHANG
        with contextlib.suppress(ChildProcessError):
            while (seen := os.waitid(os.P_ALL, 0, waiting | os.WNOWAIT)) is not None:
                if seen.si_pid in known:  # it has ended meanwhile
                    self._reaps = True
                    break
                os.waitpid(seen.si_pid, os.WNOHANG)

    def _take_leave(self, number: int, child: Child, how: str) -> None:
        with contextlib.suppress(BlockingIOError):
            while child.heard:  # its last words
                self._receive(number, child)
        self._forget(child)
        child.down.close()
        places.close_own(child.own)
        del self._children[number]
        self._arrived(child)
        self._fleet.ended(number, how, time.monotonic())

    def _forget(self, child: Child) -> None:
        if child.heard:
            child.heard = False
            self._selector.unregister(child.down)

    # Preloaders, and workers that they fork

    def _load(self, number: int) -> None:
        ours, theirs = control.pair()
        try:
            preloader = Child(processes.start(self._shown(), theirs), ours, [])
            with contextlib.suppress(OSError):  # it may have ended; then _reap() sees it
                ours.send_job(Job(control.PRELOADER, self._dumped, (), ""))
        except OSError as error:
            ours.close()
            self._fleet.cannot_load(number)
            self._fleet.preloader_ended(number, f"could not be started ({error})", time.monotonic())
            return
        finally:
            theirs.close()
        self._preloaders[number] = preloader

        def receive(_: Any) -> None:
            if preloader.heard:
                self._receive_of_preloader(number, preloader)

        self._selector.register(preloader.down, selectors.EVENT_READ, receive)

    def _receive_of_preloader(self, number: int, preloader: Child) -> None:
        report = preloader.down.receive_report()
        if report is None:
            self._forget(preloader)
            if self._fleet.preloaders[number].stage is Stage.READY:
                processes.kill(preloader.pid)  # if it lives: it cannot be asked for a worker
        elif report.event is Event.LOADED:
            self._fleet.loaded(number)
            _logger.info(
                "%s is loaded (pid %d, %s)", self._settings.app, preloader.pid, report.text
            )
        elif report.event is Event.CANNOT_START:
            self._fleet.cannot_load(number)

    def _take_leave_of_preloader(self, number: int, preloader: Child, code: int) -> None:
        with contextlib.suppress(BlockingIOError):
            while preloader.heard:
                self._receive_of_preloader(number, preloader)
        self._forget(preloader)
        preloader.down.close()
        del self._preloaders[number]
        how = f"(pid {preloader.pid}) {processes.ending(code)}"
        self._fleet.preloader_ended(number, how, time.monotonic())

    def _become_subreaper(self) -> None:
        """Raises OSError."""
        if self._was_subreaper is None:
            was = forking.is_subreaper()
            forking.set_subreaper(True)
            self._was_subreaper = was

    def _know(self, child: Child, pid: int) -> None:
        child.pid = pid
        if child.is_doomed:
            processes.kill(pid)

    def _arrived(self, child: Child) -> None:
        """Note that a worker is a child of this process, or will not be.

        Without workers that are to become its children it is a subreaper no longer: orphans of a
        program that calls localrpc.serve() are none of its children.
        """
        child.arrives = False
        self._reaps = True  # it may have ended before
        if self._was_subreaper is None or any(each.arrives for each in self._children.values()):
            return
        forking.set_subreaper(self._was_subreaper)
        self._was_subreaper = None

    def _wait(self) -> None:
        times = [self._fleet.next_time(time.monotonic()), self._manager.next_time()]
        if self._settings.max_memory or self._settings.max_requests:
            times.append(_CHECK)
        timeout = min((each for each in times if each is not None), default=_LONGEST_WAIT)
        timeout = 0.0 if self._reaps else min(timeout, _LONGEST_WAIT)
        for key, _ in self._selector.select(timeout):
            key.data(key.fileobj)
        if self._reaps:  # after the reports of those that have ended
            self._reaps = False
            self._reap()
        self._manager.keep_alive()
        self._check_workers()

    def _check_workers(self) -> None:
        """Replace those that have used up what they may; without asking them."""
        memory, requests = self._settings.max_memory, self._settings.max_requests
        if not (memory or requests) or time.monotonic() < self._check_due:
            return
        self._check_due = time.monotonic() + _CHECK
        for number, child in self._children.items():
            if child.pid is None:
                continue
            if memory and (used := own_memory(child.pid)) > memory:
                self._fleet.spent(number, f"it uses {used >> 20} MiB of {memory >> 20}")
            if requests and (begun := calls_of(child.pid)) >= requests * (1 + child.spread / 10):
                self._fleet.spent(number, f"it has had {begun} calls")

    # A new supervisor

    def _exec(self) -> None:
        """Become a new supervisor, which takes over the sockets and workers."""
        if any(child.arrives for child in self._children.values()):
            return  # until they are here: their pids are needed
        self._execs = False
        if self._fleet.stopping or not processes.can_start(self._trial):
            return
        # Those that come before the new supervisor has handlers wait for it.
        signal.pthread_sigmask(signal.SIG_BLOCK, _numbers())
        with contextlib.suppress(BlockingIOError):
            self._receive_signals(self._signals)  # and those that came before are not lost
        self._execs = False
        if self._fleet.stopping:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _numbers())
            return
        _logger.info("SIGUSR2: a new supervisor takes over")
        children = []
        for number, child in self._children.items():
            child.down.sock.set_inheritable(True)
            member = self._fleet.members[number]
            own = places.dump(child.own)
            children.append([number, child.pid, child.down.fileno(), member.stage.value, own])
        state = {
            "pid": os.getpid(),
            "group": self._group,
            "wanted": self._fleet.wanted,
            "served": self._fleet.served,
            "places": places.dump(self._places),
            "children": children,
        }
        environment = os.environ | {KEPT: json.dumps(state)}
        self._end_preloaders()
        for handler in logging.getLogger().handlers:
            handler.flush()
        arguments = [sys.executable, *sys.orig_argv[1:]]
        try:
            os.execve(sys.executable, arguments, environment)
        except OSError as error:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _numbers())
            _logger.error("the new supervisor cannot start: %s", error)

    def _end_preloaders(self) -> None:
        """Wait for their end: a new supervisor does not know them, and has others."""
        for preloader in self._preloaders.values():
            self._forget(preloader)
            preloader.down.close()
            assert preloader.pid is not None
            processes.kill(preloader.pid)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(preloader.pid, 0)
        self._preloaders.clear()
        self._fleet.forget_preloaders()

    def _take_over(self, state: dict[str, Any]) -> None:
        self._places = places.load(state["places"])
        # A version without groups may have written it.
        self._group = state.get("group", self._group)
        for number, pid, fd, stage, *own in state["children"]:
            sock = socket.socket(fileno=fd)
            sock.set_inheritable(False)
            self._adopt(number, Child(pid, Control(sock), places.load(own[0] if own else [])))
            self._fleet.adopt(number, stage, time.monotonic())
        self._fleet.wanted = state["wanted"]
        self._fleet.served = state["served"]
        self._has_taken_over = True


def _ignore(number: int, frame: FrameType | None) -> None:
    """Python's handler: the number is read from the wake-up descriptor."""


def _numbers() -> set[int]:
    return {getattr(signal, name) for name in _SIGNALS}
