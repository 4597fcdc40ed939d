"""The greeting. The invariant: any bytes, however cut, give a Hello or GreetingError."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from localrpc.errors import GreetingError, LocalProtocolError
from localrpc.wire import frames
from localrpc.wire.codec import Hello
from localrpc.wire.frames import FrameType, encode_header
from localrpc.wire.greeting import ALLOWED, Event, Greeter, Role, State, agree, hello_frame

HELLO = Hello(1, 1, 4096, agent="test")


def feed(greeter: Greeter, data: bytes, step: int = 1 << 20) -> tuple[Hello | None, bytes]:
    """The Hello, and what was left unread."""
    while data:
        size = min(step, greeter.wanted)
        hello = greeter.receive(data[:size])
        data = data[size:]
        if hello is not None:
            return hello, data
    return None, b""


@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize("step", [1, 3, 16, 17, 4096])
def test_a_hello_comes_out_however_it_is_cut(role: Role, step: int) -> None:
    greeter = Greeter(role)
    assert feed(greeter, hello_frame(HELLO), step) == (HELLO, b"")
    assert greeter.state is State.DONE


def test_no_bytes_beyond_the_hello_are_read() -> None:
    assert feed(Greeter(Role.CLIENT), hello_frame(HELLO) + b"more", 4) == (HELLO, b"more")


@given(
    st.sampled_from(Role),
    st.one_of(
        st.binary(max_size=64),
        st.binary(max_size=64).map(lambda tail: encode_header(FrameType.HELLO, len(tail)) + tail),
        st.binary(max_size=8).map(lambda tail: hello_frame(HELLO)[:12] + tail),
    ),
    st.integers(1, 70),
)
def test_any_bytes_give_a_hello_or_a_greeting_error(role: Role, data: bytes, step: int) -> None:
    greeter = Greeter(role)
    try:
        hello, _ = feed(greeter, data, step)
    except GreetingError:
        assert greeter.state is State.FAILED
        return
    if hello is None:
        assert isinstance(greeter.receive_eof(), GreetingError)
    else:
        assert greeter.state is State.DONE


def _greeter_in(state: State) -> Greeter:
    greeter = Greeter(Role.SERVER)
    if state is State.PAYLOAD:
        greeter.receive(hello_frame(HELLO)[: frames.HEADER_SIZE])
    elif state is State.DONE:
        feed(greeter, hello_frame(HELLO))
    elif state is State.FAILED:
        greeter.receive_eof()
    assert greeter.state is state
    return greeter


@pytest.mark.parametrize(("state", "event"), list(product(State, Event)))
def test_each_event_moves_a_state_or_is_refused(state: State, event: Event) -> None:
    greeter = _greeter_in(state)
    if event not in ALLOWED[state]:
        with pytest.raises(LocalProtocolError, match=state.name):
            greeter.receive(b"") if event is Event.BYTES else greeter.receive_eof()
    elif event is Event.BYTES:
        greeter.receive(hello_frame(HELLO)[:3] if state is State.HEADER else b"\x08")
        assert greeter.state is state
    else:
        greeter.receive_eof()
        assert greeter.state is State.FAILED


def test_reading_more_than_was_wanted_is_our_own_mistake() -> None:
    with pytest.raises(LocalProtocolError, match="17 bytes read, expected at most 16"):
        Greeter(Role.SERVER).receive(bytes(17))


@pytest.mark.parametrize(
    ("role", "data", "words"),
    [
        (Role.SERVER, b"PRI * HTTP/2.0\r\n", "grpcio client dialled a localrpc server"),
        (Role.SERVER, b"PRI ", "HTTP/2"),
        (Role.SERVER, b"GET / HTTP/1.1\r\n", "HTTP/1"),
        (Role.CLIENT, b"HTTP/1.1 400 Bad", "HTTP/1"),
        (Role.CLIENT, bytes.fromhex("000018 04 00 00000000"), "this is a grpcio server"),
        (Role.CLIENT, bytes.fromhex("000008 07 00 00000000"), "this is a grpcio server"),
        (Role.SERVER, b"\xde\xad\xbe\xef\x00", "de ad be ef 00"),
        (Role.SERVER, encode_header(FrameType.OPEN, 4), "does not speak the localrpc protocol"),
        (Role.SERVER, encode_header(FrameType.HELLO, 4097), "4097 bytes, limit 4096"),
        (Role.SERVER, encode_header(FrameType.HELLO, 1, flags=8), "flags 0x8"),
        (Role.SERVER, encode_header(FrameType.HELLO, 1) + b"\xff", "the HELLO is damaged"),
    ],
)
def test_another_protocol_is_recognised_early(role: Role, data: bytes, words: str) -> None:
    with pytest.raises(GreetingError, match=words):
        feed(Greeter(role), data)


@pytest.mark.parametrize(
    ("role", "sent", "words", "quiet"),
    [
        (Role.SERVER, 0, "without a HELLO", True),
        (Role.SERVER, 5, "after 5 bytes", False),
        (Role.SERVER, 18, "after 18 bytes", False),
        (Role.CLIENT, 0, "not a localrpc server", False),
        (Role.CLIENT, 5, "in the middle of its HELLO", False),
    ],
)
def test_a_truncated_hello_is_an_error(role: Role, sent: int, words: str, quiet: bool) -> None:
    greeter = Greeter(role)
    feed(greeter, hello_frame(HELLO)[:sent])
    error = greeter.receive_eof()
    assert words in str(error)
    assert error.quiet is quiet


def _versions(low: int, high: int, **fields: str) -> Hello:
    return Hello(low, high, 4096, **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("ours", "theirs", "version"),
    [((1, 1), (1, 1), 1), ((1, 3), (2, 5), 3), ((2, 5), (1, 3), 3), ((1, 3), (3, 9), 3)],
)
def test_the_highest_common_version_is_spoken(
    ours: tuple[int, int], theirs: tuple[int, int], version: int
) -> None:
    assert agree(_versions(*ours), _versions(*theirs)) == version


@pytest.mark.parametrize(
    ("ours", "theirs"), [((1, 1), (2, 3)), ((3, 4), (1, 2)), ((1, 1), (0, 0)), ((1, 3), (3, 1))]
)
def test_the_error_for_no_common_version_has_both_ranges(
    ours: tuple[int, int], theirs: tuple[int, int]
) -> None:
    with pytest.raises(GreetingError) as caught:
        agree(_versions(*ours), _versions(*theirs, agent="other/2"))
    for word in (f"versions {theirs[0]} to {theirs[1]}", "other/2", "upgrade the older one"):
        assert word in str(caught.value)


def test_a_refusal_is_passed_on() -> None:
    with pytest.raises(GreetingError, match="it refused: not you"):
        agree(HELLO, _versions(1, 1, refusal="not you"))


def test_an_empty_window_is_refused() -> None:
    with pytest.raises(GreetingError, match="window of 0 bytes"):
        agree(HELLO, Hello(1, 1, 0))


def test_an_overlong_hello_is_our_own_mistake() -> None:
    with pytest.raises(LocalProtocolError, match="limit 4096"):
        hello_frame(Hello(1, 1, 1, agent="x" * 5000))
