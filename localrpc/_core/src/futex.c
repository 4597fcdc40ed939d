/*
 * futex.c - a leader that sleeps on futexes, and who watches epoll for it.
 *
 * Such a leader waits for any of several words to change (futex_waitv, Linux
 * 5.16): a bell of each hot connection, which lies in shared memory and is the
 * ringer's to write, and e->kicked, which is the engine's own. What only epoll
 * tells (the peer's end, a cold connection's eventfd) somebody else has to hear
 * and pass on as a kick: a server's service thread, which sleeps in an epoll
 * set anyway, and for a client a thread made here when it first sleeps so. It
 * has no timer, and nothing of a call ever waits for it.
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

/* ---- who watches epoll for a client's leader ---- */

static void *watch(void *arg)
{
	struct lr_engine *e = arg;
	struct epoll_event events[2];

	for (;;) {
		int n = epoll_wait(e->watch_epoll, events, 2, -1);

		for (int i = 0; i < n; i++)
			if (events[i].data.u64 == EVENT_KICK)
				return NULL;
		if (n <= 0)
			continue;
		pthread_mutex_lock(&e->lock);
		atomic_store(&e->look, 1);
		if (e->leader)
			lr_kick_leader(e);
		pthread_mutex_unlock(&e->lock);
	}
}

static bool start_watching(struct lr_engine *e)
{
	struct epoll_event kick = {.events = EPOLLIN, .data.u64 = EVENT_KICK};
	/* The leader's whole set, by its edges: an event that is there already counts as one. */
	struct epoll_event set = {.events = EPOLLIN | EPOLLET, .data.u64 = EVENT_BELL};
	int r;

	e->watch_epoll = epoll_create1(EPOLL_CLOEXEC);
	e->watch_kick = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (e->watch_epoll < 0 || e->watch_kick < 0 ||
	    epoll_ctl(e->watch_epoll, EPOLL_CTL_ADD, e->watch_kick, &kick) < 0 ||
	    epoll_ctl(e->watch_epoll, EPOLL_CTL_ADD, e->epoll_fd, &set) < 0)
		return false;
	r = lr_start_thread(&e->watcher, watch, e, 0);
	if (r == 0)
		pthread_setname_np(e->watcher, "localrpc-epoll");
	return r == 0;
}

/* Nobody is inside the engine; in a forked child the thread is not there. */
void lr_watch_end(struct lr_engine *e)
{
	static const uint64_t one = 1;

	if (e->watched_by_thread && e->fork_generation == lr_fork_generation() &&
	    write(e->watch_kick, &one, sizeof one) > 0)
		pthread_join(e->watcher, NULL);
	e->watched_by_thread = false;
	lr_close_if(e->watch_epoll);
	lr_close_if(e->watch_kick);
	e->watch_epoll = e->watch_kick = -1;
}

/* May the leader, which asks under the mutex, sleep on futexes? Else on epoll. */
bool lr_sleeps_on_futexes(struct lr_engine *e)
{
	if (e->no_futexes || !e->nhot)
		return false;
	for (uint32_t i = 0; i < e->nhot; i++)
		if (!e->hot[i]->link->futex) /* a socket, or another wake-up, beside it */
			return false;
	if (e->role == LR_SERVER) /* the service thread as the leader has nobody who watches */
		return e->service_watches && e->leader->wants != WANT_SERVICE;
	if (!e->watched_by_thread) {
		e->watched_by_thread = start_watching(e);
		e->no_futexes = !e->watched_by_thread;
	}
	return e->watched_by_thread;
}
