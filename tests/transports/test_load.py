"""A client takes only such a page of a server's load as cannot harm it."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import pytest

from localrpc.errors import GreetingError
from localrpc.transports.load import read_load

SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL


def page(size: int, seals: int) -> int:
    descriptor = os.memfd_create("load", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(descriptor, size)
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, seals)
    return descriptor


def test_numbers_are_read_as_they_are_then() -> None:
    descriptor = page(4096, SEALS)
    writer = os.dup(descriptor)
    load = read_load(descriptor)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)
    assert list(load) == [0, 0, 0, 0]
    links = [os.readlink(each) for each in Path("/proc/self/fd").iterdir() if each.is_symlink()]
    assert sum("/memfd:load" in link for link in links) == 1  # the writer's
    os.pwrite(writer, (7).to_bytes(8, "little"), 8)
    assert list(load) == [0, 7, 0, 0]
    os.close(writer)


@pytest.mark.parametrize(
    ("size", "seals", "words"),
    [
        (4096, fcntl.F_SEAL_SEAL, "without seals"),
        (4096, fcntl.F_SEAL_SHRINK, "without seals"),
        (31, SEALS, "too small"),
        (0, SEALS, "too small"),
    ],
)
def test_what_could_be_made_smaller_or_is_too_small_is_refused(
    size: int, seals: int, words: str
) -> None:
    descriptor = page(size, seals)
    with pytest.raises(GreetingError, match=words):
        read_load(descriptor)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)


def test_other_descriptors_and_none_are_refused() -> None:
    reader, writer = os.pipe()
    for descriptor in (reader, os.open("/dev/null", os.O_RDONLY), -1):
        with pytest.raises(GreetingError, match=r"cannot be read|without seals"):
            read_load(descriptor)
    os.close(writer)
