"""`localrpc bench`: runs the benchmark, and evaluates the documents that runs have written."""

from __future__ import annotations

from .documents import compare_, report_
from .run import bench

__all__ = ["bench"]

bench.add_command(report_)
bench.add_command(compare_)
