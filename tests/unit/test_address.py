"""Targets. The invariant: any text gives an Address or AddressError, nothing else."""

from __future__ import annotations

import signal

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from localrpc.address import Address, numbered
from localrpc.errors import AddressError
from localrpc.transports import REGISTERED, parse_target, scheme_for
from localrpc.transports.rings import MEMORY, RING, SIGNO, WAKEUP
from localrpc.transports.spool import HEARTBEAT, INTERVAL, WATCH, WRITE
from localrpc.transports.targets import INTERFACES, SPIN, SPIN_ALWAYS, SPIN_AUTO, AnyOption


@pytest.mark.parametrize(
    ("text", "scheme", "body"),
    [
        ("shm:search", "shm", "search"),
        ("shm://search", "shm", "search"),
        ("shm:/run/me/search", "shm", "/run/me/search"),
        ("shm:///run/me/search", "shm", "/run/me/search"),
        ("unix:relative/path", "unix", "relative/path"),
        ("unix:/abs/path", "unix", "/abs/path"),
        ("unix:///abs/path", "unix", "/abs/path"),
        ("unix:/with%20space%3Fand%25", "unix", "/with space?and%"),
        ("unix-abstract:name", "unix-abstract", "name"),
        ("unix-abstract://name", "unix-abstract", "name"),
        ("file:spool", "file", "spool"),
        ("file:/run/me/spool/", "file", "/run/me/spool"),
        ("file:///run/me/spool?watch=poll", "file", "/run/me/spool"),
        ("tcp:127.0.0.1:5000", "tcp", "127.0.0.1:5000"),
        ("tcp://localhost:0", "tcp", "localhost:0"),
        ("tcp:[::1]:65535?spin=off", "tcp", "[::1]:65535"),
        ("grpc:host:50051", "grpc", "host:50051"),
        ("grpc://host:50051", "grpc", "host:50051"),
        ("grpc:dns:///host%20?a=b", "grpc", "dns:///host%20?a=b"),
        ("grpc:unix:/run/me", "grpc", "unix:/run/me"),
        ("grpc:pipe:80", "grpc", "pipe:80"),
        ("grpc:tcp:80", "grpc", "tcp:80"),
        ("inproc:any name, of any kind", "inproc", "any name, of any kind"),
        ("inproc://name?spin=off", "inproc", "name"),
        ("fd:3", "fd", "3"),
        ("fd:web.socket?interfaces=any", "fd", "web.socket"),
        ("fd:a name/of#any kind%3F", "fd", "a name/of#any kind?"),
    ],
)
def test_a_target_is_scheme_and_body(text: str, scheme: str, body: str) -> None:
    address = parse_target(text)
    assert (address.scheme, address.body, address.text) == (scheme, body, text)
    assert str(address) == text


def test_a_spools_options_have_values_and_defaults() -> None:
    def values(target: str) -> tuple[object, ...]:
        address = parse_target(target)
        return tuple(option.of(address) for option in (WATCH, INTERVAL, WRITE, HEARTBEAT))

    assert values("file:a") == ("inotify", 20, "append", 1000)
    given_all = "file:a?watch=poll&interval=5&write=rename&heartbeat=200"
    assert values(given_all) == ("poll", 5, "rename", 200)


def test_options_have_defaults() -> None:
    address = parse_target("shm:a")
    assert (WAKEUP.of(address), SPIN.of(address), RING.of(address)) == (
        "eventfd",
        SPIN_AUTO,
        1 << 20,
    )
    assert INTERFACES.of(parse_target("tcp:localhost:1")) == "loopback"


