/*
 * api.h - the core's interface for Python. cffi parses this file as it stands, so it
 * has only declarations and integer constants; declarations for C alone are in
 * util/util.h, links/link.h and engine/engine.h.
 *
 * Every function may be called from any thread. A result of 0 or more means success,
 * otherwise it is one of the negative LR_* below. A deadline is a moment of CLOCK_MONOTONIC
 * in nanoseconds; 0 means none. A call is a handle of generation and slot, which is safe to
 * use after the call's end (LR_GONE).
 */

/* Results. */
#define LR_AGAIN -1     /* let Python handle its signals, then make the same call again */
#define LR_TIMEOUT -2   /* the deadline has passed */
#define LR_GONE -3      /* the handle is not live any more */
#define LR_CLOSED -4    /* the connection has ended */
#define LR_FORKED -5    /* the engine belongs to the parent process */
#define LR_TOO_LARGE -6 /* a message is larger than this side receives */
#define LR_PROTOCOL -7  /* the peer broke the protocol: its connection ends */
#define LR_NOMEM -8
#define LR_CANCELLED -9 /* lr_cancel was called for this call, here */
#define LR_ENDED -10    /* the peer has ended the call: nothing more can be sent */
#define LR_SLOW -11     /* lr_unary: go on with lr_recv */
#define LR_FULL -15     /* lr_unary: the whole answer is in io, with more than a message */
#define LR_NOROOM -12
#define LR_INVALID -13
#define LR_UNSENT -14   /* like LR_CLOSED, and the peer cannot have seen the call */

/* The kinds that lr_recv, lr_next and lr_service return. */
#define LR_K_HEADERS 1
#define LR_K_MESSAGES 2
#define LR_K_BIG 3
#define LR_K_END 4
#define LR_K_STATUS 5
#define LR_K_RESET 6
#define LR_K_CALL 7
#define LR_K_ENDED 8
#define LR_K_CONN_CLOSED 9
#define LR_K_STOP 10
#define LR_K_YIELD 11
#define LR_K_DRAINED 12 /* after lr_goaway: no call is live any more */
#define LR_K_ROOM 13    /* of lr_drain alone: what has returned LR_AGAIN can go on */

/* Frame types and flags: proto/PROTOCOL.md. */
#define LR_T_HELLO 1
#define LR_T_METHOD 2
#define LR_T_OPEN 3
#define LR_T_MESSAGE 4
#define LR_T_DATA 5
#define LR_T_HEADERS 6
#define LR_T_STATUS 7
#define LR_T_RESET 8
#define LR_T_CREDIT 9
#define LR_T_GOAWAY 10

#define LR_F_MESSAGE 1
#define LR_F_END 2 /* of GOAWAY: the last frame; its payload is how many calls the server took up */
#define LR_F_BIG 4
#define LR_F_UNSEEN 8 /* of RESET: no handler has seen the call */
/* In lr_io.flags only. */
#define LR_F_ALONE 256      /* no other worker waits for calls: start one */
#define LR_F_REFUSED 512    /* over the limit of concurrent calls: answer with an error */
#define LR_F_FULL 2048
/* lr_send: if the message is small, queue it instead of waiting for room */
#define LR_F_POST 4096
#define LR_F_TOO_LARGE 1024 /* the message, of `size` bytes, is larger than this side receives */

#define LR_HEADER_SIZE 16
#define LR_MAX_CONTROL 65536 /* payload of any frame but DATA */
#define LR_MAX_NAME 8192     /* bytes of a method's name */
#define LR_MAX_NAMES 4096    /* numbers of names are below this; 0 means no number */
#define LR_MAX_NAME_BYTES 65536 /* of the names that have numbers on one connection */
#define LR_MAX_BLOCK 32704   /* metadata or a trailer: an inline message fits beside it */
#define LR_MAX_FRAME 262144  /* a DATA frame with its header */
#define LR_PIECE 65536       /* the most that this side puts into one DATA frame */
#define LR_INLINE 32768      /* larger messages travel as DATA frames */
#define LR_OVERHEAD 64       /* charged for a queued message in addition to its bytes */
#define LR_MAX_SLOTS 65536   /* calls in flight on one connection */
#define LR_RING_MIN 131072   /* holds the largest frame that cannot be cut */
#define LR_RING_MAX 67108864
#define LR_BATCH 256
#define LR_NEWS 256
#define LR_NEWS_BUFFER 262144 /* lr_batch.buf holds at least this much */
#define LR_SCRATCH 131072    /* lr_io.buf holds at least this much */
#define LR_SYSV_MAX 8192     /* the most that this side puts into one System V message */
#define LR_SPOOL_SEGMENT 262144 /* bytes of a spool file that is appended to */
#define LR_SPOOL_SEGMENTS 16    /* of them in one direction: 4 MiB */
#define LR_SPOOL_BATCH 131072   /* the most in a file that is renamed into place */
#define LR_SPOOL_BATCHES 32

