/*
 * util.h - the base of links and engine: time, the CPU, a futex, forks, threads, signals
 * (util.c), several futexes at once (futex.c), epoll (epoll.c), the rest of an iovec (iov.c), the
 * process's page (page.c).
 * Nothing here depends on frames or calls.
 */
#ifndef LR_UTIL_H
#define LR_UTIL_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/types.h>
#include <sys/uio.h>

#include "../api.h"

#define LR_US 1000LL
#define LR_MS 1000000LL

/* ---- util.c ---- */

int64_t lr_now(void);        /* CLOCK_MONOTONIC, ns */
int64_t lr_now_coarse(void); /* the same, precise to a few ms, in 5 ns */
uint16_t lr_cpu(void);       /* the CPU this thread runs on, plus one; 0 unknown */
uint32_t lr_tid(void);
bool lr_is_main_thread(void);
/* 0 woken or changed, LR_TIMEOUT, LR_AGAIN (EINTR). */
int lr_futex_wait(_Atomic uint32_t *word, uint32_t value, int64_t deadline);
void lr_futex_wake(_Atomic uint32_t *word);
void lr_futex_wake_shared(_Atomic uint32_t *word); /* for a waiter in another process */
/* Has this thread received the wake-up signal since the last call? */
bool lr_signal_rang(void);
bool lr_signal_allowed(int signo); /* as a wake-up */
uint32_t lr_fork_generation(void); /* incremented in every forked child */
/* A message of `size` bytes is expected: make the allocator keep memory of that size. */
void lr_expect_size(uint64_t size);
void lr_expect_touch(void *at, uint64_t size); /* `size` bytes will be written there, once */
void *lr_big_alloc(uint64_t size); /* malloc() and lr_expect_touch() */
/* Start a thread that gets none of the program's signals; a stack of 0 means the default size.
 * 0, or an errno. */
int lr_start_thread(pthread_t *thread, void *(*run)(void *), void *argument, size_t stack);
bool lr_exited(int pidfd); /* false if fd is -1 */
void lr_close_if(int fd); /* unless it is -1 */
void lr_fill_error(char *error, int size, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

/* ---- page.c ---- */

/* Any thread, without locks: an entry of the process's page, or NULL. */
struct lr_entry *lr_page_enter(int role, const char *name);
void lr_page_rename(struct lr_entry *entry, const char *name);
/* Its engine is closed, or freed: then another may get the entry. */
void lr_page_leave(struct lr_entry *entry, bool freed);
void *lr_shared_page(int *fd);
void lr_drop_page(void *at, int fd);

static inline void lr_relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
	__builtin_ia32_pause();
#elif defined(__aarch64__)
	__asm__ __volatile__("yield");
#endif
}

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

/* ---- futex.c ---- */

struct lr_futex {
	uint64_t value, word;
	uint32_t flags, reserved;
};
struct lr_futex lr_futex_of(const _Atomic uint32_t *word, uint32_t value, bool shared);
int lr_futex_wait_any(const struct lr_futex *words, uint32_t count, int64_t deadline);

/* ---- epoll.c ---- */

/* The number of events, 0 after the deadline, or a negative errno. */
int lr_wait_events(int epoll, struct epoll_event *events, int most, int64_t deadline,
	const sigset_t *mask);

/* ---- iov.c ---- */

/* The rest of an iovec of which a part is done; a count of 0 means nothing. */
struct lr_iov_rest {
	const struct iovec *iov;
	int count;
	size_t at; /* bytes of the first part that are done */
};

#define LR_SMALL 512
/* Copy the parts into one piece, if they are at most LR_SMALL bytes: the size, or 0. */
size_t lr_in_one_piece(const struct iovec *iov, int count, uint8_t *to);
struct lr_iov_rest lr_iov_rest_of(const struct iovec *iov, int count);
/* At most `most` bytes of the rest: the number of parts, or of bytes copied. */
int lr_iov_rest_cut(const struct lr_iov_rest *left, struct iovec *out, size_t most);
size_t lr_iov_rest_copy(const struct lr_iov_rest *left, uint8_t *to, size_t most);
/* `size` more bytes are done, or are not wanted. */
void lr_iov_rest_skip(struct lr_iov_rest *left, size_t size);

#endif
