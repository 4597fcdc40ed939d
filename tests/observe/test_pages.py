"""Pages of processes: of forked ones, of those with too many endpoints, and files that are none."""

from __future__ import annotations

import os
import resource
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import localrpc
from localrpc.drive.core import ffi, lib, publish
from localrpc.observe import Process, layout, own, processes
from localrpc.observe.layout import ENTRIES, ENTRY, ENTRY_SIZE, HEADER, MAGIC, VERSION, parse
from localrpc.observe.processes import _look, _read
from tests.conftest import fresh_target
from tests.forks.children import Child
from tests.rpc.house import PATIENCE, House
from tests.skips import cannot

from .readings import counts, expect, statuses


def header(**changed: Any) -> bytes:
    """A header's bytes, with other values for some of its fields."""
    fields = {
        "magic": MAGIC,
        "version": VERSION,
        "size": ENTRY_SIZE,
        "entries": ENTRIES,
        "used": 0,
        "pid": os.getpid(),
        "left_out": 0,
        "note": b"",
    }
    return HEADER.pack(*(fields | changed).values())


NO_PAGES = {
    "empty": b"",
    "short": header()[:-1],
    "another magic": header(magic=b"localrpd"),
    "another version": header(version=VERSION + 1),
    "entries of another size": header(size=ENTRY_SIZE * 2),
    "another number of entries": header(entries=ENTRIES + 1),
    "text": b"localrpc" + b"\xff" * 10_000,
    "of another process": header(pid=1),
}


def almost_pages() -> dict[str, bytes]:
    """Of the process that asks."""
    return {
        "too many used": header(used=2**32 - 1),
        "bytes that are not UTF-8": header(note=b"\xff\xfe" * 512),
        "an entry that is cut": header(used=1).ljust(ENTRY_SIZE, b"\0") + b"\1" * 100,
        "entries of nonsense": header(used=3).ljust(ENTRY_SIZE, b"\0") + b"\1\0\0\0" * 3072,
    }


def reader(data: bytes) -> Callable[[int, int], bytes]:
    return lambda offset, size: data[offset : offset + size]


def found() -> Process | None:
    """This process, as processes() finds it: of the other tests' processes there may be many."""
    return _look(os.getpid())


def named_like_a_page(data: bytes) -> int:
    descriptor = os.memfd_create("localrpc", os.MFD_CLOEXEC)
    os.write(descriptor, data)
    return descriptor


def test_a_file_that_only_has_the_name_is_no_page() -> None:
    def work() -> None:
        assert found() is None
        for name, data in NO_PAGES.items():
            descriptor = named_like_a_page(data)
            assert found() is None, name
            os.close(descriptor)
        for name, data in almost_pages().items():
            descriptor = named_like_a_page(data)
            assert found() is not None, name
            os.close(descriptor)

    Child(work).join()


@pytest.mark.parametrize("name", NO_PAGES)
def test_a_page_is_found_beside_a_file_of_its_name(name: str, one_target: str) -> None:
    # A lower number: it is seen first.
    free = os.dup(0)
    with House(one_target) as house:
        house.unary("echo")(b"", timeout=PATIENCE)
        os.close(free)
        descriptor = named_like_a_page(NO_PAGES[name])
        try:
            process = found()
        finally:
            os.close(descriptor)
    assert process is not None
    assert process.uid == os.geteuid()
    assert process.threads > 1
    assert process.memory > 0
    assert {each.target for each in process.page.endpoints} >= {one_target}


