"""Runs greeting.py with coverage of Python's lines, by atheris.

    python -m tests.fuzz.fuzz_greeting [libFuzzer's arguments]

atheris is libFuzzer for Python, with wheels for every Python that localrpc supports on
x86-64. It is needed for fuzzing alone: the corpus is replayed without.
"""

import sys

import atheris  # type: ignore[import-untyped]

with atheris.instrument_imports(include=["localrpc", "tests"]):
    from tests.fuzz.greeting import one_input

if __name__ == "__main__":
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()
