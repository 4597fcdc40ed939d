/* lead.c - waiting: leading, parking, and passing the lead on. engine.h says how it works. */
#include "engine.h"

/* The main thread returns to Python once before it sleeps: the handler of a signal that came
 * while it was spinning runs then, instead of after the sleep. */
_Thread_local bool lr_may_sleep;

static _Atomic int64_t signal_check;

void lr_signal_check(int64_t ns)
{
	atomic_store(&signal_check, ns);
}

/*
 * The moment until which a wait may last. The kernel may deliver a signal to another thread,
 * or just before we sleep: Python runs its handler when the main thread returns.
 */
static int64_t wait_limit(const struct lr_waiter *w, int64_t deadline, bool *cut)
{
	int64_t check = atomic_load_explicit(&signal_check, memory_order_relaxed), at;

	*cut = false;
	if (w->ignores_signals || !check || !lr_is_main_thread())
		return deadline;
	at = lr_now() + check;
	if (deadline && deadline <= at)
		return deadline;
	*cut = true;
	return at;
}

void lr_assume_frames(struct lr_engine *e)
{
	for (uint32_t i = 0; i < e->npolled; i++)
		atomic_store(&e->polled[i]->link->edge, true);
}

/* No thread sleeps before the next read, so it must check everything itself. */
static void assume_data(struct lr_engine *e)
{
	if (e->stats.conns > e->npolled + e->nready)
		atomic_store(&e->check_epoll, 1);
	lr_assume_frames(e);
}

/*
 * For a caller that does not wait, or no longer: read everything that has come. Epoll returns
 * LR_EVENTS events at a time, and one pass may stop among the ready connections.
 */
static void read_everything(struct lr_engine *e, struct lr_waiter *w)
{
	uint32_t rounds = (uint32_t)(e->stats.conns / LR_EVENTS) + 2;

	assume_data(e);
	do
		lr_read_conns(e, w);
	while (!lr_ready(e, w) && --rounds &&
		(e->ready || atomic_load_explicit(&e->check_epoll, memory_order_relaxed)));
}

/* Read for all threads until w has what it waits for. */
static int lead(struct lr_engine *e, struct lr_waiter *w, int64_t deadline)
{
	struct epoll_event events[LR_EVENTS];
	int r, n;

	for (;;) {
		bool tx_wanted, slept = false, cut = false;
		int64_t budget = 0;

		n = lr_read_conns(e, w);
		tx_wanted = lr_flush_polled(e);
		if (lr_ready(e, w))
			return 1;
		if (n || e->ready || atomic_load_explicit(&e->check_epoll, memory_order_relaxed)) {
			if (deadline && lr_now_coarse() >= deadline)
				return LR_TIMEOUT; /* the frames of others may never end */
			lr_yield_mutex(e);
			continue;
		}
		lr_unlock(e);
		r = n = 0;
		budget = lr_may_sleep ? 0 : lr_spin_budget(e, w);
		if (budget)
			r = lr_spin(e, budget, deadline, tx_wanted);
		else if (!lr_may_sleep && !tx_wanted && lr_may_yield_cpu(e))
			budget = 1, r = lr_yield_cpu(e);
		if (r == LR_AGAIN)
			atomic_store(&e->check_epoll, 1);
		if (r == LR_AGAIN && !lr_is_main_thread())
			r = 1;
		if (r == 0) {
			/* A thread that has not spun has just come from Python. */
			if (budget && !w->ignores_signals && !lr_may_sleep && lr_is_main_thread()) {
				lr_may_sleep = true;
				r = LR_AGAIN;
			} else {
				n = lr_sleep(e, events, wait_limit(w, deadline, &cut), &slept);
				if (slept)
					lr_may_sleep = false;
				r = n < 0 ? n : 0;
				if (r == LR_TIMEOUT && cut) {
					lr_may_sleep = true;
					r = LR_AGAIN;
				}
			}
		}
		pthread_mutex_lock(&e->lock);
		e->stats.spins += budget > 0;
		e->stats.sleeps += slept;
		atomic_store(&e->kicked, 0);
		lr_take_events(e, events, n > 0 ? n : 0);
		lr_disarm_polled(e);
		if (lr_ready(e, w))
			return 1;
		if (r == LR_TIMEOUT || (r == LR_AGAIN && !w->ignores_signals)) {
			read_everything(e, w);
			return lr_ready(e, w) ? 1 : r;
		}
	}
}

/* ---- the lead ---- */

void lr_lead_take(struct lr_engine *e, struct lr_waiter *w)
{
	e->leader = w;
	e->lead_count++;
	for (uint32_t i = 0; i < e->npolled; i++) {
		e->polled[i]->link->ops->disarm(e->polled[i]->link);
		if (e->polled[i]->room_armed)
			lr_conn_disarm_room(e->polled[i]);
	}
}

/*
 * No thread reads a server's links now: leave them armed, so that the next frame rings the
 * service thread; ring it ourselves if something has come already.
 */
