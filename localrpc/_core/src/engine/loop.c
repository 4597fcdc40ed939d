/*
 * loop.c - an engine that an event loop drives. No thread waits in it: lr_drain takes the
 * lead, reads what has come, and leaves every connection armed, so that the next frame, room,
 * end, deadline or kick makes the engine's epoll set readable, which the loop watches.
 *
 * Everything that lr_drain takes, it takes with the mutex: a thread that kicks, also with the
 * mutex, comes before lr_drain has read the kick, or writes another one.
 */
#include "engine.h"

#include <sys/timerfd.h>
#include <unistd.h>

#define IDLE_AFTER 8 /* turns without a frame, then a server's connection leaves the polled list */

static struct lr_news *next_news(struct lr_batch *b, uint64_t call, int kind)
{
	struct lr_news *news = &b->news[b->count++];

	*news = (struct lr_news){.call = call, .kind = kind, .at = b->fill, .method = -1};
	return news;
}

static bool has_room(const struct lr_batch *b, uint64_t bytes)
{
	return b->count < LR_NEWS && b->fill + bytes <= b->cap;
}

static void put(struct lr_batch *b, struct lr_news *news, const void *data, uint64_t size)
{
	if (size)
		memcpy(b->buf + b->fill, data, size);
	news->size = (int64_t)size;
	b->fill += (uint32_t)size;
}

/* ---- a call's news ---- */

/* Nothing will follow the items that have been taken: how it ended, or 0 if it goes on. */
static int end_of(struct lr_call *call)
{
	if (call->state & CALL_TOO_LARGE)
		return LR_TOO_LARGE;
	if (call->life == DEAD)
		return lr_call_unseen(call) ? LR_UNSENT : call->conn->why;
	if (call->life == CANCELLED || call->life == EXPIRED)
		return lr_call_why(call);
	return 0;
}

static void tell_end(struct lr_call *call, struct lr_batch *b)
{
	int why = end_of(call);

	if (!why || (call->state & CALL_END_TOLD))
		return;
	call->state |= CALL_END_TOLD;
	next_news(b, lr_call_handle(call), why)->size = (int64_t)call->refused_size;
}

/* A large message at the head of the queue. False: nothing about it, or what follows, can be reported. */
static bool tell_big(struct lr_call *call, struct lr_batch *b)
{
	struct lr_item *item = call->first;

	if (item == call->big) /* not whole */
		return call->life == DEAD;
	if (!(call->state & CALL_BIG_TOLD))
		next_news(b, lr_call_handle(call), LR_K_BIG)->size = (int64_t)item->size;
	call->state |= CALL_BIG_TOLD; /* until lr_fill has taken it */
	return false;
}

/* Once nothing more can come, a pause would only delay the end, even for an owner that reads nothing. */
static bool is_paused(const struct lr_call *call)
{
	return call->state & CALL_PAUSED && call->life == LIVE;
}

/* The status OK without details and metadata. */
static bool is_plain_ok(const struct lr_engine *e, const struct lr_item *item)
{
	return e->role == LR_CLIENT && item && item->kind == LR_K_STATUS && !item->size;
}

/* False: the batch is full. */
static bool tell(struct lr_engine *e, struct lr_call *call, struct lr_batch *b)
{
	uint64_t handle = lr_call_handle(call), charge = 0;
	struct lr_item *item;

	if (!has_room(b, 0))
		return false;
	if (call->state & CALL_HAS_CREDIT) {
		call->state &= ~(uint32_t)CALL_HAS_CREDIT;
		next_news(b, handle, LR_K_ROOM);
	}
	while ((item = call->first) && call->life != CANCELLED && call->life != EXPIRED) {
		uint32_t item_kind = item->kind;
		struct lr_news *news;

		if (item->kind == LR_K_MESSAGES && is_paused(call))
			break;
		if (!has_room(b, item->kind == LR_K_BIG ? 0 : item->size))
			break;
		if (item->kind == LR_K_BIG) {
			if (is_paused(call) || !tell_big(call, b))
				break;
			tell_end(call, b);
			return true;
		}
		news = next_news(b, handle, (int)item->kind);
		put(b, news, item->data, item->size);
		if (item->kind == LR_K_MESSAGES)
			charge += item->size + LR_OVERHEAD;
		if (item->kind == LR_K_RESET) {
			news->head = item->count;
			news->flags = call->state & CALL_UNSEEN ? LR_F_UNSEEN : 0;
		}
		lr_item_free(call->conn, lr_item_pop(call));
		if (item_kind == LR_K_MESSAGES && is_plain_ok(e, call->first)) {
			news->flags = LR_F_END; /* one piece of news for what most calls end with */
			item_kind = LR_K_STATUS;
		}
		if (item_kind == LR_K_STATUS && e->role == LR_CLIENT) {
			lr_call_release(e, call); /* its owner needs it no more */
			return true;
		}
	}
	if (charge) {
		lr_call_took(e, call, charge); /* without memory for the frame it ends the call */
		if (lr_call_get(e, handle) != call)
			return true;
	}
	if (!has_room(b, call->first && call->first->kind != LR_K_BIG ? call->first->size : 0))
		return false;
	if (!call->first || call->life == CANCELLED || call->life == EXPIRED)
		tell_end(call, b);
	return true;
}

