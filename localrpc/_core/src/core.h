/*
 * core.h - what the files of the core share: frames, links, time, doorbells.
 *
 * Floors, lowest first: util.c (time, futex, fork, threads), iov.c (what is left to
 * send), ring.c and stream.c (one link kind each; the first over map.c and bell.c, the second
 * with writer.c, over socket.c, pipe.c, mqueue.c, sysv.c, and spool.c with folder.c
 * and pulse.c), state.c and table.c (calls, their states, their messages), conn.c (one link
 * and what waits to be sent on it), wake.c, hot.c, read.c, futex.c, watch.c, sleep.c, lead.c,
 * flush.c and service.c (who reads, who sleeps, who is woken), ends.c (how a call ends), message.c,
 * frames.c (which frames there are), dispatch.c and accept.c (a frame's effect), send.c and calls.c (either side of a call),
 * client.c, server.c, life.c; and link.c, of bare links.
 */
#ifndef LR_CORE_H
#define LR_CORE_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <sys/uio.h>

#include "api.h"

#define LR_US 1000LL
#define LR_MS 1000000LL

/* ---- util.c ---- */

int64_t lr_now(void);        /* CLOCK_MONOTONIC, ns */
int64_t lr_now_coarse(void); /* the same to a few ms, in 5 ns */
uint16_t lr_cpu(void);       /* the CPU this thread runs on, plus one; 0 unknown */
uint32_t lr_tid(void);
bool lr_is_main_thread(void);
/* 0 woken or changed, LR_TIMEOUT, LR_AGAIN (EINTR). */
int lr_futex_wait(_Atomic uint32_t *word, uint32_t value, int64_t deadline);
void lr_futex_wake(_Atomic uint32_t *word);
void lr_futex_wake_shared(_Atomic uint32_t *word); /* a waiter of another process */
/* Did the wake-up signal come to this thread since the last time it was asked? */
bool lr_signal_rang(void);
bool lr_signal_allowed(int signo); /* as a wake-up */
uint32_t lr_fork_generation(void); /* grows by one in every forked child */
/* A message of so many bytes is on its way: have the allocator keep room for such. */
void lr_expect_size(uint64_t size);
void lr_expect_touch(void *at, uint64_t size); /* so much will be written there, once */
void *lr_big_alloc(uint64_t size); /* malloc(), and that */
/* A thread that gets none of the program's signals; a stack of 0 is the system's size.
 * 0, or an errno. */
int lr_start_thread(pthread_t *thread, void *(*run)(void *), void *argument, size_t stack);
bool lr_exited(int pidfd); /* false for -1 */
void lr_close_if(int fd); /* unless it is -1 */
void lr_fill_error(char *error, int size, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

static inline void lr_relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
	__builtin_ia32_pause();
#elif defined(__aarch64__)
	__asm__ __volatile__("yield");
#endif
}

/* ---- iov.c ---- */

/* What is left of an iovec of which a part is out; a count of 0 for nothing. */
struct lr_left {
	const struct iovec *iov;
	int count;
	size_t at; /* bytes of the first that are out */
};

#define LR_SMALL 512
/* The parts in one piece, if that is at most LR_SMALL bytes: its size, or 0. */
size_t lr_in_one_piece(const struct iovec *iov, int count, uint8_t *to);
struct lr_left lr_left_of(const struct iovec *iov, int count);
/* As much of it as makes `most` bytes: the parts' number, or the bytes copied. */
int lr_left_cut(const struct lr_left *left, struct iovec *out, size_t most);
size_t lr_left_copy(const struct lr_left *left, uint8_t *to, size_t most);
/* So many more bytes are out, or are not wanted. */
void lr_left_pass(struct lr_left *left, size_t size);

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

/* A frame as it lies on a link: the payload is valid until consume(). */
struct lr_frame {
	struct lr_header h;
	const uint8_t *payload;
};

#define LR_MAX_IOV 4

/* ---- links ---- */

/*
 * One frame-keeping path to one peer. peek, consume, arm and disarm belong to
 * whoever reads (one thread at a time, the engine's leader); send and room to
 * whoever holds the connection's sending lock.
 */
