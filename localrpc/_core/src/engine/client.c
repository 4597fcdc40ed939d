/* client.c - opening calls, and the unary call in one function. */
#include "engine.h"

struct open_head {
	uint32_t method;
	uint32_t head_len;
	int64_t timeout_us;
};
_Static_assert(sizeof(struct open_head) == 16, "as on the wire");

static struct lr_conn *client_conn(struct lr_engine *e)
{
	struct lr_conn *conn = e->nconns ? e->conns[0] : NULL;
	return conn && !conn->dead && !e->goaway_came && !e->closed ? conn : NULL;
}

int lr_method(struct lr_engine *e, uint32_t number, const char *name, uint32_t len)
{
	struct iovec iov[2] = {{&number, 4}, {(void *)(uintptr_t)name, len}};
	struct lr_conn *conn;
	int r = lr_enter(e);

	if (r < 0)
		return r;
	conn = client_conn(e);
	if (number == 0 || number >= LR_MAX_NAMES || len == 0 || len > LR_MAX_NAME)
		r = LR_INVALID;
	else
		r = conn ? lr_conn_post(conn, LR_T_METHOD, 0, 0, iov, 2) : LR_UNSENT;
	lr_leave(e);
	return r == LR_CLOSED ? LR_UNSENT : r;
}

/* True if the message does not fit into the frame: it is long, or the method's name is there. */
static bool is_sent_big(uint32_t head_len, uint64_t msg_len)
{
	return msg_len > LR_INLINE ||
	       (msg_len && sizeof(struct open_head) + head_len + msg_len > LR_MAX_CONTROL);
}

/* Send the OPEN frame: 1, 0 (no room), or an error. */
static int put_open(struct lr_call *call, uint32_t method, const char *head, uint32_t head_len,
	int64_t timeout_us, const char *msg, uint64_t msg_len, int flags)
{
	struct open_head open = {method, head_len, timeout_us};
	struct iovec iov[3] = {{&open, sizeof open}, {(void *)(uintptr_t)head, head_len}};
	int kind = 0, count = 2, r;

	if (msg) {
		count = 3;
		if (is_sent_big(head_len, msg_len)) {
			kind = LR_F_BIG;
			iov[2] = (struct iovec){&msg_len, sizeof msg_len};
		} else {
			kind = LR_F_MESSAGE;
			iov[2] = (struct iovec){(void *)(uintptr_t)msg, msg_len};
		}
	}
	r = lr_conn_put(call->conn, LR_T_OPEN, kind | (flags & LR_F_END), call->wire, iov, count);
	if (r == 1) {
		struct lr_link *link = call->conn->link;
		call->mark = link->ops->sent(link);
		call->ordinal = ++call->conn->opens;
		if (kind == LR_F_BIG)
			lr_call_step(call, flags & LR_F_END ? PUT_BIG_END : PUT_BIG);
		else if (flags & LR_F_END)
			lr_call_step(call, PUT_END);
	}
	return r == LR_CLOSED ? LR_UNSENT : r;
}

static uint32_t open_size(uint32_t head_len, const char *msg, uint64_t msg_len)
{
	uint64_t tail = !msg ? 0 : is_sent_big(head_len, msg_len) ? 8 : msg_len;
	return (uint32_t)(sizeof(struct open_head) + head_len + tail);
}

static int open_call(struct lr_engine *e, struct lr_io *io, struct lr_call **out, uint32_t method,
	const char *head, uint32_t head_len, int64_t timeout_us, const char *msg,
	uint64_t msg_len, int flags, int64_t deadline)
{
	struct lr_conn *conn = client_conn(e);
	struct lr_call *call;
	int r;

	if (!conn)
		return LR_UNSENT;
	if (head_len > LR_MAX_BLOCK + (method ? 0 : 4 + LR_MAX_NAME))
		return LR_INVALID;
	call = lr_call_new(e, conn);
	if (!call)
		return LR_NOMEM;
	call->wire = io->call = lr_call_handle(call);
	call->deadline = deadline;
	while ((r = put_open(call, method, head, head_len, timeout_us, msg, msg_len, flags)) == 0) {
		r = lr_wait_room(e, call, open_size(head_len, msg, msg_len), deadline, false);
		if (r < 0) {
			/* Nothing has been sent: the caller may begin again. */
			if (r != LR_GONE)
				lr_call_free(e, call);
			io->call = 0;
			return r == LR_CLOSED ? LR_UNSENT : r;
		}
	}
	if (r < 0) {
		lr_call_free(e, call);
		io->call = 0;
		return r;
	}
	e->stats.calls++;
	lr_count_begin(e, call, lr_now());
	*out = call;
	if (e->looped && deadline && lr_call_watch(e, call, deadline) == 0)
		lr_loop_set_timer(e);
	return 0;
}

