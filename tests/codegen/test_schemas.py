"""Random schemas become modules that import, type-check, and do what their protos say.

tests/soak/test_schemas.py continues for an hour. What a seed has found is in protos/odd, since a
seed means another schema as soon as the generator of schemas changes.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from localrpc_codegen import Imports

from tests.checkers import mypy_cache
from tests.skips import need

from .fuzz import run_batch
from .schemas import schema

# Few batches: each starts mypy, servers and clients. All together take about half a minute.
BATCHES = {Imports.RELATIVE: range(54), Imports.ABSOLUTE: range(54, 70)}

pytestmark = pytest.mark.timeout(900)


def report(said: dict[str, str]) -> str:
    return "\n".join(f"{step}:\n{text}" for step, text in said.items())


@pytest.mark.parametrize("imports", BATCHES, ids=lambda imports: imports.value)
def test_any_schema_gives_correct_python(
    imports: Imports, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    cache = mypy_cache(tmp_path_factory)
    said = run_batch(BATCHES[imports], tmp_path / "batch", imports=imports, cache=cache)
    assert not said, report(said)


def test_pyright_reports_nothing_for_any_schema(tmp_path: Path) -> None:
    need("pyright")
    said = run_batch(range(1000, 1006), tmp_path / "batch", pyright=True, only="pyright")
    assert not said, report(said)


def test_a_seed_always_gives_the_same_schema_and_others_give_others() -> None:
    texts = ["".join(schema(seed).values()) for seed in range(50)]
    assert texts == ["".join(schema(seed).values()) for seed in range(50)]
    assert len(set(texts)) == len(texts)
