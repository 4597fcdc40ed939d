/* service.c - the background thread: ends, deadlines, and promoting a leader. */
#include "engine.h"

#include <time.h>
#include <unistd.h>

#define HANDLER_GRACE (100 * LR_US) /* for a leader that is out, before another is promoted */

static int64_t next_deadline(const struct lr_engine *e)
{
	int64_t next = 0;
	for (uint32_t i = 0; i < e->nwatched; i++) {
		int64_t at = e->watched[i]->watch_deadline;
		if (at && (!next || at < next))
			next = at;
	}
	return next;
}

static void expire_watched(struct lr_engine *e)
{
	int64_t now = e->nwatched ? lr_now() : 0;

	for (uint32_t i = 0; i < e->nwatched;) {
		struct lr_call *call = e->watched[i];
		if (!call->watch_deadline || call->watch_deadline > now) {
			i++;
			continue;
		}
		e->watched[i] = e->watched[--e->nwatched];
		call->state &= ~(uint32_t)CALL_WATCHED;
		lr_told_push(e, call);
	}
}

static int service_event(struct lr_engine *e, struct lr_io *io)
{
	struct lr_call *call;
	struct lr_conn *conn;

	if (e->closed)
		return LR_K_STOP;
	e->rewatch = false;
	expire_watched(e);
	if ((call = e->told)) {
		e->told = call->next;
		if (!e->told)
			e->told_last = &e->told;
		call->next = NULL;
		io->call = lr_call_handle(call);
		return LR_K_ENDED;
	}
	if ((conn = e->gone)) {
		e->gone = conn->next_gone;
		io->conn = conn->id;
		io->size = conn->why;
		io->count = (uint32_t)strlen(conn->reason);
		memcpy(io->buf, conn->reason, io->count);
		lr_conn_unref(conn);
		return LR_K_CONN_CLOSED;
	}
	if (e->refusing && e->live == 0 && !e->drained_told) {
		e->drained_told = true;
		return LR_K_DRAINED;
	}
	if (e->service_yields) {
		e->service_yields = 0;
		return LR_K_YIELD;
	}
	return 0;
}

/* Something came while nobody led: give the leader a moment, then promote. */
static void promote(struct lr_engine *e)
{
	struct timespec grace = {0, HANDLER_GRACE};
	struct lr_waiter w = {.wants = WANT_SERVICE, .deaf = true};
	uint32_t count = e->lead_count;

	if (e->leader) {
		/* It reads, or rings again when it goes out. */
		if (atomic_load(&e->sleeping) == ON_FUTEXES)
			lr_kick_leader(e); /* that does not tell it what epoll does */
		return;
	}
	lr_leave(e);
	clock_nanosleep(CLOCK_MONOTONIC, 0, &grace, NULL);
	pthread_mutex_lock(&e->lock);
	if (e->leader || e->lead_count != count)
		return;
	e->stats.promotions++;
	if (e->first) {
		lr_wake(e, e->first);
		return;
	}
	/* Every thread is busy with a handler: read for them, take no call. */
	lr_wait(e, &w, next_deadline(e));
}

static int serve_service(struct lr_engine *e, struct lr_io *io)
{
	struct epoll_event events[16];
	uint64_t count;
	int n, kind;

	for (;;) {
		int64_t deadline;
		bool work;

		if ((kind = service_event(e, io)))
			return kind;
		deadline = next_deadline(e);
		lr_leave(e);
		/* SYNC no-lost-service: partner of lr_service_ring(). */
		atomic_store(&e->service_sleeping, 1);
		n = 0;
		work = atomic_exchange(&e->service_work, 0);
		if (!work)
			n = lr_wait_events(e->service_epoll, events, deadline, NULL);
		atomic_store(&e->service_sleeping, 0);
		atomic_store(&e->service_work, 0);
		for (int i = 0; i < n; i++) {
			int kind = (int)(events[i].data.u64 & 0xff);
			if ((kind == EVENT_KICK || kind == EVENT_ALARM) &&
			    read(kind == EVENT_KICK ? e->service_kick : e->service_alarm, &count,
				    sizeof count) < 0)
				continue; /* taken back meanwhile */
		}
		pthread_mutex_lock(&e->lock);
		if (work || n > 0) {
			atomic_store(&e->look, 1);
			promote(e);
		}
	}
}

int lr_service(struct lr_engine *e, struct lr_io *io)
{
	struct lr_waiter w = {.wants = WANT_SERVICE, .io = io, .deaf = true};
	int r = lr_enter(e);

	if (r < 0)
		return r;
	if (e->role == LR_SERVER) {
		e->service_watches = true;
		r = serve_service(e, io);
		e->service_watches = false;
		if (atomic_load(&e->sleeping) == ON_FUTEXES)
			lr_kick_leader(e); /* to sleep where it hears for itself */
	} else {
		while (!(r = service_event(e, io))) {
			if (!e->conns[0] || e->conns[0]->dead) {
				r = LR_CLOSED;
				break;
			}
			lr_wait(e, &w, next_deadline(e));
		}
	}
	lr_leave(e);
	return r;
}
