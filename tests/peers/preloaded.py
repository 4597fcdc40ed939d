"""Imports all transports: a process that serves or calls would load one of them first."""

from __future__ import annotations

import importlib
import pkgutil

import localrpc.transports

for each in pkgutil.iter_modules(localrpc.transports.__path__, "localrpc.transports."):
    importlib.import_module(each.name)
