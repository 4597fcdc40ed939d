"""A program that knows nothing of tracing: opentelemetry-instrument runs it."""

from __future__ import annotations

import sys

from localrpc.testing import serving
from tests.libraries.scene import Service, call_everything

for target in sys.argv[1:]:
    with serving(Service().handler(), target=target) as channel:
        call_everything(channel)
