"""Metadata of every sort, in all three places it travels."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import grpc

from .transcript import Transcript, drained, ended, outcome, plain
from .world import KINDS, World, answering, asking, begin, finish, scenario

_LEGAL: tuple[tuple[str, Any], ...] = (
    ("key", "value"),
    ("key", "a second value"),
    ("0-9_.-az", "~!@#$%^&*()_+{}|:<>?"),
    ("empty", ""),
    ("inner", "two  spaces"),
    ("comma", "a,b, c"),
    ("raw-bin", b"\x00\x01\xff\n"),
    ("raw-bin", b""),
    ("bytes", b"for a text key"),
)

_ILLEGAL: dict[str, Any] = {
    "upper case": (("Key", "v"),),
    "space in key": (("a key", "v"),),
    "empty key": (("", "v"),),
    "colon key": ((":path", "/elsewhere"),),
    "odd key": (("k\u00e9y", "v"),),
    "odd value": (("key", "gr\u00fc\u00dfe"),),
    "newline": (("key", "a\nb"),),
    "tab": (("key", "a\tb"),),
    "nul": (("key", "a\x00b"),),
    "text for -bin": (("key-bin", "text"),),
    "int value": (("key", 7),),
    "none value": (("key", None),),
    "int key": ((7, "v"),),
    "bytes key": ((b"key", "v"),),
    "triple": (("a", "b", "c"),),
    "single": (("a",),),
    "string": "key",
    "dict": {"key": "v"},
    "int": 7,
    "leading space": (("key", " v"),),
    "trailing space": (("key", "v "),),
}


def _own(metadata: Any) -> list[Any]:
    """Without what an implementation adds about itself."""
    return [pair for pair in plain(metadata) if pair[0] not in ("user-agent", "te", "content-type")]


def _method(w: World, seen: list[Any]) -> Any:
    def look(request: bytes, context: Any) -> bytes:
        seen.append(_own(context.invocation_metadata()))
        return b"ok"

    return w.method("unary_unary", look)


@scenario
def metadata_the_client_sends(w: World) -> Transcript:
    seen: list[Any] = []
    method = _method(w, seen)
    for metadata in (None, (), [], _LEGAL, list(_LEGAL), tuple(list(pair) for pair in _LEGAL)):
        method(b"", metadata=metadata)
    return {"seen": seen}


@scenario
def metadata_the_server_sends(w: World) -> Transcript:
    def respond(context: Any) -> None:
        context.send_initial_metadata(_LEGAL)
        context.set_trailing_metadata(_LEGAL)

    story: Transcript = {}
    for kind in KINDS:
        method = w.method(kind, answering(kind, respond))
        call = begin(kind, method)
        if kind.endswith("stream"):
            list(call)
        story[kind] = ended(call)
    return story


@scenario
def metadata_types_are_grpcs(w: World) -> Transcript:
    def respond(request: bytes, context: Any) -> bytes:
        received = context.invocation_metadata()
        story["invocation"] = _anatomy([pair for pair in received if pair[0].startswith("k")])
        story["invocation_type"] = type(received).__name__
        context.send_initial_metadata((("k", "1"), ("k-bin", b"1")))
        context.set_trailing_metadata((("k", "1"), ("k-bin", b"1")))
        return b""

    story: Transcript = {}
    sent = (("k", "1"), ("k-bin", b"1"))
    _, call = w.method("unary_unary", respond).with_call(b"", metadata=sent)
    for name, metadata in (
        ("initial", call.initial_metadata()),
        ("trailing", call.trailing_metadata()),
    ):
        story[name] = _anatomy(metadata)
        story[f"{name}_type"] = type(metadata).__name__
    return story


def _anatomy(metadata: Any) -> list[Any]:
    return [
        [
            isinstance(pair, tuple),
            pair.key,
            pair.value,
            type(pair.value).__name__,
            pair == (pair.key, pair.value),
        ]
        for pair in metadata
    ]


@scenario
def metadata_user_agent(w: World) -> Transcript:
    seen: list[Any] = []

    def look(request: bytes, context: Any) -> bytes:
        found = dict(plain(context.invocation_metadata())).get("user-agent", "")
        seen.append(str(found).split("/")[0])
        return b""

    w.method("unary_unary", look)(b"")
    return {"seen": seen}


@scenario
def metadata_the_client_must_not_send(w: World) -> Transcript:
    seen: list[Any] = []
    method = _method(w, seen)
    story: Transcript = {}
    for name, metadata in _ILLEGAL.items():
        story[name] = outcome(method, b"", metadata=metadata, timeout=5)
    story["seen"] = seen
    return story


@scenario
def metadata_refused_in_every_kind_and_form(w: World) -> Transcript:
    story: Transcript = {}
    bad = (("Key", "v"),)
    for kind in KINDS:
        method = w.method(kind, answering(kind, lambda context: None))
        story[kind] = outcome(method, asking(kind), metadata=bad)
        if kind.endswith("unary"):
            story[f"{kind} with_call"] = outcome(method.with_call, asking(kind), metadata=bad)
            story[f"{kind} future"] = outcome(method.future, asking(kind), metadata=bad)
        story[f"{kind} good"] = finish(kind, method)
    return story


@scenario
def metadata_reserved_keys_of_the_client(w: World) -> Transcript:
    """Keys that HTTP/2 gRPC uses itself: what becomes of the call, and what arrives."""
    story: Transcript = {}
    for key, value in (
        ("grpc-custom", "v"),
        ("grpc-message", "m"),
        ("grpc-tags-bin", b"x"),
    ):
        seen: list[Any] = []
        method = _method(w, seen)
        story[key] = [outcome(method, b"", metadata=((key, value),), timeout=5), seen]
    return story


@scenario
def metadata_the_server_must_not_send_first(w: World) -> Transcript:
    story: Transcript = {}
    for name, metadata in _ILLEGAL.items():
        inside: list[Any] = []

        def respond(
            request: bytes, context: Any, metadata: Any = metadata, inside: list[Any] = inside
        ) -> bytes:
            inside.append(outcome(context.send_initial_metadata, metadata))
            return b"ok"

        seen = outcome(w.method("unary_unary", respond), b"", timeout=1)
        story[name] = [inside, seen]
        w.clear()
    return story


@scenario
def metadata_is_refused_last(w: World) -> Transcript:
    """Trailing metadata is only looked at when the call ends."""
    story: Transcript = {}
    for name in ("upper case", "newline", "int value"):
        inside: list[Any] = []

        def respond(
            request: bytes, context: Any, name: str = name, inside: list[Any] = inside
        ) -> bytes:
            inside.append(outcome(context.set_trailing_metadata, _ILLEGAL[name]))
            return b"ok"

        story[name] = [outcome(w.method("unary_unary", respond), b"", timeout=1), inside]
    return story


@scenario
def metadata_that_is_large(w: World) -> Transcript:
    seen: list[int] = []

    def echo(request: bytes, context: Any) -> bytes:
        big = [pair for pair in context.invocation_metadata() if pair[0] == "big"]
        seen.append(sum(len(pair[1]) for pair in big))
        context.send_initial_metadata(big)
        context.set_trailing_metadata(big)
        return b""

    method = w.method("unary_unary", echo)
    _, call = method.with_call(b"", metadata=(("big", "x" * 2000), ("big", "y" * 1000)))
    back = [call.initial_metadata(), call.trailing_metadata()]
    return {"seen": seen, "back": [[len(pair[1]) for pair in each] for each in back]}


@scenario
def metadata_that_is_too_large(w: World) -> Transcript:
    method = w.method("unary_unary", lambda request, context: b"ok")
    try:
        method(b"", metadata=(("huge", "x" * 1_000_000),), timeout=5)
    except grpc.RpcError as error:
        return {"code": plain(error.code())}
    return {"code": "none"}


@scenario
def metadata_objects_may_be_reused(w: World) -> Transcript:
    """What one call received can be sent with the next, as proxies do."""

    def echo(request: bytes, context: Any) -> bytes:
        own = tuple(pair for pair in context.invocation_metadata() if pair.key.startswith("k"))
        context.send_initial_metadata(own)
        context.set_trailing_metadata(own)
        return b""

    method = w.method("unary_unary", echo)
    _, first = method.with_call(b"", metadata=(("k", "1"), ("k-bin", b"\x00")))
    _, second = method.with_call(b"", metadata=first.trailing_metadata())
    return {"first": ended(first), "second": ended(second)}


@scenario
def metadata_of_a_stream_without_messages(w: World) -> Transcript:
    def nothing(request: bytes, context: Any) -> Iterator[bytes]:
        context.send_initial_metadata((("i", "1"),))
        context.set_trailing_metadata((("t", "1"),))
        return iter(())

    call = w.method("unary_stream", nothing)(b"")
    return {"first": plain(call.initial_metadata()), "seen": drained(call), "ended": ended(call)}