static void tell_calls(struct lr_engine *e, struct lr_batch *b)
{
	struct lr_call *call;

	while ((call = e->news)) {
		/* First, as its end may make it news again. */
		lr_news_drop(e, call);
		/* A new call's message may be whole before it is queued: take_new_calls() has both. */
		if (call->place == OWNED && !tell(e, call, b)) {
			lr_news_push(e, call);
			return;
		}
	}
}

/* ---- the engine's news ---- */

static void take_new_calls(struct lr_engine *e, struct lr_batch *b)
{
	while (e->queue && !e->stopping && has_room(b, LR_MAX_CONTROL)) {
		struct lr_io io = {.buf = b->buf + b->fill, .cap = b->cap - b->fill};
		struct lr_news *news;
		struct lr_call *call;

		if (!lr_take_call(e, &io))
			return;
		news = next_news(b, io.call, LR_K_CALL);
		news->size = io.size;
		news->deadline = io.deadline;
		news->flags = io.flags;
		news->method = io.method;
		news->head = io.head;
		news->conn = io.conn;
		if (!(io.flags & LR_F_TOO_LARGE))
			b->fill += (uint32_t)io.size;
		else
			b->fill += io.head;
		call = lr_call_get(e, io.call);
		if (call->deadline && lr_call_watch(e, call, call->deadline) == 0)
			lr_loop_set_timer(e);
		if (call->first || call->life != LIVE)
			lr_news_push(e, call);
	}
}

static void tell_overdue(struct lr_engine *e, struct lr_batch *b)
{
	struct lr_call *call;

	while (has_room(b, 0) && (call = lr_overdue(e))) {
		next_news(b, lr_call_handle(call), LR_K_ENDED);
		lr_call_unwatch(e, call);
		if (e->role == LR_SERVER)
			lr_call_expired(e, call);
	}
}

static void tell_room(struct lr_engine *e, struct lr_batch *b)
{
	if (!e->room_came)
		return;
	e->room_came = false;
	for (uint32_t i = 0; i < e->nconns; i++) {
		struct lr_conn *conn = e->conns[i];

		if (!conn || !conn->room_told)
			continue;
		if (!has_room(b, 0)) {
			e->room_came = true;
			return;
		}
		conn->room_told = false;
		next_news(b, 0, LR_K_ROOM)->conn = conn->id;
	}
}

/* Does the owner of each call know how it ended, and have all that came before? */
static bool all_ends_told(const struct lr_engine *e)
{
	for (uint32_t i = 0; i < e->ncalls; i++) {
		const struct lr_call *call = e->calls[i];

		if (call->life && call->place == OWNED && !(call->state & CALL_END_TOLD))
			return false;
	}
	return true;
}

/* Ends of connections and of the engine: a server's are reported one by one. */
static void tell_ends(struct lr_engine *e, struct lr_batch *b)
{
	while (has_room(b, sizeof((struct lr_conn *)0)->reason)) {
		struct lr_io io = {.buf = b->buf + b->fill, .cap = b->cap - b->fill};
		struct lr_news *news;
		int kind = lr_service_event(e, &io);

		if (!kind)
			break;
		news = next_news(b, kind == LR_K_ENDED ? io.call : 0, kind);
		if (kind == LR_K_CONN_CLOSED) {
			news->conn = io.conn;
			news->head = (uint32_t)io.count;
			news->size = io.size;
			news->flags = io.flags;
			b->fill += io.count;
		}
		if (kind == LR_K_STOP)
			break;
	}
	if (e->role == LR_CLIENT && !e->closed && (!e->conns[0] || e->conns[0]->dead) &&
		has_room(b, 0) && all_ends_told(e))
		next_news(b, 0, LR_CLOSED);
}

/* Leave everything armed. False: something has come meanwhile. */
static bool arm_all(struct lr_engine *e)
{
	bool quiet = true;

	for (uint32_t i = 0; i < e->npolled;) {
		struct lr_conn *conn = e->polled[i];
		const struct lr_link_ops *ops = conn->link->ops;

		if (e->role == LR_SERVER && conn->idle_sleeps++ >= IDLE_AFTER) {
			if (lr_polled_leave(e, i))
				continue;
			quiet = false;
		} else if (conn->dead ||
			   !(ops->arm(conn->link, 0) || lr_conn_throttled(conn)) ||
			   !lr_conn_arm_room(conn) || lr_conn_check_end(conn)) {
			quiet = false;
		}
		i++;
	}
	return quiet;
}

static bool is_more(const struct lr_engine *e)
{
	return e->news || (e->queue && !e->stopping) || e->ready || e->dead_conns || e->room_came ||
	       e->unreported || atomic_load_explicit(&e->check_epoll, memory_order_relaxed);
}

bool lr_loop_arm(struct lr_engine *e)
{
	return arm_all(e) && !is_more(e);
}

