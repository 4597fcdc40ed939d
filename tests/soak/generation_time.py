"""How long 500 protos take: localrpc generate beside grpcio-tools with mypy-protobuf.

    python tests/soak/generation_time.py [--protos 500] [--rounds 5]

Every round runs each command once, in turn, into an empty folder. Printed are the median and
the least wall time and processor time, and ours as a multiple of each of the others.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
PLUGINS = ("mypy", "mypy_grpc")

PROTO = """\
syntax = "proto3";

package load.p{folder}.f{number};

import "google/protobuf/timestamp.proto";
{imports}
// Speaks of things number {number}.
service Things{number} {{
  // One of them.
  rpc Get(GetRequest) returns (Thing);
  rpc List(GetRequest) returns (stream Thing);
  rpc Put(stream Thing) returns (GetRequest);
  rpc Chat(stream Thing) returns (stream Thing);
}}

message GetRequest {{
  string name = 1;
  repeated string tags = 2;
}}

// A thing.
message Thing {{
  enum Kind {{
    UNKNOWN = 0;
    SMALL = 1;
    LARGE = 2;
  }}
  message Part {{
    string name = 1;
    double weight = 2;
  }}
  string name = 1;
  Kind kind = 2;
  repeated Part parts = 3;
  map<string, int64> counts = 4;
  google.protobuf.Timestamp made = 5;
  oneof place {{
    string shelf = 6;
    int32 box = 7;
  }}
  optional bool sold = 8;
{fields}}}
"""


def write_protos(folder: Path, count: int) -> None:
    """Folders of ten files; each but the first in the tree imports the one before it."""
    previous: tuple[str, str] | None = None
    for number in range(count):
        imports = f'import "{previous[0]}";\n' if previous else ""
        fields = f"  {previous[1]} before = 9;\n" if previous else ""
        name = f"load/p{number // 10}/f{number}.proto"
        text = PROTO.format(folder=number // 10, number=number, imports=imports, fields=fields)
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
        previous = (name, f"load.p{number // 10}.f{number}.Thing") if number % 10 < 9 else None


def commands(protos: Path, arguments: Path, out: Path) -> dict[str, list[str]]:
    scripts = sysconfig.get_path("scripts")
    protoc = [sys.executable, "-m", "grpc_tools.protoc", f"-I{protos}"]
    protoc += [f"--plugin=protoc-gen-{name}={scripts}/protoc-gen-{name}" for name in PLUGINS]
    protoc += [f"--{name}_out={out}" for name in ("python", "grpc_python")]
    ours = [sys.executable, "-m", "localrpc.cli", "generate", str(protos), "--out", str(out)]
    return {
        "localrpc generate": ours,
        "grpcio-tools, --mypy_out": [*protoc, f"--mypy_out=quiet:{out}", f"@{arguments}"],
        "grpcio-tools, --mypy_out --mypy_grpc_out": [
            *(*protoc, f"--mypy_out=quiet:{out}", f"--mypy_grpc_out=quiet:{out}"),
            f"@{arguments}",
        ],
    }


def timed(command: list[str]) -> tuple[float, float]:
    """Wall and processor seconds of one run."""
    paths = os.pathsep.join(map(str, (ROOT, ROOT / ".dev")))
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    subprocess.run(
        command, env={**os.environ, "PYTHONPATH": paths}, check=True, stdout=subprocess.DEVNULL
    )
    wall, after = time.monotonic() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--protos", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    results: dict[str, list[tuple[float, float]]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        protos, arguments = Path(scratch, "protos"), Path(scratch, "arguments")
        write_protos(protos, options.protos)
        arguments.write_text("\n".join(map(str, sorted(protos.rglob("*.proto")))))
        for number in range(options.rounds):
            for name in commands(protos, arguments, protos):
                out = Path(scratch, f"{number} {name}")
                out.mkdir()
                seconds = timed(commands(protos, arguments, out)[name])
                results.setdefault(name, []).append(seconds)
    ours = [statistics.median(column) for column in zip(*results["localrpc generate"], strict=True)]
    print(f"{options.protos} protos, {options.rounds} rounds, seconds: median (least)")
    for name, pairs in results.items():
        walls, cpus = zip(*pairs, strict=True)
        wall, cpu = statistics.median(walls), statistics.median(cpus)
        times = f"wall {wall:.2f} ({min(walls):.2f})  processor {cpu:.2f} ({min(cpus):.2f})"
        print(f"{name:42} {times}  ours: {ours[0] / wall:.2f}, {ours[1] / cpu:.2f}")


if __name__ == "__main__":
    main()
