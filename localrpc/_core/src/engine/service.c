/* service.c - the background thread: ends, deadlines, and promoting a leader. */
#include "engine.h"

#include <poll.h>
#include <time.h>
#include <unistd.h>

/* for a leader that runs a handler, before another thread is promoted */
#define HANDLER_GRACE (100 * LR_US)
#define NAP (250 * LR_US)           /* between two wake-ups, after LR_USELESS_WAKES */
#define LONG_NAP LR_MS              /* and after four times as many */

static bool unsent(const struct lr_engine *e)
{
	for (uint32_t i = 0; i < e->nconns; i++)
		if (e->conns[i] && (lr_conn_unsent(e->conns[i]) || e->conns[i]->link->held))
			return true;
	return false;
}

/* Does a server that stops have no call left, and has every client taken all its answers? */
static bool drained(struct lr_engine *e)
{
	bool over = e->refusing && e->live == 0 && !e->drained_reported;

	e->draining = over && unsent(e); /* lr_conn_put() and lr_conn_flush() report a change */
	return over && !e->draining;
}

int lr_service_event(struct lr_engine *e, struct lr_io *io)
{
	struct lr_call *call;
	struct lr_conn *conn;

	if (e->closed)
		return LR_K_STOP;
	e->recheck_deadlines = false;
	while (!e->looped && (call = lr_overdue(e))) { /* lr_drain looks for them itself */
		lr_call_unwatch(e, call);
		lr_ended_push(e, call);
	}
	if ((call = e->ended)) {
		lr_ended_drop(e, call);
		io->call = lr_call_handle(call);
		return LR_K_ENDED;
	}
	if ((conn = e->unreported)) {
		e->unreported = conn->next_unreported;
		io->conn = conn->id;
		io->size = conn->why;
		io->flags = conn->faulty;
		io->count = (uint32_t)strlen(conn->reason);
		memcpy(io->buf, conn->reason, io->count);
		lr_conn_unref(conn);
		return LR_K_CONN_CLOSED;
	}
	if (drained(e)) {
		e->drained_reported = true;
		return LR_K_DRAINED;
	}
	if (e->service_yields) {
		e->service_yields = 0;
		return LR_K_YIELD;
	}
	return 0;
}

/* Something came, maybe while no thread led: wait a moment for the leader, then promote
 * another thread. False: the wake-up was not needed. */
static bool promote(struct lr_engine *e)
{
	struct timespec grace = {0, HANDLER_GRACE};
	struct lr_waiter w = {.wants = WANT_SERVICE, .ignores_signals = true};
	uint32_t count = e->lead_count;

	if (e->leader) {
		/* It reads, or rings again when it leaves. */
		switch (atomic_load(&e->sleeping)) {
		case IN_LINK: /* it receives there whatever comes */
			if (!atomic_load(&e->check_epoll))
				return false;
			break;
		case ON_FUTEXES:
			break;
		default:
			return false;
		}
		lr_kick_leader(e); /* it does not get epoll's events where it sleeps */
		return true;
	}
	lr_leave(e);
	clock_nanosleep(CLOCK_MONOTONIC, 0, &grace, NULL);
	pthread_mutex_lock(&e->lock);
	if (e->leader || e->lead_count != count)
		return false;
	e->stats.promotions++;
	if (e->first)
		lr_wake(e, e->first);
	else /* Every thread is busy with a handler: read for them, take no call. */
		lr_wait(e, &w, lr_next_deadline(e));
	return true;
}

/*
 * Every frame wakes this thread, because the kernel does not know whether a thread leads. If
 * the leader was there each time, or back in time, these wake-ups waste what may be the only
 * core: sleep through frames for a while, but not through anything else.
 */
