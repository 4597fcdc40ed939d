"""What src/floor.h declares, compiled; by `python -m tests.native.stub`."""

from typing import Any, TypeAlias

# A CData; for a `const char *` also bytes.
_Pointer: TypeAlias = Any

class _Lib:
    LR_FLOOR_DESCRIPTOR: int
    LR_FLOOR_MQUEUE: int
    LR_FLOOR_SYSV: int
    def lr_floor_echo(self, how: int, rx: int, tx: int, /) -> int: ...
    def lr_floor_ping(
        self,
        how: int,
        rx: int,
        tx: int,
        data: _Pointer,
        back: _Pointer,
        len: int,
        ns: int,
        taken: _Pointer,
        room: int,
        /,
    ) -> int: ...
    def lr_floor_msgsnd(self, id: int, data: _Pointer, size: int, /) -> int: ...
    def lr_link_put(self, link: _Pointer, data: _Pointer, len: int, /) -> int: ...
    def lr_link_await(self, link: _Pointer, io: _Pointer, /) -> int: ...
    def lr_link_echo(self, link: _Pointer, io: _Pointer, /) -> int: ...
    def lr_link_ping(
        self,
        link: _Pointer,
        io: _Pointer,
        data: _Pointer,
        back: _Pointer,
        len: int,
        ns: int,
        taken: _Pointer,
        room: int,
        /,
    ) -> int: ...

lib: _Lib
ffi: Any
