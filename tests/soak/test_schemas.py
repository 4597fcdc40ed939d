"""Random schemas for an hour (LOCALRPC_SOAK=full), or a few of them: tests/codegen/fuzz.py.

At full length the seeds are new ones each time. A line for each batch is printed: `pytest -s`.
"""

from __future__ import annotations

import os
import random

import pytest

from tests.codegen.fuzz import run_for

FULL = os.environ.get("LOCALRPC_SOAK") == "full"

pytestmark = pytest.mark.timeout(2 * 3600 if FULL else 900)


def test_generated_code_is_right_for_new_schemas_all_the_time() -> None:
    if FULL:
        failed = run_for(3600, schemas=40, first=random.randrange(10**6, 10**9))
    else:
        failed = run_for(0, schemas=1, first=200)
    assert not failed, "\n".join(failed)
