"""Runs Python with sockets forbidden, in itself and its children, from now on.

    python -m tests.peers.seccomp -m pytest tests/links

See seccomp(2): a program of the kernel's packet filter looks at each system
call, and has socket, socketpair and connect fail with EPERM.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import sys

# By the machine: what audit.h calls the architecture, and the calls' numbers.
ARCHITECTURES = {
    "x86_64": (0xC000003E, {"socket": 41, "connect": 42, "socketpair": 53}),
    "aarch64": (0xC00000B7, {"socket": 198, "connect": 203, "socketpair": 199}),
}
SUPPORTED = platform.machine() in ARCHITECTURES

_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _MODE_FILTER = 38, 22, 2
_LOAD, _EQUAL, _AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06
_ALLOW, _ERRNO, _KILL = 0x7FFF0000, 0x00050000, 0x80000000
_NUMBER_AT, _ARCHITECTURE_AT = 0, 4  # in struct seccomp_data
_X32 = 0x40000000  # x86_64's other numbers for the same calls


class _Instruction(ctypes.Structure):
    _fields_ = (
        ("code", ctypes.c_uint16),
        ("if_true", ctypes.c_uint8),
        ("if_false", ctypes.c_uint8),
        ("value", ctypes.c_uint32),
    )


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("at", ctypes.POINTER(_Instruction)))


def forbid_sockets() -> None:
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
    for number in calls.values():
        steps += [(_EQUAL, 0, 1, number), (_RETURN, 0, 0, _ERRNO | errno.EPERM)]
    steps.append((_RETURN, 0, 0, _ALLOW))
    code = (_Instruction * len(steps))(*(_Instruction(*step) for step in steps))
    program = _Program(len(steps), code)
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    zero = ctypes.c_ulong(0)
    if prctl(_PR_SET_NO_NEW_PRIVS, ctypes.c_ulong(1), zero, zero, zero) or prctl(
        _PR_SET_SECCOMP, ctypes.c_ulong(_MODE_FILTER), ctypes.byref(program), zero, zero
    ):
        number = ctypes.get_errno()
        raise OSError(number, f"seccomp: {os.strerror(number)}")


if __name__ == "__main__":
    forbid_sockets()
    os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
