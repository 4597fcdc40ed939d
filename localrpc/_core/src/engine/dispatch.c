/* dispatch.c - apply a frame to its call. By the leader, with the mutex. */
#include "engine.h"

/* Apply `event` to the call: 1; 0: it has no effect any more; LR_PROTOCOL: not allowed, *why. */
static int on_event(struct lr_call *call, enum lr_event event, const char **why)
{
	int r = lr_call_step(call, event);

	if (r >= 0)
		return r;
	if (event == GOT_DATA)
		*why = "DATA without a message";
	else if (call->in == IN_HALF)
		*why = "a message after the end of its stream";
	else if (call->in == IN_OPEN)
		*why = "a HEADERS frame after another, or after a message";
	else
		*why = "a frame inside a large message of its call";
	return r;
}

static int ended_by_status(struct lr_engine *e, struct lr_call *call, const void *trailer,
	uint32_t len)
{
	int r = 0;

	if (lr_call_missed(call))
		lr_call_step(call, EXPIRE);
	else
		r = lr_deliver(e, call, LR_K_STATUS, trailer, len);
	if (r == 0)
		lr_call_ended(e, call);
	return r;
}

/* Give the whole answer of a unary call to the waiting thread. False: it does not fit. */
static bool deliver_answer(struct lr_engine *e, struct lr_call *call, const struct lr_frame *f,
	uint32_t trailer)
{
	struct lr_waiter *w = call->receiver;
	struct lr_item *headers = call->first;
	uint64_t size = f->h.length - 4 - trailer;
	struct lr_io *io;

	if (!(call->state & CALL_UNARY) || !w || (f->h.flags & LR_F_BIG) ||
	    (headers && !lr_only_headers(call)))
		return false;
	if (lr_call_missed(call))
		return false;
	io = w->io;
	if (!(f->h.flags & LR_F_MESSAGE))
		size = 0;
	if (size + trailer + (headers ? headers->size : 0) > io->cap ||
	    (e->max_receive >= 0 && size > (uint64_t)e->max_receive))
		return false;
	memcpy(io->buf, f->payload + 4 + trailer, size);
	io->size = (int64_t)size;
	io->kind = LR_K_STATUS;
	if (trailer || headers || !(f->h.flags & LR_F_MESSAGE)) {
		io->flags = LR_F_FULL | (f->h.flags & LR_F_MESSAGE);
		io->head = trailer;
		memcpy(io->buf + size, f->payload + 4, trailer);
		if (headers) {
			io->count = (uint32_t)headers->size;
			memcpy(io->buf + size + trailer, headers->data, headers->size);
			lr_item_free(call->conn, lr_item_pop(call));
		}
	}
	lr_call_ended(e, call);
	return true;
}

static int on_status(struct lr_engine *e, struct lr_call *call, const struct lr_frame *f,
	const char **why)
{
	uint32_t trailer = lr_read32(f->payload);
	int r;

	r = f->h.flags & LR_F_MESSAGE ? on_event(call, GOT_MESSAGE, why) : 1;
	if (r == 1)
		r = on_event(call, f->h.flags & LR_F_BIG ? GOT_STATUS_BIG : GOT_STATUS, why);
	if (r != 1)
		return r;
	lr_count_code(call, f->payload + 4, trailer);
	if (deliver_answer(e, call, f, trailer))
		return 0;
	if (f->h.flags & (LR_F_MESSAGE | LR_F_BIG)) {
		r = lr_message(e, call, f, 4 + trailer, why);
		if (r < 0)
			return r;
		if (f->h.flags & LR_F_BIG) { /* the status takes effect after its message */
			call->status = lr_item_new(call->conn, LR_K_STATUS, f->payload + 4, trailer);
			return call->status ? 0 : LR_NOMEM;
		}
	}
	return ended_by_status(e, call, f->payload + 4, trailer);
}

static void reset(struct lr_engine *e, struct lr_call *call, uint32_t code, const void *text,
	uint32_t len)
{
	struct lr_item *item;

	call->code = code;
	if (lr_call_missed(call))
		lr_call_step(call, EXPIRE);
	/* On a server a reset removes what was not taken yet; a client keeps its messages. */
	if (e->role == LR_SERVER)
		while ((item = lr_item_pop(call)))
			lr_item_free(call->conn, item);
	if (call->big) /* it will never be whole */
		lr_item_drop_last(call);
	if ((item = lr_item_new(call->conn, LR_K_RESET, text, len))) {
		item->count = code;
		lr_item_append(call, item);
	}
	lr_call_ended(e, call);
}

static struct lr_call *call_by_wire(struct lr_engine *e, struct lr_conn *conn, uint64_t wire)
{
	uint32_t slot = (uint32_t)wire;
	struct lr_call *call;

	if (e->role == LR_CLIENT) {
		call = lr_call_get(e, wire);
		return call && call->conn == conn ? call : NULL;
	}
	call = slot < conn->by_slot_size ? conn->by_slot[slot] : NULL;
	return call && call->wire == wire ? call : NULL;
}

