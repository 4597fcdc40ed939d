/* send.c - sending a call's messages: credit, room, pieces. */
#include "engine.h"

static int wait_to_send(struct lr_engine *e, struct lr_call *call, struct lr_waiter *w,
	int64_t deadline)
{
	int r;

	if (call->sender)
		return LR_INVALID; /* two threads send on one call */
	w->call = call;
	w->conn = call->conn;
	call->sender = w;
	lr_call_hold(call);
	r = lr_wait(e, w, deadline);
	call->sender = NULL;
	if (!lr_call_unhold(e, call))
		return LR_GONE;
	return r < 0 ? r : call->life > FINISHING ? lr_call_why(call) : 0;
}

int lr_wait_room(struct lr_engine *e, struct lr_call *call, uint32_t need, int64_t deadline,
	bool ignores_signals)
{
	struct lr_waiter w = {.wants = WANT_ROOM, .amount = need, .ignores_signals = ignores_signals};

	/* The reader empties the ring before it waits, so this much will be free. */
	if (w.amount < call->conn->link->stride)
		w.amount = call->conn->link->stride;
	return wait_to_send(e, call, &w, deadline);
}

static int wait_credit(struct lr_engine *e, struct lr_call *call, uint64_t charge,
	int64_t deadline)
{
	struct lr_waiter w = {.wants = WANT_CREDIT, .amount = charge};

	lr_ask_credit(call);
	return wait_to_send(e, call, &w, deadline);
}

/* Post the rest of a large message: no thread waits until it is sent. */
static void post_rest(struct lr_engine *e, struct lr_call *call, const char *msg, uint64_t len)
{
	while (call->sent < len && call->life == FINISHING) {
		uint64_t left = len - call->sent;
		uint32_t most = call->conn->link->piece;
		struct iovec iov = {(void *)(uintptr_t)(msg + call->sent),
			left < most ? (uint32_t)left : most};
		if (lr_call_post(call, LR_T_DATA, 0, &iov, 1) < 0)
			break; /* the call has ended, or the link and the call with it */
		call->sent += iov.iov_len;
		lr_yield_mutex(e);
	}
	call->sent = len;
}

/* The large message is whole: send the status that waited for it. */
static void finish_pieces(struct lr_call *call)
{
	struct lr_out *after = call->after;

	call->sent = 0;
	if (lr_call_step(call, PUT_WHOLE) == 1 && after) {
		call->after = NULL;
		lr_conn_post_made(call->conn, after);
	}
}

/* A STATUS while another thread sends a large message of the call: that thread sends it. */
int lr_send_after(struct lr_call *call, const struct iovec *iov, int count, int flags)
{
	if (!call->busy || !(call->after = lr_out_new(LR_T_STATUS, flags, call->wire, iov, count)))
		return LR_INVALID;
	return 0;
}

/* Send a large message from byte call->sent on, as DATA frames. If `patience` is not 0, the
 * caller waits at most that many ns for the peer to make room: then the rest is posted. */
int lr_send_pieces(struct lr_engine *e, struct lr_call *call, const char *msg, uint64_t len,
	int64_t deadline, int64_t patience)
{
	int r = 0;

	lr_expect_size(len);
	if (call->busy)
		return LR_INVALID; /* two threads send on one call */
	call->busy = true;
	lr_call_hold(call);
	while (r == 0 && call->sent < len) {
		uint64_t left = len - call->sent;
		uint32_t most = call->conn->link->piece;
		uint32_t n = left < most ? (uint32_t)left : most;
		struct iovec iov = {(void *)(uintptr_t)(msg + call->sent), n};

		if (e->role == LR_SERVER && lr_call_expired(e, call))
			r = LR_TIMEOUT;
		else if ((r = lr_call_may(call, PUT_DATA)) == 1)
			r = lr_conn_put(call->conn, LR_T_DATA, 0, call->wire, &iov, 1);
		if (r == 0)
			r = lr_wait_room(e, call, n, patience ? lr_now() + patience : deadline,
				patience);
		if (r == 1) {
			call->sent += n;
			lr_yield_mutex(e);
			r = 0;
		}
		if ((call->after || (patience && (r == LR_TIMEOUT || r == LR_AGAIN))) &&
			call->life == FINISHING) {
			post_rest(e, call, msg, len);
			r = 0;
		}
	}
	call->busy = false;
	if (r == 0)
		finish_pieces(call);
	return lr_call_unhold(e, call) ? r : LR_GONE;
}

static bool begun(const struct lr_call *call)
{
	return call->out == OUT_BIG || call->out == OUT_BIG_END;
}

/*
 * Queue the message instead of waiting: the peer may not be reading, and the sending thread
 * may have other peers. The limit is well below the one that throttles the peer.
 */
static bool may_post(const struct lr_call *call, int flags, bool big)
{
	return (flags & LR_F_POST) && !big && call->conn->posted < LR_MAX_POSTED / 2;
}

static int send_message(struct lr_engine *e, struct lr_call *call, const char *msg, uint64_t len,
	int flags, int64_t deadline)
{
	uint64_t charge = len + LR_OVERHEAD;
	bool big = len > LR_INLINE;
	struct iovec iov = {(void *)(uintptr_t)msg, len};
	enum lr_event event = !big ? PUT_MESSAGE : flags & LR_F_END ? PUT_BIG_END : PUT_BIG;
	int r;

	if (big) {
		iov.iov_base = &len;
		iov.iov_len = sizeof len;
	}
	while (!big || !begun(call)) {
		if (e->role == LR_SERVER && lr_call_expired(e, call))
			return LR_TIMEOUT;
		if ((r = lr_call_may(call, event)) < 0)
			return r;
		if (!lr_has_credit(call, charge)) {
			if ((r = wait_credit(e, call, charge, deadline)) < 0)
				return r;
			continue;
		}
		r = lr_conn_put(call->conn, LR_T_MESSAGE,
			(big ? LR_F_BIG : LR_F_MESSAGE) | (flags & LR_F_END), call->wire, &iov, 1);
		if (r == 0 && may_post(call, flags, big))
			r = lr_conn_post(call->conn, LR_T_MESSAGE, LR_F_MESSAGE | (flags & LR_F_END),
				    call->wire, &iov, 1) < 0 ? LR_NOMEM : 1;
		if (r == 0)
			r = lr_wait_room(e, call, (uint32_t)iov.iov_len, deadline, false);
		else if (r == 1) {
			call->outstanding += charge;
			lr_count_stream(call);
			lr_call_step(call, event);
			if (!big && flags & LR_F_END)
				lr_call_step(call, PUT_END);
			if (!big)
				return 0;
		}
		if (r < 0)
			return r;
	}
	return lr_send_pieces(e, call, msg, len, deadline, 0);
}

int lr_send(struct lr_engine *e, uint64_t handle, const char *msg, uint64_t len, int flags,
	int64_t deadline)
{
	struct lr_call *call;
	int r = lr_enter(e);

	if (r < 0)
		return r;
	call = lr_call_get(e, handle);
	r = call ? send_message(e, call, msg, len, flags, deadline) : LR_GONE;
	lr_leave(e);
	return r;
}

int lr_half_close(struct lr_engine *e, uint64_t handle)
{
	struct lr_call *call;
	int r = lr_enter(e);

	if (r < 0)
		return r;
	call = lr_call_get(e, handle);
	r = call ? lr_call_may(call, PUT_END) : LR_GONE;
	if (r == 1 && (r = lr_call_post(call, LR_T_MESSAGE, LR_F_END, NULL, 0)) == 0)
		lr_call_step(call, PUT_END);
	lr_leave(e);
	return r;
}
