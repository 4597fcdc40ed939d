"""What is installed, from the archive that a release would be, and what importing it costs."""

from __future__ import annotations

import os
import re
import shutil
import statistics
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from importlib.metadata import distributions
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from packaging.version import Version

import localrpc
from localrpc._core import build
from tests.oldest import PACKAGES, floors
from tests.skips import cannot, need

ROOT = Path(__file__).resolve().parents[1]
INSTALL_HINT = "`apt-get install gcc python3-dev`"

TALK = """
from concurrent import futures
import grpc, localrpc, localrpc_codegen
print(localrpc.__file__, localrpc_codegen.__file__)
handler = grpc.unary_unary_rpc_method_handler(lambda request, context: request * 2)
handlers = grpc.method_handlers_generic_handler("t", {"twice": handler})
server = localrpc.server(futures.ThreadPoolExecutor(1), handlers=[handlers])
server.add_insecure_port("shm:package")
server.start()
with localrpc.insecure_channel("shm:package") as channel:
    assert channel.unary_unary("/t/twice")(b"x", timeout=20) == b"xx"
server.stop(None)
"""

CALL = "import localrpc; localrpc.insecure_channel('shm:x')"

GREET = """
from localrpc.cli.rpc.template import template_of
from localrpc.testing import serving
from greeter.greeter_localrpc import GreeterServicer, GreeterStub
from greeter.greeter_pb2 import Greeting, Name

class Greeter(GreeterServicer):
    def Greet(self, request, context):
        return Greeting(text=request.name)

with serving(Greeter(), target="shm:") as channel:
    assert GreeterStub(channel).Greet(Name(name="Ada"), timeout=20).text == "Ada"
assert template_of(Name.DESCRIPTOR) == {"name": ""}
"""

WEIGH = """
import sys
import grpc
from localrpc.bench import bench_pb2

def memory():
    with open("/proc/self/smaps_rollup") as lines:
        return sum(int(line.split()[1]) for line in lines if line.startswith("Private"))

before, loaded = memory(), set(sys.modules)
from time import perf_counter
start = perf_counter()
import localrpc
import localrpc.sync.channel
import localrpc.sync.server
took = perf_counter() - start
print(memory() - before, took * 1e3, *(set(sys.modules) - loaded))
"""


def hatch(kind: str, source: Path, target: Path) -> Path:
    """Build with what is installed here."""
    build = [sys.executable, "-m", "hatchling", "build", "-t", kind, "-d", str(target)]
    subprocess.run(build, cwd=source, check=True)
    (built,) = target.iterdir()
    return built


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source archive, unpacked."""
    folder = tmp_path_factory.mktemp("sdist")
    with tarfile.open(hatch("sdist", ROOT, folder)) as archive:
        if hasattr(tarfile, "data_filter"):  # the later 3.10s and 3.11s have it too
            archive.extraction_filter = tarfile.data_filter
        archive.extractall(folder)
    (unpacked,) = (path for path in folder.iterdir() if path.is_dir())
    return unpacked


class Wheel(NamedTuple):
    file: Path
    changed: set[Path]
    """What building it has made in the source tree, removed or written."""


@pytest.fixture(scope="module")
def built(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Wheel:
    """A wheel made from the source archive, as pip makes it."""

    def files() -> dict[Path, int]:
        return {path: 0 if path.is_dir() else path.stat().st_mtime_ns for path in source.rglob("*")}

    # Optimizing takes most of the time that a wheel takes, and nothing here depends on it.
    compiler = tmp_path_factory.mktemp("compiler") / "cc"
    compiler.write_text(f'#!/bin/sh\nexec {need("gcc")} "$@" -O0\n')
    compiler.chmod(0o755)
    before = files()
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)
        patch.setenv("CC", str(compiler))
        file = hatch("wheel", source, tmp_path_factory.mktemp("wheel"))
    return Wheel(file, {path for path, _ in before.items() ^ files().items()})


@pytest.fixture(scope="module")
def wheel(built: Wheel) -> Path:
    return built.file


def test_a_wheel_holds_two_packages_and_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names}
    version = localrpc.__version__
    assert tops == {"localrpc", "localrpc_codegen", f"localrpc-{version}.dist-info"}
    assert wheel.name.startswith(f"localrpc-{version}-cp310-abi3-linux_")
    assert {
        "localrpc/py.typed",
        "localrpc/_core/_lr.abi3.so",
        "localrpc/_core/_lr.pyi",
        "localrpc/bench/_floor.abi3.so",
        "localrpc/bench/bench.proto",
        "localrpc_codegen/py.typed",
    } <= set(names)
    unwanted = (".pyc", ".o", ".md", ".c", ".h")
    assert not [name for name in names if name.endswith(unwanted) or "tests/" in name]


def test_a_wheel_needs_nothing_but_the_stable_abi_and_glibc(wheel: Path) -> None:
    """Which glibc depends on this machine's; .ci/wheels checks that for a release."""
    subprocess.run([sys.executable, "-m", "abi3audit", "--strict", str(wheel)], check=True)
    show = [sys.executable, "-m", "auditwheel", "show", str(wheel)]
    said = subprocess.run(show, check=True, capture_output=True, text=True).stdout
    assert re.search(r'platform tag:\s+"manylinux_2_\d+_', said), said


