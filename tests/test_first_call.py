"""What a program loads that makes one call and ends, and grpc's classes where it is not loaded."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from localrpc import testing
from localrpc.bench.rpc import Servicer
from tests.transports.helpers import outcome

# `loaded` is what Python and the messages bring with them.
HEAD = """
import json, os, sys, threading
from google.protobuf import descriptor, descriptor_pool, symbol_database
from google.protobuf.internal import builder
loaded = set(sys.modules)
import localrpc
from localrpc.bench import bench_pb2
from localrpc.bench.bench_localrpc import BenchStub

def call(channel):
    request = bench_pb2.Echo(payload=b"x")
    assert BenchStub(channel).Unary(request, timeout=20) == request
"""

ONE_CALL = """
with localrpc.insecure_channel(sys.argv[1]) as channel:
    call(channel)
print(json.dumps(sorted(set(sys.modules) - loaded)))
"""

HEAVY = {
    *("grpc", "asyncio", "concurrent", "dataclasses", "inspect", "ipaddress", "logging"),
    *("pathlib", "random", "resource", "selectors", "signal", "socket", "ssl", "subprocess"),
    *("tempfile", "traceback", "typing_extensions"),
    *("urllib", "unittest", "pkgutil", "importlib.metadata"),
}
"""Libraries, each of which takes a millisecond or more to import."""

OURS = {
    "localrpc": {
        *("_grpc", "_later", "_locks", "_log", "_version", "address", "errors", "metadata"),
        "options",
    },
    "localrpc._core": {"_lr", "_lr.lib", "links"},
    "localrpc.calls": {"connectivity", "messages", "request"},
    "localrpc.drive": {
        *("callback_queue", "connector", "core", "dialling", "finalizers", "greenlets"),
        "instruments",
        *("naming", "opening", "reading", "session"),
    },
    "localrpc.sync": {"channel", "method", "streams", "unary"},
    "localrpc.wire": {"codec", "frames", "greeting", "http2", "messages"},
    "localrpc.transports": {
        *(
            "attempt",
            "base",
            "byte_channels",
            "credentials",
            "forks",
            "handshake",
            "handshake_client",
        ),
        *("handshake_server", "names", "registry", "scheme", "sockdiag", "sockets"),
        *("targets", "unix"),
    },
}
"""The modules of each package that a unary call over unix: needs; `streams` is for the stub."""


@pytest.fixture(scope="module", params=["unix", "shm"])
def target(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    text = f"{request.param}:{tmp_path_factory.mktemp('first') / 'socket'}"
    with testing.serving(Servicer(), target=text):
        yield text


def test_a_call_loads_no_library_that_it_can_do_without(target: str) -> None:
    loaded = set(json.loads(outcome(HEAD + ONE_CALL, target)))
    assert {name for name in loaded if name in HEAVY or name.partition(".")[0] in HEAVY} == set()


def test_a_call_loads_no_module_of_ours_that_it_can_do_without(target: str) -> None:
    loaded = set(json.loads(outcome(HEAD + ONE_CALL, target)))
    ours = {name for name in loaded if name.startswith("localrpc.")}
    needed = {f"{package}.{name}" for package, names in OURS.items() for name in names}
    needed |= {*OURS, "localrpc.bench", "localrpc.bench.bench_localrpc", "localrpc.bench.bench_pb2"}
    if target.startswith("shm:"):
        transports = ("memory", "posix", "rings", "shm")
        needed |= {f"localrpc.transports.{name}" for name in transports} | {"localrpc._core.sysv"}
    assert ours - needed == set()


def test_an_error_is_one_of_grpcs(target: str) -> None:
    script = """
with localrpc.insecure_channel(sys.argv[1]) as channel:
    try:
        channel.unary_unary("/no/method")(b"", timeout=20)
    except Exception as error:
        assert "grpc" in sys.modules
        import grpc
        print(isinstance(error, grpc.RpcError), isinstance(error, grpc.Call), error.code().name)
