/* read.c - the leader reads: polled and ready connections, and events. */
#include "engine.h"

#include <sys/socket.h>
#include <unistd.h>

#define FRAMES_PER_EPOLL 64 /* after this many frames, epoll is checked for the others */

/* A batch is being filled: add the messages that have come already. */
static bool can_take_more(const struct lr_waiter *w)
{
	return w->wants == WANT_ITEM && w->io->kind == LR_K_MESSAGES && w->io->count < LR_BATCH &&
	       w->io->fill < w->io->cap / 2;
}

/* Read one connection for its turn, and add to *count. True: w has what it waits for. */
static bool read_conn(struct lr_engine *e, struct lr_waiter *w, struct lr_conn *conn, int *count)
{
	const struct lr_link_ops *ops = conn->link->ops;
	uint32_t frames = 0, bytes = 0;
	struct lr_frame frame;
	int r = 0;

	while (!conn->dead && !lr_conn_throttled(conn) && frames < LR_BURST && bytes < LR_BURST_BYTES &&
	       (r = ops->peek(conn->link, &frame)) == 1) {
		const char *why = "";

		r = lr_dispatch(e, conn, &frame, &why);
		if (r < 0) {
			lr_conn_die(conn, LR_PROTOCOL, "the peer broke the protocol: %s", why);
			break;
		}
		/* there may be more frames, before the end of the connection if that is known */
		r = 1;
		ops->consume(conn->link);
		e->stats.frames_in++;
		e->counts->frames_in++;
		e->counts->bytes_in += LR_HEADER_SIZE + frame.h.length;
		if (!frames++)
			conn->last_frame_at = lr_now_coarse();
		bytes += frame.h.length;
		conn->idle_sleeps = 0;
		if (lr_ready(e, w) && !can_take_more(w))
			break;
	}
	if (!conn->dead && r == LR_PROTOCOL)
		lr_conn_die(conn, r, "the peer broke the protocol: an invalid frame");
	else if (!conn->dead && (r < 0 || (r == 0 && conn->eof_seen)))
		lr_conn_end(conn);
	*count += (int)frames + conn->dead; /* an end counts, too: read again */
	e->frames_since_epoll += frames;
	return (frames || conn->dead) && lr_ready(e, w);
}

/* Take the events of idle connections, when the leader is too busy to sleep. */
static void ask_epoll(struct lr_engine *e)
{
	struct epoll_event events[LR_EVENTS];
	int n;

	if (!atomic_exchange(&e->check_epoll, 0) &&
	    (e->frames_since_epoll < FRAMES_PER_EPOLL || e->stats.conns <= e->npolled + e->nready))
		return;
	n = lr_wait_events(e->epoll_fd, events, LR_EVENTS, 1, NULL);
	if (n == LR_EVENTS) /* there may be more, and they do not ring again */
		atomic_store(&e->check_epoll, 1);
	e->frames_since_epoll = 0;
	lr_take_events(e, events, n > 0 ? n : 0);
}

/* Turns: the polled connections, then as many as are ready, then the polled ones again. */
static struct lr_conn *next_in_turn(struct lr_engine *e)
{
	struct lr_conn *conn;

	if (e->turn < e->npolled)
		return e->polled[e->turn++];
	if (e->ready_turns) {
		e->ready_turns--;
		if ((conn = lr_ready_pop(e))) {
			/* It was armed when it became idle: the next time it needs a new epoch. */
			conn->link->ops->disarm(conn->link);
			lr_conn_disarm_room(conn);
			return conn;
		}
	}
	e->turn = 0;
	e->ready_turns = e->nready;
	return NULL;
}

int lr_read_conns(struct lr_engine *e, struct lr_waiter *w)
{
	uint32_t left;
	int count = 0;

	ask_epoll(e);
	lr_polled_fill(e);
	lr_remove_dead(e);
	for (left = e->npolled + e->nready + 1; left; left--) {
		struct lr_conn *conn = next_in_turn(e);
		bool got;

		if (!conn)
			continue;
		got = read_conn(e, w, conn, &count);
		if (!conn->polled) {
			if (lr_conn_wants_room(conn))
				lr_conn_flush(conn);
			lr_conn_after_read(conn);
		}
		if (got)
			break;
		if (atomic_load_explicit(&e->entering, memory_order_relaxed))
			lr_yield_mutex(e);
	}
	return count;
}

static void peer_socket(struct lr_conn *conn)
{
	char byte;
	ssize_t n;

	if (conn->link->sock_fd == conn->link->bell_fd)
		return; /* frames come on this socket: peek sees the end */
	n = recv(conn->link->sock_fd, &byte, 1, MSG_DONTWAIT | MSG_PEEK);
	if (n > 0)
		lr_conn_die(conn, LR_PROTOCOL, "the peer broke the protocol: bytes on the socket");
	else if (n == 0 || (errno != EAGAIN && errno != EINTR))
		conn->eof_seen = true;
}

void lr_take_events(struct lr_engine *e, const struct epoll_event *events, int n)
{
	uint64_t count;

	for (int i = 0; i < n; i++) {
		uint32_t id = (uint32_t)(events[i].data.u64 >> 8);
		int kind = (int)(events[i].data.u64 & 0xff);
		struct lr_conn *conn;

		if (kind == EVENT_KICK || kind == EVENT_ALARM) {
			if (kind == EVENT_ALARM)
				e->loop_timer_at = 0;
			if (read(kind == EVENT_KICK ? e->kick_fd : e->loop_timer, &count,
				    sizeof count) < 0)
				continue;
			continue;
		}
		conn = lr_conn_get(e, id);
		if (!conn || conn->dead)
			continue;
		if (kind == EVENT_SOCKET)
			peer_socket(conn);
		else if (kind == EVENT_PIDFD || (events[i].events & EPOLLHUP))
			conn->eof_seen = true; /* also for a throttled one, which is not read */
		else
			lr_conn_check_end(conn);
		/* The thread that took the edge may leave before it reads. */
		atomic_store(&conn->link->edge, true);
		lr_conn_ready(conn);
	}
}

void lr_disarm_polled(struct lr_engine *e)
{
	for (uint32_t i = 0; i < e->npolled; i++) {
		e->polled[i]->link->ops->disarm(e->polled[i]->link);
		lr_conn_disarm_room(e->polled[i]);
	}
}

bool lr_flush_polled(struct lr_engine *e)
{
	bool wanted = false;

	for (uint32_t i = 0; i < e->npolled; i++)
		if (lr_conn_wants_room(e->polled[i])) {
			lr_conn_flush(e->polled[i]);
			wanted |= lr_conn_wants_room(e->polled[i]);
		}
	return wanted;
}
