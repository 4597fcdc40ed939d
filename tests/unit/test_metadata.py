"""Metadata, compared with what grpcio does with the same value."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent import futures
from typing import Any

import grpc
import pytest

from localrpc.errors import InvalidMetadata
from localrpc.metadata import OVERHEAD, Metadatum, SizeLimits, check_pairs
from localrpc.wire.codec import decode_metadata, encode_metadata

from . import case_id

CASES: list[Any] = [
    None,
    [],
    (),
    (("a", "b"),),
    [["a", "b"]],
    ("ab",),
    (("a", b"b"),),
    ((b"a", b"b"),),
    (("a", ""),),
    (("a", None),),
    (("a", " b "),),
    (("a", "~"),),
    (("a_b.c-d9", "x"),),
    (("a-bin", b"\x00\xff"),),
    (("a-bin", b""),),
    (("a", "1"), ("a", "2")),
    (("grpc-x", "1"),),
    (("host", "x"),),
    (("connection", "x"),),
    (("authority", "x"),),
    # Accepted silently, not delivered.
    (("te", "x"), ("kept", "1")),
    (("content-type", "x"),),
    (("grpc-timeout", "1S"),),
    (("grpc-status", "1"),),
    (("grpc-message", "x"),),
    (("grpc-encoding", "identity"),),
    # Of the wrong type or shape.
    (("a-bin", "text"),),
    (("a-bin", bytearray(b"z")),),
    (("a-bin", memoryview(b"z")),),
    (("a", 1),),
    ((1, "a"),),
    (("a", "b", "c"),),
    5,
    {"a": "b"},
    # Not allowed.
    (("A", "b"),),
    (("", ""),),
    ((":path", "1"),),
    (("a b", "x"),),
    (("a*b", "x"),),
    (("é", "x"),),
    (("a", "\n"),),
    (("a", "\t"),),
    (("a", "\x7f"),),
    (("a", "é"),),
    (("a", b"\x80"),),
    (("A-bin", b"x"),),
]


class _Grpcio:
    def __init__(self, stub: Any) -> None:
        self._stub = stub

    def outcome(self, metadata: Any) -> Any:
        try:
            _, call = self._stub.with_call(b"", metadata=metadata, timeout=10)
        except grpc.RpcError as error:
            return error.code(), error.details()
        except Exception as error:
            return type(error)
        return list(call.trailing_metadata())


@pytest.fixture(scope="module")
def grpcio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[_Grpcio]:
    def echo(request: bytes, context: grpc.ServicerContext) -> bytes:
        sent = context.invocation_metadata()
        context.set_trailing_metadata(tuple(pair for pair in sent if pair[0] != "user-agent"))
        return request

    handler = grpc.method_handlers_generic_handler(
        "t", {"echo": grpc.unary_unary_rpc_method_handler(echo)}
    )
    target = f"unix:{tmp_path_factory.mktemp('grpcio')}/socket"
    with futures.ThreadPoolExecutor(1) as pool:
        server = grpc.server(pool, handlers=[handler])
        server.add_insecure_port(target)
        server.start()
        with grpc.insecure_channel(target) as channel:
            yield _Grpcio(channel.unary_unary("/t/echo"))
        server.stop(None).wait()


def _outcome(metadata: Any) -> Any:
    try:
        return list(decode_metadata(encode_metadata(metadata)))
    except InvalidMetadata as error:
        return grpc.StatusCode.INTERNAL, str(error).partition(":")[0]
    except Exception as error:
        return type(error)


@pytest.mark.parametrize("metadata", CASES, ids=case_id)
def test_metadata_is_taken_and_refused_as_by_grpcio(grpcio: _Grpcio, metadata: Any) -> None:
    assert _outcome(metadata) == grpcio.outcome(metadata)
    # And once more, now that the caches know it.
    assert _outcome(metadata) == grpcio.outcome(metadata)


@pytest.mark.parametrize(
    ("metadata", "words"),
    [
        ([("Key", "x")], ["'Key'", "a-z, 0-9"]),
        ([("", "x")], ["zero length"]),
        ([("key", "ä")], ["'key'", "'-bin'"]),
    ],
)
def test_a_refusal_names_the_key_and_the_fix(metadata: Any, words: list[str]) -> None:
    with pytest.raises(InvalidMetadata, match=r"^Invalid metadata: ") as caught:
        check_pairs(metadata)
    for word in words:
        assert word in str(caught.value)


def test_a_pair_looks_like_grpcios() -> None:
    pair = Metadatum("k", "v")
    assert repr(pair) == "_Metadatum(key='k', value='v')"
    assert (pair.key, pair.value) == ("k", "v")
    assert pair == ("k", "v")


def test_size_counts_what_http2_counts() -> None:
    pairs = [("a", "x" * 10)]
    size = 1 + 10 + OVERHEAD
    assert SizeLimits(size, size + 1).excess(pairs) is None
    text = SizeLimits(size, size).excess(pairs)
    assert text is not None
    assert text.startswith(f"received metadata size exceeds hard limit ({size} vs. {size})")
    assert "a:43B" in text


def test_above_the_soft_limit_metadata_is_refused_now_and_then() -> None:
    limits = SizeLimits(1000, 3000)
    rare, often = (
        sum(limits.excess([("a", "x" * size)]) is not None for _ in range(2000))
        for size in (1167, 2567)
    )
    assert 100 < rare < 400  # a tenth
    assert 1500 < often < 1700  # and eight tenths: five deviations on each side
    assert all(limits.excess([("a", "x" * 967)]) is None for _ in range(100))
    assert all(limits.excess([("a", "x" * 2967)]) for _ in range(100))


def test_a_block_that_counts_as_light_is_within_the_limits() -> None:
    for soft, hard in ((8192, 16384), (2100, 2200), (5000, 100), (0, 0)):
        limits = SizeLimits(soft, hard)
        pairs = [("a", "")] * (max(limits.light, 0) // 7)
        assert limits.light < 0 or limits.excess([*pairs, (":path", "x" * 1800)]) is None
