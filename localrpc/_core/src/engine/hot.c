/*
 * hot.c - which connections the leader looks at.
 *
 * A connection is in one of three places:
 *
 *	hot	in e->hot, at most LR_HOT: looked at whenever the leader reads, and
 *		armed only while nobody does
 *	ready	in the queue: something has come, or waits for room, and there may be no
 *		place among the hot ones. It is read in its turn, as they are
 *	cold	armed: the next frame, room or end is an event, which makes it ready
 *
 * It goes cold only through cool(), which is to say idle and armed; so nothing that has
 * come is ever left where nobody looks and nobody rings.
 */
#include "engine.h"

#define SILENT (8 * LR_MS) /* two ticks of the coarse clock: then a ready one may have its place */

/* Arm it for all that could happen to it. False: something has, look at it again. */
static bool cool(struct lr_conn *conn)
{
	const struct lr_link_ops *ops = conn->link->ops;

	if (!lr_conn_stuck(conn))
		lr_conn_disarm_room(conn);
	else if (!lr_conn_arm_room(conn))
		return false;
	if ((ops->arm(conn->link, 0) || lr_conn_choked(conn)) && !lr_conn_look_over(conn))
		return true;
	ops->disarm(conn->link);
	return false;
}

bool lr_hot_leave(struct lr_engine *e, uint32_t at)
{
	struct lr_conn *conn = e->hot[at];

	if (!conn->dead && !cool(conn))
		return false;
	e->hot[at] = e->hot[--e->nhot];
	conn->hot = false;
	lr_conn_unref(conn);
	return true;
}

void lr_conn_looked_at(struct lr_conn *conn)
{
	if (!conn->dead && !cool(conn))
		lr_conn_ready(conn);
	lr_conn_unref(conn); /* lr_ready_pop()'s */
}

void lr_hot_fill(struct lr_engine *e)
{
	struct lr_conn *conn;

	if (e->ready && e->nhot == LR_HOT) {
		/* One is asked at a time, so that a look costs no more with many than with few. */
		uint32_t at = e->oldest_hot++ % LR_HOT;
		if (lr_now_coarse() - e->hot[at]->heard > SILENT)
			lr_hot_leave(e, at);
	}
	while (e->ready && e->nhot < LR_HOT) {
		conn = lr_ready_pop(e);
		e->hot[e->nhot++] = conn; /* and the queue's reference is the list's */
		conn->hot = true;
		conn->idle_sleeps = 0;
		conn->link->ops->disarm(conn->link);
		lr_conn_disarm_room(conn);
	}
}

void lr_conn_bury(struct lr_engine *e)
{
	if (!e->dying)
		return;
	for (uint32_t i = 0; i < e->nhot;) {
		struct lr_conn *conn = e->hot[i];
		if (!conn->dead) {
			i++;
			continue;
		}
		e->hot[i] = e->hot[--e->nhot];
		conn->hot = false;
		lr_conn_unref(conn);
	}
	lr_ready_bury(e);
	while (e->dying) {
		struct lr_conn *conn = e->dying;
		e->dying = conn->next_dying;
		/* Calls whose handlers go on keep the link, but need nothing of its system's. */
		if (conn->link->ops->release) {
			lr_conn_unwatch(conn);
			conn->link->ops->release(conn->link);
		}
		lr_conn_unref(conn);
	}
}