#define LR_CLIENT 0
#define LR_SERVER 1

/* The kind of a ring's memory, and so of tx_fd and rx_fd: a sealed memfd, a descriptor of
 * memory that has or had a name, the id of a System V segment. */
#define LR_MEMORY_SEALED 0
#define LR_MEMORY_NAMED 1
#define LR_MEMORY_SYSV 2
/* Instead of a signal's number: a futex, the word that the ringing side changes. */
#define LR_WAKE_FUTEX 255
/* Instead of microseconds: spin as long as a thread waits for a call. */
#define LR_SPIN_ALWAYS -2

/* One thread's arguments and results; allocated by Python, filled by the core. Python unpacks
 * the fields up to `deadline` by their offsets: tests/native/test_structs.py. */
struct lr_io {
	uint64_t call;
	int64_t size;
	uint32_t kind;
	uint32_t count;
	uint32_t flags;
	int32_t method;
	uint32_t head;
	uint32_t conn;
	int64_t deadline;
	uint8_t *buf;
	uint32_t cap;
	uint32_t fill;
	uint32_t resumed;
	uint32_t ends[256];
};

/* One thing that lr_drain has found: of a call, or of a connection if `call` is 0. Its bytes are
 * in the batch's buf, from `at` on. Python unpacks these: tests/native/test_structs.py. */
struct lr_news {
	uint64_t call;
	int64_t size; /* bytes at `at`; of LR_K_BIG: of the message */
	int64_t deadline;
	int32_t kind; /* LR_K_, or a negative result: how the call ended */
	uint32_t flags;
	int32_t method;
	uint32_t head;
	uint32_t conn;
	uint32_t at;
};

/* Filled by lr_drain; `buf` and `cap` are Python's. */
struct lr_batch {
	uint32_t count;
	uint32_t fill;
	uint32_t more; /* 1: drain again, without waiting for the descriptor */
	uint32_t cap;
	uint8_t *buf;
	struct lr_news news[256];
};

/* What an engine counts for its users, in memory that other processes may read: lr_publish. Under
 * the engine's mutex, but a reader takes no lock: it may see some numbers sooner than others. Those
 * of the first group go down again, and are 0 while there is no engine; the others grow. A call
 * lasts from its OPEN, read or written, until its owner has released it. */
#define LR_CODES 18   /* gRPC's status codes, 0 to 16, and any other */
#define LR_BUCKETS 240
#define LR_BUCKET_BITS 3 /* 8 buckets for each power of two */
#define LR_BUCKET_FIRST 8 /* the first one: less than 2^8 ns */
struct lr_counts {
	uint64_t conns;
	uint64_t live;    /* calls */
	uint64_t waiting; /* a server's, of these: no worker has taken them */
	uint64_t streams; /* of these: one side has sent a message that was not the whole answer */

	uint64_t connected; /* connections */
	uint64_t begun;     /* calls */
	uint64_t refused;   /* a server's: no handler saw them, and they are not in `begun` */
	uint64_t frames_in;
	uint64_t frames_out;
	uint64_t bytes_in; /* of frames, with their headers */
	uint64_t bytes_out;
	uint64_t nanoseconds;         /* that the ended calls have lasted */
	uint64_t ended[LR_CODES];     /* calls, by status code */
	uint64_t lasted[LR_BUCKETS];  /* the ended calls, by how long they have lasted */
};

/* The page of a process, through which others see what it counts: a sealed memfd with the name
 * "localrpc". A header of LR_ENTRY_SIZE bytes, and LR_ENTRIES entries of that size, of which `used`
 * have been used. An entry whose engine is closed is CLOSED; once that is freed it is FORMER, and
 * continued by the next engine of that role and name, so that what grows goes on growing. */