def test_a_fifo_or_a_folder_with_the_name_is_no_page(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    assert _read(str(tmp_path / "fifo"), os.getpid()) is None  # without waiting for a writer
    assert _read(str(tmp_path), os.getpid()) is None


def test_this_process_s_page_is_what_others_read(one_target: str) -> None:
    with House(one_target) as house:
        house.unary("echo")(b"", timeout=PATIENCE)
        expect(one_target, "server", in_flight=0)
        (process,) = (each for each in processes() if each.pid == os.getpid())
        page = own()
        assert page is not None
        assert [
            [each for each in shown.endpoints if each.target == one_target]
            for shown in (page, process.page)
        ] == [[each for each in localrpc.stats() if each.target == one_target]] * 2


# Any bytes give a page or None.


@settings(max_examples=200)
@given(st.binary(max_size=HEADER.size + 10))
def test_bytes_are_a_page_or_none(data: bytes) -> None:
    assert parse(reader(data)) is None or data.startswith(MAGIC)


@settings(max_examples=200)
@given(
    st.integers(0, 2**32 - 1),
    st.lists(st.tuples(st.integers(0, ENTRY.size - 4), st.binary(max_size=64)), max_size=8),
    st.integers(0, 2 * ENTRY_SIZE),
)
@example(2**32 - 1, [(0, b"\1\0\0\0"), (8, b"\xff" * 2000)], 2 * ENTRY_SIZE)
def test_a_page_with_any_bytes_in_it_is_read(
    used: int, changes: list[tuple[int, bytes]], length: int
) -> None:
    entry = bytearray(ENTRY_SIZE)
    entry[:4] = struct.pack("=I", layout.LIVE)
    for at, data in changes:
        entry[at : at + len(data)] = data
    whole = header(used=used).ljust(ENTRY_SIZE, b"\0") + entry[:ENTRY_SIZE]
    page = parse(reader(whole[:length]))
    assert (page is None) == (length < HEADER.size)
    for each in page.endpoints if page else ():
        assert each.counts.latency.calls >= 0
        assert (each.counts.latency.percentile(99) is None) == (each.counts.latency.calls == 0)


def test_a_forked_child_counts_on_a_page_of_its_own(one_target: str) -> None:
    with House(one_target) as house:
        echo = house.unary("echo")
        echo(b"", timeout=PATIENCE)
        held = house.unary("wait").future(b"")
        house.enter()
        before = expect(one_target, "channel", in_flight=1, begun=2)

        def work() -> None:
            assert localrpc.stats() == ()
            held.cancel()
            for _ in range(3):
                echo(b"", timeout=PATIENCE)
            assert statuses(counts(one_target, "channel")) == {"OK": 3}
            assert [each.role for each in localrpc.stats()] == ["channel"]
            process = found()
            assert process is not None
            assert process.page.pid == os.getpid()
            house.channel.close()

        Child(work).join()
        assert counts(one_target, "channel") == before
        expect(one_target, "server", ended={"OK": 4}, in_flight=1, connected=2)
        house.gate.set()
        held.result(PATIENCE)
        expect(one_target, "channel", ended={"OK": 2})


def test_more_endpoints_than_a_page_has_room_for_are_left_out(runtime_directory: str) -> None:
    """In a child: a page keeps the places that it has given out."""
    first, later = (fresh_target("unix", runtime_directory) for _ in range(2))
    wanted = ENTRIES + 77
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 3 * wanted:
        cannot(f"a process may open {hard} files here: needs {3 * wanted}")

    def descriptors() -> int:
        return len(os.listdir("/proc/self/fd"))

    def engine(name: str) -> Any:
        made = lib.lr_engine_new(lib.LR_CLIENT, 1 << 20, 1 << 20, -1)
        assert made != ffi.NULL
        publish(made, name)
        return made

    def work() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        free = engine("first")
        lib.lr_engine_free(free)
        before = descriptors()
        engines = [engine(f"unix:/{number}") for number in range(wanted)]
        page = own()
        assert page is not None
        # The place of "first" is taken by another.
        assert (len(page.endpoints), page.left_out) == (ENTRIES, 77)
        with House(first) as house:  # calls are made, and not counted
            assert house.unary("echo")(b"x", timeout=PATIENCE) == b"x"
            page = own()
            assert page is not None
            assert page.left_out == 79
            for each in engines:
                lib.lr_engine_free(each)
            with House(later) as second:
                assert second.unary("echo")(b"x", timeout=PATIENCE) == b"x"
                expect(later, "channel", begun=1, connected=1, connections=1)
                expect(later, "server", begun=1, connected=1, connections=1)
        page = own()
        assert page is not None
        assert (len(page.endpoints), page.left_out) == (ENTRIES, 79)
        del house, second
        assert descriptors() <= before + 32  # of two servers, not of a thousand engines

    Child(work).join()


def test_in_a_full_page_what_ended_last_is_kept() -> None:
    def ended(name: str) -> None:
        made = lib.lr_engine_new(lib.LR_CLIENT, 1 << 20, 1 << 20, -1)
        assert made != ffi.NULL
        publish(made, name)
        lib.lr_engine_free(made)

    def work() -> None:
        for number in range(ENTRIES):
            ended(f"unix:/{number}")
        ended("unix:/mine")
        ended("unix:/other")
        page = own()
        assert page is not None
        names = {each.target for each in page.endpoints}
        assert {"unix:/mine", "unix:/other", "unix:/2"} <= names
        assert not {"unix:/0", "unix:/1"} & names

    Child(work).join()


def test_a_page_is_one_descriptor_however_often_it_is_read(one_target: str) -> None:
    with House(one_target) as house:
        house.unary("echo")(b"", timeout=PATIENCE)
        numbers = []
        for _ in range(3):
            assert found() is not None
            localrpc.stats()
            links = []
            for path in Path("/proc/self/fd").iterdir():
                try:
                    links.append(os.readlink(path))
                except FileNotFoundError:
                    continue
            numbers.append(links.count("/memfd:localrpc (deleted)"))
        assert numbers == [1, 1, 1]
