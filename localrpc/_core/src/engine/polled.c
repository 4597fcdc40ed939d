/*
 * polled.c - which connections the leader reads.
 *
 * A connection is in one of three states:
 *
 *	polled	in e->polled, at most LR_POLLED: read whenever the leader reads, and armed
 *		only while no thread reads
 *	ready	in the queue: something has come, or waits for room, and there may be no
 *		place in e->polled. It has its turn to be read, like the polled ones
 *	idle	armed: the next frame, room or end is an event, which makes it ready
 *
 * Only make_idle() makes a connection idle: nothing is left to read, and it is armed. So no
 * frame is left on a connection that no thread reads and no event reports.
 */
#include "engine.h"

#define SILENT (8 * LR_MS) /* two ticks of the coarse clock: then a ready one may take its place */

/* Arm it for frames, room and the end. False: one of them has come, read it again. */
static bool make_idle(struct lr_conn *conn)
{
	const struct lr_link_ops *ops = conn->link->ops;

	if (!lr_conn_wants_room(conn))
		lr_conn_disarm_room(conn);
	else if (!lr_conn_arm_room(conn))
		return false;
	if ((ops->arm(conn->link, 0) || lr_conn_throttled(conn)) && !lr_conn_check_end(conn))
		return true;
	ops->disarm(conn->link);
	return false;
}

bool lr_polled_leave(struct lr_engine *e, uint32_t at)
{
	struct lr_conn *conn = e->polled[at];

	if (!conn->dead && !make_idle(conn))
		return false;
	e->polled[at] = e->polled[--e->npolled];
	conn->polled = false;
	lr_conn_unref(conn);
	return true;
}

void lr_conn_after_read(struct lr_conn *conn)
{
	if (!conn->dead && !make_idle(conn))
		lr_conn_ready(conn);
	lr_conn_unref(conn); /* the reference of lr_ready_pop() */
}

void lr_polled_fill(struct lr_engine *e)
{
	struct lr_conn *conn;

	if (e->ready && e->npolled == LR_POLLED) {
		/* Check one at a time, so that a pass takes no longer with many than with few. */
		uint32_t at = e->oldest_polled++ % LR_POLLED;
		if (lr_now_coarse() - e->polled[at]->last_frame_at > SILENT)
			lr_polled_leave(e, at);
	}
	while (e->ready && e->npolled < LR_POLLED) {
		conn = lr_ready_pop(e);
		e->polled[e->npolled++] = conn; /* the list takes over the queue's reference */
		conn->polled = true;
		conn->idle_sleeps = 0;
		conn->link->ops->disarm(conn->link);
		lr_conn_disarm_room(conn);
	}
}

void lr_remove_dead(struct lr_engine *e)
{
	if (!e->dead_conns)
		return;
	for (uint32_t i = 0; i < e->npolled;) {
		struct lr_conn *conn = e->polled[i];
		if (!conn->dead) {
			i++;
			continue;
		}
		e->polled[i] = e->polled[--e->npolled];
		conn->polled = false;
		lr_conn_unref(conn);
	}
	lr_ready_remove_dead(e);
	while (e->dead_conns) {
		struct lr_conn *conn = e->dead_conns;
		e->dead_conns = conn->next_dead;
		/* Calls whose handlers still run keep the link, but not its descriptors. */
		if (conn->link->ops->release) {
			lr_conn_unwatch(conn);
			conn->link->ops->release(conn->link);
		}
		lr_conn_unref(conn);
	}
}
