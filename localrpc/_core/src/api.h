/*
 * api.h - what Python sees of the core. cffi parses this file as it stands,
 * so it holds declarations and integer constants only; what is for C alone is in
 * util/util.h, links/link.h and engine/engine.h.
 *
 * Every function may be called from any thread. Results are 0 or more for
 * success, otherwise one of the negative LR_* below. A deadline is a moment of
 * CLOCK_MONOTONIC in nanoseconds; 0 means none. A call is a handle: generation
 * and slot, safe to use after its end (LR_GONE).
 */

/* Results. */
#define LR_AGAIN -1     /* let Python see its signals, then make the same call again */
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
#define LR_FULL -15     /* lr_unary: the whole answer is in io, and not only a message */
#define LR_NOROOM -12
#define LR_INVALID -13
#define LR_UNSENT -14   /* as LR_CLOSED, and the peer cannot have seen the call */

/* Kinds of what lr_recv and lr_next bring. */
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
#define LR_F_END 2 /* of GOAWAY: nothing follows, and its payload is how far the server came */
#define LR_F_BIG 4
#define LR_F_UNSEEN 8 /* of RESET: no handler has seen the call */
/* In lr_io.flags only. */
#define LR_F_ALONE 256      /* no other worker waits for calls: start one */
#define LR_F_REFUSED 512    /* over the limit of concurrent calls: answer with an error */
#define LR_F_FULL 2048
#define LR_F_POST 4096      /* lr_send: queue the message rather than wait for room on the link, if it is small */
#define LR_F_TOO_LARGE 1024 /* the message is larger than this side receives: size says */

#define LR_HEADER_SIZE 16
#define LR_MAX_CONTROL 65536 /* payload of any frame but DATA */
#define LR_MAX_NAME 8192     /* bytes of a method's name */
#define LR_MAX_NAMES 4096    /* numbers for names are below; 0 is none */
#define LR_MAX_NAME_BYTES 65536 /* of the names that have numbers on one connection */
#define LR_MAX_BLOCK 32704   /* metadata or a trailer: an inline message fits beside it */
#define LR_MAX_FRAME 262144  /* a DATA frame with its header */
#define LR_PIECE 65536       /* what we put into one DATA frame */
#define LR_INLINE 32768      /* larger messages travel as DATA frames */
#define LR_OVERHEAD 64       /* what a queued message is charged beside its bytes */
#define LR_MAX_SLOTS 65536   /* calls in flight on one connection */
#define LR_RING_MIN 131072   /* holds the largest frame that cannot be cut */
#define LR_RING_MAX 67108864
#define LR_BATCH 256
#define LR_SCRATCH 131072    /* lr_io.buf holds at least this much */
#define LR_SYSV_MAX 8192     /* the most we put into one System V message */
#define LR_SPOOL_SEGMENT 262144 /* bytes of a spool file that is appended to */
#define LR_SPOOL_SEGMENTS 16    /* of them in one direction: 4 MiB */
#define LR_SPOOL_BATCH 131072   /* the most in one that is renamed into place */
#define LR_SPOOL_BATCHES 32

#define LR_CLIENT 0
#define LR_SERVER 1

/* What the memory of a ring is, and so what tx_fd and rx_fd are: a sealed memfd,
 * a descriptor of memory that has or had a name, the id of a System V segment. */
#define LR_MEMORY_SEALED 0
#define LR_MEMORY_NAMED 1
#define LR_MEMORY_SYSV 2
/* In place of the number of a signal: the word that a ringer changes, a futex. */
#define LR_WAKE_FUTEX 255
/* In place of microseconds to spin: as long as a call is awaited. */
#define LR_SPIN_ALWAYS -2

/* One thread's side of a call into the core; lent by Python, filled here. Python unpacks the
 * fields up to `deadline` by their places: tests/native/test_structs.py. */
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

/* What has happened on an engine so far; one writer each, read at any time. */
struct lr_stats {
	uint64_t frames_in;
	uint64_t frames_out;
	uint64_t sleeps;
	uint64_t spins;
	uint64_t bells;
	uint64_t promotions;
	uint64_t calls;
	uint64_t conns;
	uint64_t queued_bytes; /* of memory: what no owner of a call has taken, and posted_bytes */
	uint64_t posted_bytes; /* what peers have not read */
	uint64_t name_bytes;   /* of methods, while their connections last */
	uint64_t user_bytes;   /* what users are charged for: all of these */
	uint64_t live_calls;
	uint64_t waiting_calls; /* for a worker; of users */
	uint64_t held_calls;    /* of connections that do not read their answers */
	uint64_t miscounted;    /* bytes that are kept and not charged, or the reverse: none */
};

/* Who owns a System V queue, who sent to it last, and how much it holds. */
struct lr_msgq {
	uint32_t uid;
	uint32_t gid;
	uint32_t mode;
	int32_t sender;
	uint64_t bytes;
};

