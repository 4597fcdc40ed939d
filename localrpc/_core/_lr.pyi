"""What src/api.h declares, compiled; by `python -m tests.native.stub`."""

from typing import Any, TypeAlias

# A CData; for a `const char *` also bytes.
_Pointer: TypeAlias = Any

class _Lib:
    LR_AGAIN: int
    LR_TIMEOUT: int
    LR_GONE: int
    LR_CLOSED: int
    LR_FORKED: int
    LR_TOO_LARGE: int
    LR_PROTOCOL: int
    LR_NOMEM: int
    LR_CANCELLED: int
    LR_ENDED: int
    LR_SLOW: int
    LR_FULL: int
    LR_NOROOM: int
    LR_INVALID: int
    LR_UNSENT: int
    LR_K_HEADERS: int
    LR_K_MESSAGES: int
    LR_K_BIG: int
    LR_K_END: int
    LR_K_STATUS: int
    LR_K_RESET: int
    LR_K_CALL: int
    LR_K_ENDED: int
    LR_K_CONN_CLOSED: int
    LR_K_STOP: int
    LR_K_YIELD: int
    LR_K_DRAINED: int
    LR_K_ROOM: int
    LR_T_HELLO: int
    LR_T_METHOD: int
    LR_T_OPEN: int
    LR_T_MESSAGE: int
    LR_T_DATA: int
    LR_T_HEADERS: int
    LR_T_STATUS: int
    LR_T_RESET: int
    LR_T_CREDIT: int
    LR_T_GOAWAY: int
    LR_F_MESSAGE: int
    LR_F_END: int
    LR_F_BIG: int
    LR_F_UNSEEN: int
    LR_F_ALONE: int
    LR_F_REFUSED: int
    LR_F_FULL: int
    LR_F_POST: int
    LR_F_TOO_LARGE: int
    LR_HEADER_SIZE: int
    LR_MAX_CONTROL: int
    LR_MAX_NAME: int
    LR_MAX_NAMES: int
    LR_MAX_NAME_BYTES: int
    LR_MAX_BLOCK: int
    LR_MAX_FRAME: int
    LR_PIECE: int
    LR_INLINE: int
    LR_OVERHEAD: int
    LR_MAX_SLOTS: int
    LR_RING_MIN: int
    LR_RING_MAX: int
    LR_BATCH: int
    LR_NEWS: int
    LR_NEWS_BUFFER: int
    LR_SCRATCH: int
    LR_SYSV_MAX: int
    LR_SPOOL_SEGMENT: int
    LR_SPOOL_SEGMENTS: int
    LR_SPOOL_BATCH: int
    LR_SPOOL_BATCHES: int
    LR_CLIENT: int
    LR_SERVER: int
    LR_MEMORY_SEALED: int
    LR_MEMORY_NAMED: int
    LR_MEMORY_SYSV: int
    LR_WAKE_FUTEX: int
    LR_SPIN_ALWAYS: int
    LR_CODES: int
    LR_BUCKETS: int
    LR_BUCKET_BITS: int
    LR_BUCKET_FIRST: int
    LR_PAGE_VERSION: int
    LR_ENTRY_SIZE: int
    LR_ENTRIES: int
    LR_ENTRY_LIVE: int
    LR_ENTRY_FORMER: int
    LR_ENTRY_CLOSED: int
    LR_SPOOL_OUR_BATCHES: int
    LR_SPOOL_THEIR_BATCHES: int
    LR_SPOOL_NEAR: int
    def lr_page(self) -> int: ...
    def lr_make_bell(self) -> int: ...
    def lr_ring_open(
        self,
        memory: int,
        tx_fd: int,
        rx_fd: int,
        ring_size: int,
        bell_fd: int,
        peer_bell_fd: int,
        sock_fd: int,
        pidfd: int,
        peer_pid: int,
        wake: int,
        spin_us: int,
        error: _Pointer,
        error_size: int,
        /,
    ) -> _Pointer: ...
    def lr_stream_open(
        self, fd: int, pidfd: int, spin_us: int, error: _Pointer, error_size: int, /
    ) -> _Pointer: ...
    def lr_pipe_open(
        self,
        rx_fd: int,
        tx_fd: int,
        keep_fd: int,
        pidfd: int,
        spin_us: int,
        error: _Pointer,
        error_size: int,
        /,
    ) -> _Pointer: ...
    def lr_mqueue_open(
        self, rx_fd: int, tx_fd: int, pidfd: int, spin_us: int, error: _Pointer, error_size: int, /
    ) -> _Pointer: ...
    def lr_sysv_open(
        self,
        rx_id: int,
        tx_id: int,
        size: int,
        pidfd: int,
        record_fd: int,
        record: _Pointer,
        spin_us: int,
        error: _Pointer,
        error_size: int,
        /,
    ) -> _Pointer: ...
    def lr_link_close(self, link: _Pointer, /) -> None: ...
    def lr_signal_claim(self, signo: int, /) -> int: ...
    def lr_futexes_work(self) -> int: ...
    def lr_sysv_create(self, key: int, size: int, /) -> int: ...
    def lr_sysv_find(self, key: int, /) -> int: ...
    def lr_sysv_remove(self, id: int, /) -> int: ...
    def lr_msgget(self, key: int, create: int, /) -> int: ...
    def lr_msgctl_remove(self, id: int, /) -> int: ...
    def lr_msgctl_stat(self, id: int, facts: _Pointer, /) -> int: ...
    def lr_msgsnd(self, id: int, data: _Pointer, size: int, /) -> int: ...
    def lr_msgrcv(self, id: int, data: _Pointer, room: int, wait: int, /) -> int: ...
    def lr_spool_bell(
        self, folder: _Pointer, batches: int, other: _Pointer, interval_ms: int, /
    ) -> int: ...
    def lr_spool_open(
        self,
        path: _Pointer,
        role: int,
        flags: int,
        record_fd: int,
        bell_fd: int,
        error: _Pointer,
        error_size: int,
        /,
    ) -> _Pointer: ...
    def lr_spool_read(self, spool: _Pointer, data: _Pointer, room: int, /) -> int: ...
    def lr_spool_write(self, spool: _Pointer, data: _Pointer, size: int, /) -> int: ...
    def lr_spool_close(self, spool: _Pointer, /) -> None: ...
    def lr_spool_link(
        self,
        spool: _Pointer,
        pidfd: int,
        heartbeat: _Pointer,
        spin_us: int,
        error: _Pointer,
        error_size: int,
        /,
    ) -> _Pointer: ...
    def lr_spool_remove(self, path: _Pointer, /) -> None: ...
    def lr_link_send(
        self, link: _Pointer, type: int, flags: int, call: int, payload: _Pointer, len: int, /
    ) -> int: ...
    def lr_link_recv(self, link: _Pointer, io: _Pointer, deadline: int, /) -> int: ...
    def lr_link_flush(self, link: _Pointer, /) -> int: ...
    def lr_link_hang_up(self, link: _Pointer, /) -> None: ...
    def lr_link_unseen(self, link: _Pointer, /) -> int: ...
    def lr_link_trust_begun(self, link: _Pointer, /) -> None: ...
    def lr_engine_new(
        self, role: int, window: int, max_receive: int, max_calls: int, /
    ) -> _Pointer: ...
    def lr_engine_add(self, engine: _Pointer, link: _Pointer, peer_window: int, /) -> int: ...
    def lr_engine_admit(
        self, engine: _Pointer, link: _Pointer, peer_window: int, uid: int, /
    ) -> int: ...
    def lr_limit_users(self, engine: _Pointer, calls: int, bytes: int, /) -> int: ...
    def lr_limit_waiting(self, engine: _Pointer, calls: int, /) -> int: ...
    def lr_engine_close(self, engine: _Pointer, /) -> None: ...
    def lr_engine_free(self, engine: _Pointer, /) -> None: ...
    def lr_engine_disown(self, engine: _Pointer, /) -> None: ...
    def lr_engine_alive(self, engine: _Pointer, /) -> int: ...
    def lr_engine_look(self, engine: _Pointer, /) -> int: ...
    def lr_engine_stats(self, engine: _Pointer, stats: _Pointer, /) -> None: ...
    def lr_publish(self, engine: _Pointer, name: _Pointer, /) -> int: ...
    def lr_load_page(self, engine: _Pointer, /) -> int: ...
    def lr_load_open(self, fd: int, /) -> _Pointer: ...
    def lr_load_close(self, load: _Pointer, /) -> None: ...
    def lr_own_page(self) -> _Pointer: ...
    def lr_page_note(self, note: _Pointer, /) -> None: ...
    def lr_bucket(self, time: int, /) -> int: ...
    def lr_bucket_from(self, bucket: int, /) -> int: ...
    def lr_live(self, engine: _Pointer, /) -> int: ...
    def lr_engine_error(self, engine: _Pointer, text: _Pointer, size: int, /) -> int: ...
    def lr_engine_faulty(self, engine: _Pointer, /) -> int: ...
    def lr_goaway(self, engine: _Pointer, block: _Pointer, len: int, /) -> int: ...
    def lr_cancel_all(self, engine: _Pointer, code: int, text: _Pointer, len: int, /) -> int: ...
    def lr_loop_begin(self, engine: _Pointer, /) -> int: ...
    def lr_loop_spins(self, engine: _Pointer, /) -> int: ...
    def lr_loop_spin(
        self, engines: _Pointer, count: int, timeout: int, fd: int, due: _Pointer, /
    ) -> int: ...
    def lr_drain(self, engine: _Pointer, batch: _Pointer, /) -> int: ...
    def lr_flush(self, engine: _Pointer, /) -> int: ...
    def lr_pause(self, engine: _Pointer, call: int, paused: int, /) -> int: ...
    def lr_method(self, engine: _Pointer, number: int, name: _Pointer, len: int, /) -> int: ...
    def lr_unary(
        self,
        engine: _Pointer,
        io: _Pointer,
        method: int,
        head: _Pointer,
        head_len: int,
        msg: _Pointer,
        msg_len: int,
        deadline: int,
        /,
    ) -> int: ...
    def lr_unary_wait(
        self, engine: _Pointer, io: _Pointer, msg: _Pointer, msg_len: int, deadline: int, /
    ) -> int: ...
    def lr_open(
        self,
        engine: _Pointer,
        io: _Pointer,
        method: int,
        head: _Pointer,
        head_len: int,
        timeout_us: int,
        msg: _Pointer,
        msg_len: int,
        flags: int,
        deadline: int,
        /,
    ) -> int: ...
    def lr_send(
        self, engine: _Pointer, call: int, msg: _Pointer, len: int, flags: int, deadline: int, /
    ) -> int: ...
    def lr_half_close(self, engine: _Pointer, call: int, /) -> int: ...
    def lr_recv(self, engine: _Pointer, io: _Pointer, call: int, deadline: int, /) -> int: ...
    def lr_fill(
        self, engine: _Pointer, call: int, dest: _Pointer, size: int, deadline: int, /
    ) -> int: ...
    def lr_cancel(
        self, engine: _Pointer, call: int, code: int, text: _Pointer, len: int, /
    ) -> int: ...
    def lr_release(self, engine: _Pointer, call: int, /) -> int: ...
    def lr_active(self, engine: _Pointer, call: int, /) -> int: ...
    def lr_sending(self, engine: _Pointer, call: int, /) -> int: ...
    def lr_watch(self, engine: _Pointer, call: int, deadline: int, /) -> int: ...
    def lr_service(self, engine: _Pointer, io: _Pointer, /) -> int: ...
    def lr_kick(self, engine: _Pointer, /) -> None: ...
    def lr_next(self, engine: _Pointer, io: _Pointer, /) -> int: ...
    def lr_next_now(self, engine: _Pointer, io: _Pointer, /) -> int: ...
    def lr_reply_next(self, engine: _Pointer, io: _Pointer, msg: _Pointer, len: int, /) -> int: ...
    def lr_headers(self, engine: _Pointer, call: int, block: _Pointer, len: int, /) -> int: ...
    def lr_finish(
        self,
        engine: _Pointer,
        call: int,
        trailer: _Pointer,
        trailer_len: int,
        msg: _Pointer,
        len: int,
        code: int,
        /,
    ) -> int: ...
    def lr_defer(self, engine: _Pointer, call: int, /) -> int: ...
    def lr_leave_open(self, engine: _Pointer, call: int, /) -> int: ...
    def lr_intern(self, engine: _Pointer, name: _Pointer, len: int, id: int, /) -> int: ...
    def lr_call_method(self, engine: _Pointer, call: int, name: _Pointer, size: int, /) -> int: ...
    def lr_yield(self, engine: _Pointer, /) -> None: ...
    def lr_stop(self, engine: _Pointer, /) -> None: ...
    def lr_signal_check(self, ns: int, /) -> None: ...

lib: _Lib
ffi: Any
