/* calls.c - what either side does with a call: receive, cancel, release, watch. */
#include "engine.h"

/* What is there already: a kind, an error, or 0. */
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

/* The message at the head of the inbox, into memory of Python's. */
static int fill(struct lr_engine *e, struct lr_call *call, uint8_t *dest, uint64_t size,
	int64_t deadline)
{
	struct lr_waiter w = {.wants = WANT_BIG, .call = call, .conn = call->conn};
	struct lr_item *item = call->first;
	int r;

	if (!item || item->kind != LR_K_BIG || item->size != size || call->receiver) {
		int why = lr_call_why(call);
		return why ? why : LR_INVALID;
	}
	if (item->mem)
		memcpy(dest, item->mem, item->got);
	if (item == call->big) {
		lr_item_let_go(call->conn, item);
		item->mem = dest;
		item->lent = true;
		w.came_late = lr_call_late(call);
		call->receiver = &w;
		lr_call_hold(call);
		r = lr_wait(e, &w, deadline);
		call->receiver = NULL;
		item = call->first;
		if (item && (item->kind != LR_K_BIG || item->mem != dest))
			item = NULL; /* a reset has taken it away */
		if (item && !w.amount) {
			/* Not whole, and dest is lent no longer: keep what has come. */
			if (lr_item_hold(call->conn, item))
				memcpy(item->mem, dest, item->got);
			else
				lr_call_cancel(e, call, 8, NULL, 0);
		}
		if (!lr_call_unhold(e, call))
			return LR_GONE;
		if (!w.amount) {
			int why = call->life == DEAD ? call->conn->why : lr_call_why(call);
			return why ? why : r;
		}
	}
	if (item)
		lr_item_free(call->conn, lr_item_pop(call));
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

int lr_watch(struct lr_engine *e, uint64_t handle, int64_t deadline)
{
	struct lr_call *call;
	int r = lr_enter(e);

	if (r < 0)
		return r;
	call = lr_call_get(e, handle);
	if (!call) {
		r = LR_GONE;
	} else if (call->state & CALL_WATCHED) {
		call->watch_deadline = deadline;
	} else if ((call->state & CALL_TOLD) || call->life != LIVE ||
		   (deadline && lr_now() >= deadline)) {
		r = LR_ENDED;
	} else {
		if (e->nwatched == e->watched_size) {
			uint32_t size = e->watched_size ? e->watched_size * 2 : 16;
			struct lr_call **watched = realloc(e->watched, size * sizeof *watched);
			if (watched) {
				e->watched = watched;
				e->watched_size = size;
			}
		}
		if (e->nwatched < e->watched_size) {
			call->watched_at = e->nwatched;
			e->watched[e->nwatched++] = call;
			call->state |= CALL_WATCHED;
			call->watch_deadline = deadline;
		} else {
			r = LR_NOMEM;
		}
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
		const struct lr_name *n = &call->conn->names[call->number];
		uint32_t len = call->name ? (uint32_t)call->name->size : n->len;
		r = (int)len <= size ? (int)len : LR_INVALID;
		if (r >= 0)
			memcpy(name, call->name ? (const char *)call->name->data : n->text, len);
	}
	lr_leave(e);
	return r;
}
