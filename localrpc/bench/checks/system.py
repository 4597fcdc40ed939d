"""The machine as the checks see it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import platform
import re
import resource
import shutil
import socket
import sys
import sysconfig
from importlib import metadata
from pathlib import Path

# linux/socket.h since 6.5; Python has no name for it.
_SO_PEERPIDFD = 77


class System:
    """The queries that checks make. A `try_...` raises OSError if something is not possible."""

    def read(self, path: str) -> str | None:
        """Return a file's text; None if it is missing or not readable."""
        try:
            return Path(path).read_text(encoding="utf-8", errors="replace").strip()
        except OSError:
            return None

    def number(self, path: str) -> int | None:
        text = self.read(path)
        return int(text) if text is not None and re.fullmatch(r"-?[0-9]+", text) else None

    def exists(self, path: str) -> bool:
        return os.path.exists(path)

    def cores(self) -> int:
        return len(os.sched_getaffinity(0))

    def release(self) -> str:
        return platform.release()

    def python(self) -> tuple[str, tuple[int, ...]]:
        return platform.python_implementation(), sys.version_info[:3]

    def version(self, package: str) -> str | None:
        try:
            return metadata.version(package)
        except metadata.PackageNotFoundError:
            return None

    def requirements(self) -> list[str]:
        try:
            return metadata.requires("localrpc") or []
        except metadata.PackageNotFoundError:
            return []

    def compiler(self) -> str | None:
        command = os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc"
        return shutil.which(str(command).split()[0]) or shutil.which("cc")

    def headers(self) -> str:
        return str(Path(sysconfig.get_paths()["include"]) / "Python.h")

    def limit(self, which: int) -> int:
        """Return the soft limit; -1 if there is none."""
        return resource.getrlimit(which)[0]

    def is_privileged(self) -> bool:
        """True if limits per user do not apply to this process: CAP_SYS_RESOURCE (24)."""
        found = re.search(r"^CapEff:\s*([0-9a-f]+)", self.read("/proc/self/status") or "", re.M)
        return bool(found and int(found[1], 16) >> 24 & 1)

    def free(self, path: str) -> int:
        """Return the bytes that this user may still write below `path`."""
        facts = os.statvfs(path)
        return facts.f_bavail * facts.f_frsize

    def writable(self, path: str) -> bool:
        return os.access(path, os.W_OK | os.X_OK)

    def try_core(self) -> None:
        """Raise ImportError if it cannot be loaded."""
        import localrpc._core  # noqa: F401

    def try_pidfd(self) -> None:
        os.close(os.pidfd_open(os.getpid()))

    def try_peer_pidfd(self) -> None:
        with contextlib.ExitStack() as stack:
            ours, _ = map(stack.enter_context, socket.socketpair())
            os.close(ours.getsockopt(socket.SOL_SOCKET, _SO_PEERPIDFD))

    def try_futexes(self) -> None:
        from localrpc._core import links

        if not links.futexes_work():
            raise OSError("futex_waitv(2) is missing or not allowed")

    def try_memfd(self) -> None:
        fd = os.memfd_create("localrpc-doctor", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.posix_fallocate(fd, 0, 4096)
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)
        finally:
            os.close(fd)

    def try_queue(self) -> None:
        from localrpc.transports import posix

        posix_ipc = posix.load()
        name = f"/localrpc-{os.geteuid()}-doctor-{os.getpid()}"
        try:
            queue = posix_ipc.MessageQueue(name, posix_ipc.O_CREX, max_messages=3)
        except posix_ipc.Error as error:
            raise OSError(str(error)) from None
        queue.close()
        queue.unlink()

    def try_loopback(self) -> None:
        """Try loopback TCP, and whether the kernel tells the user at the other end."""
        from localrpc.transports.sockdiag import holder_of_other_end

        with contextlib.ExitStack() as stack:
            server = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            ours = stack.enter_context(socket.create_connection(server.getsockname(), timeout=2))
            stack.enter_context(server.accept()[0])
            if holder_of_other_end(ours) is None:
                raise OSError("sock_diag(7) does not tell which user has the other end")

    def runtime_directory(self) -> str:
        """Raise FileNotFoundError, or OSError with a text that names the fix."""
        from localrpc.transports import names

        return names.check_runtime_directory(create=False)

    def runtime_path(self) -> str:
        from localrpc.transports import names

        return names.runtime_directory()
