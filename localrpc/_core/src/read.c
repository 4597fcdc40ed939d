/* read.c - the leader reads: hot connections, what events say of them, frames. */
#include "engine.h"

#include <sys/socket.h>
#include <unistd.h>

#define BURST 256 /* frames of one connection before the next has its turn */

void lr_heat(struct lr_engine *e, struct lr_conn *conn)
{
	if (conn->hot || conn->dead)
		return;
	if (e->nhot == LR_HOT) {
		/* The one that has been silent longest makes place, if it can sleep. */
		uint32_t victim = 0;
		for (uint32_t i = 1; i < e->nhot; i++)
			if (e->hot[i]->idle_sleeps > e->hot[victim]->idle_sleeps)
				victim = i;
		if (!e->hot[victim]->link->ops->arm(e->hot[victim]->link, 0)) {
			e->hot[victim]->link->ops->disarm(e->hot[victim]->link);
			victim = (victim + 1) % LR_HOT;
			e->hot[victim]->link->ops->arm(e->hot[victim]->link, 0);
			atomic_store(&e->look, 1);
		}
		e->hot[victim]->hot = false;
		lr_conn_unref(e->hot[victim]);
		e->hot[victim] = conn;
	} else {
		e->hot[e->nhot++] = conn;
	}
	conn->hot = true;
	conn->refs++;
	conn->idle_sleeps = 0;
	conn->link->ops->disarm(conn->link);
}

/* A batch is being filled: what has come already goes with it. */
static bool takes_more(const struct lr_waiter *w)
{
	return w->wants == WANT_ITEM && w->io->kind == LR_K_MESSAGES && w->io->count < LR_BATCH &&
	       w->io->fill < w->io->cap / 2;
}

int lr_drain(struct lr_engine *e, struct lr_waiter *w)
{
	struct lr_conn *conn;
	struct lr_frame frame;
	int64_t now = 0;
	int count = 0;

	while ((conn = e->fresh)) {
		e->fresh = conn->next_fresh;
		conn->next_fresh = NULL;
		conn->warming = false;
		lr_heat(e, conn);
		lr_conn_unref(conn); /* the list's */
	}
	lr_conn_bury(e);
	for (uint32_t i = 0, n = e->nhot; i < n && i < e->nhot; i++) {
		const struct lr_link_ops *ops;
		int r = 0, burst = BURST;

		conn = e->hot[(e->next_hot + i) % e->nhot];
		ops = conn->link->ops;
		while (!conn->dead && !lr_conn_choked(conn) && burst-- &&
		       (r = ops->peek(conn->link, &frame)) == 1) {
			const char *why = "";

			r = lr_dispatch(e, conn, &frame, &why);
			if (r < 0) {
				lr_conn_die(conn, LR_PROTOCOL, "the peer broke the protocol: %s",
					why);
				return count + 1;
			}
			ops->consume(conn->link);
			e->stats.frames_in++;
			count++;
			if (!now)
				now = lr_now_coarse();
			conn->heard = now;
			conn->idle_sleeps = 0;
			if (lr_ready(e, w) && !takes_more(w)) {
				e->next_hot = (e->next_hot + i + 1) % e->nhot;
				return count;
			}
		}
		if (r == LR_PROTOCOL)
			lr_conn_die(conn, r, "the peer broke the protocol: a frame that cannot be");
		else if (r < 0 || (r == 0 && conn->eof_seen))
			lr_conn_end(conn);
		if (conn->dead)
			count++; /* something happened: look again */
		else if (count && lr_ready(e, w))
			return count;
	}
	return count;
}

static void peer_socket(struct lr_conn *conn)
{
	char byte;
	ssize_t n;

	if (conn->link->sock_fd == conn->link->bell_fd)
		return; /* frames travel here: peek sees the end */
	n = recv(conn->link->sock_fd, &byte, 1, MSG_DONTWAIT | MSG_PEEK);
	if (n > 0)
		lr_conn_die(conn, LR_PROTOCOL, "the peer broke the protocol: bytes on the socket");
	else if (n == 0 || (errno != EAGAIN && errno != EINTR))
		conn->eof_seen = true;
}

void lr_handle_events(struct lr_engine *e, const struct epoll_event *events, int n)
{
	uint64_t count;

	for (int i = 0; i < n; i++) {
		uint32_t id = (uint32_t)(events[i].data.u64 >> 8);
		int kind = (int)(events[i].data.u64 & 0xff);
		struct lr_conn *conn;

		if (kind == EVENT_KICK) {
			if (read(e->kick_fd, &count, sizeof count) < 0)
				continue;
			continue;
		}
		conn = lr_conn_get(e, id);
		if (!conn || conn->dead)
			continue;
		if (kind == EVENT_SOCKET)
			peer_socket(conn);
		else if (kind == EVENT_PIDFD || (events[i].events & EPOLLHUP))
			conn->eof_seen = true; /* also by a choked one, which nobody reads */
		else
			lr_conn_look_over(conn);
		/* Whoever took the edge may be gone before it reads. */
		atomic_store(&conn->link->edge, true);
		lr_heat(e, conn);
	}
	for (uint32_t i = 0; i < e->nhot; i++) {
		e->hot[i]->link->ops->disarm(e->hot[i]->link);
		lr_conn_disarm_room(e->hot[i]);
	}
}

bool lr_pump(struct lr_engine *e)
{
	bool wanted = false;

	for (uint32_t i = 0; i < e->nhot; i++)
		if (lr_conn_stuck(e->hot[i])) {
			lr_conn_pump(e->hot[i]);
			wanted |= lr_conn_stuck(e->hot[i]);
		}
	return wanted;
}
