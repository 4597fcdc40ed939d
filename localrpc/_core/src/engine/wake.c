/* wake.c - who is woken, and by whom; the mutex and its two ends. */
#include "engine.h"

#include <sched.h>
#include <sys/timerfd.h>
#include <unistd.h>

/* Beside the grace that lr_service gives; and where it has been rung in vain of late. */
#define HANDLER_PATIENCE (100 * LR_US)
#define LONGER_PATIENCE LR_MS
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

void lr_leave(struct lr_engine *e)
{
	struct lr_waiter *wakes[LR_WAKES];
	struct lr_conn *owing = e->owing;
	uint32_t n = e->nwakes;
	uint64_t owed = 0;
	bool retired;

	if (e->dying && !e->leader)
		lr_conn_bury(e);
	if (e->left_behind && !e->leader && !e->first)
		lr_flush_later(e);
	retired = e->over && lr_retire(e);
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
	if (retired) { /* they take the mutex */
		lr_watch_end(e);
		lr_flush_end(e);
	}
}

void lr_breathe(struct lr_engine *e)
{
	uint32_t entered = atomic_load_explicit(&e->entered, memory_order_relaxed);
	bool crowded = atomic_load_explicit(&e->entering, memory_order_relaxed);

	if (!e->nwakes && !e->owing && !crowded)
		return;
	lr_leave(e);
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

void lr_wake(struct lr_engine *e, struct lr_waiter *w)
{
	if (!w || !w->parked || atomic_load(&w->word))
		return;
	atomic_store(&w->word, 1);
	if (e->nwakes < LR_WAKES)
		e->wakes[e->nwakes++] = w;
	else
		lr_futex_wake(&w->word);
}

void lr_wake_worker(struct lr_engine *e)
{
	if (e->leader && e->leader->wants == WANT_CALL)
		return; /* it takes the call itself */
	for (struct lr_waiter *w = e->first; w; w = w->next)
		if (w->wants == WANT_CALL && !atomic_load(&w->word)) {
			lr_wake(e, w);
			return;
		}
}

void lr_kick_leader(struct lr_engine *e)
{
	static const uint64_t one = 1;

	/* SYNC no-lost-kick: we store kicked, then load sleeping; the leader, in
	 * lr_sleep(), stores sleeping, then loads kicked. */
	atomic_store(&e->kicked, 1);
	switch (atomic_load(&e->sleeping)) {
	case ON_FUTEXES:
		lr_futex_wake(&e->kicked);
		break;
	case IN_LINK:
		e->slept_in->ops->nudge(e->slept_in);
		break;
	case ON_EPOLL:
		if (write(e->kick_fd, &one, sizeof one) < 0)
			return; /* full: kicked already */
	}
}

void lr_wake_all(struct lr_engine *e)
{
	for (struct lr_waiter *w = e->first; w; w = w->next)
		lr_wake(e, w);
	if (e->leader)
		lr_kick_leader(e);
}

void lr_service_ring(struct lr_engine *e)
{
	static const uint64_t one = 1;

	if (e->service_kick < 0)
		return;
	/* SYNC no-lost-service: as no-lost-kick, with service_work and service_sleeping. */
	atomic_store(&e->service_work, 1);
	if (atomic_load(&e->service_sleeping) && write(e->service_kick, &one, sizeof one) < 0)
		return;
}

void lr_service_alarm(struct lr_engine *e)
{
	struct itimerspec soon = {.it_value.tv_nsec = HANDLER_PATIENCE};

	/* To set a timer can take longer than a call does: once, not for each handler. */
	if (e->alarm_set)
		return;
	if (e->service_in_vain >= LR_IN_VAIN)
		soon.it_value.tv_nsec = LONGER_PATIENCE;
	e->alarm_set = timerfd_settime(e->service_alarm, 0, &soon, NULL) == 0;
}

void lr_service_again(struct lr_engine *e)
{
	e->rewatch = true;
	if (e->role == LR_SERVER)
		lr_service_ring(e);
	if (e->leader && e->leader->wants == WANT_SERVICE)
		lr_kick_leader(e);
	for (struct lr_waiter *w = e->first; w; w = w->next)
		if (w->wants == WANT_SERVICE)
			lr_wake(e, w);
}

void lr_nudge(struct lr_engine *e)
{
	if (e->leader)
		lr_kick_leader(e);
	else if (e->first)
		lr_wake(e, e->first);
	else
		lr_service_ring(e);
}