struct lr_link_ops {
	/* 1: *frame is the next one, checked; 0: nothing there; LR_CLOSED; LR_PROTOCOL. */
	int (*peek)(struct lr_link *link, struct lr_frame *frame);
	void (*consume)(struct lr_link *link);
	/* Is it worth calling peek? Cheap, without side effects but filling a buffer. */
	bool (*poll)(struct lr_link *link);
	/* Has the peer hung up, behind all that is still to be read? NULL: epoll tells. */
	bool (*over)(struct lr_link *link);
	/* Announce that the reader sleeps. False: something is there, do not. */
	bool (*arm)(struct lr_link *link, uint32_t sleeper);
	void (*disarm)(struct lr_link *link);
	/* Sleep in what the link is made of, without arm(), until something comes, and take
	 * it in; where that is cheaper than to ask the kernel first. 1 something may be
	 * there, 0 nudge(), LR_AGAIN a signal. NULL: no link of this kind can. */
	bool (*may_wait)(const struct lr_link *link);
	int (*wait)(struct lr_link *link);
	void (*nudge)(struct lr_link *link); /* any thread; kept for a wait() that is to come */
	/* 1: taken whole (the link finishes it); 0: no room; LR_CLOSED. The reader may
	 * have to be woken for it: then link->owes says so. */
	int (*send)(struct lr_link *link, struct lr_header *header, const struct iovec *iov,
		int count);
	/* Wake the reader. Any thread may, without a lock; paid() with the lock afterwards.
	 * NULL where the kernel does it, on a socket: such a link never owes. */
	void (*ring)(struct lr_link *link);
	void (*paid)(struct lr_link *link, uint64_t owed);
	/* Would a frame of `need` payload bytes find room? Flushes what is begun. */
	bool (*room)(struct lr_link *link, uint32_t need);
	/* Ask to be woken when there is room. False: there is already. */
	bool (*arm_room)(struct lr_link *link, uint32_t need);
	void (*disarm_room)(struct lr_link *link);
	/* Bytes sent so far, and whether the peer has certainly not read up to `mark`. */
	uint64_t (*sent)(struct lr_link *link);
	bool (*unseen)(struct lr_link *link, uint64_t mark);
	/* Let the peer see our end, though the link stays: with the sending lock. */
	void (*hang_up)(struct lr_link *link);
	/* After that, and once nobody reads: close what can be closed. Or NULL. */
	void (*release)(struct lr_link *link);
	void (*destroy)(struct lr_link *link);
};

struct lr_link {
	const struct lr_link_ops *ops;
	int bell_fd;  /* readable when the peer rang; edge-triggered, never drained */
	bool rung_by_read; /* the bell is bell.c's: writable when the peer rang */
	int sock_fd;  /* its end is the peer's death; may be bell_fd */
	int pidfd;    /* readable when the peer is dead, or -1 */
	int room_fd;  /* writable when there is room, or -1: the bell tells */
	int signo;    /* the signal that wakes our sleepers, 0: the bell */
	const _Atomic uint32_t *futex; /* what the peer changes when it rings, or NULL */
	int64_t spin; /* ns; -1 auto; LR_SPIN_ALWAYS */
	/* An edge was taken from epoll, or epoll was not asked: only a read tells what is
	 * there. Without it a peek may spare the read that would find nothing. Who reads
	 * clears it first: an edge that is taken meanwhile is of bytes that the read sees,
	 * or sets it again. */
	_Atomic bool edge;
	uint32_t piece; /* the most one DATA frame of ours carries */
	uint32_t stride; /* who waits for room waits for this much: one wake-up, many frames */
	bool lazy;       /* arming costs a thread's work: not to be done for each handler */
	bool unfinished; /* a frame was taken and is not all out: room() goes on with it */
	uint64_t owes;   /* the epoch in which the reader sleeps and has not been rung; or 0 */
	_Atomic(const char *) fault; /* why it is closed, if it was not the peer; or NULL */
	_Atomic uint16_t peer_cpu;
	_Atomic uint64_t bells; /* times we rang */
};

/* ---- map.c ---- */

/* Control page and ring, the ring twice; NULL with errno, or with *why. */
void *lr_map_ring(int memory, int fd, uint64_t size, int protection, const char **why);
void lr_unmap_ring(const void *ring, uint64_t size); /* nothing for NULL */

/* ---- bell.c ---- */

/* Why this cannot be a peer's bell; or NULL. Without /proc its kind is not known. */
const char *lr_bell_fault(int bell_fd);
bool lr_bell_ring(int bell_fd); /* false: it was not rung, because that could block */
/* For who polls a link's bell: what for, and to make it silent again; false: it cannot be. */
short lr_bell_events(const struct lr_link *link);
bool lr_bell_hush(const struct lr_link *link);

