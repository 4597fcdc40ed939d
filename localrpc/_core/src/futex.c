/*
 * futex.c - a leader that sleeps on futexes.
 *
 * Such a leader waits for any of several words to change (futex_waitv, Linux
 * 5.16): a bell of each hot connection, which lies in shared memory and is the
 * ringer's to write, and e->kicked, which is the engine's own. What only epoll
 * tells (the peer's end, a cold connection's eventfd) somebody else has to hear
 * and pass on as a kick: watch.c.
 *
 * No wake-up is lost, pair by pair:
 *
 *	a frame, room	SYNC no-lost-bell: the sleeper loads the bell, then arms (an
 *			odd epoch, then looks again); the ringer publishes, sees the
 *			odd epoch, then adds to the bell. So a ring for this epoch
 *			comes after the load, and the kernel, which compares under
 *			its own lock, does not let the sleeper in. An older ring only
 *			ends the sleep early.
 *	a kick		SYNC no-lost-kick, as before; and the kernel compares kicked.
 *	epoll		who hears an event stores look, then kicks, under the mutex;
 *			the leader, under the mutex, loads look after it said that it
 *			sleeps on futexes. Who leads next finds look set too.
 *	the watcher	a server's leader sleeps so only while service_watches, which
 *			lr_service clears with a kick before it leaves its set.
 */
#include "engine.h"

#include <linux/futex.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#ifndef SYS_futex_waitv
#define SYS_futex_waitv 449
#endif
#define U32 2 /* FUTEX_32: the word's size */

_Static_assert(sizeof(struct lr_futex) == 24, "struct futex_waitv");
_Static_assert(LR_HOT + 1 <= 128, "FUTEX_WAITV_MAX");

struct lr_futex lr_futex_of(const _Atomic uint32_t *word, uint32_t value, bool shared)
{
	return (struct lr_futex){value, (uintptr_t)word, shared ? U32 : U32 | FUTEX_PRIVATE_FLAG, 0};
}

/* 0 a word has changed, LR_TIMEOUT, LR_AGAIN, LR_INVALID: it cannot be done. */
int lr_futex_wait_any(const struct lr_futex *words, uint32_t count, int64_t deadline)
{
	/* Not the C library's timespec: the call takes 64 bits everywhere. */
	int64_t until[2] = {deadline / 1000000000, deadline % 1000000000};

	if (syscall(SYS_futex_waitv, words, count, 0, deadline ? until : NULL, CLOCK_MONOTONIC) >= 0)
		return 0;
	switch (errno) {
	case EAGAIN: /* it had changed before */
		return 0;
	case ETIMEDOUT:
		return LR_TIMEOUT;
	case EINTR:
		return LR_AGAIN;
	default:
		return LR_INVALID;
	}
}

/* Asked of the kernel: it may be too old, and a sandbox may refuse. */
int lr_futexes_work(void)
{
	static _Atomic int known = -1;
	_Atomic uint32_t word = 1;
	struct lr_futex one;

	if (atomic_load_explicit(&known, memory_order_relaxed) < 0) {
		one = lr_futex_of(&word, 0, true);
		atomic_store(&known, lr_futex_wait_any(&one, 1, 0) == 0);
	}
	return atomic_load(&known);
}

/* May the leader, which asks under the mutex, sleep on futexes? Else on epoll. */
bool lr_sleeps_on_futexes(struct lr_engine *e)
{
	if (e->no_futexes || !e->nhot)
		return false;
	for (uint32_t i = 0; i < e->nhot; i++)
		if (!e->hot[i]->link->futex) /* a socket, or another wake-up, beside it */
			return false;
	return lr_is_watched(e);
}
