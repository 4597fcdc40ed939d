"""Loading what is served, in a worker or a preloader, and what the log says if that fails."""

from __future__ import annotations

import importlib
import os
import traceback
from collections.abc import Sequence

from localrpc.workers import application, clashes, extras
from localrpc.workers.application import Application, BadApplication
from localrpc.workers.settings import Settings

_OURS = {
    os.path.join(os.path.dirname(application.__file__), name)
    for name in ("application.py", "loading.py", "preloader.py", "worker.py")
}

_LISTENING = (
    "localrpc.transports.fd",
    "localrpc.transports.handshake_server",
    "localrpc.transports.rings",
    "localrpc.transports.sockets",
)
"""What a server imports when it gets a port that is an inherited socket."""


def load(settings: Settings) -> Application:
    """Import what a server needs, before the folder of the application comes first; then that.

    Raises BadApplication, and whatever the module raises.
    """
    extras.import_early(health=settings.health, reflection=settings.reflection)
    return application.load(settings.app, os.path.abspath(settings.app_dir))


def load_server(app: Application, targets: Sequence[str]) -> None:
    """Import what a server of this application would import later."""
    api = "localrpc.aio" if app.is_async else "localrpc.sync"
    names = [f"{api}.server", *_LISTENING]
    if any(target.startswith("grpc:") for target in targets):
        names += [f"{api}.remote", "localrpc.transports.remote"]
    for name in names:
        importlib.import_module(name)


def reason(error: Exception, settings: Settings) -> str:
    """Return why the application cannot be loaded or served: for an exception of its own, the
    traceback from where this package calls what failed."""
    if isinstance(error, BadApplication):
        return str(error)
    begin = frames = error.__traceback__
    while frames is not None:
        if frames.tb_frame.f_code.co_filename in _OURS:
            begin = frames.tb_next
        frames = frames.tb_next
    text = "".join(traceback.format_exception(type(error), error, begin)).rstrip()
    return text + clashes.advice(error, os.path.abspath(settings.app_dir))
