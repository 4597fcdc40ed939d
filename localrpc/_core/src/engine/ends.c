/* ends.c - a call has ended: reporting it, and freeing the call. */
#include "engine.h"

void lr_call_hold(struct lr_call *call)
{
	call->inside++;
}

/* False: the call was released meanwhile, and is freed. */
bool lr_call_unhold(struct lr_engine *e, struct lr_call *call)
{
	if (--call->inside || call->place != RELEASED)
		return true;
	lr_call_free(e, call);
	return false;
}

/*
 * Is it certain that no handler has seen the call? A server that stops in order says how many
 * calls it took up. One that was killed has left in a ring how many it gave to handlers; any link
 * knows what was not read.
 */
bool lr_call_unseen(const struct lr_call *call)
{
	const struct lr_conn *conn = call->conn;

	if (call->state & CALL_UNSEEN)
		return true;
	if (call->life != DEAD || !call->mark)
		return false;
	if (conn->last_goaway_came)
		return call->ordinal > conn->begun;
	if (conn->link->trusts_begun && conn->why != LR_PROTOCOL) /* such a peer may lie */
		return call->ordinal > atomic_load(conn->link->peer_begun);
	return conn->link->ops->unseen(conn->link, call->mark);
}

/*
 * A thread that waits for a client's call has read everything that had come when the deadline
 * passed, so a frame that it reads later came too late. If no thread waited, frames in the
 * link count as in time: a server sends nothing after the deadline.
 */
bool lr_call_missed(const struct lr_call *call)
{
	const struct lr_waiter *w = call->receiver;

	return w && !w->came_late && call->conn->engine->role == LR_CLIENT && lr_call_late(call);
}

static void report_end(struct lr_engine *e, struct lr_call *call)
{
	lr_call_unwatch(e, call);
	lr_ended_push(e, call);
	lr_service_again(e);
}

bool lr_call_ended(struct lr_engine *e, struct lr_call *call)
{
	lr_wake_receiver(e, call);
	lr_wake_sender(e, call);
	if (e->looped) {
		if (call->state & CALL_WATCHED)
			lr_call_unwatch(e, call);
	} else if ((call->state & CALL_WATCHED) && !(call->state & CALL_REPORTED)) {
		report_end(e, call);
	}
	if (call->place != DEFERRED)
		return true;
	lr_call_release(e, call);
	return false;
}

bool lr_call_ended_here(struct lr_engine *e, struct lr_call *call)
{
	if (e->leader && (e->leader == call->receiver || e->leader == call->sender))
		lr_request_read(e);
	return lr_call_ended(e, call);
}

/* Free a call that has ended and that its owner has released; wake waiting threads first. */
void lr_call_release(struct lr_engine *e, struct lr_call *call)
{
	if (lr_call_step(call, RELEASE) != 1)
		return; /* queued: the thread that takes it from the queue frees it */
	if (call->inside)
		lr_call_ended_here(e, call);
	else
		lr_call_free(e, call);
}
