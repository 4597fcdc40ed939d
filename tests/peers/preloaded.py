"""Imports all transports: a process that serves or calls would load one of them first."""

from __future__ import annotations

import importlib
import pkgutil

# localrpc.transports is a function of the package, too.
package = importlib.import_module("localrpc.transports")
for each in pkgutil.iter_modules(package.__path__, "localrpc.transports."):
    importlib.import_module(each.name)