@pytest.mark.parametrize(
    ("query", "option", "value"),
    [
        ("wakeup=signal", WAKEUP, "signal"),
        ("wakeup=eventfd", WAKEUP, "eventfd"),
        ("wakeup=signal", SIGNO, signal.SIGURG),
        ("wakeup=signal&signo=SIGUSR2", SIGNO, signal.SIGUSR2),
        ("signo=SIGRTMIN+3&wakeup=signal", SIGNO, signal.SIGRTMIN + 3),
        ("signo=SIGRTMIN&wakeup=signal", SIGNO, signal.SIGRTMIN),
        ("wakeup=futex", WAKEUP, "futex"),
        ("wakeup=spin", SPIN, SPIN_ALWAYS),
        ("spin=auto", SPIN, SPIN_AUTO),
        ("spin=off", SPIN, 0),
        ("spin=50", SPIN, 50),
        ("ring=131072", RING, 131072),
        ("spin=off", MEMORY, "memfd"),
        ("memory=posix", MEMORY, "posix"),
        ("memory=sysv", MEMORY, "sysv"),
        ("ring=256k", RING, 262144),
        ("ring=256KiB", RING, 262144),
        ("ring=4M", RING, 4194304),
        ("wakeup=signal&ring=64M", RING, 67108864),
    ],
)
def test_an_option_has_its_value(query: str, option: AnyOption, value: object) -> None:
    assert option.of(parse_target(f"shm:a?{query}")) == value


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ["no scheme", "shm:NAME"]),
        ("search", ["'search'", "no scheme", "shm:NAME", "unix:PATH", "unix-abstract:NAME"]),
        ("foo:bar", ["unknown scheme 'foo'", "shm:NAME", "unix:PATH"]),
        ("localhost:50051", ["unknown scheme", "tcp:localhost:50051", "grpc:localhost:50051"]),
        ("tcp:", ["empty name", "tcp:HOST:PORT"]),
        ("tcp:5000", ["host and port", "tcp:127.0.0.1:5000"]),
        ("tcp:localhost", ["host and port"]),
        ("tcp:localhost:http", ["host and port"]),
        ("tcp:localhost:65536", ["host and port"]),
        ("tcp:::1:5000", ["tcp:[::1]:5000"]),
        ("tcp:localhost:1?ring=1M", ["unknown option 'ring'", "?interfaces="]),
        (
            "tcp:localhost:1?interfaces=eth0",
            ["invalid value 'eth0' for interfaces", "loopback or any"],
        ),
        ("grpc:", ["empty name", "grpc:TARGET"]),
        ("grpc:shm:search", ["gRPC itself knows no shm: targets", "write shm:search"]),
        ("grpc:tcp:localhost:1", ["gRPC itself knows no tcp:", "write tcp:localhost:1"]),
        ("grpc:grpc:host:1", ["gRPC itself knows no grpc:", "write grpc:host:1"]),
        ("grpc:host\n:1", ["'\\n'", "not allowed"]),
        ("inproc:", ["empty name", "inproc:NAME"]),
        ("fd:", ["empty name", "fd:N"]),
        ("fd:12345678", ["number of a descriptor", "fd:3"]),
        ("fd:a:b", ["LISTEN_FDNAMES", "without ':'"]),
        ("fd:é", ["printable ASCII"]),
        ("fd:" + "x" * 256, ["LISTEN_FDNAMES"]),
        ("fd:3?signo=SIGUSR1", ["signo= chooses the signal of ?wakeup=signal"]),
        ("inproc:a%00b", ["'\\x00'", "not allowed"]),
        ("file:", ["empty name", "file:DIR"]),
        ("file:/", ["root directory"]),
        ("file://relative", ["must be absolute", "file:DIR"]),
        ("file:a?watch=dnotify", ["invalid value 'dnotify' for watch", "inotify or poll"]),
        ("file:a?write=twice", ["invalid value 'twice' for write", "append or rename"]),
        ("file:a?interval=0", ["invalid value '0' for interval", "milliseconds from 1 to 60000"]),
        (
            "file:a?heartbeat=1s",
            ["invalid value '1s' for heartbeat", "milliseconds from 1 to 60000"],
        ),
        ("shm:", ["empty name", "shm:NAME"]),
        ("shm://", ["empty name"]),
        ("unix:", ["empty name", "unix:PATH"]),
        ("unix-abstract:", ["empty name"]),
        ("unix://relative", ["must be absolute", "unix:relative"]),
        ("unix:/some/dir/", ["names a directory"]),
        ("unix:/a\0b", ["'\\x00'", "not allowed"]),
        ("unix-abstract:a%00b", ["'\\x00'", "not allowed"]),
        ("shm:a/b", ["letters, digits", "absolute"]),
        ("shm:.hidden", ["does not begin"]),
        ("shm:" + "x" * 108, ["108 bytes", "107"]),
        ("unix:/" + "x" * 107, ["108 bytes", "107", "shorter"]),
        ("unix:/" + "é" * 60, ["121 bytes", "107"]),
        ("unix-abstract:" + "x" * 108, ["108 bytes", "107"]),
        ("shm:a?", []),
        ("shm:a?colour=red", ["unknown option 'colour'", "?wakeup=", "?spin=", "?ring="]),
        ("unix:/a?ring=1M", ["unknown option 'ring'", "unix: has ?spin="]),
        (
            "shm:a?wakeup=bell",
            ["invalid value 'bell' for wakeup", "eventfd, futex, signal or spin"],
        ),
        (
            "shm:a?wakeup=signal&signo=SIGINT",
            ["invalid value 'SIGINT' for signo", "SIGURG, SIGUSR1", "n up to 30"],
        ),
        ("shm:a?wakeup=signal&signo=SIGRTMIN+31", ["SIGRTMIN+31", "n up to 30"]),
        ("shm:a?signo=SIGURG", ["?wakeup=signal", "add wakeup=signal or leave signo= out"]),
        ("shm:a?wakeup=eventfd&signo=SIGURG", ["add wakeup=signal"]),
        ("shm:a?wakeup=spin&spin=off", ["leave spin= out", "another wakeup="]),
        ("shm:a?spin=fast", ["invalid value 'fast' for spin", "auto, off"]),
        ("shm:a?spin=-1", ["invalid value '-1' for spin"]),
        ("shm:a?spin=1000001", ["up to 1000000"]),
        ("shm:a?memory=file", ["invalid value 'file' for memory", "memfd, posix or sysv"]),
        ("shm:a?ring=100k", ["power of two"]),
        ("shm:a?ring=64k", ["128k to 64M"]),
        ("shm:a?ring=128M", ["128k to 64M"]),
        ("shm:a?ring=", ["invalid value '' for ring"]),
        ("shm:a?spin=1&spin=2", ["given twice"]),
    ],
)
def test_a_bad_target_is_named_with_its_fix(text: str, words: list[str]) -> None:
    if not words:
        assert parse_target(text).body == "a"
        return
    with pytest.raises(AddressError) as caught:
        parse_target(text)
    for word in [repr(text), *words]:
        assert word in str(caught.value)


