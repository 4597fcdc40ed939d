/* ends.c - a call has ended: who is told, and when it is freed. */
#include "engine.h"

void lr_call_hold(struct lr_call *call)
{
	call->inside++;
}

/* False: the call was released meanwhile, and is gone. */
bool lr_call_unhold(struct lr_engine *e, struct lr_call *call)
{
	if (--call->inside || call->place != RELEASED)
		return true;
	lr_call_free(e, call);
	return false;
}

/*
 * Has no handler seen it, for sure? A server that ends in order says how far it came;
 * what one that was killed has not read, the link knows.
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
	return conn->link->ops->unseen(conn->link, call->mark);
}

/*
 * A client's thread that waits for a call has read all that had come when its deadline
 * passed: what it reads later came too late. Where nobody waited, what is in the link is
 * taken for what came in time: a server sends nothing else.
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
	lr_wake(e, call->receiver);
	lr_wake(e, call->sender);
	if ((call->state & CALL_WATCHED) && !(call->state & CALL_REPORTED))
		report_end(e, call);
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

/* Free a call that has ended and whose owner is done with it; waiting threads are woken first. */
void lr_call_release(struct lr_engine *e, struct lr_call *call)
{
	if (lr_call_step(call, RELEASE) != 1)
		return; /* queued: whoever takes it from there frees it */
	if (call->inside)
		lr_call_ended_here(e, call);
	else
		lr_call_free(e, call);
}