#define LR_PAGE_VERSION 1
#define LR_ENTRY_SIZE 4096
#define LR_ENTRIES 1023
#define LR_ENTRY_LIVE 1
#define LR_ENTRY_FORMER 2
#define LR_ENTRY_CLOSED 3
struct lr_page {
	char magic[8];
	uint32_t version;
	uint32_t entry_size;
	uint32_t entries;
	uint32_t used;
	uint32_t pid; /* in its own namespace */
	uint32_t left_out; /* engines that found no entry */
	char note[1024];   /* what the process says of itself */
};
struct lr_entry {
	uint32_t state; /* 0: it was never used */
	uint32_t role;
	uint64_t since; /* of CLOCK_MONOTONIC */
	char name[1024]; /* a client's target, a server's targets */
	struct lr_counts counts;
};

/* Counters of an engine, since its start unless the comment says otherwise. */
struct lr_stats {
	uint64_t frames_in;
	uint64_t frames_out;
	uint64_t sleeps;
	uint64_t spins;
	uint64_t bells;
	uint64_t promotions;
	uint64_t calls;
	uint64_t conns;
	/* of memory: items that no owner of a call has taken, and posted_bytes */
	uint64_t queued_bytes;
	uint64_t posted_bytes; /* of memory: frames that peers have not read */
	uint64_t name_bytes;   /* of names of methods, while their connections last */
	uint64_t user_bytes;   /* charged to users: all of these */
	uint64_t live_calls;
	uint64_t waiting_calls; /* of users: calls that wait for a worker */
	uint64_t held_calls;    /* of throttled connections */
	/* bytes kept and not charged, or charged and not kept, and what lr_counts has too many or
	 * too few: always 0 */
	uint64_t miscounted;
};

/* The owner of a System V queue, its last sender, and the bytes that it holds. */
struct lr_msgq {
	uint32_t uid;
	uint32_t gid;
	uint32_t mode;
	int32_t sender;
	uint64_t bytes;
};

/* How each side of a spool shows that it lives. */
struct lr_spool_heartbeat {
	uint32_t interval_ms;
	uint32_t peer_interval_ms; /* 0: silence has no meaning, only the lock has */
};

struct lr_engine;
struct lr_link;
struct lr_spool;

/* Bytes of the control page at the start of a ring's memory: one page of the system. */
uint32_t lr_page(void);

/* A new bell for a ring's sleeper; or a negative errno. */
int lr_make_bell(void);

/* Links. They own the descriptors that they are given, also when opening fails. */
struct lr_link *lr_ring_open(int memory, int tx_fd, int rx_fd, uint64_t ring_size, int bell_fd,
	int peer_bell_fd, int sock_fd, int pidfd, int peer_pid, int wake, int64_t spin_us,
	char *error, int error_size); /* wake: 0 the bell, LR_WAKE_FUTEX, or a signal */
struct lr_link *lr_stream_open(int fd, int pidfd, int64_t spin_us, char *error, int error_size);
/* keep_fd: a reading end of what tx_fd writes. */
struct lr_link *lr_pipe_open(int rx_fd, int tx_fd, int keep_fd, int pidfd, int64_t spin_us,
	char *error, int error_size);
/* tx_fd is open for reading, too. */
struct lr_link *lr_mqueue_open(int rx_fd, int tx_fd, int pidfd, int64_t spin_us, char *error,
	int error_size);
/* Queues by id, removed with both sides' links, like the file `record` (or NULL). */
struct lr_link *lr_sysv_open(int rx_id, int tx_id, uint32_t size, int pidfd, int record_fd,
	const char *record, int64_t spin_us, char *error, int error_size);
void lr_link_close(struct lr_link *link);
/* Make signo wake this side's sleepers: LR_INVALID if the program handles it. */
int lr_signal_claim(int signo);
int lr_futexes_work(void); /* 1 if this system can wait on several futexes at once */

/* System V segments: an id or 0, or a negative errno. */
int lr_sysv_create(int key, uint64_t size); /* for this user alone */
int lr_sysv_find(int key);
int lr_sysv_remove(int id);

/* System V message queues: 0 or more, or a negative errno. A key of 0 makes a new queue. */
int lr_msgget(int key, int create);
int lr_msgctl_remove(int id);
int lr_msgctl_stat(int id, struct lr_msgq *facts);
int lr_msgsnd(int id, const char *data, uint32_t size); /* never blocks: -EAGAIN */
int lr_msgrcv(int id, char *data, uint32_t room, int wait);