static int on_credit(struct lr_engine *e, struct lr_call *call, const struct lr_frame *f,
	const char **why)
{
	uint64_t bytes = lr_read64(f->payload);

	if (bytes == 0) { /* the sender waits for credit: grant what has been taken, however little */
		call->state |= CALL_CREDIT_WANTED;
		lr_call_took(e, call, 0);
		return 0;
	}
	if (bytes > call->outstanding) {
		*why = "more credit than was outstanding";
		return LR_PROTOCOL;
	}
	call->outstanding -= bytes;
	call->state &= ~(uint32_t)CALL_ASKED_CREDIT;
	if (call->state & CALL_WANTS_CREDIT) {
		if (lr_has_credit(call, call->wanted))
			lr_wake_sender(e, call);
		else
			lr_ask_credit(call);
	} else if (call->sender && call->sender->wants == WANT_CREDIT) {
		if (lr_has_credit(call, call->sender->amount))
			lr_wake(e, call->sender);
		else
			lr_ask_credit(call); /* not enough yet: it still waits */
	}
	return 0;
}

static int on_goaway(struct lr_engine *e, struct lr_conn *conn, const struct lr_frame *f,
	const char **why)
{
	if (f->h.flags & LR_F_END) {
		conn->begun = lr_read64(f->payload);
		if (conn->begun > conn->opens) {
			*why = "a last GOAWAY frame that counts more calls than there were";
			return LR_PROTOCOL;
		}
		conn->last_goaway_came = true;
	}
	e->goaway_came = true;
	lr_service_again(e);
	return 0;
}

/* The call ends; the others of its connection go on. */
static void no_memory_for(struct lr_engine *e, struct lr_call *call)
{
	static const char text[] = "this process has no memory for a message of the call";
	uint32_t code = 8;
	struct iovec iov[2] = {{&code, sizeof code}, {(void *)(uintptr_t)text, sizeof text - 1}};
	char limit[160];

	if (e->role == LR_SERVER) {
		lr_over_memory(call->conn, limit, sizeof limit);
		lr_call_cancel(e, call, code, limit, (uint32_t)strlen(limit));
	} else if (lr_call_step(call, GOT_RESET) == 1) { /* as if the server had reset it */
		lr_conn_post(call->conn, LR_T_RESET, 0, call->wire, iov, 2);
		reset(e, call, code, text, sizeof text - 1);
	} else { /* it has ended, by the status that there is no memory for */
		lr_call_ended(e, call);
	}
}

static int on_message(struct lr_engine *e, struct lr_call *call, const struct lr_frame *f,
	const char **why)
{
	int flags = f->h.flags, r = 1;

	if (flags & (LR_F_MESSAGE | LR_F_BIG)) {
		enum lr_event event = !(flags & LR_F_BIG) ? GOT_MESSAGE :
				      flags & LR_F_END	  ? GOT_BIG_END :
							    GOT_BIG;
		r = on_event(call, event, why);
		if (r == 1)
			lr_count_stream(call);
		if (r == 1 && (r = lr_check_window(e, call, f)) == 0 &&
		    (r = lr_message(e, call, f, 0, why)) == 0)
			r = 1;
	}
	if (r != 1 || !(flags & LR_F_END) || (flags & LR_F_BIG))
		return r < 0 ? r : 0;
	r = on_event(call, GOT_END, why);
	return r == 1 ? lr_deliver(e, call, LR_K_END, "", 0) : r;
}

static int on_call_frame(struct lr_engine *e, struct lr_call *call, const struct lr_frame *f,
	const char **why)
{
	int r;

	switch (f->h.type) {
	case LR_T_STATUS:
		return on_status(e, call, f, why);
	case LR_T_HEADERS:
		r = on_event(call, GOT_HEADERS, why);
		return r == 1 ? lr_deliver(e, call, LR_K_HEADERS, f->payload, f->h.length) : r;
	case LR_T_DATA:
		if (f->h.length == 0)
			return 0; /* it has no effect */
		r = on_event(call, GOT_DATA, why);
		return r == 1 ? lr_on_data(e, call, f, why) : r;
	case LR_T_CREDIT:
		r = on_event(call, GOT_CREDIT, why);
		return r == 1 ? on_credit(e, call, f, why) : r;
	case LR_T_RESET:
		if (lr_call_step(call, GOT_RESET) != 1)
			return 0;
		if (f->h.flags & LR_F_UNSEEN)
			call->state |= CALL_UNSEEN;
		reset(e, call, lr_read32(f->payload), f->payload + 4, f->h.length - 4);
		return 0;
	default:
		return on_message(e, call, f, why);
	}
}

int lr_dispatch(struct lr_engine *e, struct lr_conn *conn, const struct lr_frame *f,
	const char **why)
{
	struct lr_call *call = NULL;
	int r = 0;

	*why = e->frame_error;
	if (lr_check_frame(e, conn, f) < 0)
		return LR_PROTOCOL;
	switch (f->h.type) {
	case LR_T_METHOD:
		r = lr_on_method(e, conn, f, why);
		break;
	case LR_T_OPEN:
		r = lr_on_open(e, conn, f, why);
		break;
	case LR_T_GOAWAY:
		return on_goaway(e, conn, f, why);
	default:
		call = call_by_wire(e, conn, f->h.call);
		if (!call)
			return 0; /* the call has ended here */
		r = on_call_frame(e, call, f, why);
	}
	if (r == LR_NOMEM && call) {
		no_memory_for(e, call);
		return 0;
	}
	if (r == LR_NOMEM)
		*why = "this process has no memory for a method's name";
	return r < 0 ? LR_PROTOCOL : 0;
}