/* How a spool's side lets the other know that it lives. */
struct lr_spool_pulse {
	uint32_t interval_ms;
	uint32_t peer_interval_ms; /* 0: silence says nothing, the lock alone does */
};

struct lr_engine;
struct lr_link;
struct lr_spool;

/* Bytes of the control page at the start of a ring's memory: the system's page. */
uint32_t lr_page(void);

/* The bell of a ring's sleeper, which has not rung; or a negative errno. */
int lr_make_bell(void);

/* Links. They own the descriptors they are given, also when opening fails. */
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
/* Queues by their ids, removed with both sides' links, and so is the file `record` (or NULL). */
struct lr_link *lr_sysv_open(int rx_id, int tx_id, uint32_t size, int pidfd, int record_fd,
	const char *record, int64_t spin_us, char *error, int error_size);
void lr_link_close(struct lr_link *link);
/* Make signo wake our sleepers: LR_INVALID if the program handles it itself. */
int lr_signal_claim(int signo);
int lr_futexes_work(void); /* 1 if this system can wait on several futexes at once */

/* System V segments: an id or 0, or a negative errno. */
int lr_sysv_create(int key, uint64_t size); /* this user's alone */
int lr_sysv_find(int key);
int lr_sysv_remove(int id);

/* System V message queues: 0 or more, or a negative errno. A key of 0 is a new queue's. */
int lr_msgget(int key, int create);
int lr_msgctl_remove(int id);
int lr_msgctl_stat(int id, struct lr_msgq *facts);
int lr_msgsnd(int id, const char *data, uint32_t size); /* never blocks: -EAGAIN */
int lr_msgrcv(int id, char *data, uint32_t room, int wait);

/* Spools: a folder with up/ and down/, and a record of each side's, `client` and `server`.
 * What returns int gives a negative errno for an error. */
#define LR_SPOOL_OUR_BATCHES 1   /* we write by rename */
#define LR_SPOOL_THEIR_BATCHES 2 /* the peer does */
#define LR_SPOOL_NEAR 4          /* the peer is on this kernel, which knows its locks */
/* Readable once at first, and when something comes in `folder`, or goes in `other` (or
 * NULL); or every interval, if that is not 0. A descriptor, never blocking, to be read
 * until it is empty. */
int lr_spool_bell(const char *folder, int batches, const char *other, uint32_t interval_ms);
/* Owns the record's descriptor and the bell, also when it fails. */
struct lr_spool *lr_spool_open(const char *path, int role, uint32_t flags, int record_fd,
	int bell_fd, char *error, int error_size);
int lr_spool_read(struct lr_spool *spool, char *data, uint32_t room); /* 0 at the end, -EAGAIN */
int lr_spool_write(struct lr_spool *spool, const char *data, uint32_t size);
void lr_spool_close(struct lr_spool *spool);
/* The link takes the spool and pidfd; with `pulse` (or NULL) there is no pidfd. */
struct lr_link *lr_spool_link(struct lr_spool *spool, int pidfd,
	const struct lr_spool_pulse *pulse, int64_t spin_us, char *error, int error_size);
/* A connection's folder, and the one above if that is empty then and has the sticky bit. */
void lr_spool_remove(const char *path);

/* A bare link, without an engine: 1 done, 0 not now, or LR_CLOSED, LR_PROTOCOL.
 * lr_link_recv puts type in io->kind, call in io->call, the payload in buf[:size]. */
int lr_link_send(struct lr_link *link, int type, int flags, uint64_t call,
	const char *payload, uint32_t len);
int lr_link_recv(struct lr_link *link, struct lr_io *io, int64_t deadline);
int lr_link_flush(struct lr_link *link); /* is all that was sent out? */
void lr_link_hang_up(struct lr_link *link);
int lr_link_unseen(struct lr_link *link); /* can the peer not have read what was sent last? */

/* Engines. An engine owns the links it is given. */
struct lr_engine *lr_engine_new(int role, uint64_t window, int64_t max_receive,
	int64_t max_calls);
int64_t lr_engine_add(struct lr_engine *engine, struct lr_link *link, uint64_t peer_window);
/* As lr_engine_add, for a client of that user (-1: not known), for whom limits are counted. */
int64_t lr_engine_admit(struct lr_engine *engine, struct lr_link *link, uint64_t peer_window,
	int64_t uid);
/* Calls not yet released, -1 for any number, and bytes of memory that are kept for its
 * connections (what is sent and not taken, posted and not read, names), of each user. */
