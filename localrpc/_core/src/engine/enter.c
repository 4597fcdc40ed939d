/* enter.c - the mutex: taking it, giving it back, and what is done once it is free. */
#include "engine.h"

#include <sched.h>

#define LET_IN (200 * LR_US)

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
 * Whoever unlocks a mutex and locks it again has it before one that it woke has come to
 * run: wait for that one, if it does not take longer than it should. Without the mutex;
 * `entered` is what it was with it.
 */
static void let_in(struct lr_engine *e, uint32_t entered)
{
	int64_t until = lr_now() + LET_IN;

	while (atomic_load(&e->entering) && atomic_load(&e->entered) == entered && lr_now() < until)
		sched_yield();
}

/*
 * The peer's bell is rung without the mutex, and after the lead was taken: where
 * both sides share a core the kernel may well run the woken one at once, and it
 * must find neither the mutex held nor a server that nobody reads for.
 */
static void pay(struct lr_engine *e, struct lr_conn *conn, uint64_t owed)
{
	conn->link->ops->ring(conn->link);
	pthread_mutex_lock(&e->lock);
	conn->link->ops->paid(conn->link, owed);
	lr_conn_unref(conn);
	pthread_mutex_unlock(&e->lock);
}

void lr_unlock(struct lr_engine *e)
{
	struct lr_waiter *wakes[LR_WAKES];
	struct lr_conn *owing = e->owing;
	uint32_t n = e->nwakes;
	uint64_t owed = 0;

	memcpy(wakes, e->wakes, n * sizeof *wakes);
	e->nwakes = 0;
	if (owing) {
		e->owing = NULL;
		owed = owing->link->owes;
		owing->link->owes = 0;
	}
	pthread_mutex_unlock(&e->lock);
	/* The word may be gone by now; a wake-up of nobody is harmless. */
	for (uint32_t i = 0; i < n; i++)
		lr_futex_wake(&wakes[i]->word);
	if (owing)
		pay(e, owing, owed);
}

void lr_breathe(struct lr_engine *e)
{
	uint32_t entered = atomic_load_explicit(&e->entered, memory_order_relaxed);
	bool crowded = atomic_load_explicit(&e->entering, memory_order_relaxed);

	if (!e->nwakes && !e->owing && !crowded)
		return;
	lr_unlock(e);
	if (crowded)
		let_in(e, entered);
	pthread_mutex_lock(&e->lock);
}

void lr_owe(struct lr_conn *conn)
{
	struct lr_engine *e = conn->engine;
	struct lr_link *link = conn->link;

	if (!link->owes || e->owing == conn)
		return;
	if (!e->owing) {
		e->owing = conn;
		conn->refs++;
		return;
	}
	/* One is kept back at a time: who sends to many is not waiting for one. */
	link->ops->ring(link);
	link->ops->paid(link, link->owes);
	link->owes = 0;
}