/* Spools: a folder with up/ and down/, and a record of each side, `client` and `server`.
 * Functions that return int return a negative errno for an error. */
#define LR_SPOOL_OUR_BATCHES 1   /* this side renames its files into place */
#define LR_SPOOL_THEIR_BATCHES 2 /* the peer does */
#define LR_SPOOL_NEAR 4          /* the peer runs on this kernel, so its locks are visible */
/* A nonblocking descriptor that is readable at first, and when a file comes in `folder` or goes
 * in `other` (or NULL); or every interval, if that is not 0. To clear it, read until it is
 * empty. */
int lr_spool_bell(const char *folder, int batches, const char *other, uint32_t interval_ms);
/* Owns the record's descriptor and the bell, also when it fails. */
struct lr_spool *lr_spool_open(const char *path, int role, uint32_t flags, int record_fd,
	int bell_fd, char *error, int error_size);
int lr_spool_read(struct lr_spool *spool, char *data, uint32_t room); /* 0 at the end, -EAGAIN */
int lr_spool_write(struct lr_spool *spool, const char *data, uint32_t size);
void lr_spool_close(struct lr_spool *spool);
/* The link takes ownership of the spool and pidfd; with `heartbeat` (or NULL) there is no pidfd. */
struct lr_link *lr_spool_link(struct lr_spool *spool, int pidfd,
	const struct lr_spool_heartbeat *heartbeat, int64_t spin_us, char *error, int error_size);
/* Remove a connection's folder, and its parent if that is empty and has the sticky bit. */
void lr_spool_remove(const char *path);

/* A bare link, without an engine: 1 done, 0 not now, or LR_CLOSED, LR_PROTOCOL.
 * lr_link_recv puts type in io->kind, call in io->call, the payload in buf[:size]. */
int lr_link_send(struct lr_link *link, int type, int flags, uint64_t call,
	const char *payload, uint32_t len);
int lr_link_recv(struct lr_link *link, struct lr_io *io, int64_t deadline);
int lr_link_flush(struct lr_link *link); /* is everything sent? */
void lr_link_hang_up(struct lr_link *link);
/* is it certain that the peer has not read the last frame? */
int lr_link_unseen(struct lr_link *link);
/* A client's: its server counts the calls that it begins, where links of this kind have a place
 * for that. */
void lr_link_trust_begun(struct lr_link *link);

/* Engines. An engine owns the links that it is given. */
struct lr_engine *lr_engine_new(int role, uint64_t window, int64_t max_receive,
	int64_t max_calls);
int64_t lr_engine_add(struct lr_engine *engine, struct lr_link *link, uint64_t peer_window);
/* Like lr_engine_add, for a client of user `uid` (-1: not known), with that user's limits. */
int64_t lr_engine_admit(struct lr_engine *engine, struct lr_link *link, uint64_t peer_window,
	int64_t uid);
/* For each user: the most calls not yet released, -1 for any number, and the most bytes kept
 * for its connections (received and not taken, posted and not read, names). */
int lr_limit_users(struct lr_engine *engine, int64_t calls, uint64_t bytes);
/* For each user: the most calls that wait for a worker, -1 for any number. */
int lr_limit_waiting(struct lr_engine *engine, int64_t calls);
void lr_engine_close(struct lr_engine *engine);
void lr_engine_free(struct lr_engine *engine);
void lr_engine_disown(struct lr_engine *engine); /* in a forked child: close its descriptors */
int lr_engine_alive(struct lr_engine *engine); /* a client's: 1 alive, 0 going away, LR_CLOSED */
/* The same, after reading what has come, or the end, without waiting: no thread may be reading. */
int lr_engine_look(struct lr_engine *engine);
void lr_engine_stats(struct lr_engine *engine, struct lr_stats *stats);
/* Count in an entry of the process's page from now on, under this name; again: rename it. 0 also
 * if there is no entry: then only the engine has its counts. */
int lr_publish(struct lr_engine *engine, const char *name);
/* What one process of a group says to clients, which choose among several: one page of memory that
 * they can read and not write. Of unary calls, unless the comment says otherwise; `pace` is the
 * smoothed time from one completion to the next, or from when the call began, if that was later;
 * and `since` when the first call began since the last completion, or 0 if none did: ns of
 * CLOCK_MONOTONIC. */
struct lr_load {
	uint64_t calls;
	uint64_t streams;
	uint64_t pace;
	uint64_t since;
};
/* Write it from now on. Returns a descriptor, which the engine owns, to be sent to clients; or -1
 * where there is no memory that can be closed to their writing. */