def test_building_a_wheel_writes_nothing_into_the_source_tree(built: Wheel) -> None:
    assert not built.changed


def test_a_wheel_brings_its_plugins(wheel: Path) -> None:
    archive = zipfile.ZipFile(wheel)
    (name,) = (name for name in archive.namelist() if name.endswith("/entry_points.txt"))
    points = archive.read(name).decode()
    assert "[pytest11]\nlocalrpc = localrpc._pytest\n" in points
    instrumentor = "localrpc.integrations.opentelemetry:LocalrpcInstrumentor"
    assert f"[opentelemetry_instrumentor]\nlocalrpc = {instrumentor}\n" in points


def test_a_wheel_holds_every_module(wheel: Path) -> None:
    names = {name for name in zipfile.ZipFile(wheel).namelist() if name.endswith(".py")}
    ours = {str(path.relative_to(ROOT)) for path in (ROOT / "localrpc").rglob("*.py")}
    generator = {f"localrpc_codegen/{path.name}" for path in (ROOT / "codegen").glob("*.py")}
    assert names == ours | generator


def test_the_source_archive_holds_what_tests_and_examples_need(source: Path) -> None:
    for folder in ("codegen", "examples", "proto", "tests"):
        for path in (ROOT / folder).rglob("*.p*"):
            inside = path.relative_to(ROOT)
            if not {"__pycache__", "generated", ".mypy_cache"} & set(inside.parts):
                assert (source / inside).exists(), inside
    assert os.access(source / "tests" / "run", os.X_OK)
    assert (source / ".dev" / "localrpc_codegen" / "plugin.py").exists()


def test_a_wheel_is_all_that_a_program_needs(
    wheel: Path, tmp_path: Path, runtime_directory: str
) -> None:
    zipfile.ZipFile(wheel).extractall(tmp_path)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    program = [sys.executable, "-c", TALK]
    said = subprocess.run(
        program, cwd=tmp_path, env=environment, check=True, capture_output=True, text=True
    )
    assert said.stdout.split() == [
        str(tmp_path / package / "__init__.py") for package in ("localrpc", "localrpc_codegen")
    ]


@pytest.mark.parametrize("missing", [{"CC": "/nonexistent"}, {"PATH": "/nonexistent"}])
def test_without_a_compiler_the_build_says_what_to_install(
    missing: dict[str, str], source: Path, tmp_path: Path
) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "CC"} | missing
    command = [sys.executable, "localrpc/_core/build.py"]
    by_hand = subprocess.run(command, cwd=source, env=environment, capture_output=True, text=True)
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    packed = subprocess.run(command, cwd=source, env=environment, capture_output=True, text=True)
    for done in (by_hand, packed):
        assert done.returncode != 0
        assert INSTALL_HINT in done.stderr
        assert "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())


