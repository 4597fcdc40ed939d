/* calls.c - functions for either side of a call: receive, cancel, release, watch. */
#include "engine.h"

#include <sched.h>

/* Take what has arrived: a kind, an error, or 0. */
static int take(struct lr_engine *e, struct lr_call *call, struct lr_io *io)
{
	struct lr_item *item = call->first;

	if (call->life == CANCELLED || call->life == EXPIRED)
		return lr_call_why(call);
	if (item && item->kind == LR_K_BIG) {
		if (item == call->big && call->life == DEAD)
			return call->conn->why;
		io->size = (int64_t)item->size;
		return LR_K_BIG;
	}
	if (!item) {
		io->size = (int64_t)call->refused_size;
		if (call->state & CALL_TOO_LARGE)
			return LR_TOO_LARGE;
		if (call->life == DEAD)
			return lr_call_unseen(call) ? LR_UNSENT : call->conn->why;
		return lr_call_why(call);
	}
	if (item->kind == LR_K_MESSAGES) {
		uint64_t charge = 0;
		for (; item && item->kind == LR_K_MESSAGES && io->count < LR_BATCH &&
		       io->fill + item->size <= io->cap;
		     item = call->first) {
			memcpy(io->buf + io->fill, item->data, item->size);
			io->fill += (uint32_t)item->size;
			io->ends[io->count++] = io->fill;
			charge += item->size + LR_OVERHEAD;
			lr_item_free(call->conn, lr_item_pop(call));
		}
		lr_call_took(e, call, charge);
		return LR_K_MESSAGES;
	}
	memcpy(io->buf, item->data, item->size < io->cap ? item->size : io->cap);
	io->size = (int64_t)item->size;
	if (item->kind == LR_K_RESET) {
		io->count = (uint32_t)item->size;
		io->size = item->count;
		io->flags = call->state & CALL_UNSEEN ? LR_F_UNSEEN : 0;
	}
	io->kind = item->kind;
	lr_item_free(call->conn, lr_item_pop(call));
	return (int)io->kind;
}

int lr_wait_item(struct lr_engine *e, struct lr_call *call, struct lr_io *io, int64_t deadline)
{
	struct lr_waiter w = {.wants = WANT_ITEM, .call = call, .conn = call->conn, .io = io};
	int r;

	if (call->receiver)
		return LR_INVALID; /* two threads receive on one call */
	w.came_late = lr_call_late(call);
	call->receiver = &w;
	lr_call_hold(call);
	r = lr_wait(e, &w, deadline);
	call->receiver = NULL;
	return lr_call_unhold(e, call) ? r : LR_GONE;
}

static void clear(struct lr_io *io)
{
	io->kind = io->count = io->fill = io->flags = 0;
	io->size = 0;
}

int lr_recv(struct lr_engine *e, struct lr_io *io, uint64_t handle, int64_t deadline)
{
	struct lr_call *call;
	int r = lr_enter(e);

	if (r < 0)
		return r;
	clear(io);
	call = lr_call_get(e, handle);
	if (!call) {
		lr_leave(e);
		return LR_GONE;
	}
	call->state &= ~(uint32_t)CALL_UNARY;
	r = take(e, call, io);
	if (r == 0) {
		r = lr_wait_item(e, call, io, deadline);
		if (r == 1)
			r = io->kind ? (int)io->kind : take(e, call, io);
	}
	lr_leave(e);
	return r;
}

/* memcpy without the mutex; the caller holds the call. */
static void copy_outside(struct lr_engine *e, void *to, const void *from, uint64_t size)
{
	if (size < LR_UNLOCKED_COPY) {
		memcpy(to, from, size);
		return;
	}
	lr_unlock(e);
	memcpy(to, from, size);
	pthread_mutex_lock(&e->lock);
}

/* Wait until the leader does not copy into the first item's memory: some microseconds. */
static struct lr_item *first_not_busy(struct lr_engine *e, struct lr_call *call)
{
	while (call->first && call->first->busy) {
		lr_unlock(e);
		sched_yield();
		pthread_mutex_lock(&e->lock);
	}
	return call->first;
}

/*
 * The message is not whole, and the caller takes its memory back: keep the bytes that have
 * come. 1: it is whole now; 0: kept, or a reset removed it. More may come during the copy.
 */
static int keep(struct lr_engine *e, struct lr_call *call, struct lr_waiter *w, uint8_t *dest,
	uint64_t size)
{
	uint8_t *own = lr_big_alloc(size);
	uint64_t done = 0, got;
	struct lr_item *item;

	for (;;) {
		item = first_not_busy(e, call);
		if (w->amount || !item || item->kind != LR_K_BIG || item->mem != dest) {
			free(own);
			return w->amount == 1;
		}
		got = item->got;
		if (!own || got - done < LR_UNLOCKED_COPY)
			break;
		copy_outside(e, own + done, dest + done, got - done);
		done = got;
	}
	item->lent = false;
	item->mem = own;
	if (own) {
		memcpy(own + done, dest + done, got - done);
		lr_conn_charge(call->conn, &call->conn->queued, lr_cost(size));
	} else {
		lr_call_cancel(e, call, 8, NULL, 0);
	}
	return 0;
}

/* Receive the rest of the message directly into `dest`. 1: all of it is there. */
static int fill_rest(struct lr_engine *e, struct lr_call *call, struct lr_waiter *w, uint8_t *dest,
	int64_t deadline)
{
	struct lr_item *item = call->first;
	uint64_t size = item->size, got = item->got;
	uint8_t *before = item->mem;
	int r;

	lr_expect_touch(dest, size);
	item->mem = dest;
	item->lent = true;
	if (before) {
		lr_conn_refund(call->conn, &call->conn->queued, lr_cost(size));
		copy_outside(e, dest, before, got);
		free(before);
	}
	r = lr_wait(e, w, deadline);
	if (w->amount || keep(e, call, w, dest, size))
		return 1;
	return r < 0 ? r : LR_ENDED;
}