"""
    assert outcome(HEAD + script, target) == "True True UNIMPLEMENTED"


def test_streams_and_futures_work_without_an_import_of_grpc(target: str) -> None:
    script = """
with localrpc.insecure_channel(sys.argv[1]) as channel:
    stub = BenchStub(channel)
    request = bench_pb2.Echo(payload=b"x")
    future = stub.Unary.future(request, timeout=20)
    answer, call = stub.Unary.with_call(request, timeout=20)
    download = stub.Download(request, timeout=20)
    count = stub.Upload(iter([request, request]), timeout=20)
    print(future.result() == answer == next(download), call.code().name, count.messages)
    download.cancel()
"""
    assert outcome(HEAD + script, target) == "True OK 2"


def test_a_subscriber_is_called_with_grpcs_states(target: str) -> None:
    script = """
states, ready = [], threading.Event()

def note(state):
    states.append(state)
    if state.name == "READY":
        ready.set()

with localrpc.insecure_channel(sys.argv[1]) as channel:
    channel.subscribe(note, try_to_connect=True)
    assert ready.wait(20)
import grpc
kind = grpc.ChannelConnectivity
print(states == [kind.IDLE, kind.CONNECTING, kind.READY])
"""
    assert outcome(HEAD + script, target) == "True"


def test_two_threads_make_their_first_calls_at_once(target: str) -> None:
    script = """
barrier = threading.Barrier(4)
done = []

def work():
    barrier.wait()
    with localrpc.insecure_channel(sys.argv[1]) as channel:
        call(channel)
        try:
            channel.unary_unary("/no/method")(b"", timeout=20)
        except Exception as error:
            done.append(error.code().name)

