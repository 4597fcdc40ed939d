"""The handshake: one HELLO frame from each side, the client's first.

Sans-I/O: `wanted` says how many bytes to read, and receive() takes them. No bytes beyond the
HELLO are read, because they belong to the link.
"""

from __future__ import annotations

from enum import Enum, auto

from localrpc.errors import GreetingError, LocalProtocolError, RemoteProtocolError, SpeaksHttp2
from localrpc.wire import frames, http2
from localrpc.wire.codec import Hello, decode_hello, encode_hello
from localrpc.wire.frames import FrameType


class Role(Enum):
    CLIENT = auto()
    SERVER = auto()


class State(Enum):
    HEADER = auto()
    PAYLOAD = auto()
    DONE = auto()
    FAILED = auto()


class Event(Enum):
    BYTES = auto()
    EOF = auto()


# What may happen in a state; every other pair is a bug in the caller.
ALLOWED: dict[State, frozenset[Event]] = {
    State.HEADER: frozenset({Event.BYTES, Event.EOF}),
    State.PAYLOAD: frozenset({Event.BYTES, Event.EOF}),
    State.DONE: frozenset(),
    State.FAILED: frozenset(),
}

_HTTP1_STARTS = (b"GET ", b"POST", b"PUT ", b"HEAD", b"HTTP", b"OPTI", b"CONN")


class Greeter:
    """One side of a handshake; `role` is this side's."""

    def __init__(self, role: Role) -> None:
        self.role = role
        self.state = State.HEADER
        self.wanted = frames.HEADER_SIZE
        self._data = bytearray()

    @property
    def begun(self) -> bool:
        """True if the peer has sent anything at all."""
        return self.state is not State.HEADER or bool(self._data)

    def receive(self, data: bytes) -> Hello | None:
        """Take at most `wanted` bytes; return the peer's Hello once it is complete.

        Raises GreetingError as soon as the bytes cannot become a HELLO.
        """
        self._allow(Event.BYTES)
        if len(data) > self.wanted:
            raise LocalProtocolError(f"{len(data)} bytes read, expected at most {self.wanted}")
        self._data += data
        self.wanted -= len(data)
        try:
            return self._advance()
        except RemoteProtocolError as error:
            raise self._fail(f"the HELLO is damaged: {error}") from None

    def receive_eof(self) -> GreetingError:
        """Return the error to raise when the peer has closed the connection."""
        self._allow(Event.EOF)
        if self.begun:
            got = len(self._data) + (frames.HEADER_SIZE if self.state is State.PAYLOAD else 0)
            return self._fail(
                f"it closed the connection in the middle of its HELLO, after {got} bytes",
                passing=True,
            )
        if self.role is Role.CLIENT:
            return self._fail(
                "it closed the connection without a HELLO: the server is shutting down, runs as"
                " another user, or is not a localrpc server",
                passing=True,
            )
        # Not an error: a starting server checks in this way whether the name is taken.
        return self._fail("it closed the connection without a HELLO", quiet=True)

    def _allow(self, event: Event) -> None:
        if event not in ALLOWED[self.state]:
            raise LocalProtocolError(f"{event.name} in a handshake that is {self.state.name}")

    def _fail(self, reason: str, *, quiet: bool = False, passing: bool = False) -> GreetingError:
        self.state = State.FAILED
        self.wanted = 0
        return GreetingError(reason, quiet=quiet, passing=passing)

    def _advance(self) -> Hello | None:
        if self.state is State.HEADER:
            self._recognise()
            if self.wanted:
                return None
            header = frames.decode_header(bytes(self._data))
            if header.length > frames.HELLO_MAX:
                raise RemoteProtocolError(f"{header.length} bytes, limit {frames.HELLO_MAX}")
            self._data.clear()
            self.state = State.PAYLOAD
            self.wanted = header.length
        if self.wanted:
            return None
        hello = decode_hello(bytes(self._data))
        self.state = State.DONE
        return hello

    def _recognise(self) -> None:
        """Refuse bytes that are not a HELLO header as soon as they show it."""
        data = bytes(self._data)
        if self.role is Role.SERVER and data[:4] == http2.PREFACE[:4]:
            self._fail("")
            raise SpeaksHttp2(
                "it speaks HTTP/2: a grpcio client dialled a localrpc server; make its channel"
                " with localrpc.insecure_channel, or give this server a name of its own"
            )
        if self.role is Role.CLIENT and _is_http2_frame(data):
            raise self._fail(
                "it speaks HTTP/2: this is a grpcio server; make the channel with"
                " grpc.insecure_channel, or the server with localrpc.server"
            )
        if data[:4] in _HTTP1_STARTS:
            raise self._fail("it speaks HTTP/1, not the localrpc protocol")
        if len(data) > 4 and (data[4] != FrameType.HELLO or data[2:4] != b"\0\0"):
            raise self._fail(
                f"it does not speak the localrpc protocol (its first bytes are {data[:8].hex(' ')})"
            )


def _is_http2_frame(data: bytes) -> bool:
    """Return True for a server's first HTTP/2 frame: u24 length, SETTINGS or GOAWAY, stream 0."""
    return len(data) >= 9 and data[0] == 0 and data[3] in (4, 7) and data[5:9] == b"\0\0\0\0"


def agree(ours: Hello, theirs: Hello) -> int:
    """Return the version to use. Raises GreetingError if there is none, or the peer refused."""
    if theirs.refusal:
        raise GreetingError(f"it refused: {theirs.refusal}", passing=theirs.going)
    version = min(ours.version_max, theirs.version_max)
    if version < max(ours.version_min, theirs.version_min) or version < 1:
        raise GreetingError(
            f"it speaks versions {theirs.version_min} to {theirs.version_max} of the localrpc"
            f" protocol ({theirs.agent or 'no name given'}), this side {ours.version_min} to"
            f" {ours.version_max}: upgrade the older one"
        )
    if not 1 <= theirs.window < 1 << 63:
        raise GreetingError(f"its HELLO offers a window of {theirs.window} bytes")
    return version


def hello_frame(hello: Hello) -> bytes:
    payload = encode_hello(hello)
    if len(payload) > frames.HELLO_MAX:
        raise LocalProtocolError(f"a HELLO of {len(payload)} bytes, limit {frames.HELLO_MAX}")
    return frames.encode_header(FrameType.HELLO, len(payload)) + payload