int lr_load_page(struct lr_engine *engine);
/* A client's: such a page that it has got; or NULL. The descriptor stays the caller's. */
struct lr_load *lr_load_open(int fd);
void lr_load_close(struct lr_load *load);

/* The process's page, for as long as the process lives; NULL before its first engine is published.
 * A forked child gets one of its own. */
const struct lr_page *lr_own_page(void);
void lr_page_note(const char *note);
/* The bucket of a time, and the least time that is in a bucket; both in nanoseconds. */
uint32_t lr_bucket(uint64_t time);
uint64_t lr_bucket_from(uint32_t bucket);
int64_t lr_live(struct lr_engine *engine); /* calls not yet released */
int lr_engine_error(struct lr_engine *engine, char *text, int size); /* why the last connection ended */
/* 1 if that was a failure of this system, 0 if it was the peer's end. */
int lr_engine_faulty(struct lr_engine *engine);
/* A server's: refuse new calls and tell the clients; LR_K_DRAINED follows. Then end the others. */
int lr_goaway(struct lr_engine *engine, const char *block, uint32_t len);
int lr_cancel_all(struct lr_engine *engine, uint32_t code, const char *text, uint32_t len);

/* An engine for an event loop, chosen before it gets a link. Its functions never wait: where they
 * would, they return LR_AGAIN, also in place of LR_TIMEOUT, and the same call can be made
 * again after LR_K_ROOM for its call, or for its connection with call 0. lr_loop_begin returns a
 * descriptor, which the engine owns: when it is readable, call lr_drain. Its events are
 * edge-triggered and lr_drain takes them, so the descriptor itself need not be read.
 *
 * lr_drain reads what has come, without waiting: a bounded number of frames of each connection. Its
 * news are LR_K_CALL as from lr_next; the kinds of lr_recv, one message in each LR_K_MESSAGES,
 * the code of LR_K_RESET in `head`; LR_K_BIG when lr_fill can take the whole message; a
 * negative result when nothing will follow; LR_K_STATUS, with which a client's call is released,
 * or, in its place, LR_F_END with the last of LR_K_MESSAGES, if the status is OK and no more;
 * LR_K_ENDED when the deadline given to lr_open, or that of the client, has passed;
 * LR_K_CONN_CLOSED, with the reason at `at`; LR_K_DRAINED; LR_CLOSED for call 0, when a client's
 * connection has ended and each of its calls has had its last news; and LR_K_STOP after
 * lr_engine_close. lr_pause keeps a call's messages in the core until its end has come, and so
 * stops its sender when its window is full. Of the frames that are sent in one turn of the loop,
 * the first leaves at once and wakes the peer, and the others when lr_flush ends the turn, or when
 * a thread of the core does, a millisecond or so later; after an lr_drain without news there is
 * nothing to flush. */
int lr_loop_begin(struct lr_engine *engine);
/* Have lr_drain leave the connections unarmed, so that a peer need not ring: before the loop
 * sleeps or looks at its descriptors, it has to call lr_loop_spin with all such engines. That
 * looks for frames at once and, unless `timeout` (in ns; negative: none) is 0, as long as it is
 * likely that some come soon, or until `fd` is readable. Then it arms the engines. It returns how
 * many of the count + 1 bytes of `due` it has set to 1: engines to drain, and, the last, `fd`. */
int lr_loop_spins(struct lr_engine *engine);
int lr_loop_spin(struct lr_engine **engines, uint32_t count, int64_t timeout, int fd,
	uint8_t *due);
int lr_drain(struct lr_engine *engine, struct lr_batch *batch);
int lr_flush(struct lr_engine *engine);
int lr_pause(struct lr_engine *engine, uint64_t call, int paused);

/* Client. lr_unary returns the length of the answer in io->buf (status OK, no metadata, call
 * released), or a negative result. LR_FULL: also released; buf holds io->size bytes of
 * message (if LR_F_MESSAGE is set), io->head of trailer, io->count of initial metadata. After
 * LR_AGAIN continue with lr_unary_wait and the same message, or with lr_unary if io->call is
 * 0. After LR_SLOW the call is live as io->call, and lr_recv returns all of it. lr_open sets
 * io->call; io->resumed must be 0 in its first call. With method 0, which is not a number,
 * `head` begins with the u32 length of the method's name, and the name. */
