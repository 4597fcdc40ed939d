"""Runs Python with system calls refused, in itself and its children, from now on.

    python -m tests.peers.seccomp -m pytest tests/links
    python -m tests.peers.seccomp --refuse epoll_pwait2,SO_PEERPIDFD=EPERM -m pytest tests/rpc

Without --refuse, sockets are forbidden. See seccomp(2): a program of the kernel's packet
filter looks at each system call, and has those of RULES fail.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import sys
from collections.abc import Iterable
from dataclasses import dataclass

# By the machine: what audit.h calls the architecture, and the calls' numbers.
ARCHITECTURES = {
    "x86_64": (
        0xC000003E,
        {
            "connect": 42,
            "epoll_pwait2": 441,
            "fallocate": 285,
            "futex_waitv": 449,
            "getsockopt": 55,
            "inotify_init1": 294,
            "memfd_create": 319,
            "pidfd_open": 434,
            "preadv2": 327,
            "socket": 41,
            "socketpair": 53,
            "tgkill": 234,
        },
    ),
    "aarch64": (
        0xC00000B7,
        {
            "connect": 203,
            "epoll_pwait2": 441,
            "fallocate": 47,
            "futex_waitv": 449,
            "getsockopt": 209,
            "inotify_init1": 26,
            "memfd_create": 279,
            "pidfd_open": 434,
            "preadv2": 286,
            "socket": 198,
            "socketpair": 199,
            "tgkill": 131,
        },
    ),
}
SUPPORTED = platform.machine() in ARCHITECTURES

_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _MODE_FILTER = 38, 22, 2
_LOAD, _EQUAL, _AT_LEAST, _BITS, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _ERRNO, _KILL = 0x7FFF0000, 0x00050000, 0x80000000
_NUMBER_AT, _ARCHITECTURE_AT, _ARGUMENTS_AT = 0, 4, 16  # in struct seccomp_data
_X32 = 0x40000000  # x86_64's other numbers for the same calls


@dataclass(frozen=True)
class Rule:
    """A system call; `argument` and `value` for one that is refused only with that."""

    call: str
    argument: int = -1
    value: int = 0
    test: int = _EQUAL


SOCKETS = ("socket", "socketpair", "connect")
RULES = {name: Rule(name) for name in ARCHITECTURES["x86_64"][1]} | {
    "SO_PEERPIDFD": Rule("getsockopt", 2, 77),
    "SO_PEERGROUPS": Rule("getsockopt", 2, 59),
    "AF_NETLINK": Rule("socket", 0, 16),
    "MFD_NOEXEC_SEAL": Rule("memfd_create", 1, 8, _BITS),
}


class _Instruction(ctypes.Structure):
    _fields_ = (
        ("code", ctypes.c_uint16),
        ("if_true", ctypes.c_uint8),
        ("if_false", ctypes.c_uint8),
        ("value", ctypes.c_uint32),
    )


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("at", ctypes.POINTER(_Instruction)))


def refuse(names: Iterable[str], number: int = errno.EPERM) -> None:
    """Irrevocable, for the calling thread and what it starts. Raises OSError."""
    architecture, calls = ARCHITECTURES[platform.machine()]
    steps = [
        (_LOAD, 0, 0, _ARCHITECTURE_AT),
        (_EQUAL, 1, 0, architecture),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, _NUMBER_AT),
        (_AT_LEAST, 0, 1, _X32),
        (_RETURN, 0, 0, _KILL),
    ]
    for rule in (RULES[name] for name in names):
        failure = (_RETURN, 0, 0, _ERRNO | number)
        if rule.argument < 0:
            steps += [(_EQUAL, 0, 1, calls[rule.call]), failure]
            continue
        steps += [
            (_EQUAL, 0, 4, calls[rule.call]),
            (_LOAD, 0, 0, _ARGUMENTS_AT + 8 * rule.argument),  # its lower half
            (rule.test, 0, 1, rule.value),
            failure,
            (_LOAD, 0, 0, _NUMBER_AT),
        ]
    steps.append((_RETURN, 0, 0, _ALLOW))
    code = (_Instruction * len(steps))(*(_Instruction(*step) for step in steps))
    program = _Program(len(steps), code)
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    zero = ctypes.c_ulong(0)
    if prctl(_PR_SET_NO_NEW_PRIVS, ctypes.c_ulong(1), zero, zero, zero) or prctl(
        _PR_SET_SECCOMP, ctypes.c_ulong(_MODE_FILTER), ctypes.byref(program), zero, zero
    ):
        why = ctypes.get_errno()
        raise OSError(why, f"seccomp: {os.strerror(why)}")


if __name__ == "__main__":
    arguments = sys.argv[1:]
    if arguments[0] == "--refuse":
        listed, _, reason = arguments[1].partition("=")
        refuse(listed.split(","), getattr(errno, reason))
        arguments = arguments[2:]
    else:
        refuse(SOCKETS)
    os.execv(sys.executable, [sys.executable, *arguments])