/* The deadline has passed. */
static void give_up(struct lr_engine *e, struct lr_call *call)
{
	lr_call_cancel(e, call, 4, NULL, 0);
	lr_call_release(e, call);
}

int lr_open(struct lr_engine *e, struct lr_io *io, uint32_t method, const char *head,
	uint32_t head_len, int64_t timeout_us, const char *msg, uint64_t msg_len, int flags,
	int64_t deadline)
{
	struct lr_call *call = NULL;
	int r = lr_enter(e);

	if (r < 0)
		return r;
	if (io->resumed) {
		call = lr_call_get(e, io->call);
		r = call ? 0 : LR_GONE;
	} else {
		r = open_call(e, io, &call, method, head, head_len, timeout_us, msg, msg_len, flags,
			deadline);
	}
	if (r == 0 && call->out == OUT_BIG_END) {
		r = lr_send_pieces(e, call, msg, msg_len, deadline, 0);
		io->resumed = r == LR_AGAIN;
		if (r == LR_TIMEOUT) {
			give_up(e, call);
		} else if (r != LR_AGAIN && r != LR_GONE) {
			r = 0; /* lr_recv returns how the call ended */
		}
	}
	lr_leave(e);
	return r;
}

/* ---- unary ---- */

static int64_t finish_unary(struct lr_engine *e, struct lr_io *io, struct lr_call *call, int r)
{
	int64_t size = io->size;

	if (r == LR_AGAIN || r == LR_GONE || r == LR_INVALID)
		return r;
	if (r == LR_TIMEOUT || call->life == EXPIRED) {
		give_up(e, call);
		return LR_TIMEOUT;
	}
	if (io->kind != LR_K_STATUS) {
		if (!lr_call_unseen(call) && !(call->life == DEAD && !call->first)) {
			call->state &= ~(uint32_t)CALL_UNARY;
			return LR_SLOW;
		}
		size = lr_call_unseen(call) ? LR_UNSENT : call->conn->why;
	} else if (io->flags & LR_F_FULL) {
		size = LR_FULL;
	}
	lr_call_release(e, call);
	return size;
}

static int64_t wait_unary(struct lr_engine *e, struct lr_io *io, struct lr_call *call,
	const char *msg, uint64_t msg_len, int64_t deadline)
{
	int r = call->out == OUT_BIG_END ? lr_send_pieces(e, call, msg, msg_len, deadline, 0) : 0;

	if (r == LR_AGAIN || r == LR_TIMEOUT || r == LR_GONE)
		return finish_unary(e, io, call, r);
	/* Otherwise the call ended while we sent, and the answer tells how. */
	return finish_unary(e, io, call, lr_wait_item(e, call, io, deadline));
}

static void clear(struct lr_io *io)
{
	io->kind = io->count = io->fill = io->flags = 0;
	io->size = 0;
}

int64_t lr_unary(struct lr_engine *e, struct lr_io *io, uint32_t method, const char *head,
	uint32_t head_len, const char *msg, uint64_t msg_len, int64_t deadline)
{
	struct lr_call *call;
	int64_t timeout_us = -1, r = lr_enter(e);

	if (r < 0)
		return r;
	clear(io);
	if (deadline) {
		int64_t left = deadline - lr_now();
		if (left <= 0) {
			lr_leave(e);
			return LR_TIMEOUT;
		}
		timeout_us = (left + LR_US - 1) / LR_US;
	}
	r = open_call(e, io, &call, method, head, head_len, timeout_us, msg, msg_len, LR_F_END,
		deadline);
	if (r == 0) {
		call->state |= CALL_UNARY;
		r = wait_unary(e, io, call, msg, msg_len, deadline);
	} else if (r == LR_AGAIN) {
		io->call = 0; /* nothing was sent */
	}
	lr_leave(e);
	return r;
}

int64_t lr_unary_wait(struct lr_engine *e, struct lr_io *io, const char *msg, uint64_t msg_len,
	int64_t deadline)
{
	struct lr_call *call;
	int64_t r = lr_enter(e);

	if (r < 0)
		return r;
	call = io->call ? lr_call_get(e, io->call) : NULL;
	if (!call) {
		r = io->call ? LR_GONE : LR_UNSENT;
	} else {
		clear(io);
		r = wait_unary(e, io, call, msg, msg_len, deadline);
	}
	lr_leave(e);
	return r;
}