/* ---- media: what stream.c keeps its frames on ---- */

struct lr_medium;

struct lr_medium_ops {
	/* Bytes that have come, 0 for none, LR_CLOSED; *emptied: nothing is left to read. */
	ssize_t (*read)(struct lr_medium *m, uint8_t *at, size_t room, bool *emptied);
	/* Bytes taken, 0 for none, LR_CLOSED. */
	ssize_t (*write)(struct lr_medium *m, const struct iovec *iov, int count);
	/* Is it worth calling write again? */
	bool (*writable)(struct lr_medium *m);
	/* Has the peer gone, though a write would not say so? NULL: a write says so. */
	bool (*gone)(struct lr_medium *m);
	/* Bytes written that a peer who has gone has certainly not read; so a write need not
	 * ask before whether it has. NULL: that cannot be said. */
	uint64_t (*unread)(struct lr_medium *m);
	/* Has the peer hung up on a full medium, so that its end is not all that is there?
	 * NULL: epoll tells, or a write. */
	bool (*over)(struct lr_medium *m);
	/* The reader is about to sleep; false: something is there. NULL: the kernel
	 * makes bell_fd readable by itself. */
	bool (*arm)(struct lr_medium *m);
	/* As of a link: bytes, 0, LR_AGAIN, LR_CLOSED. NULL: it cannot; may_wait: nor can it now. */
	ssize_t (*wait)(struct lr_medium *m, uint8_t *at, size_t room);
	bool (*may_wait)(const struct lr_medium *m);
	void (*nudge)(struct lr_medium *m);
	void (*hang_up)(struct lr_medium *m);
	void (*close)(struct lr_medium *m);
};

struct lr_medium {
	const struct lr_medium_ops *ops;
	int bell_fd;    /* readable when bytes have come or the peer has gone */
	int room_fd;    /* writable when there is room; -1 after a hang_up that closed it */
	uint32_t grain; /* read() needs this much room at least */
	bool lazy;      /* arm() has work done by another thread */
	_Atomic(const char *) fault; /* why it is LR_CLOSED, if not because of the peer; or NULL */
};

/* ---- pulse.c ---- */

struct lr_pulse {
	int ours, theirs; /* records; the caller's, like `near` */
	bool near;        /* on the same kernel: a lock says whether it lives */
	bool beats;
	_Atomic uint32_t stop;
	pthread_t thread;
	int64_t interval, patience;
	int dead_fd; /* an eventfd */
	uint32_t fork_generation;
};

/* Readable when the peer is dead, now the caller's; -1 if there is no such thing to be had. */
int lr_pulse_begin(struct lr_pulse *pulse, const struct lr_spool_pulse *how);
void lr_pulse_end(struct lr_pulse *pulse); /* nothing for one that has not begun */
bool lr_record_is_free(int record); /* whose lock says that its process is gone */

/* ---- writer.c: a stream's; whoever holds the connection's sending lock ---- */

struct lr_writer {
	struct lr_link *link;
	struct lr_medium *medium;
	const _Atomic bool *eof; /* has the reader seen the peer's end? */
	uint8_t *rest;
	size_t rest_at, rest_len, rest_size;
	bool full;
	bool broken;
	uint64_t sent;
	bool hung_up;
	uint64_t unread; /* since then: of what was sent, what no peer will read */
};

/* As the link's operations of these names. */
int lr_writer_send(struct lr_writer *w, struct lr_header *header, const struct iovec *given,
	int count);
bool lr_writer_room(struct lr_writer *w);
bool lr_writer_unseen(struct lr_writer *w, uint64_t mark);
void lr_writer_hang_up(struct lr_writer *w);

/* ---- stream.c ---- */

/* Takes the medium and pidfd, also when it fails: NULL with errno. */
struct lr_link *lr_stream_new(struct lr_medium *medium, int pidfd, int64_t spin_us, char *error,
	int error_size);

static inline uint32_t lr_read32(const uint8_t *at)
{
	uint32_t v;
	memcpy(&v, at, sizeof v);
	return v;
}

static inline uint64_t lr_read64(const uint8_t *at)
{
	uint64_t v;
	memcpy(&v, at, sizeof v);
	return v;
}

static inline uint32_t lr_pad8(uint32_t n)
{
	return (n + 7) & ~7u;
}

#endif
