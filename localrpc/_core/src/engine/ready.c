/* ready.c - the queue of connections that the leader has to read: see polled.c. */
#include "engine.h"

void lr_conn_ready(struct lr_conn *conn)
{
	struct lr_engine *e = conn->engine;

	if (conn->polled || conn->ready || conn->dead)
		return;
	conn->ready = true;
	conn->refs++; /* the queue's */
	conn->next_ready = NULL;
	*e->ready_last = conn;
	e->ready_last = &conn->next_ready;
	e->nready++;
}

struct lr_conn *lr_ready_pop(struct lr_engine *e)
{
	struct lr_conn *conn = e->ready;

	if (!conn)
		return NULL;
	e->ready = conn->next_ready;
	if (!e->ready)
		e->ready_last = &e->ready;
	e->nready--;
	conn->next_ready = NULL;
	conn->ready = false;
	return conn;
}

void lr_ready_remove_dead(struct lr_engine *e)
{
	for (uint32_t left = e->nready; left; left--) {
		struct lr_conn *conn = lr_ready_pop(e);
		if (!conn->dead)
			lr_conn_ready(conn);
		lr_conn_unref(conn);
	}
}
