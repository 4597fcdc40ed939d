"""What the APIs share of channels, ports, tracing and patching, each with a stand-in for grpcio."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import grpc
import pytest

from localrpc.drive import remote
from localrpc.drive.instruments import Instruments
from localrpc.drive.patching import Patching, is_ours
from localrpc.drive.signals import stop_by
from localrpc.errors import ListenError
from localrpc.transports import parse_target

TARGET = parse_target("grpc:host:1")
OPTIONS = [("grpc.max_send_message_length", 5), ("localrpc.window", 1 << 20)]
CREDENTIALS: Any = object()


def api() -> Any:
    """Return a module whose functions return their names and arguments."""

    def insecure_channel(*args: Any, **kwargs: Any) -> Any:
        return ("insecure", *args, kwargs)

    def secure_channel(*args: Any, **kwargs: Any) -> Any:
        return ("secure", *args, kwargs)

    return SimpleNamespace(insecure_channel=insecure_channel, secure_channel=secure_channel)


def test_grpcio_is_given_all_options_but_localrpcs_and_what_else_its_function_takes() -> None:
    none = grpc.Compression.NoCompression
    kind, target, options, *rest = remote.channel(api(), TARGET, None, OPTIONS, none, "more")
    assert (kind, target, list(options)) == ("insecure", "host:1", OPTIONS[:1])
    assert rest == [none, "more", {}]
    kind, target, given, options, *rest = remote.channel(api(), TARGET, CREDENTIALS, OPTIONS, none)
    assert (kind, target, given) == ("secure", "host:1", CREDENTIALS)
    assert (list(options), rest) == (OPTIONS[:1], [none, {}])


class Port:
    """A server of grpcio that adds a target, or refuses to."""

    def __init__(self, error: Exception | None = None) -> None:
        self._error = error

    def add_insecure_port(self, address: str) -> int:
        if self._error is not None:
            raise self._error
        assert address == "host:1"
        return 7

    def add_secure_port(self, address: str, credentials: object) -> int:
        assert credentials is CREDENTIALS
        return self.add_insecure_port(address) + 1


def test_a_target_is_added_with_credentials_or_without() -> None:
    assert remote.listen(Port(), TARGET, None) == 7
    assert remote.listen(Port(), TARGET, CREDENTIALS) == 8


@pytest.mark.parametrize(
    ("text", "hint"), [("Failed to bind; set GRPC_VERBOSITY", "set GRPC_VERBOSITY"), ("No", "No")]
)
@pytest.mark.parametrize("credentials", [None, CREDENTIALS])
def test_the_error_of_grpcio_names_the_target_once(text: str, hint: str, credentials: Any) -> None:
    with pytest.raises(ListenError) as info:
        remote.listen(Port(RuntimeError(text)), TARGET, credentials)
    assert str(info.value).count("grpc:host:1") == 1
    assert str(info.value).endswith(f"gRPC cannot listen there ({hint})")


def test_wrappers_are_applied_until_they_are_removed() -> None:
    instruments: Instruments[str, str] = Instruments()
    first = instruments.add(lambda channel: f"a({channel})", lambda: "a")
    second = instruments.add(lambda channel: f"b({channel})", None)
    third = instruments.add(None, lambda: "c")
    assert instruments.around("x") == "b(a(x))"
    assert instruments.before(["own"]) == ("c", "a", "own")
    for remove in (first, first, third):
        remove()
    assert instruments.around("x") == "b(x)"
    assert instruments.before(["own"]) == ("own",)
    second()
    assert instruments.around("x") == "x"


def test_the_wrappers_of_one_api_are_not_those_of_another() -> None:
    one: Instruments[str, str] = Instruments()
    other: Instruments[str, str] = Instruments()
    one.add(None, lambda: "a")
    assert other.before([]) == ()


@pytest.mark.parametrize(
    ("target", "ours"),
    [
        ("shm:a", True),
        (b"shm:a", True),
        ("fd:3", True),
        ("grpc:host:1", True),
        ("shm:50051", False),  # a host of that name
        ("unix:/a", False),
        ("unix-abstract:a", False),
        ("host:1", False),
        ("dns:///host", False),
        ("shm", False),
    ],
)
def test_targets_that_mean_something_to_grpcio_stay_grpcios(
    target: str | bytes, ours: bool
) -> None:
    assert is_ours(target) is ours


def test_a_patched_api_hands_on_all_arguments_of_its_functions() -> None:
    theirs, ours = api(), api()
    before = vars(theirs).copy()
    patching = Patching(theirs, ours.secure_channel, ours.insecure_channel)  # told apart by name
    undo = patching.patch()
    replaced = theirs.insecure_channel
    assert replaced("shm:a", 1, interceptors=2) == ("secure", "shm:a", 1, {"interceptors": 2})
    assert replaced("host:1", 1) == ("insecure", "host:1", 1, {})
    assert theirs.secure_channel("shm:a", 1) == ("insecure", "shm:a", 1, {})
    undo()
    undo()
    assert vars(theirs) == before
    assert replaced("shm:a", 1) == ("insecure", "shm:a", 1, {})


def test_a_patch_that_another_library_has_wrapped_stays_without_an_effect() -> None:
    theirs, ours = api(), api()
    undo = Patching(theirs, ours.secure_channel, ours.insecure_channel).patch()
    inner = theirs.insecure_channel
    theirs.insecure_channel = wrapper = lambda target: inner(target)
    undo()
    assert theirs.insecure_channel is wrapper
    assert wrapper("shm:a") == ("insecure", "shm:a", {})


@pytest.fixture
def handled() -> Iterator[list[int]]:
    """What a handler of SIGTERM and SIGINT got that was there before."""
    got: list[int] = []
    signals = (signal.SIGTERM, signal.SIGINT)
    former = [signal.signal(each, lambda number, frame: got.append(number)) for each in signals]
    yield got
    for each, action in zip(signals, former, strict=True):
        signal.signal(each, action)


@pytest.mark.parametrize(("grace", "first"), [(5.0, 5.0), (0, 0), (None, 0)])
def test_the_first_signal_stops_with_grace_and_the_third_does_what_it_did(
    handled: list[int], grace: float | None, first: float
) -> None:
    stops: list[float | None] = []
    stop_by(stops.append, grace)
    for each in (signal.SIGTERM, signal.SIGINT, signal.SIGTERM):
        signal.raise_signal(each)
    assert stops == [first, None]
    assert handled == [signal.SIGTERM]
