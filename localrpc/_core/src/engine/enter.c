/* enter.c - locking and unlocking the mutex, and what is done after it is unlocked. */
#include "engine.h"

#include <sched.h>

#define ENTRANT_WAIT (200 * LR_US)

int lr_enter(struct lr_engine *e)
{
	if (e->fork_generation != lr_fork_generation())
		return LR_FORKED;
	if (pthread_mutex_trylock(&e->lock) != 0) {
		atomic_fetch_add(&e->entering, 1);
		pthread_mutex_lock(&e->lock);
		atomic_fetch_sub(&e->entering, 1);
		e->entered++;
	}
	return 0;
}

/*
 * A thread that unlocks a mutex and locks it again gets it before a waiting thread runs:
 * let the waiting thread enter first, for ENTRANT_WAIT at most. Without the mutex; `entered`
 * was read with it.
 */
static void wait_for_entrant(struct lr_engine *e, uint32_t entered)
{
	int64_t until = lr_now() + ENTRANT_WAIT;

	while (atomic_load(&e->entering) && atomic_load(&e->entered) == entered && lr_now() < until)
		sched_yield();
}

/*
 * Ring the peer's bell without the mutex, and after the lead was taken: if both sides share
 * a core, the kernel may run the woken thread at once. Then the mutex must be free, and
 * a server must have a thread that reads.
 */
static void ring_now(struct lr_engine *e, struct lr_conn *conn, uint64_t epoch)
{
	conn->link->ops->ring(conn->link);
	pthread_mutex_lock(&e->lock);
	conn->link->ops->rung(conn->link, epoch);
	lr_conn_unref(conn);
	pthread_mutex_unlock(&e->lock);
}

static void ring_under_mutex(struct lr_conn *conn)
{
	struct lr_link *link = conn->link;

	link->ops->ring(link);
	link->ops->rung(link, link->ring_due);
	link->ring_due = 0;
}

void lr_unlock(struct lr_engine *e)
{
	struct lr_waiter *wakes[LR_WAKES];
	struct lr_conn *to_ring = e->to_ring;
	uint32_t n = e->nwakes;
	uint64_t epoch = 0;

	memcpy(wakes, e->wakes, n * sizeof *wakes);
	e->nwakes = 0;
	if (to_ring) {
		e->to_ring = NULL;
		e->turn_rang = e->looped;
		epoch = to_ring->link->ring_due;
		to_ring->link->ring_due = 0;
	}
	pthread_mutex_unlock(&e->lock);
	/* The waiter may be gone by now; a wake-up without a waiter is harmless. */
	for (uint32_t i = 0; i < n; i++)
		lr_futex_wake(&wakes[i]->word);
	if (to_ring)
		ring_now(e, to_ring, epoch);
}

void lr_ring_delayed(struct lr_engine *e)
{
	struct lr_conn *conn = e->to_ring;

	e->to_ring = NULL;
	if (!conn)
		return;
	ring_under_mutex(conn);
	lr_conn_unref(conn);
}

void lr_yield_mutex(struct lr_engine *e)
{
	uint32_t entered = atomic_load_explicit(&e->entered, memory_order_relaxed);
	bool contended = atomic_load_explicit(&e->entering, memory_order_relaxed);

	if (!e->nwakes && !e->to_ring && !contended)
		return;
	lr_unlock(e);
	if (contended)
		wait_for_entrant(e, entered);
	pthread_mutex_lock(&e->lock);
}

void lr_ring_later(struct lr_conn *conn)
{
	struct lr_engine *e = conn->engine;
	struct lr_link *link = conn->link;

	if (!link->ops->ring && !link->held) /* the kernel has woken its peer */
		e->turn_rang = e->looped;
	if (!(link->ring_due || link->held) || e->to_ring == conn)
		return;
	if (e->turn_rang) {
		if (!conn->ring_queued) {
			conn->ring_queued = true;
			conn->refs++;
			conn->next_ring = e->rings;
			e->rings = conn;
			lr_late_turn(e);
		}
		return;
	}
	if (!e->to_ring) {
		e->to_ring = conn;
		conn->refs++;
		return;
	}
	/* Only one ring is delayed at a time: a thread that sends on many connections does not
	 * wait for the answer on one of them. */
	ring_under_mutex(conn);
}
