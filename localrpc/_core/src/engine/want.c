/* want.c - what a thread waits for, and whether it has come. */
#include "engine.h"

int lr_ready(struct lr_engine *e, struct lr_waiter *w)
{
	struct lr_call *call = w->call;

	switch (w->wants) {
	case WANT_ITEM:
		return w->io->kind || (call->first && !lr_only_headers(call)) ||
		       call->life != LIVE || (call->state & CALL_TOO_LARGE);
	case WANT_BIG:
		return !call->big || call->life != LIVE;
	case WANT_CREDIT:
		return lr_has_credit(call, w->amount) ||
		       call->life != LIVE;
	case WANT_ROOM:
		return w->conn->dead || (call && (call->life > FINISHING || call->after)) ||
		       (!w->conn->out && w->conn->link->ops->room(w->conn->link,
						 (uint32_t)w->amount));
	case WANT_CALL:
		return w->io->kind || e->queue || e->stopping || e->closed || e->yields;
	case WANT_SERVICE:
		if (e->role == LR_SERVER) /* leads only while no worker can */
			return e->first || e->recheck_deadlines || e->ended || e->unreported || e->closed ||
			       e->service_yields;
		return e->ended || e->recheck_deadlines || e->closed || e->service_yields ||
		       !e->conns[0] || e->conns[0]->dead;
	case WANT_NEWS: /* lr_drain reads as much as its turn allows */
		return 0;
	case WANT_FLUSH:
		return !lr_conn_unsent(w->conn);
	}
	return 1;
}

/* Count, or stop counting, a thread that waits for room; one that was woken does not count. */
void lr_want_room(struct lr_waiter *w, bool wants)
{
	struct lr_conn *conn = w->conn;

	if (w->wants != WANT_ROOM || w->counted == wants)
		return;
	w->counted = wants;
	if (!wants) {
		if (--conn->room_waiters == 0)
			conn->room_need = 0;
		return;
	}
	conn->room_waiters++;
	lr_conn_ready(conn); /* an idle one is armed for frames, not for room */
	if (w->amount > conn->room_need)
		conn->room_need = (uint32_t)w->amount;
}