void lr_lead_arm(struct lr_engine *e)
{
	bool pending = e->queue || e->ready ||
		       atomic_load_explicit(&e->check_epoll, memory_order_relaxed);
	bool lazy = false;

	for (uint32_t i = 0; i < e->npolled; i++) {
		struct lr_conn *conn = e->polled[i];
		if (conn->eof_seen)
			pending = true;
		else if (conn->link->lazy)
			lazy = true;
		else if (!conn->link->ops->arm(conn->link, 0) && !lr_conn_throttled(conn))
			pending = true;
		if (lr_conn_wants_room(conn) && !lr_conn_arm_room(conn))
			pending = true;
	}
	if (pending)
		lr_service_ring(e);
	else if (lazy)
		lr_service_alarm(e);
}

void lr_lead_leave(struct lr_engine *e)
{
	e->leader = NULL;
	e->lead_count++;
}

/* No thread leads: a parked thread takes over, or the service thread is rung. */
static void pass_on(struct lr_engine *e, bool got_work)
{
	struct lr_waiter *next = e->first;

	if (e->role == LR_SERVER && (got_work || !next)) {
		lr_lead_arm(e);
		return;
	}
	/* Prefer a thread that waits for its own answer to the background thread. */
	while (next && next->wants == WANT_SERVICE && next->next)
		next = next->next;
	lr_wake(e, next);
}

/* Instead of waiting: note what the event loop waits for. */
static int wait_in_loop(struct lr_engine *e, struct lr_waiter *w)
{
	struct lr_conn *conn = w->conn;

	if (lr_ready(e, w))
		return 1;
	if (w->wants == WANT_CREDIT) {
		w->call->state |= CALL_WANTS_CREDIT;
		w->call->wanted = w->amount;
	} else if (w->wants == WANT_ROOM) {
		if (w->amount > conn->room_need)
			conn->room_need = (uint32_t)w->amount;
		if (!conn->loop_waits) {
			conn->loop_waits = true;
			conn->room_waiters++;
			lr_conn_ready(conn); /* it is armed for frames, and not for room */
			lr_loop_kick(e);
		}
	}
	return LR_AGAIN;
}

static void park(struct lr_engine *e, struct lr_waiter *w)
{
	w->next = NULL;
	w->prev = e->last;
	if (e->last)
		e->last->next = w;
	else
		e->first = w;
	e->last = w;
	w->parked = true;
	atomic_store(&w->word, 0);
}

static void unpark(struct lr_engine *e, struct lr_waiter *w)
{
	*(w->prev ? &w->prev->next : &e->first) = w->next;
	*(w->next ? &w->next->prev : &e->last) = w->prev;
	w->parked = false;
	for (uint32_t i = 0; i < e->nwakes; i++)
		if (e->wakes[i] == w) {
			e->wakes[i] = e->wakes[--e->nwakes];
			break;
		}
}

/*
 * Wait, with the mutex, until w has what it waits for: 1, LR_TIMEOUT or LR_AGAIN. If no
 * thread leads when it returns, the lead is passed on.
 */
int lr_wait(struct lr_engine *e, struct lr_waiter *w, int64_t deadline)
{
	bool cut;
	int r = 1;

	if (e->looped)
		return wait_in_loop(e, w);
	while (!lr_ready(e, w)) {
		if (w->wants == WANT_ROOM)
			lr_want_room(w, true);
		if (deadline == 1 || (deadline && lr_now() >= deadline)) {
			if (!e->leader) {
				lr_lead_take(e, w);
				read_everything(e, w);
				lr_flush_polled(e);
				lr_lead_leave(e);
			}
			r = lr_ready(e, w) ? 1 : LR_TIMEOUT;
			break;
		}
		if (!e->leader) {
			lr_lead_take(e, w);
			r = lead(e, w, deadline);
			lr_lead_leave(e);
			if (r != 1)
				break;
			continue;
		}
		if (!w->ignores_signals && !lr_may_sleep && lr_is_main_thread()) {
			lr_may_sleep = true;
			r = LR_AGAIN;
			break;
		}
		park(e, w);
		if ((e->leader->wants == WANT_SERVICE && e->role == LR_SERVER) ||
		    (w->wants == WANT_ROOM && (!w->conn->room_armed || !w->conn->polled)))
			/* the service thread leads only if no other can; the leader may not watch for room */
			lr_kick_leader(e);
		lr_unlock(e);
		r = lr_futex_wait(&w->word, 0, wait_limit(w, deadline, &cut));
		lr_may_sleep = r == LR_TIMEOUT && cut;
		if (lr_may_sleep)
			r = LR_AGAIN;
		pthread_mutex_lock(&e->lock);
		unpark(e, w);
		if (r == LR_AGAIN && !w->ignores_signals && !lr_ready(e, w))
			break;
		r = 1;
	}
	if (r != LR_AGAIN)
		lr_may_sleep = false;
	if (w->wants == WANT_ROOM)
		lr_want_room(w, false);
	if (!e->leader)
		pass_on(e, r == 1 && w->wants != WANT_SERVICE);
	return r;
}
