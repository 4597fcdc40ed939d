/* ends.c - how a call ends: by the peer, its death, this side, or its deadline; and who is told. */
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
	if (conn->last_said)
		return call->ordinal > conn->begun;
	return conn->link->ops->unseen(conn->link, call->mark);
}

/* ---- deadlines ---- */

/* The coarse clock lags by a tick, and costs a fifth of the other. */
#define COARSE_LAG (20 * LR_MS)

bool lr_call_late(const struct lr_call *call)
{
	return call->deadline && lr_now_coarse() + COARSE_LAG >= call->deadline &&
	       lr_now() >= call->deadline;
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

/* ---- ends ---- */

static void tell(struct lr_engine *e, struct lr_call *call)
{
	lr_call_unwatch(e, call);
	lr_told_push(e, call);
	lr_service_again(e);
}

bool lr_call_ended(struct lr_engine *e, struct lr_call *call)
{
	lr_wake(e, call->receiver);
	lr_wake(e, call->sender);
	if ((call->state & CALL_WATCHED) && !(call->state & CALL_TOLD))
		tell(e, call);
	if (call->place != DEFERRED)
		return true;
	lr_call_release(e, call);
	return false;
}

/* lr_call_ended() for a thread that is not the leader. The leader may be waiting for this call. */
static bool ended_here(struct lr_engine *e, struct lr_call *call)
{
	if (e->leader && (e->leader == call->receiver || e->leader == call->sender))
		lr_nudge(e);
	return lr_call_ended(e, call);
}

static bool end_here(struct lr_engine *e, struct lr_call *call, enum lr_event event, uint32_t code,
	const char *text, uint32_t len)
{
	struct iovec iov[2] = {{&code, sizeof code}, {(void *)(uintptr_t)text, len}};
	bool told = call->life != LIVE && call->life != FINISHING;

	if (lr_call_step(call, event) != 1)
		return true;
	if (!told)
		lr_conn_post(call->conn, LR_T_RESET, 0, call->wire, iov, 2);
	return ended_here(e, call);
}

bool lr_call_expired(struct lr_engine *e, struct lr_call *call)
{
	static const char text[] = "Deadline Exceeded";

	if (!lr_call_late(call))
		return false;
	end_here(e, call, EXPIRE, 4, text, sizeof text - 1);
	return true;
}

/* After a server's deadline nothing but that is said, whatever its handler makes of it. */
bool lr_call_cancel(struct lr_engine *e, struct lr_call *call, uint32_t code, const char *text,
	uint32_t len)
{
	static const char late[] = "Deadline Exceeded";

	if (e->role == LR_SERVER && lr_call_late(call))
		return end_here(e, call, EXPIRE, 4, late, sizeof late - 1);
	return end_here(e, call, CANCEL, code, text, len);
}

int lr_call_post(struct lr_call *call, int type, int flags, const struct iovec *iov, int count)
{
	static const char text[] = "the peer has no memory for what it has to say";
	int r = lr_conn_post(call->conn, type, flags, call->wire, iov, count);

	if (r == LR_NOMEM)
		lr_call_cancel(call->conn->engine, call, 8, text, sizeof text - 1);
	return r;
}

/* Free a call that has ended and whose owner is done with it; waiting threads are woken first. */
void lr_call_release(struct lr_engine *e, struct lr_call *call)
{
	if (lr_call_step(call, RELEASE) != 1)
		return; /* queued: whoever takes it from there frees it */
	if (call->inside)
		ended_here(e, call);
	else
		lr_call_free(e, call);
}
