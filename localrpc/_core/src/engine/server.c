/* server.c - workers: taking calls, answering them. */
#include "engine.h"

/* How long a reply waits for room before the rest of it is posted. */
#define PATIENCE (2 * LR_MS)

static int next_call(struct lr_engine *e, struct lr_io *io, bool wait)
{
	struct lr_waiter w = {.wants = WANT_CALL, .io = io};
	int r = 0;

	io->kind = io->count = io->fill = io->flags = 0;
	io->size = 0;
	if (wait && e->yields && !e->stopping) {
		e->yields--;
		if (!e->leader)
			lr_lead_arm(e);
		return LR_K_YIELD;
	}
	e->workers++;
	if (e->queue && !e->stopping && lr_take_call(e, io)) {
		r = LR_K_CALL;
		if (!e->leader)
			lr_lead_arm(e);
	}
	while (!r) {
		r = lr_wait(e, &w, wait ? 0 : 1);
		if (io->kind)
			r = LR_K_CALL;
		else if (e->stopping || e->closed)
			r = LR_K_STOP;
		else if (e->queue && lr_take_call(e, io))
			r = LR_K_CALL;
		else if (!wait && (e->yields || r == LR_TIMEOUT))
			/* it takes no yield: the thread that it was meant for still waits */
			r = LR_K_YIELD;
		else if (e->yields) {
			e->yields--;
			r = LR_K_YIELD;
		} else if (r == 1)
			r = 0; /* another worker was quicker */
	}
	e->workers--;
	if (r == LR_K_CALL && e->workers == 0)
		io->flags |= LR_F_ALONE;
	return r;
}

static int enter_and_next(struct lr_engine *e, struct lr_io *io, bool wait)
{
	int r = lr_enter(e);

	if (r < 0)
		return r;
	r = next_call(e, io, wait);
	lr_leave(e);
	return r;
}

int lr_next(struct lr_engine *e, struct lr_io *io)
{
	return enter_and_next(e, io, true);
}

int lr_next_now(struct lr_engine *e, struct lr_io *io)
{
	return enter_and_next(e, io, false);
}

/* The call of a function that only servers have; or NULL, and why. */
static struct lr_call *of_server(struct lr_engine *e, uint64_t handle, int *why)
{
	struct lr_call *call = lr_call_get(e, handle);

	*why = !call ? LR_GONE : e->role != LR_SERVER ? LR_INVALID : 0;
	return *why ? NULL : call;
}

static int finish(struct lr_engine *e, struct lr_call *call, const char *trailer,
	uint32_t trailer_len, const char *msg, uint64_t len)
{
	struct iovec iov[3] = {{&trailer_len, 4}, {(void *)(uintptr_t)trailer, trailer_len}};
	int flags = 0, count = 2, r;
	enum lr_event event = PUT_STATUS, after = PUT_STATUS_AFTER;

	if (lr_call_expired(e, call))
		return LR_TIMEOUT;
	if (trailer_len > LR_MAX_BLOCK)
		return LR_INVALID;
	if (call->life == LIVE) {
		lr_count_code(call, trailer, trailer_len);
		lr_count_done(call);
	}
	if (msg) {
		bool big = len > LR_INLINE;
		flags = big ? LR_F_BIG : LR_F_MESSAGE;
		event = big ? PUT_STATUS_BIG : PUT_STATUS_WITH;
		after = PUT_STATUS_WITH_AFTER;
		iov[count++] = big ? (struct iovec){&len, sizeof len}
				   : (struct iovec){(void *)(uintptr_t)msg, len};
	}
	if (event != PUT_STATUS_BIG && (call->out == OUT_BIG || call->out == OUT_BIG_END)) {
		if ((r = lr_call_may(call, after)) == 1)
			r = lr_send_after(call, iov, count, flags);
		if (r == 0)
			lr_call_step(call, after);
		return r;
	}
	if ((r = lr_call_may(call, event)) != 1)
		return r;
	if ((r = lr_call_post(call, LR_T_STATUS, flags, iov, count)) == 0)
		/* The client may drop the call now, and use its slot for another. */
		lr_call_step(call, event);
	if (r == 0 && event == PUT_STATUS_BIG)
		r = lr_send_pieces(e, call, msg, len, 0, PATIENCE);
	return r;
}

/* End the call in any case, and release it. */
static int finish_and_release(struct lr_engine *e, struct lr_call *call, const char *trailer,
	uint32_t trailer_len, const char *msg, uint64_t len, uint32_t code)
{
	int r = finish(e, call, trailer, trailer_len, msg, len);

	if (r == LR_GONE)
		return r;
	if (call->life == LIVE && !lr_call_cancel(e, call, code ? code : 13, NULL, 0))
		return r;
	lr_call_release(e, call);
	return r;
}

