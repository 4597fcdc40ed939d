/* send.c - messages of a call on their way out: credit, room, pieces. */
#include "engine.h"

int lr_may_send(const struct lr_call *call)
{
	if (call->state & CALL_CANCELLED)
		return LR_CANCELLED;
	if (call->state & CALL_DEAD)
		return LR_CLOSED;
	if (call->state & CALL_PEER_ENDED)
		return LR_ENDED;
	return 0;
}

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
	return r < 0 ? r : lr_may_send(call);
}

int lr_wait_room(struct lr_engine *e, struct lr_call *call, uint32_t need, int64_t deadline,
	bool deaf)
{
	struct lr_waiter w = {.wants = WANT_ROOM, .amount = need, .deaf = deaf};

	/* The reader empties the ring before it waits, so that much will be free. */
	if (w.amount < call->conn->link->stride)
		w.amount = call->conn->link->stride;
	return wait_to_send(e, call, &w, deadline);
}

/* A message may begin when nothing is outstanding, or when it fits. */
bool lr_has_credit(const struct lr_call *call, uint64_t charge)
{
	return call->outstanding == 0 || call->outstanding + charge <= call->conn->peer_window;
}

/* Say that we are stuck, so that less than half a window is granted too. */
void lr_ask_credit(struct lr_call *call)
{
	uint64_t nothing = 0;
	struct iovec iov = {&nothing, sizeof nothing};

	if (call->state & CALL_ASKED_CREDIT)
		return;
	call->state |= CALL_ASKED_CREDIT;
	lr_conn_post(call->conn, LR_T_CREDIT, 0, call->wire, &iov, 1);
}

static int wait_credit(struct lr_engine *e, struct lr_call *call, uint64_t charge,
	int64_t deadline)
{
	struct lr_waiter w = {.wants = WANT_CREDIT, .amount = charge};

	lr_ask_credit(call);
	return wait_to_send(e, call, &w, deadline);
}

/* The bytes of a large message from call->sending - 1 on, as DATA frames. */
int lr_send_pieces(struct lr_engine *e, struct lr_call *call, const char *msg, uint64_t len,
	int64_t deadline, bool deaf)
{
	lr_expect_size(len);
	while (call->sending && call->sending - 1 < len) {
		uint64_t at = call->sending - 1, left = len - at;
		uint32_t most = call->conn->link->piece;
		uint32_t n = left < most ? (uint32_t)left : most;
		struct iovec iov = {(void *)(uintptr_t)(msg + at), n};
		int r = lr_may_send(call);

		if (r == 0)
			r = lr_conn_put(call->conn, LR_T_DATA, 0, call->wire, &iov, 1);
		if (r == 0)
			r = lr_wait_room(e, call, n, deadline, deaf);
		if (r < 0)
			return r;
		if (r == 1) {
			call->sending += n;
			lr_call_hold(call);
			lr_breathe(e);
			if (!lr_call_unhold(e, call))
				return LR_GONE;
		}
	}
	call->sending = 0;
	return 0;
}

static int send_message(struct lr_engine *e, struct lr_call *call, const char *msg, uint64_t len,
	int flags, int64_t deadline)
{
	uint64_t charge = len + LR_OVERHEAD;
	bool big = len > LR_INLINE;
	struct iovec iov = {(void *)(uintptr_t)msg, len};
	int r;

	if (big) {
		iov.iov_base = &len;
		iov.iov_len = sizeof len;
	}
	while (!call->sending) {
		if ((r = lr_may_send(call)) < 0)
			return r;
		if (call->state & (CALL_HALF | CALL_FINISHED))
			return LR_INVALID;
		if (!lr_has_credit(call, charge)) {
			if ((r = wait_credit(e, call, charge, deadline)) < 0)
				return r;
			continue;
		}
		r = lr_conn_put(call->conn, LR_T_MESSAGE,
			(big ? LR_F_BIG : LR_F_MESSAGE) | (flags & LR_F_END), call->wire, &iov, 1);
		if (r == 0)
			r = lr_wait_room(e, call, (uint32_t)iov.iov_len, deadline, false);
		else if (r == 1) {
			call->outstanding += charge;
			if (flags & LR_F_END)
				call->state |= CALL_HALF;
			if (!big)
				return 0;
			call->sending = 1;
		}
		if (r < 0)
			return r;
	}
	return lr_send_pieces(e, call, msg, len, deadline, false);
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
	r = call ? lr_may_send(call) : LR_GONE;
	if (r == 0 && !(call->state & CALL_HALF)) {
		call->state |= CALL_HALF;
		r = lr_conn_post(call->conn, LR_T_MESSAGE, LR_F_END, call->wire, NULL, 0);
		if (r == 0)
			r = lr_later(call->conn);
	}
	lr_leave(e);
	return r;
}
