"""Random schemas become modules that import, type-check, and do what their protos say.

tests/soak/test_schemas.py continues for an hour. What a seed has found is in protos/odd, since a
seed means another schema as soon as the generator of schemas changes.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from localrpc_codegen import Imports

from tests.skips import need

from .fuzz import run_batch
from .schemas import schema

SCHEMAS = 16
"""A batch; all together take about a minute."""

pytestmark = pytest.mark.timeout(900)


def report(said: dict[str, str]) -> str:
    return "\n".join(f"{step}:\n{text}" for step, text in said.items())


@pytest.mark.parametrize("batch", range(4))
def test_any_schema_gives_correct_python(batch: int, tmp_path: Path) -> None:
    seeds = range(batch * SCHEMAS, (batch + 1) * SCHEMAS)
    imports = Imports.ABSOLUTE if batch == 3 else Imports.RELATIVE
    said = run_batch(seeds, tmp_path / "batch", imports=imports)
    assert not said, report(said)


def test_pyright_reports_nothing_for_any_schema(tmp_path: Path) -> None:
    need("pyright")
    said = run_batch(range(1000, 1006), tmp_path / "batch", pyright=True)
    assert not said, report(said)


def test_a_seed_always_gives_the_same_schema_and_others_give_others() -> None:
    texts = ["".join(schema(seed).values()) for seed in range(50)]
    assert texts == ["".join(schema(seed).values()) for seed in range(50)]
    assert len(set(texts)) == len(texts)