static void nap(int kick, int alarm, uint32_t useless_wakes, int64_t deadline)
{
	struct pollfd others[2] = {
		{.fd = kick, .events = POLLIN}, {.fd = alarm, .events = POLLIN}};
	int64_t ns = useless_wakes < 4 * LR_USELESS_WAKES ? NAP : LONG_NAP;
	struct timespec pause;

	if (deadline && deadline - lr_now() < ns)
		ns = deadline - lr_now();
	if (ns <= 0)
		return;
	pause = (struct timespec){0, ns};
	ppoll(others, 2, &pause, NULL);
}

/*
 * Does the leader see this event by itself? It sees frames of a polled connection, and reads
 * those that have come before it leaves. It sees other events only if it checks epoll; while it is
 * busy with frames it does not.
 */
static bool leader_sees(struct lr_engine *e, const struct epoll_event *event)
{
	int kind = (int)(event->data.u64 & 0xff);
	struct lr_conn *conn;

	if (kind == EVENT_KICK || kind == EVENT_ALARM)
		return true;
	conn = lr_conn_get(e, (uint32_t)(event->data.u64 >> 8));
	if (!conn || conn->dead)
		return true;
	if (kind != EVENT_BELL || event->events & (EPOLLHUP | EPOLLERR) ||
	    !(conn->polled || conn->ready) || lr_conn_throttled(conn))
		return false;
	atomic_store(&conn->link->edge, true);
	return true;
}

static int serve_service(struct lr_engine *e, struct lr_io *io)
{
	struct epoll_event events[LR_EVENTS];
	uint64_t count;
	int n, kind;

	for (;;) {
		bool work;
		int64_t deadline;
		int alarm;
		uint32_t useless_wakes;

		if ((kind = lr_service_event(e, io)))
			return kind;
		deadline = lr_next_deadline(e);
		useless_wakes = e->useless_wakes;
		alarm = e->service_alarm; /* a connection that needs one may be added meanwhile */
		lr_leave(e);
		/* SYNC no-lost-service: partner of lr_service_ring(). */
		atomic_store(&e->service_sleeping, 1);
		n = 0;
		work = atomic_exchange(&e->service_work, 0);
		if (!work && useless_wakes >= LR_USELESS_WAKES)
			nap(e->service_kick, alarm, useless_wakes, deadline);
		if (!work)
			n = lr_wait_events(e->service_epoll, events, LR_EVENTS, deadline, NULL);
		atomic_store(&e->service_sleeping, 0);
		/* Set between the wait's end and that store: then no bell was rung. */
		work |= atomic_exchange(&e->service_work, 0);
		pthread_mutex_lock(&e->lock);
		for (int i = 0; i < n; i++) {
			int kind = (int)(events[i].data.u64 & 0xff);

			if (kind == EVENT_ALARM)
				e->alarm_set = false;
			if ((kind == EVENT_KICK || kind == EVENT_ALARM) &&
			    read(kind == EVENT_KICK ? e->service_kick : e->service_alarm, &count,
				    sizeof count) < 0)
				continue; /* read by another thread meanwhile */
			if (!leader_sees(e, &events[i]))
				atomic_store(&e->check_epoll, 1);
		}
		if (work || n > 0)
			e->useless_wakes = promote(e) ? 0 : e->useless_wakes + 1;
	}
}

int lr_service(struct lr_engine *e, struct lr_io *io)
{
	struct lr_waiter w = {.wants = WANT_SERVICE, .io = io, .ignores_signals = true};
	int r = lr_enter(e);

	if (r < 0)
		return r;
	if (e->role == LR_SERVER) {
		e->service_watches = true;
		r = serve_service(e, io);
		e->service_watches = false;
		if (e->leader && atomic_load(&e->sleeping) != ON_EPOLL)
			/* so that it sleeps on epoll, and gets all events itself */
			lr_kick_leader(e);
	} else {
		while (!(r = lr_service_event(e, io))) {
			if (!e->conns[0] || e->conns[0]->dead) {
				r = LR_CLOSED;
				break;
			}
			lr_wait(e, &w, lr_next_deadline(e));
		}
	}
	lr_leave(e);
	return r;
}