int lr_reply_next(struct lr_engine *e, struct lr_io *io, const char *msg, uint64_t len)
{
	struct lr_call *call;
	int r = lr_enter(e);

	if (r < 0)
		return r;
	call = lr_call_get(e, io->call);
	if (call)
		finish_and_release(e, call, NULL, 0, msg, len, 0);
	r = next_call(e, io, true);
	lr_leave(e);
	return r;
}

int lr_finish(struct lr_engine *e, uint64_t handle, const char *trailer, uint32_t trailer_len,
	const char *msg, uint64_t len, uint32_t code)
{
	struct lr_call *call;
	int r = lr_enter(e);

	if (r < 0)
		return r;
	call = of_server(e, handle, &r);
	if (call)
		r = finish_and_release(e, call, trailer, trailer_len, msg, len, code);
	lr_leave(e);
	return r;
}

int lr_headers(struct lr_engine *e, uint64_t handle, const char *block, uint32_t len)
{
	struct iovec iov = {(void *)(uintptr_t)block, len};
	struct lr_call *call;
	int r = lr_enter(e);

	if (r < 0)
		return r;
	call = of_server(e, handle, &r);
	if (call && lr_call_expired(e, call))
		r = LR_TIMEOUT;
	else if (call && len > LR_MAX_BLOCK)
		r = LR_INVALID;
	else if (call && (r = lr_call_may(call, PUT_HEADERS)) == 1 &&
		 (r = lr_call_post(call, LR_T_HEADERS, 0, &iov, 1)) == 0)
		lr_call_step(call, PUT_HEADERS);
	lr_leave(e);
	return r;
}

int lr_defer(struct lr_engine *e, uint64_t handle)
{
	struct lr_call *call;
	int r = lr_enter(e);

	if (r < 0)
		return r;
	call = of_server(e, handle, &r);
	if (call && call->life != LIVE) {
		lr_call_release(e, call); /* it ended while it waited for its message */
	} else if (call && call->place != OWNED) {
		r = LR_INVALID;
	} else if (call && call->big) {
		lr_call_step(call, DEFER);
	} else if (call) {
		lr_queue_push(e, call);
		lr_wake_worker(e);
	}
	lr_leave(e);
	return r;
}

int lr_leave_open(struct lr_engine *e, uint64_t handle)
{
	struct lr_call *call;
	int r = lr_enter(e);

	if (r < 0)
		return r;
	call = lr_call_get(e, handle);
	if (call && !(call->state & CALL_LEFT_OPEN)) {
		call->state |= CALL_LEFT_OPEN;
		e->open++;
	}
	lr_leave(e);
	return call ? 0 : LR_GONE;
}

int lr_intern(struct lr_engine *e, const char *name, uint32_t len, int32_t id)
{
	struct lr_intern *interned;
	int r = lr_enter(e);

	if (r < 0)
		return r;
	r = LR_NOMEM;
	interned = realloc(e->interned, (e->ninterned + 1) * sizeof *interned);
	if (interned) {
		e->interned = interned;
		interned += e->ninterned;
		interned->text = malloc(len + 1);
		if (interned->text) {
			memcpy(interned->text, name, len);
			interned->len = len;
			interned->id = id;
			e->ninterned++;
			r = 0;
		}
	}
	/* Calls may use the number of this name from before it was interned. */
	for (uint32_t i = 0; r == 0 && i < e->nconns; i++)
		for (uint32_t k = 0; e->conns[i] && k < e->conns[i]->names_size; k++) {
			struct lr_name *n = &e->conns[i]->names[k];
			if (n->text && n->len == len && !memcmp(n->text, name, len))
				n->id = id;
		}
	lr_leave(e);
	return r;
}

void lr_yield(struct lr_engine *e)
{
	struct lr_waiter *w;

	if (lr_enter(e) < 0)
		return;
	e->yields++;
	for (w = e->first; w && (w->wants != WANT_CALL || atomic_load(&w->word)); w = w->next)
		;
	if (w)
		lr_wake(e, w);
	else if (e->leader)
		lr_request_read(e);
	lr_leave(e);
}

int lr_cancel_all(struct lr_engine *e, uint32_t code, const char *text, uint32_t len)
{
	int r = lr_enter(e);

	if (r < 0)
		return r;
	for (uint32_t i = 0; i < e->ncalls; i++) {
		struct lr_call *call = e->calls[i];
		if (call->life == LIVE)
			lr_call_cancel(e, call, code, text, len);
	}
	for (uint32_t i = 0; i < e->nconns; i++)
		if (e->conns[i])
			lr_queue_resume(e, e->conns[i]);
	while (e->queue && e->queue->life != LIVE)
		lr_call_release(e, lr_queue_pop(e));
	lr_leave(e);
	return 0;
}

void lr_stop(struct lr_engine *e)
{
	if (lr_enter(e) < 0)
		return;
	e->stopping = true;
	lr_wake_all(e);
	lr_service_again(e);
	lr_leave(e);
}
