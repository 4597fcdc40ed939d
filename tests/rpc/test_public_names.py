"""What `import localrpc` offers: each name in __all__, and how channels and servers look."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest

import localrpc
from localrpc import errors

from .house import House

LAZY = """
import sys, localrpc
localrpc.insecure_channel, localrpc.transports
assert "grpc" not in sys.modules
assert localrpc.AddressError.__name__ == "AddressError"
assert "grpc" not in sys.modules
assert dir(localrpc) == sorted(localrpc.__all__)
from localrpc import *
assert ChildChannel is localrpc.ChildChannel
"""


def test_dir_shows_the_api_alone_and_names_are_imported_when_they_are_asked_for() -> None:
    subprocess.run([sys.executable, "-c", LAZY], check=True)


def test_every_name_leads_somewhere() -> None:
    assert [name for name in localrpc.__all__ if not hasattr(localrpc, name)] == []
    assert dir(localrpc) == sorted(localrpc.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        localrpc.nonsense  # noqa: B018


def test_what_functions_return_and_raise_is_exported() -> None:
    target = f"unix-abstract:lrt-public-{os.getpid()}"
    seen: list[localrpc.PeerCredentials] = []

    def note(request: bytes, context: grpc.ServicerContext) -> bytes:
        seen.append(localrpc.peer_credentials(context))
        return request

    handler: Any = grpc.unary_unary_rpc_method_handler(note)
    handlers = grpc.method_handlers_generic_handler("t", {"note": handler})
    server = localrpc.server(ThreadPoolExecutor(1), handlers=[handlers])
    server.add_insecure_port(target)
    with pytest.raises(localrpc.AddressInUse):
        server.add_insecure_port(target)
    with pytest.raises(localrpc.ListenError):
        server.add_insecure_port("unix:/nowhere/at/all")
    server.start()
    with localrpc.insecure_channel(target) as channel:
        assert channel.unary_unary("/t/note")(b"x", timeout=20) == b"x"
        facts = channel.facts
        assert isinstance(facts, localrpc.ConnectionFacts)
        assert facts.transport == "unix-abstract"
    server.stop(None).wait()
    assert seen == [localrpc.PeerCredentials(os.getpid(), os.geteuid(), os.getegid())]
    assert set(seen[0].groups) == set(os.getgroups())
    with pytest.raises(localrpc.AddressError):
        localrpc.insecure_channel("nonsense")
    (offer, *_) = localrpc.transports()
    assert isinstance(offer, localrpc.Offer)
    assert isinstance(offer.scope, localrpc.Scope)
    assert issubclass(localrpc.AddressInUse, errors.ListenError)


def test_a_channel_shows_its_target_and_state(one_target: str) -> None:
    with House(one_target) as house:
        channel = localrpc.insecure_channel(one_target)
        assert repr(channel) == f"<localrpc.Channel to {one_target}: idle>"
        assert channel.unary_unary("/house/echo")(b"", timeout=20) == b""
        assert repr(channel) == f"<localrpc.Channel to {one_target}: ready>"
        channel.close()
        assert repr(channel) == f"<localrpc.Channel to {one_target}: shutdown>"
        assert repr(house.server) == f"<localrpc.Server at {one_target}: serving>"


def test_a_server_shows_its_targets_and_state() -> None:
    server = localrpc.server(ThreadPoolExecutor(1))
    assert repr(server) == "<localrpc.Server at no target: not started>"
    port = server.add_insecure_port("tcp:127.0.0.1:0")
    server.add_insecure_port("inproc:public-names")
    where = f"tcp:127.0.0.1:{port}, inproc:public-names"
    assert repr(server) == f"<localrpc.Server at {where}: not started>"
    server.start()
    assert repr(server) == f"<localrpc.Server at {where}: serving>"
    server.stop(None).wait()
    assert repr(server) == f"<localrpc.Server at {where}: stopped>"


def test_a_child_shows_its_pid() -> None:
    with localrpc.fork_channel(lambda server: None) as channel:
        assert repr(channel).startswith(f"<localrpc.ChildChannel to process {channel.pid}: ")
