"""Greetings and control payloads: what fuzz_greeting.py runs, and test_corpus.py again.

Invariant: any bytes, cut anywhere, give a Hello or GreetingError, and a payload gives its
value or RemoteProtocolError, and nothing else; the quick way of reading metadata says what
protobuf's own classes say; what was decoded survives another encoding and decoding.
"""

from __future__ import annotations

from google.protobuf.message import DecodeError

from localrpc.errors import GreetingError, InvalidMetadata, RemoteProtocolError
from localrpc.metadata import RESERVED, Pairs, check_pair
from localrpc.wire import codec
from localrpc.wire.codec import Hello
from localrpc.wire.greeting import Greeter, Role, State, agree, hello_frame
from localrpc.wire.messages import MetadataProto, TrailerProto

OURS = Hello(version_min=1, version_max=3, window=1 << 20)


def greet(role: Role, data: bytes, cuts: bytes) -> None:
    greeter = Greeter(role)
    hello, at, turn = None, 0, 0
    try:
        while hello is None and at < len(data):
            step = cuts[turn % len(cuts)] + 1 if cuts else greeter.wanted
            piece = data[at : at + min(step, greeter.wanted)]
            at += len(piece)
            turn += 1
            hello = greeter.receive(piece)
            assert 0 <= greeter.wanted <= 4096
        if hello is None:
            raise greeter.receive_eof()
    except GreetingError as error:
        reason = str(error)
    else:
        reason = ""
    if reason:
        assert greeter.state is State.FAILED
        return
    assert hello is not None
    assert greeter.state is State.DONE
    assert greeter.wanted == 0
    again = Greeter(role)
    frame = hello_frame(hello)
    assert again.receive(frame[:16]) is None or len(frame) == 16
    if len(frame) > 16:
        assert again.receive(frame[16:]) == hello
    try:
        version = agree(OURS, hello)
    except GreetingError:
        return
    assert 1 <= version <= 3


def _thorough(kind: type, field: str, data: bytes) -> tuple[tuple[str, str | bytes], ...] | None:
    """What protobuf's own class and gRPC's rules say of the pairs; None: refused."""
    try:
        pairs = getattr(kind.FromString(data), field)  # type: ignore[attr-defined]
        for pair in pairs:
            check_pair(pair.key, pair.value)
    except (InvalidMetadata, DecodeError, ValueError):
        return None
    return tuple(
        (pair.key, pair.value if pair.key.endswith("-bin") else pair.value.decode())
        for pair in pairs
    )


def _sendable(pairs: Pairs) -> Pairs:
    """What is left when a user sends them: reserved keys are not sent."""
    return tuple(pair for pair in pairs if pair.key not in RESERVED)


def metadata(data: bytes) -> None:
    wanted = _thorough(MetadataProto, "pairs", data)
    try:
        pairs = codec.decode_metadata(data)
    except RemoteProtocolError:
        assert wanted is None, wanted
        return
    assert tuple(pairs) == wanted, (tuple(pairs), wanted)
    if len(data) < 16_000:
        assert codec.decode_metadata(codec.encode_metadata(pairs)) == _sendable(pairs)


def trailer(data: bytes) -> None:
    wanted = _thorough(TrailerProto, "metadata", data)
    try:
        code, details, pairs = codec.decode_trailer(data)
    except RemoteProtocolError:
        assert wanted is None, wanted
        return
    assert wanted is not None
    whole = TrailerProto.FromString(data)
    assert (code, details, tuple(pairs)) == (whole.code, whole.details, wanted)  # type: ignore[attr-defined]
    if len(data) < 16_000:
        assert codec.decode_trailer(codec.encode_trailer(code, details, pairs)) == (
            code,
            details,
            _sendable(pairs),
        )


def one_input(data: bytes) -> None:
    """The first byte chooses what the others are."""
    what, data = data[:1], data[1:]
    kind = what[0] % 8 if what else 0
    if kind < 2:
        cuts, data = data[:4], data[4:]
        greet(Role.CLIENT if kind else Role.SERVER, data, cuts if cuts[:1] != b"\xff" else b"")
    elif kind < 4:
        # A frame around what may be a Hello, so that the fuzzer need not find its header.
        header = len(data).to_bytes(4, "little") + b"\x01" + bytes(11)
        greet(Role.CLIENT if kind & 1 else Role.SERVER, header + data, b"")
    elif kind == 4:
        trailer(data)
    else:
        metadata(data)