/* The loop looks before it sleeps, but only for frames. */
static bool stays_unarmed(const struct lr_engine *e)
{
	for (uint32_t i = 0; i < e->npolled; i++)
		if (lr_conn_wants_room(e->polled[i]) || e->polled[i]->eof_seen)
			return false;
	return e->loop_spins;
}

/* The end of a turn, or what is sent outside of one. */
static void ring_all(struct lr_engine *e)
{
	struct lr_conn *conn;

	e->turn_rang = false;
	atomic_store(&e->held_since, 0);
	while ((conn = e->rings)) {
		struct lr_link *link = conn->link;

		e->rings = conn->next_ring;
		conn->ring_queued = false;
		if (!conn->dead && link->held) {
			lr_conn_flush_held(conn);
		} else if (!conn->dead && link->ring_due) {
			link->ops->ring(link);
			link->ops->rung(link, link->ring_due);
		}
		link->ring_due = 0;
		lr_conn_unref(conn);
	}
	lr_ring_delayed(e);
}

/* In place of the loop: see late.c. If the loop has drained since the last time, it runs. */
static void send_late(struct lr_engine *e)
{
	bool runs = e->lead_count != e->late_count, lacks = false;
	uint64_t before = e->stats.frames_out;

	ring_all(e);
	e->late_count = e->lead_count;
	for (uint32_t i = 0; i < e->nconns; i++) {
		struct lr_conn *conn = e->conns[i];

		if (!conn || conn->dead || !lr_conn_unsent(conn))
			continue;
		if (!runs)
			lr_conn_flush(conn);
		lacks |= lr_conn_unsent(conn);
	}
	ring_all(e); /* so that the first frame of the next turn leaves at once */
	if (e->stats.frames_out != before)
		e->room_pause = 0;
	atomic_store(&e->lacks_room, lacks);
	lr_leave(e);
}

int lr_drain(struct lr_engine *e, struct lr_batch *b)
{
	struct lr_waiter w = {.wants = WANT_NEWS, .ignores_signals = true};
	struct epoll_event events[LR_EVENTS];
	int r = lr_enter(e), n;

	b->count = b->fill = b->more = 0;
	if (r < 0)
		return r;
	if (!e->looped || e->leader) { /* two threads drain it */
		lr_leave(e);
		return LR_INVALID;
	}
	lr_lead_take(e, &w);
	if (e->epoll_fd >= 0) {
		n = lr_wait_events(e->epoll_fd, events, LR_EVENTS, 1, NULL);
		atomic_store(&e->kicked, 0);
		if (n == LR_EVENTS) /* there may be more, and they are not reported again */
			atomic_store(&e->check_epoll, 1);
		lr_take_events(e, events, n > 0 ? n : 0);
		if (e->unarmed)
			lr_assume_frames(e);
		lr_read_conns(e, &w);
		lr_flush_polled(e);
	}
	tell_overdue(e, b);
	tell_calls(e, b);
	take_new_calls(e, b);
	tell_calls(e, b);
	tell_room(e, b);
	tell_ends(e, b);
	e->unarmed = stays_unarmed(e);
	b->more = e->epoll_fd >= 0 && !(e->unarmed ? !is_more(e) : lr_loop_arm(e)) && !e->closed;
	if (!e->closed)
		lr_loop_set_timer(e);
	lr_lead_leave(e);
	/* Posted frames may have gone out. Without news nothing follows that lr_flush() would end.
	 * Not before: a server that stops may have waited for these alone, and is to drain again. */
	if (!b->count)
		ring_all(e);
	lr_leave(e);
	return (int)b->count;
}

int lr_flush(struct lr_engine *e)
{
	int r = lr_enter(e);

	if (r < 0)
		return r;
	ring_all(e);
	lr_leave(e);
	return 0;
}

int lr_loop_begin(struct lr_engine *e)
{
	struct epoll_event alarm = {.events = EPOLLIN, .data.u64 = EVENT_ALARM};
	int r = lr_enter(e);

	if (r < 0)
		return r;
	r = LR_INVALID;
	if (!e->looped && !e->nconns && !e->closed) {
		e->loop_timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
		r = LR_NOMEM;
		if (e->loop_timer >= 0 &&
			epoll_ctl(e->epoll_fd, EPOLL_CTL_ADD, e->loop_timer, &alarm) == 0) {
			e->looped = true;
			/* No thread serves: there is nothing to wake. */
			lr_close_if(e->service_epoll);
			lr_close_if(e->service_kick);
			e->service_epoll = e->service_kick = -1;
			r = e->epoll_fd;
		}
	}
	lr_leave(e);
	if (r >= 0)
		lr_late_add(e, send_late);
	return r;
}

int lr_pause(struct lr_engine *e, uint64_t handle, int paused)
{
	struct lr_call *call;
	int r = lr_enter(e);

	if (r < 0)
		return r;
	call = lr_call_get(e, handle);
	if (call && paused) {
		call->state |= CALL_PAUSED;
	} else if (call && call->state & CALL_PAUSED) {
		call->state &= ~(uint32_t)CALL_PAUSED;
		lr_news_push(e, call);
	}
	lr_leave(e);
	return call ? 0 : LR_GONE;
}
