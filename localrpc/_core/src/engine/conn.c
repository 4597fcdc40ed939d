/* conn.c - one connection: sending on its link, posted frames, waiting for room, its end. */
#include "engine.h"

/* The link is closed. */
void lr_conn_end(struct lr_conn *conn)
{
	const char *fault = atomic_load(&conn->link->fault);

	if (!conn->dead)
		conn->engine->faulty = conn->faulty = fault != NULL;
	lr_conn_die(conn, LR_CLOSED, "%s", fault ? fault : "the peer has closed the connection");
}

void lr_conn_count_posted(struct lr_conn *conn, const struct lr_out *out, bool more)
{
	uint64_t cost = lr_cost(sizeof *out + out->header.length);
	bool throttled;

	if (more)
		lr_conn_charge(conn, &conn->posted, cost);
	else
		lr_conn_refund(conn, &conn->posted, cost);
	throttled = conn->posted >= LR_MAX_POSTED;
	if (throttled == atomic_load_explicit(&conn->throttled, memory_order_relaxed))
		return;
	atomic_store_explicit(&conn->throttled, throttled, memory_order_relaxed);
	if (throttled) {
		lr_queue_hold(conn->engine, conn);
		return;
	}
	lr_queue_resume(conn->engine, conn);
	/* Frames that came meanwhile were not read, and no edge will report them again. */
	atomic_store(&conn->link->edge, true);
	lr_conn_ready(conn);
	lr_request_read(conn->engine);
}

static void drop_posted(struct lr_conn *conn)
{
	struct lr_out *out;

	while ((out = conn->out)) {
		conn->out = out->next;
		lr_conn_count_posted(conn, out, false);
		free(out);
	}
	conn->out_last = &conn->out;
}

/* Frames that the peer sent before it closed are still read; the reader then ends the
 * connection. */
static void stop_sending(struct lr_conn *conn)
{
	conn->send_failed = true;
	drop_posted(conn);
	lr_conn_ready(conn); /* no event reports a failure of this side's own */
	lr_request_read(conn->engine);
}

static int send_frame(struct lr_conn *conn, struct lr_header *header, const struct iovec *iov,
	int count)
{
	int r;

	conn->link->holds = conn->engine->turn_rang;
	r = conn->link->ops->send(conn->link, header, iov, count);
	if (r > 0) {
		lr_ring_later(conn);
		conn->engine->stats.frames_out++;
		conn->engine->counts->frames_out++;
		conn->engine->counts->bytes_out += LR_HEADER_SIZE + header->length;
	}
	return r;
}

static void flush_posted(struct lr_conn *conn)
{
	struct lr_out *out;

	while (!conn->dead && (out = conn->out)) {
		struct iovec iov = {out->data, out->header.length};
		int r = send_frame(conn, &out->header, &iov, 1);

		if (r == 0)
			return;
		if (r < 0) {
			stop_sending(conn);
			return;
		}
		lr_conn_count_posted(conn, out, false);
		conn->out = out->next;
		if (!conn->out)
			conn->out_last = &conn->out;
		free(out);
	}
}

/* A stopping server may wait only for this. */
static void report_if_sent(struct lr_conn *conn)
{
	if (conn->engine->draining && !lr_conn_unsent(conn) && !conn->link->held)
		lr_service_again(conn->engine);
}

/* A link that has taken a frame cannot finish it now. */
static void finish_later(struct lr_conn *conn)
{
	if (!conn->link->unfinished)
		return;
	conn->engine->unsent_left = true;
	if (!conn->room_armed || !conn->polled) {
		/* The leader may sleep without watching for room for the rest. */
		lr_conn_ready(conn);
		lr_request_read(conn->engine);
	}
}

void lr_conn_flush_held(struct lr_conn *conn)
{
	if (conn->link->ops->flush(conn->link) < 0)
		stop_sending(conn);
	else
		finish_later(conn);
	report_if_sent(conn);
}

int lr_conn_put(struct lr_conn *conn, int type, int flags, uint64_t call, const struct iovec *iov,
	int count)
{
	struct lr_header header = {0, (uint8_t)type, (uint8_t)flags, 0, call};
	bool unfinished;
	int r;

	if (conn->out)
		flush_posted(conn);
	if (conn->dead || conn->send_failed)
		return LR_CLOSED;
	if (conn->out)
		return 0;
	for (int i = 0; i < count; i++)
		header.length += (uint32_t)iov[i].iov_len;
	unfinished = conn->link->unfinished;
	r = send_frame(conn, &header, iov, count);
	if (r < 0)
		stop_sending(conn);
	else if (r > 0 || !unfinished) /* without room for what was held it is, too */
		finish_later(conn);
	report_if_sent(conn);
	return r;
}

/* The room that is needed: for the first posted frame, or the largest that a thread waits for. */
static uint32_t wanted_room(const struct lr_conn *conn)
{
	return conn->out ? conn->out->header.length : conn->room_need;
}

/* A throttled connection is not read, so ask for the peer's end. True: it has come. */
bool lr_conn_check_end(struct lr_conn *conn)
{
	const struct lr_link_ops *ops = conn->link->ops;

	if (lr_conn_throttled(conn) && ops->peer_closed)
		conn->eof_seen = ops->peer_closed(conn->link);
	return conn->eof_seen;
}

