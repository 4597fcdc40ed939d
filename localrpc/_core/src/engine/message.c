/*
 * message.c - bring the content of a frame to its call's owner: a message, whole or in
 * pieces, or anything else. By the leader, with the mutex.
 */
#include "engine.h"

/* Into the waiting thread's lr_io if there is one, otherwise into the queue. */
int lr_deliver(struct lr_engine *e, struct lr_call *call, uint32_t kind, const void *data,
	uint64_t size)
{
	struct lr_waiter *w = call->receiver;
	struct lr_io *io = w && w->wants == WANT_ITEM ? w->io : NULL;
	struct lr_item *item;

	if (call->state & CALL_TOO_LARGE)
		return 0; /* the owner gets nothing that follows a refused message */
	if (io && !call->first && !(call->state & CALL_UNARY)) {
		if (kind == LR_K_MESSAGES && (io->kind == 0 || io->kind == kind) &&
		    io->count < LR_BATCH && io->fill + size <= io->cap) {
			memcpy(io->buf + io->fill, data, size);
			io->fill += (uint32_t)size;
			io->ends[io->count++] = io->fill;
			io->kind = kind;
			lr_wake(e, w);
			lr_call_took(e, call, size + LR_OVERHEAD);
			return 0;
		}
		if (io->kind == 0 && kind != LR_K_MESSAGES && size <= io->cap) {
			memcpy(io->buf, data, size);
			io->size = (int64_t)size;
			io->kind = kind;
			lr_wake(e, w);
			return 0;
		}
	}
	if (!lr_conn_may_queue(call->conn, size))
		return LR_NOMEM;
	item = lr_item_new(call->conn, kind, data, size);
	if (!item)
		return LR_NOMEM;
	lr_item_append(call, item);
	lr_wake_receiver(e, call);
	return 0;
}

int lr_too_large(struct lr_engine *e, struct lr_call *call, uint64_t size, bool big)
{
	if (!(call->state & CALL_TOO_LARGE))
		call->refused_size = size;
	call->state |= CALL_TOO_LARGE;
	if (big)
		call->skip = size;
	lr_wake_receiver(e, call);
	return 0;
}

/* A message, or the beginning of a large one, at the end of a frame's payload. */
int lr_message(struct lr_engine *e, struct lr_call *call, const struct lr_frame *f,
	uint32_t at, const char **why)
{
	uint64_t size = f->h.length - at;
	struct lr_item *item;

	if (f->h.flags & LR_F_BIG) {
		size = lr_read64(f->payload + at);
		if (size == 0 || size > INT64_MAX / 2) {
			*why = "a large message of an impossible size";
			return LR_PROTOCOL;
		}
	}
	if ((call->state & CALL_TOO_LARGE) ||
	    (e->max_receive >= 0 && size > (uint64_t)e->max_receive))
		return lr_too_large(e, call, size, f->h.flags & LR_F_BIG);
	if (!(f->h.flags & LR_F_BIG))
		return lr_deliver(e, call, LR_K_MESSAGES, f->payload + at, size);
	if (!lr_conn_may_queue(call->conn, 0))
		return LR_NOMEM;
	item = lr_item_new(call->conn, LR_K_BIG, NULL, size);
	if (!item)
		return LR_NOMEM;
	lr_expect_size(size);
	call->big = item;
	lr_item_append(call, item);
	lr_wake_receiver(e, call);
	return 0;
}

/* The last byte has come: what follows the message takes effect now. */
static int message_complete(struct lr_engine *e, struct lr_call *call)
{
	struct lr_item *status = call->status;
	bool half = call->in == IN_BIG_END;
	int r = lr_call_step(call, GOT_WHOLE);

	call->big = NULL;
	if (call->receiver && call->receiver->wants == WANT_BIG)
		call->receiver->amount = 1;
	if (status && r == 1) {
		call->status = NULL;
		lr_item_append(call, status);
		lr_call_step(call, GOT_STATUS);
		if (lr_call_missed(call))
			lr_call_step(call, EXPIRE);
		lr_call_ended(e, call);
	}
	if (half && (r = lr_deliver(e, call, LR_K_END, "", 0)) < 0)
		return r;
	if (call->place == DEFERRED) {
		lr_queue_push(e, call);
		lr_wake_worker(e);
	}
	lr_wake_receiver(e, call);
	return 0;
}

/*
 * Copy a large piece without the mutex, so that other threads do not wait for it. Only the
 * leader, which runs this, consumes frames or frees links; a thread that has lent the memory
 * or would free it waits while it is `busy`, or leaves the call to the last thread inside.
 */
static int copy_outside(struct lr_engine *e, struct lr_call *call, const uint8_t *data,
	uint64_t size)
{
	struct lr_item *big = call->big;

	big->busy = true;
	lr_call_hold(call);
	lr_unlock(e);
	memcpy(big->mem + big->got, data, size);
	pthread_mutex_lock(&e->lock);
	big->busy = false;
	big->got += size;
	if (!lr_call_unhold(e, call))
		return 0;
	return big->got == big->size ? message_complete(e, call) : 0;
}

int lr_on_data(struct lr_engine *e, struct lr_call *call, const struct lr_frame *f,
	const char **why)
{
	struct lr_item *big = call->big;
	uint64_t size = f->h.length;

	if (call->skip) {
		if (size > call->skip) {
			*why = "more DATA than the message's size";
			return LR_PROTOCOL;
		}
		call->skip -= size;
		return call->skip == 0 ? message_complete(e, call) : 0;
	}
	if (!big) /* its reader could not get the memory, and the call has ended on this side */
		return 0;
	if (size > big->size - big->got) {
		*why = "more DATA than the message's size";
		return LR_PROTOCOL;
	}
	if (!big->mem) {
		if (!lr_conn_may_queue(call->conn, big->size))
			return LR_NOMEM;
		if (!lr_item_hold(call->conn, big))
			return LR_NOMEM;
	}
	if (size >= LR_UNLOCKED_COPY)
		return copy_outside(e, call, f->payload, size);
	memcpy(big->mem + big->got, f->payload, size);
	big->got += size;
	return big->got == big->size ? message_complete(e, call) : 0;
}
