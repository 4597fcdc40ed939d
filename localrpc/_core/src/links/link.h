/*
 * link.h - the interface of a link, for the engine: frames, and the table of functions that
 * each kind of link fills. The kinds are ring.c (ring.h) and stream.c (stream.h).
 */
#ifndef LR_LINK_H
#define LR_LINK_H

#include "../util/util.h"

/* ---- frames ---- */

struct lr_header {
	uint32_t length;
	uint8_t type;
	uint8_t flags;
	uint16_t cpu;
	uint64_t call;
};
_Static_assert(sizeof(struct lr_header) == LR_HEADER_SIZE, "the header is 16 bytes");
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the wire is little-endian");

/* A frame on a link: the payload is valid until consume(). */
struct lr_frame {
	struct lr_header h;
	const uint8_t *payload;
};

#define LR_MAX_IOV 4

/* ---- links ---- */

/*
 * A path to one peer that keeps frames whole and in order. peek, consume, arm and disarm are
 * for the reading thread (one at a time, the engine's leader); send and room for the thread
 * that holds the connection's sending lock.
 */
struct lr_link_ops {
	/* 1: *frame is the next one, checked; 0: nothing there; LR_CLOSED; LR_PROTOCOL. */
	int (*peek)(struct lr_link *link, struct lr_frame *frame);
	void (*consume)(struct lr_link *link);
	/* Is it worth calling peek? Cheap; its only side effect may be to fill a buffer. */
	bool (*poll)(struct lr_link *link);
	/* Has the peer hung up, after all unread frames? NULL: epoll reports it. */
	bool (*peer_closed)(struct lr_link *link);
	/* Announce that the reader sleeps. False: something has come, do not sleep. */
	bool (*arm)(struct lr_link *link, uint32_t sleeper);
	void (*disarm)(struct lr_link *link);
	/* Block in the link's own receive call until bytes come, and take them: without arm(),
	 * if that is cheaper than epoll. 1: there may be a frame; 0: interrupt() ended the wait;
	 * LR_AGAIN: a signal. NULL: links of this kind cannot. */
	bool (*may_wait)(const struct lr_link *link);
	int (*wait)(struct lr_link *link);
	/* End a wait(); any thread. If none is in progress, the next wait() returns at once. */
	void (*interrupt)(struct lr_link *link);
	/* 1: taken whole (the link finishes it); 0: no room; LR_CLOSED. Sets link->ring_due
	 * if the peer's reader has to be woken, or link->held if link->holds allowed that. */
	int (*send)(struct lr_link *link, struct lr_header *header, const struct iovec *iov,
		int count);
	/* Wake the peer's reader; any thread, without a lock. Then call rung() with the lock and
	 * the epoch from ring_due. NULL if the kernel wakes it (sockets): ring_due stays 0. */
	void (*ring)(struct lr_link *link);
	void (*rung)(struct lr_link *link, uint64_t epoch);
	/* Send the frames that are held; with the sending lock. 0, or LR_CLOSED; what there is no
	 * room for makes the link unfinished. NULL if links of this kind hold none. */
	int (*flush)(struct lr_link *link);
	/* Is there room for a frame of `need` payload bytes? Flushes a frame that has begun. */
	bool (*room)(struct lr_link *link, uint32_t need);
	/* Ask to be woken when there is room. False: there is room already. */
	bool (*arm_room)(struct lr_link *link, uint32_t need);
	void (*disarm_room)(struct lr_link *link);
	/* Bytes sent so far, and whether the peer has certainly not read up to `mark`. */
	uint64_t (*sent)(struct lr_link *link);
	bool (*unseen)(struct lr_link *link, uint64_t mark);
	/* Let the peer see our end, although the link stays open: with the sending lock. */
	void (*hang_up)(struct lr_link *link);
	/* Called after hang_up, once no thread reads: close what can be closed. Or NULL. */
	void (*release)(struct lr_link *link);
	void (*destroy)(struct lr_link *link);
};

struct lr_link {
	const struct lr_link_ops *ops;
	int bell_fd;  /* readable when the peer rang; edge-triggered, never read */
	bool rung_by_read; /* the bell is of bell.c: writable when the peer rang */
	int sock_fd;  /* closed when the peer dies; may be bell_fd */
	int pidfd;    /* readable when the peer is dead, or -1 */
	int room_fd;  /* writable when there is room; -1: the bell reports it */
	int signo;    /* the signal that wakes this side's sleepers, 0: the bell */
	const _Atomic uint32_t *futex; /* the word that the peer changes when it rings, or NULL */
	int64_t spin; /* ns; -1 auto; LR_SPIN_ALWAYS */
	/* Set: an edge was taken from epoll, or epoll was not checked, so only a read shows what
	 * has come. Clear: a peek may save a read that would find nothing. The reader clears it
	 * before it reads: an edge taken meanwhile is of bytes that this read sees, or sets it. */
	_Atomic bool edge;
	/* How many of a client's calls its server has given to handlers: where this side writes it,
	 * and where it reads the peer's, which counts only once trusts_begun is set. Or NULL. */
	_Atomic uint64_t *begun;
	const _Atomic uint64_t *peer_begun;
	bool trusts_begun;
	uint32_t piece; /* the most that one DATA frame of this side carries */
	/* a thread that waits for room waits for this much, so that one wake-up serves many frames */
	uint32_t stride;
	bool lazy;       /* arming gives a helper thread a task: do not arm for each handler */
	bool unfinished; /* a frame was taken and is not fully sent: room() continues it */
	bool holds; /* set before send(): it may keep frames until flush(), to send many at once */
	bool held;  /* there are such frames */
	uint64_t ring_due; /* the epoch in which the peer's reader sleeps and is not rung yet; or 0 */
	_Atomic(const char *) fault; /* why it is closed, if not by the peer; or NULL */
	_Atomic uint16_t peer_cpu;
	_Atomic uint64_t bells; /* times we rang */
};

/* ---- bell.c ---- */

/* For code that polls link->bell_fd itself. */
short lr_bell_events(const struct lr_link *link); /* the event that poll(2) has to wait for */
bool lr_bell_clear(const struct lr_link *link);   /* until the next ring; false: it failed */

#endif