/* Copy the message at the head of the inbox into the caller's memory. */
static int fill(struct lr_engine *e, struct lr_call *call, uint8_t *dest, uint64_t size,
	int64_t deadline)
{
	struct lr_waiter w = {.wants = WANT_BIG, .call = call, .conn = call->conn};
	struct lr_item *item = call->first;
	int r = 1, why;

	if (!item || item->kind != LR_K_BIG || item->size != size || call->receiver) {
		why = lr_call_why(call);
		return why ? why : LR_INVALID;
	}
	w.came_late = lr_call_late(call);
	call->receiver = &w;
	lr_call_hold(call);
	item = first_not_busy(e, call);
	if (!item || item->kind != LR_K_BIG) {
		r = LR_ENDED; /* a reset has removed it meanwhile */
	} else if (item == call->big) {
		r = fill_rest(e, call, &w, dest, deadline);
		item = call->first; /* a reset may have come after the message, and removed it */
		if (r == 1 && item && item->kind == LR_K_BIG && item->mem == dest)
			lr_item_free(call->conn, lr_item_pop(call));
	} else {
		item = lr_item_pop(call); /* no longer in the queue: a reset would free it */
		copy_outside(e, dest, item->mem, size);
		lr_item_free(call->conn, item);
	}
	call->receiver = NULL;
	why = call->life == DEAD ? call->conn->why : lr_call_why(call);
	if (!lr_call_unhold(e, call))
		return LR_GONE;
	if (r != 1)
		return why ? why : r;
	lr_call_took(e, call, size + LR_OVERHEAD);
	return 0;
}

int lr_fill(struct lr_engine *e, uint64_t handle, char *dest, uint64_t size, int64_t deadline)
{
	struct lr_call *call;
	int r = lr_enter(e);

	if (r < 0)
		return r;
	call = lr_call_get(e, handle);
	r = call ? fill(e, call, (uint8_t *)dest, size, deadline) : LR_GONE;
	if (e->looped && r != LR_GONE && (call = lr_call_get(e, handle)) &&
		call->state & CALL_BIG_TOLD) {
		/* lr_drain has not reported what follows the message. */
		call->state &= ~(uint32_t)CALL_BIG_TOLD;
		lr_news_push(e, call);
	}
	lr_leave(e);
	return r;
}

/* ---- ending ---- */

int lr_cancel(struct lr_engine *e, uint64_t handle, uint32_t code, const char *text, uint32_t len)
{
	struct lr_call *call;
	int r = lr_enter(e);

	if (r < 0)
		return r;
	call = lr_call_get(e, handle);
	r = LR_GONE;
	if (call) {
		lr_call_cancel(e, call, code, text, len);
		r = 0;
	}
	lr_leave(e);
	return r;
}

int lr_release(struct lr_engine *e, uint64_t handle)
{
	struct lr_call *call;
	int r = lr_enter(e);

	if (r < 0)
		return r;
	call = lr_call_get(e, handle);
	r = LR_GONE;
	if (call) {
		lr_call_cancel(e, call, 1, NULL, 0);
		r = 0;
	}
	if (call && call == lr_call_get(e, handle))
		lr_call_release(e, call);
	lr_leave(e);
	return r;
}

int lr_active(struct lr_engine *e, uint64_t handle)
{
	struct lr_call *call;
	int r = lr_enter(e);

	if (r < 0)
		return r;
	call = lr_call_get(e, handle);
	r = call && call->life == LIVE;
	lr_leave(e);
	return r;
}

int lr_sending(struct lr_engine *e, uint64_t handle)
{
	struct lr_call *call;
	int r = lr_enter(e);

	if (r < 0)
		return r;
	call = lr_call_get(e, handle);
	r = call && call->life == LIVE && (call->out == OUT_BIG || call->out == OUT_BIG_END);
	lr_leave(e);
	return r;
}

int lr_watch(struct lr_engine *e, uint64_t handle, int64_t deadline)
{
	struct lr_call *call;
	int r = lr_enter(e);

	if (r < 0)
		return r;
	call = lr_call_get(e, handle);
	if (!call) {
		r = LR_GONE;
	} else if (!(call->state & CALL_WATCHED) &&
		   ((call->state & CALL_REPORTED) || call->life != LIVE ||
			   (deadline && lr_now() >= deadline))) {
		r = LR_ENDED;
	} else {
		r = lr_call_watch(e, call, deadline);
	}
	if (r == 0 && deadline)
		lr_service_again(e); /* its sleep may have to end earlier now */
	lr_leave(e);
	return r;
}

int lr_call_method(struct lr_engine *e, uint64_t handle, char *name, int size)
{
	struct lr_call *call;
	int r = lr_enter(e);

	if (r < 0)
		return r;
	call = lr_call_get(e, handle);
	r = LR_GONE;
	if (call && (call->number || call->name)) {
		/* A call that named its method may be on a connection without numbers for names. */
		const struct lr_name *n = call->name ? NULL : &call->conn->names[call->number];
		uint32_t len = n ? n->len : (uint32_t)call->name->size;
		r = (int)len <= size ? (int)len : LR_INVALID;
		if (r >= 0)
			memcpy(name, n ? n->text : (const char *)call->name->data, len);
	}
	lr_leave(e);
	return r;
}