int lr_limit_users(struct lr_engine *engine, int64_t calls, uint64_t bytes);
/* Calls of each user that wait for a worker, -1 for any number. */
int lr_limit_waiting(struct lr_engine *engine, int64_t calls);
void lr_engine_close(struct lr_engine *engine);
void lr_engine_free(struct lr_engine *engine);
void lr_engine_disown(struct lr_engine *engine); /* in a forked child: close what it has of the links */
int lr_engine_alive(struct lr_engine *engine); /* a client's: 1 alive, 0 going away, LR_CLOSED */
void lr_engine_stats(struct lr_engine *engine, struct lr_stats *stats);
int64_t lr_live(struct lr_engine *engine); /* calls not yet released */
int lr_engine_error(struct lr_engine *engine, char *text, int size); /* why the last connection ended */
/* 1 if that is a fault of the system that carried it, rather than the end of the peer. */
int lr_engine_faulty(struct lr_engine *engine);
/* A server's: refuse new calls and say so; LR_K_DRAINED follows. Then end what goes on. */
int lr_goaway(struct lr_engine *engine, const char *block, uint32_t len);
int lr_cancel_all(struct lr_engine *engine, uint32_t code, const char *text, uint32_t len);

/* Client. lr_unary: the length of the answer in io->buf (status OK, no
 * metadata, call released), or a negative result. LR_FULL: also released; buf
 * holds io->size bytes of message (LR_F_MESSAGE says whether there is one),
 * io->head of trailer, io->count of initial metadata. After LR_AGAIN go on with
 * lr_unary_wait and the same message, or with lr_unary if io->call is 0; after LR_SLOW the call is live as
 * io->call and lr_recv brings all of it. lr_open sets io->call; io->resumed
 * must be 0 at its first call. */
/* Method 0 has no number: `head` begins with the u32 length of its name, and the name. */
int lr_method(struct lr_engine *engine, uint32_t number, const char *name, uint32_t len);
int64_t lr_unary(struct lr_engine *engine, struct lr_io *io, uint32_t method,
	const char *head, uint32_t head_len, const char *msg, uint64_t msg_len, int64_t deadline);
int64_t lr_unary_wait(struct lr_engine *engine, struct lr_io *io, const char *msg,
	uint64_t msg_len, int64_t deadline);
int lr_open(struct lr_engine *engine, struct lr_io *io, uint32_t method, const char *head,
	uint32_t head_len, int64_t timeout_us, const char *msg, uint64_t msg_len, int flags,
	int64_t deadline);

/* Either side of a call. A deadline here is this wait's own: LR_TIMEOUT leaves
 * the call as it is; 1 means: do not wait. lr_recv returns a kind; for
 * LR_K_BIG make room for io->size bytes and lr_fill them: LR_ENDED when a reset
 * has taken the message away, and lr_recv says more. */
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

/* Make the end of a call (status, reset, death, its deadline) an LR_K_ENDED of
 * lr_service, once. LR_ENDED: it has ended already (or is too late), and
 * nothing will be told. */
int lr_watch(struct lr_engine *engine, uint64_t call, int64_t deadline);

/* The background thread's place. Server: for as long as it serves; brings
 * LR_K_ENDED (call), LR_K_CONN_CLOSED (conn), LR_K_STOP, LR_K_YIELD (after
 * lr_kick). Client: reads while nobody else does; brings LR_K_ENDED,
 * LR_K_YIELD, and LR_CLOSED once the link is dead. */
int lr_service(struct lr_engine *engine, struct lr_io *io);
void lr_kick(struct lr_engine *engine);

/* Server. lr_next brings LR_K_CALL (call, conn, method or -1, deadline,
 * flags, metadata in buf[:head], message in buf[head:size]; with LR_F_BIG
 * the message is got by lr_recv), LR_K_STOP, LR_K_YIELD. lr_reply_next ends
 * io->call with OK and a message, releases it, then is lr_next. lr_finish
 * releases too, and never blocks. lr_next_now is lr_next that prefers a call to
 * a yield, and brings LR_K_YIELD where that would wait. */
int lr_next(struct lr_engine *engine, struct lr_io *io);
int lr_next_now(struct lr_engine *engine, struct lr_io *io);
int lr_reply_next(struct lr_engine *engine, struct lr_io *io, const char *msg, uint64_t len);
int lr_headers(struct lr_engine *engine, uint64_t call, const char *block, uint32_t len);
int lr_finish(struct lr_engine *engine, uint64_t call, const char *trailer,
	uint32_t trailer_len, const char *msg, uint64_t len, uint32_t code);
int lr_defer(struct lr_engine *engine, uint64_t call); /* LR_K_CALL again once its message is whole */
int lr_leave_open(struct lr_engine *engine, uint64_t call); /* no handler runs: not among max_calls */
int lr_intern(struct lr_engine *engine, const char *name, uint32_t len, int32_t id);
int lr_call_method(struct lr_engine *engine, uint64_t call, char *name, int size);
void lr_yield(struct lr_engine *engine); /* the next worker to wait, or one that waits, returns LR_K_YIELD */
void lr_stop(struct lr_engine *engine);  /* every lr_next returns LR_K_STOP; lr_service goes on until lr_engine_close */
/* How often the main thread returns LR_AGAIN from a wait, in nanoseconds; 0: never. */
void lr_signal_check(int64_t ns);