def test_the_longest_name_is_107_bytes() -> None:
    assert len(parse_target("unix:/" + "x" * 106).body) == 107


@pytest.mark.parametrize("value", [None, 5, b"shm:a"])
def test_a_target_that_is_no_str_is_a_type_error(value: object) -> None:
    with pytest.raises(TypeError, match="a target is a str"):
        parse_target(value)  # type: ignore[arg-type]


@given(
    st.one_of(
        st.text(),
        st.builds(
            "{}:{}".format,
            st.sampled_from(sorted(REGISTERED)),
            st.text(max_size=130),
        ),
    )
)
@example("unix:%")
@example("shm:%ff")
@example("unix:\ud800")
def test_any_text_gives_an_address_or_address_error(text: str) -> None:
    try:
        address = parse_target(text)
    except AddressError:
        return
    assert isinstance(address, Address)
    assert address.body or scheme_for(address.scheme).nameless


def test_a_worker_has_an_address_that_is_a_target_with_the_same_options() -> None:
    for target in ("shm:x?ring=256k", "unix:/a%3Fb%25c", "unix-abstract:n"):
        address = parse_target(target)
        theirs = numbered(address, 12)
        assert theirs.body == f"{address.body}.12"
        again = parse_target(str(theirs))
        assert (again.body, again.options) == (theirs.body, address.options)