void lr_conn_flush(struct lr_conn *conn)
{
	struct lr_engine *e = conn->engine;

	if (conn->link->unfinished && !conn->dead)
		conn->link->ops->room(conn->link, 0);
	if (conn->out)
		flush_posted(conn);
	report_if_sent(conn);
	if (!conn->room_waiters || conn->out)
		return;
	if (!conn->dead && !conn->link->ops->room(conn->link, conn->room_need))
		return;
	for (struct lr_waiter *w = e->first; w; w = w->next)
		if (w->wants == WANT_ROOM && w->conn == conn) {
			lr_wake(e, w);
			lr_want_room(w, false);
		}
	if (conn->loop_waits) {
		conn->loop_waits = false;
		conn->room_told = e->room_came = true;
		conn->room_need = 0;
		conn->room_waiters--;
		if (!e->leader)
			lr_loop_kick(e);
	}
}

/* Register for room events. If that fails, end the connection: it would never be woken. */
static bool watch_room(struct lr_conn *conn)
{
	struct lr_engine *e = conn->engine;
	struct epoll_event ev = {.events = EPOLLOUT | EPOLLET,
		.data.u64 = (uint64_t)conn->id << 8};
	int sets[2] = {e->epoll_fd, e->service_epoll};

	for (int i = 0; i < 2; i++) {
		if (sets[i] < 0 || epoll_ctl(sets[i], EPOLL_CTL_ADD, conn->link->room_fd, &ev) == 0)
			continue;
		e->faulty = conn->faulty = true;
		lr_conn_die(conn, LR_CLOSED, LR_UNWATCHED, strerror(errno));
		return false;
	}
	return true;
}

/* Ask to be woken when there is room. False: there is room, or the connection has ended. */
bool lr_conn_arm_room(struct lr_conn *conn)
{
	struct lr_link *link = conn->link;

	if (conn->dead || !lr_conn_wants_room(conn))
		return true;
	if (link->room_fd >= 0 && !conn->room_armed && !watch_room(conn))
		return false;
	conn->room_armed = true;
	return link->ops->arm_room(link, wanted_room(conn));
}

void lr_conn_disarm_room(struct lr_conn *conn)
{
	struct lr_engine *e = conn->engine;
	struct lr_link *link = conn->link;

	if (!conn->room_armed)
		return;
	conn->room_armed = false;
	if (link->room_fd >= 0) {
		epoll_ctl(e->epoll_fd, EPOLL_CTL_DEL, link->room_fd, NULL);
		if (e->service_epoll >= 0)
			epoll_ctl(e->service_epoll, EPOLL_CTL_DEL, link->room_fd, NULL);
	}
	link->ops->disarm_room(link);
}

static void end_with_link(struct lr_conn *conn, struct lr_call *call)
{
	if (!call->life || call->conn != conn || lr_call_step(call, LINK_DIED) != 1)
		return;
	/* CANCELLED where this side has closed, and at a server, whose client has gone. */
	call->code = conn->engine->role == LR_CLIENT && !conn->engine->closed ? 14 : 1;
	/* Unlike an answer it may have come at any time: the clock decides. */
	if (conn->engine->role == LR_CLIENT && lr_call_late(call))
		lr_call_step(call, EXPIRE);
	lr_call_ended(conn->engine, call);
}

/*
 * End a connection: end each of its calls, and wake the threads that wait. The leader
 * removes it from the polled list; the last reference closes it.
 */
void lr_conn_die(struct lr_conn *conn, int why, const char *format, ...)
{
	struct lr_engine *e = conn->engine;
	va_list args;

	if (conn->dead)
		return;
	conn->dead = true;
	conn->next_dead = e->dead_conns;
	e->dead_conns = conn;
	if (e->role == LR_CLIENT)
		e->no_more_waits = true;
	conn->why = why;
	va_start(args, format);
	vsnprintf(conn->reason, sizeof conn->reason, format, args);
	va_end(args);
	memcpy(e->reason, conn->reason, sizeof e->reason);
	/* Calls that are not yet released keep the link, but the peer need not wait for them. */
	lr_conn_disarm_room(conn);
	conn->link->ops->hang_up(conn->link);
	drop_posted(conn);
	lr_queue_resume(e, conn); /* the threads that take them drop them */
	/* A client's engine has one connection. A server has many: walk only the calls of this
	 * one, so that a client that reconnects again and again costs the others nothing. */
	if (e->role == LR_CLIENT)
		for (uint32_t i = 0; i < e->ncalls; i++)
			end_with_link(conn, e->calls[i]);
	else
		for (uint32_t i = 0; i < conn->by_slot_size; i++)
			if (conn->by_slot[i])
				end_with_link(conn, conn->by_slot[i]);
	for (struct lr_waiter *w = e->first; w; w = w->next)
		if (w->conn == conn)
			lr_wake(e, w);
	if (e->role == LR_SERVER) {
		conn->next_unreported = e->unreported;
		e->unreported = conn;
		conn->refs++;
	}
	lr_service_again(e);
	/* Have the leader remove it, and the table's reference with it. */
	lr_request_read(e);
}