int lr_method(struct lr_engine *engine, uint32_t number, const char *name, uint32_t len);
int64_t lr_unary(struct lr_engine *engine, struct lr_io *io, uint32_t method,
	const char *head, uint32_t head_len, const char *msg, uint64_t msg_len, int64_t deadline);
int64_t lr_unary_wait(struct lr_engine *engine, struct lr_io *io, const char *msg,
	uint64_t msg_len, int64_t deadline);
int lr_open(struct lr_engine *engine, struct lr_io *io, uint32_t method, const char *head,
	uint32_t head_len, int64_t timeout_us, const char *msg, uint64_t msg_len, int flags,
	int64_t deadline);

/* Either side of a call. The deadline is that of this wait alone: LR_TIMEOUT leaves the call as
 * it is; 1 means: do not wait. lr_recv returns a kind; for LR_K_BIG provide io->size bytes and
 * call lr_fill: it returns LR_ENDED if a reset has removed the message, and then lr_recv
 * returns the reset. */
int lr_send(struct lr_engine *engine, uint64_t call, const char *msg, uint64_t len, int flags,
	int64_t deadline);
int lr_half_close(struct lr_engine *engine, uint64_t call);
int lr_recv(struct lr_engine *engine, struct lr_io *io, uint64_t call, int64_t deadline);
int lr_fill(struct lr_engine *engine, uint64_t call, char *dest, uint64_t size,
	int64_t deadline);
int lr_cancel(struct lr_engine *engine, uint64_t call, uint32_t code, const char *text,
	uint32_t len);
int lr_release(struct lr_engine *engine, uint64_t call);
int lr_active(struct lr_engine *engine, uint64_t call);
/* 1 if a large message of a live call has been sent in part: lr_send has to finish it. */
int lr_sending(struct lr_engine *engine, uint64_t call);

/* Have lr_service report the end of a call (status, reset, death, its deadline) once, as
 * LR_K_ENDED. LR_ENDED: the call has ended already, or its deadline has passed, and nothing
 * will be reported. */
int lr_watch(struct lr_engine *engine, uint64_t call, int64_t deadline);

/* For the background thread. Server: called as long as it serves; returns LR_K_ENDED (call),
 * LR_K_CONN_CLOSED (conn), LR_K_DRAINED, LR_K_STOP, LR_K_YIELD (after lr_kick). Client: reads
 * while no other thread does; returns LR_K_ENDED, LR_K_YIELD, and LR_CLOSED when the link is
 * dead. */
int lr_service(struct lr_engine *engine, struct lr_io *io);
void lr_kick(struct lr_engine *engine);

/* Server. lr_next returns LR_K_CALL (call, conn, method or -1, deadline, flags, metadata in
 * buf[:head], message in buf[head:size]; with LR_F_BIG lr_recv returns the message),
 * LR_K_STOP, LR_K_YIELD. lr_reply_next ends io->call with OK and a message, releases it, then
 * does what lr_next does. lr_finish releases, too, and never blocks. lr_next_now never waits:
 * it prefers a call to a yield, and returns LR_K_YIELD if there is no call. */
int lr_next(struct lr_engine *engine, struct lr_io *io);
int lr_next_now(struct lr_engine *engine, struct lr_io *io);
int lr_reply_next(struct lr_engine *engine, struct lr_io *io, const char *msg, uint64_t len);
int lr_headers(struct lr_engine *engine, uint64_t call, const char *block, uint32_t len);
int lr_finish(struct lr_engine *engine, uint64_t call, const char *trailer,
	uint32_t trailer_len, const char *msg, uint64_t len, uint32_t code);
/* return the call again, as LR_K_CALL, when its message is whole */
int lr_defer(struct lr_engine *engine, uint64_t call);
/* no handler runs: do not count it for max_calls */
int lr_leave_open(struct lr_engine *engine, uint64_t call);
int lr_intern(struct lr_engine *engine, const char *name, uint32_t len, int32_t id);
int lr_call_method(struct lr_engine *engine, uint64_t call, char *name, int size);
void lr_yield(struct lr_engine *engine); /* the next worker to wait, or one that waits, returns LR_K_YIELD */
/* every lr_next returns LR_K_STOP; lr_service continues until lr_engine_close */
void lr_stop(struct lr_engine *engine);
/* How often the main thread returns LR_AGAIN from a wait, in nanoseconds; 0: never. */
void lr_signal_check(int64_t ns);
