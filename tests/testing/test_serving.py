"""localrpc.testing.serving: servicers in all their forms, over everything, and its end."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

import grpc
import pytest

import localrpc
from localrpc import testing
from localrpc.errors import AddressError
from localrpc.testing import fresh_target, serving
from localrpc.transports import scheme_for, schemes
from localrpc.transports.targets import SPIN

PATIENCE = 20.0
NAMED = sorted(scheme.scheme for scheme in schemes().values() if scheme.example[-2:] != ":N")


def test_the_module_is_imported_when_it_is_first_used() -> None:
    script = (
        "import sys, localrpc\n"
        "assert 'localrpc.testing' not in sys.modules\n"
        "print(localrpc.testing.serving.__name__)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout == "serving\n", done.stderr


class ShoutServicer:
    """As a generator writes it."""

    def Shout(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        return request.upper()


def add_ShoutServicer_to_server(servicer: ShoutServicer, server: grpc.Server) -> None:
    server.add_generic_rpc_handlers((handlers(servicer.Shout),))


class Loud(ShoutServicer):
    pass


def handlers(behaviour: Any) -> grpc.GenericRpcHandler:
    method: Any = grpc.unary_unary_rpc_method_handler(behaviour)
    return grpc.method_handlers_generic_handler("t", {"Shout": method})


def shout(channel: Any, request: bytes = b"hey") -> Any:
    return channel.unary_unary("/t/Shout")(request, timeout=PATIENCE)


def begin(channel: Any) -> Any:
    return channel.unary_unary("/t/Shout").future(b"")


@pytest.mark.parametrize("scheme", NAMED)
def test_a_scheme_alone_is_given_a_name(scheme: str) -> None:
    query = "?spin=off" if SPIN in scheme_for(scheme).options else ""
    with (
        serving(Loud(), target=f"{scheme}:{query}") as one,
        serving(Loud(), target=f"{scheme}:") as other,
    ):
        assert shout(one) == shout(other) == b"HEY"


def test_a_whole_target_is_taken_as_it_is() -> None:
    with serving(Loud(), target="inproc:mine"), localrpc.insecure_channel("inproc:mine") as second:
        assert shout(second) == b"HEY"


def test_paths_are_gone_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    with tempfile.TemporaryDirectory() as folder:
        monkeypatch.setattr("tempfile.tempdir", folder)
        with serving(Loud(), target="unix:") as channel:
            shout(channel)
            assert os.listdir(folder)
        assert not os.listdir(folder)


def test_a_long_temporary_directory_is_passed_by(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = tmp_path / ("x" * 100)
    long.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(long))
    with serving(Loud(), target="unix:") as channel:
        assert shout(channel) == b"HEY"


@pytest.mark.parametrize(
    ("target", "words"), [("shm", "no scheme"), ("pigeon:", "unknown scheme 'pigeon'")]
)
def test_an_invalid_target_is_refused(target: str, words: str) -> None:
    with pytest.raises(AddressError, match=words):
        fresh_target(target, "/tmp")


def test_a_servicer_is_found_by_its_base_class() -> None:
    with serving(Loud()) as channel:
        assert shout(channel) == b"HEY"


def test_a_generic_handler_is_a_servicer() -> None:
    with serving(handlers(lambda request, context: request * 2)) as channel:
        assert shout(channel) == b"heyhey"


def test_a_function_adds_what_it_likes() -> None:
    with serving(lambda server: add_ShoutServicer_to_server(Loud(), server)) as channel:
        assert shout(channel) == b"HEY"


def test_a_class_instead_of_an_instance_is_an_error() -> None:
    with pytest.raises(TypeError, match=r"Loud is a class; give an instance: Loud\(\)"):
        serving(Loud).__enter__()


def test_an_object_that_is_not_a_servicer_is_an_error() -> None:
    with pytest.raises(TypeError, match="no add_dict_to_server is defined beside it"):
        serving({}).__enter__()


def test_options_of_both_sides_are_passed_on() -> None:
    limits = [("grpc.max_receive_message_length", 10)]
    with (
        serving(Loud(), options=limits) as small,
        serving(Loud(), channel_options=limits) as smaller,
    ):
        for channel, side in ((small, "SERVER"), (smaller, "CLIENT")):
            with pytest.raises(grpc.RpcError) as caught:
                shout(channel, b"x" * 11)
            error: Any = caught.value
            assert f"{side}: Received message larger than max" in error.details()


def test_the_end_waits_for_handlers() -> None:
    entered, left = threading.Event(), threading.Event()

    def behaviour(request: bytes, context: grpc.ServicerContext) -> bytes:
        gone = threading.Event()
        assert context.add_callback(gone.set)
        entered.set()
        gone.wait(PATIENCE)
        left.set()
        return b""

    with serving(handlers(behaviour)) as channel:
        call = begin(channel)
        assert entered.wait(PATIENCE)
    assert call.done()
    assert left.is_set()


def test_a_handler_that_does_not_end_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(testing, "PATIENCE", 0.01)
    entered, gate = threading.Event(), threading.Event()

    def stubborn(request: bytes, context: grpc.ServicerContext) -> bytes:
        entered.set()
        gate.wait(PATIENCE)
        return b""

    ending = serving(handlers(stubborn))
    call = begin(ending.__enter__())
    assert entered.wait(PATIENCE)
    with pytest.raises(RuntimeError, match=r"1 handlers are still running .*(\n.*)*in stubborn"):
        ending.__exit__(None, None, None)
    gate.set()
    assert call.done()


def test_a_mistake_in_the_body_comes_through() -> None:
    with pytest.raises(ZeroDivisionError), serving(Loud(), target="shm:"):
        raise ZeroDivisionError