def test_a_free_threaded_python_is_refused_with_the_reason(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(sysconfig, "get_config_var", lambda name: name == "Py_GIL_DISABLED")
    with pytest.raises(build.BuildError, match="free-threaded"):
        build.compile_all(tmp_path)


def test_elsewhere_a_wheel_has_no_core(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    hook = build.CoreBuildHook(str(ROOT), {}, None, None, "", "wheel")  # type: ignore[arg-type]
    data: dict[str, Any] = {"artifacts": []}
    hook.initialize("standard", data)
    assert data["artifacts"] == []
    assert data["tag"].startswith("py3-none-")


def refusal(program: str, folder: Path, environment: dict[str, str] | None = None) -> str:
    """The text of the ImportError with which the program ends."""
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    name, _, text = done.stderr.splitlines()[-1].partition(": ")
    assert name == "ImportError", done.stderr
    return text


def test_on_another_system_it_says_that_it_needs_linux() -> None:
    program = """
import sys, grpc
sys.platform = "darwin"
sys.modules["localrpc._core._lr"] = None
import localrpc, localrpc_codegen
localrpc.insecure_channel("shm:x")
"""
    assert refusal(program, ROOT) == "localrpc needs Linux; this is darwin"


def test_in_a_tree_that_is_not_compiled_it_says_what_to_run(tmp_path: Path) -> None:
    ignored = shutil.ignore_patterns("*.so", "src", "__pycache__")
    shutil.copytree(ROOT / "localrpc", tmp_path / "localrpc", ignore=ignored)
    (tmp_path / "pyproject.toml").touch()
    said = refusal(CALL, tmp_path)
    assert said.startswith(f"{tmp_path} is localrpc's source tree")
    assert f"`python -m pip install -e {tmp_path}`" in said
    assert INSTALL_HINT in said
    assert "start Python in another folder" in said


def test_a_core_missing_from_an_installation_is_explained(wheel: Path, tmp_path: Path) -> None:
    zipfile.ZipFile(wheel).extractall(tmp_path)
    (tmp_path / "localrpc/_core/_lr.abi3.so").unlink()
    said = refusal(CALL, tmp_path, {**os.environ, "PYTHONPATH": str(tmp_path)})
    assert said == "localrpc's compiled core is missing: install localrpc again"


def test_a_core_that_cannot_be_loaded_is_not_called_missing() -> None:
    said = refusal(f"import sys; sys.modules['_cffi_backend'] = None; {CALL}", ROOT)
    assert "_lr.abi3.so, localrpc's compiled core, cannot be loaded: " in said
    assert "_cffi_backend" in said


def test_importing_it_is_cheap(record_property: Any, tmp_path: Path) -> None:
    # The first run writes the byte code.
    runs = []
    for _ in range(4):
        environment = {**os.environ, "PYTHONPYCACHEPREFIX": str(tmp_path)}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        done = subprocess.run(
            [sys.executable, "-c", WEIGH],
            cwd=ROOT,
            env=environment,
            check=True,
            capture_output=True,
            text=True,
        )
        runs.append(done.stdout.split())
    memory = statistics.median(int(run[0]) for run in runs[1:])
    took = statistics.median(float(run[1]) for run in runs[1:])
    record_property("import_ms", took)
    print(f"import: {took:.1f} ms, {memory / 1024:.1f} MiB")
    assert memory <= 6000, f"{memory} KiB"
    foreign = {name.split(".")[0] for name in runs[0][2:]}
    unwanted = {"asyncio", "cffi", "click", "localrpc_codegen", "multiprocessing", "pycparser"}
    unwanted |= {"rich", "setuptools", "subprocess", "typing_extensions"}
    assert not foreign & unwanted


@pytest.fixture
def oldest() -> dict[str, str]:
    """An environment with the oldest dependencies that pyproject.toml allows and pip could get."""
    # Newer Pythons warn of what old packages do, and some do not survive that as an error.
    return {**os.environ, "PYTHONPATH": need("oldest dependencies"), "PYTHONWARNINGS": ""}


def test_the_oldest_dependencies_are_those_of_pyproject(oldest: dict[str, str]) -> None:
    folder = Path(oldest["PYTHONPATH"])
    installed = {found.name: found.version for found in distributions(path=[str(folder)])}
    wanted = floors()
    assert wanted.keys() == set(PACKAGES)
    assert installed["protobuf"] == wanted["protobuf"]
    for name, version in installed.items():
        assert Version(version) == Version(wanted[name])


def test_the_readme_names_the_oldest_dependencies() -> None:
    named = dict(re.findall(r"(\w+) ([\d.]+) or later", (ROOT / "README.md").read_text()))
    assert named.keys() == {"protobuf", "grpcio"}
    settings = (ROOT / "pyproject.toml").read_text()
    for name, version in named.items():
        assert f'"{name}>={version}' in settings


@pytest.mark.timeout(400)  # a suite of its own
def test_calls_work_with_the_oldest_dependencies(oldest: dict[str, str]) -> None:
    suites = ["tests/unit/test_codec.py", "tests/rpc/test_calls.py"]
    # What today's protoc generates is refused by that runtime, rightly.
    suites += ["--deselect", "tests/unit/test_codec.py::test_a_program_may_compile_the_same_file"]
    # It makes no difference to protobuf what carries its messages.
    suites += ["-k", "test_codec or unix-abstract or inproc"]
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-W", "default", *suites]
    done = subprocess.run(command, cwd=ROOT, env=oldest, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_code_is_generated_and_called_with_the_oldest_dependencies(
    oldest: dict[str, str], tmp_path: Path
) -> None:
    if not Path(oldest["PYTHONPATH"], "grpc_tools").is_dir():
        cannot("grpcio-tools has no wheel as old as that for this Python")
    generate = ["generate", str(ROOT / "examples/greeter/greeter.proto"), "--out", "greeter"]
    oldest = {**oldest, "PYTHONPATH": f"{oldest['PYTHONPATH']}:{ROOT}:{ROOT / '.dev'}"}
    for command in (["-m", "localrpc", *generate], ["-c", GREET]):
        subprocess.run([sys.executable, *command], cwd=tmp_path, env=oldest, check=True)


def test_nothing_but_the_benchmark_is_generated_code() -> None:
    """Generated code refuses older protobuf runtimes than the one that made it.

    What protobuf has of it is as old as itself.
    """
    generated = re.compile(r"^\s*(from|import) (?!google\.protobuf\.).*_pb2\b", re.M)
    for path in (ROOT / "localrpc").rglob("*.py"):
        if path.parent.name != "bench":
            assert not generated.search(path.read_text()), path