threads = [threading.Thread(target=work) for _ in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(*done)
"""
    assert outcome(HEAD + script, target) == " ".join(["UNIMPLEMENTED"] * 4)


@pytest.mark.parametrize("when", ["before the channel", "before the call", "after the call"])
def test_a_fork_at_any_moment_of_the_beginning_leaves_two_that_work(target: str, when: str) -> None:
    script = """
def fork(moment):
    if moment == sys.argv[2]:
        return os.fork()
    return pid

pid = -1
pid = fork("before the channel")
channel = localrpc.insecure_channel(sys.argv[1])
pid = fork("before the call")
call(channel)
pid = fork("after the call")
call(channel)
try:
    channel.unary_unary("/no/method")(b"", timeout=20)
except Exception as error:
    assert error.code().name == "UNIMPLEMENTED"
else:
    sys.exit("no error")
channel.close()
if pid > 0:
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""
    assert outcome(HEAD + script, target, when) == "0"


# grpc's classes. `subclasses(grpc)` asks of classes, `instances(grpc)` of objects.

CLASSES = """
import sys, threading
import localrpc
assert "grpc" not in sys.modules
channel = localrpc.insecure_channel("unix:/nowhere/at/all")
kinds = ("unary_unary", "unary_stream", "stream_unary", "stream_stream")
found = {kind: getattr(channel, kind)("/a/b") for kind in kinds}
objects = {"Channel": channel} | {
    "".join(map(str.title, kind.split("_"))) + "MultiCallable": found[kind] for kind in kinds
}
assert "grpc" not in sys.modules

def subclasses(grpc):
    assert not issubclass(type(channel), grpc.UnaryUnaryMultiCallable)
    return all(issubclass(type(made), getattr(grpc, name)) for name, made in objects.items())

def instances(grpc):
    assert not isinstance(channel, grpc.Server)
    return all(isinstance(made, getattr(grpc, name)) for name, made in objects.items())
"""


@pytest.mark.parametrize("first", ["subclasses", "instances"])
def test_objects_made_before_are_of_grpcs_classes_as_soon_as_it_is_there(first: str) -> None:
    second = {"subclasses": "instances", "instances": "subclasses"}[first]
    script = (
        f"import grpc\nprint({first}(grpc), {second}(grpc), channel.__class__ is type(channel))"
    )
    assert outcome(CLASSES + script) == "True True True"


def test_an_import_of_one_of_its_modules_is_enough() -> None:
    assert outcome(CLASSES + "import grpc.aio\nprint(subclasses(grpc))") == "True"


def test_with_grpc_there_before_they_are_real_subclasses() -> None:
    script = """
import grpc, localrpc, sys
channel = localrpc.insecure_channel("unix:/nowhere/at/all")
method = channel.unary_unary("/a/b")
print(grpc.Channel in type(channel).__mro__, grpc.UnaryUnaryMultiCallable in type(method).__mro__)
print(any("localrpc" in str(finder) for finder in sys.meta_path))
"""
    assert outcome(script).split() == ["True", "True", "False"]


@pytest.mark.parametrize("again", ["reload", "import"])
def test_a_second_grpc_has_them_too(again: str) -> None:
    script = {
        "reload": "import importlib\nimportlib.reload(grpc)\n",
        "import": "for name in [*sys.modules]:\n"
        "    if name.partition('.')[0] == 'grpc' and 'cygrpc' not in name:\n"
        "        del sys.modules[name]\n"
        "import grpc\n",
    }[again]
    script = "import grpc\nassert instances(grpc)\nold = grpc.Channel\n" + script
    script += "print(grpc.Channel is old, instances(grpc), subclasses(grpc))"
    assert outcome(CLASSES + script) == "False True True"


def test_finders_of_others_do_not_matter() -> None:
    """One that wraps the loader of grpc, as tracing libraries do, before ours and behind it."""
    script = """
import importlib.machinery, importlib.util

class Loader:
    def __init__(self, loader):
        self.loader = loader
    def create_module(self, spec):
        return self.loader.create_module(spec)
    def exec_module(self, module):
        self.loader.exec_module(module)
        seen.append(module.__name__)

class Finder:
    busy = False
    def find_spec(self, name, path=None, target=None):
        if name == "grpc" and not Finder.busy:
            Finder.busy = True
            spec = importlib.util.find_spec(name)
            Finder.busy = False
            spec.loader = Loader(spec.loader)
            return spec

seen = []
sys.meta_path.insert(0 if sys.argv[1] == "before" else len(sys.meta_path) - 1, Finder())
import grpc
print(*seen, subclasses(grpc), instances(grpc))
"""
    for where in ("before", "behind"):
        assert outcome(CLASSES + script, where) == "grpc True True"


def test_a_finder_that_is_gone_leaves_objects_of_grpcs_classes() -> None:
    script = """
sys.meta_path[:] = [each for each in sys.meta_path if "localrpc" not in str(each)]
import grpc
print(instances(grpc), subclasses(grpc))
"""
    assert outcome(CLASSES + script) == "True True"


def test_threads_may_import_both_at_once() -> None:
    # CPython 3.13 itself fails now and then if two threads import collections.abc first.
    script = """
import collections.abc, sys, threading
barrier = threading.Barrier(2)
made = []

def ours():
    barrier.wait()
    import localrpc
    made.append(localrpc.insecure_channel("unix:/nowhere/at/all"))

def theirs():
    barrier.wait()
    import grpc

threads = [threading.Thread(target=target) for target in (ours, theirs)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
import grpc
print(issubclass(type(made[0]), grpc.Channel), isinstance(made[0], grpc.Channel))
"""
    assert outcome(script) == "True True"


STARVED = (
    HEAD
    + """
import resource
channel = localrpc.insecure_channel(sys.argv[1])
free = os.dup(0)
os.close(free)
resource.setrlimit(resource.RLIMIT_NOFILE, (free, 4096))
try:
    call(channel)
except Exception as error:
    print(json.dumps([type(error).__name__, error.code().name, error.details()]))
"""
)


def test_a_call_fails_with_its_status_where_no_descriptor_is_left(one_target: str) -> None:
    """The error imports grpc, for which files have to be opened."""
    name, code, details = json.loads(outcome(STARVED, one_target))
    assert (name, code) == ("_InactiveRpcError", "UNAVAILABLE")
    assert "Too many open files" in details
