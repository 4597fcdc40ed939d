/* memlink.c - a link in memory: see memlink.h. */
#include "memlink.h"

#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

uint32_t memlinks;

#define MEM(l) ((struct memlink *)(l))
#define ROOM_IN_PAIR (160 << 10)
#define FULL 0xfffffffffffffffeULL

static void say(const char *what, const struct memlink *m, const struct lr_header *h)
{
	world_trace("%s %s type %d, flags %d, call %llx, %u bytes",
		m->wire.role == LR_CLIENT ? "client" : "server", what, h->type, h->flags,
		(unsigned long long)h->call, h->length);
}

static void ring(int fd)
{
	static const uint64_t one = 1;

	if (write(fd, &one, sizeof one) < 0)
		return;
}

void memlink_bell(struct memlink *m)
{
	ring(m->link.bell_fd);
}

static void append(struct memlink *m, struct mem_frame *f)
{
	f->next = NULL;
	*m->last = f;
	m->last = &f->next;
	m->waiting += LR_HEADER_SIZE + f->h.length;
	if (m->armed)
		memlink_bell(m);
}

static struct mem_frame *frame_new(const struct lr_header *h, const uint8_t *payload)
{
	struct mem_frame *f = world_malloc(sizeof *f);

	*f = (struct mem_frame){.h = *h, .payload = world_malloc(h->length)};
	memcpy(f->payload, payload, h->length);
	return f;
}

static void frame_free(struct mem_frame *f)
{
	if (f)
		free(f->payload);
	free(f);
}

void memlink_deliver(struct memlink *m, const struct lr_header *h, const uint8_t *payload)
{
	if (!m->eof)
		append(m, frame_new(h, payload));
}

void memlink_end(struct memlink *m)
{
	if (m->eof)
		return;
	world_trace("the link of the %s ends", m->wire.role == LR_CLIENT ? "client" : "server");
	m->eof = true;
	if (m->far_end >= 0)
		shutdown(m->far_end, SHUT_RDWR);
	if (m->link.pidfd >= 0)
		ring(m->link.pidfd);
	memlink_bell(m);
}

static void more_room(struct memlink *m)
{
	uint64_t count;

	if (!m->room_armed)
		return;
	if (m->link.room_fd < 0)
		memlink_bell(m);
	else if (read(m->link.room_fd, &count, sizeof count) < 0)
		return; /* it is writable already */
}

void memlink_grant(struct memlink *m, uint64_t bytes)
{
	m->room += (int64_t)(bytes & 0xffffffff);
	more_room(m);
}

/* ---- reading ---- */

static int mem_peek(struct lr_link *link, struct lr_frame *frame)
{
	struct memlink *m = MEM(link);
	struct mem_frame *f = m->first;

	atomic_store(&link->edge, false);
	if (!f)
		return m->garbage ? LR_PROTOCOL : m->eof ? LR_CLOSED : 0;
	if (!f->peeked) {
		f->peeked = true;
		say("reads", m, &f->h);
		if (f->h.type == LR_T_OPEN)
			wire_opened(&m->wire, f->h.call);
	}
	frame->h = f->h;
	frame->payload = f->payload;
	atomic_store(&link->peer_cpu, f->h.cpu);
	return 1;
}

static void mem_consume(struct lr_link *link)
{
	struct memlink *m = MEM(link);
	struct mem_frame *f = m->first;
	uint64_t size = LR_HEADER_SIZE + f->h.length;

	m->first = f->next;
	if (!m->first)
		m->last = &m->first;
	m->waiting -= size;
	if (f->h.type == LR_T_CREDIT && f->h.length == 8)
		wire_granted(&m->wire, f->h.call, lr_read64(f->payload));
	frame_free(f);
	if (m->other && !m->other->closed)
		memlink_grant(m->other, size);
}

static bool mem_poll(struct lr_link *link)
{
	return MEM(link)->first || MEM(link)->eof || MEM(link)->garbage;
}

static bool mem_peer_closed(struct lr_link *link)
{
	return MEM(link)->eof;
}

static bool mem_arm(struct lr_link *link, uint32_t sleeper)
{
	(void)sleeper;
	MEM(link)->armed = true;
	return !mem_poll(link);
}

static void mem_disarm(struct lr_link *link)
{
	MEM(link)->armed = false;
}

/* ---- writing ---- */

static void send_whole(struct memlink *m, struct mem_frame *f)
{
	if (m->other && !m->other->eof)
		append(m->other, f);
	else
		frame_free(f);
}

static void put_on_link(struct memlink *m, struct mem_frame *f)
{
	m->room -= LR_HEADER_SIZE + f->h.length;
	if (m->room < 0)
		m->half = f;
	else
		send_whole(m, f);
}

/* Finish what has begun, and send what is held, as far as there is room. False: not all. */
static bool mem_finish(struct memlink *m)
{
	struct mem_frame *f;

	if (m->half && m->room >= 0) {
		send_whole(m, m->half);
		m->half = NULL;
	}
	while (!m->half && (f = m->held) && m->room > 0) {
		m->held = f->next;
		if (!m->held)
			m->last_held = &m->held;
		put_on_link(m, f);
	}
	m->link.held = false;
	m->link.unfinished = m->half || m->held;
	return !m->link.unfinished;
}

static int mem_flush(struct lr_link *link)
{
	struct memlink *m = MEM(link);

	link->held = false;
	if (m->closed || m->eof)
		return LR_CLOSED;
	mem_finish(m);
	return 0;
}

static bool mem_room(struct lr_link *link, uint32_t need)
{
	struct memlink *m = MEM(link);

	if (m->closed || m->eof)
		return true; /* the send that follows reports it */
	return mem_finish(m) && m->room >= (int64_t)need + LR_HEADER_SIZE;
}

static void hold(struct memlink *m, struct mem_frame *f)
{
	f->next = NULL;
	*m->last_held = f;
	m->last_held = &f->next;
	m->link.held = true;
}

static int mem_send(struct lr_link *link, struct lr_header *header, const struct iovec *iov,
	int count)
{
	struct memlink *m = MEM(link);
	int64_t size = LR_HEADER_SIZE + header->length;
	struct mem_frame *f;
	uint8_t *flat;
	const char *why;

	bool holds = m->gathers && link->holds && !link->unfinished;

	if (m->closed || m->eof)
		return LR_CLOSED;
	if (!holds && (!mem_finish(m) || m->room < (m->partial && m->room > 0 ? 1 : size)))
		return 0;
	flat = world_malloc(header->length + 1);
	lr_iov_rest_copy(&(struct lr_iov_rest){iov, count, 0}, flat, header->length);
	say("sends", m, header);
	why = wire_check(&m->wire, header, flat);
	if (why)
		world_fail("the %s sent type %d, flags %d, call %llx, %u bytes: %s",
			m->wire.role == LR_CLIENT ? "client" : "server", header->type, header->flags,
			(unsigned long long)header->call, header->length, why);
	f = frame_new(header, flat);
	free(flat);
	m->sent += (uint64_t)size;
	if (holds) { /* taken, although there may be no room for it */
		hold(m, f);
	} else {
		put_on_link(m, f);
		link->unfinished = m->half;
	}
	if (m->epoch & 1 && link->ops->ring)
		link->ring_due = m->epoch;
	return 1;
}

static void mem_ring(struct lr_link *link)
{
	atomic_fetch_add(&link->bells, 1);
}

static void mem_rung(struct lr_link *link, uint64_t epoch)
{
	if (MEM(link)->epoch == epoch)
		MEM(link)->epoch++;
}

static bool mem_arm_room(struct lr_link *link, uint32_t need)
{
	MEM(link)->room_armed = true;
	return !mem_room(link, need);
}

static void mem_disarm_room(struct lr_link *link)
{
	struct memlink *m = MEM(link);

	m->room_armed = false;
	if (link->room_fd >= 0) { /* a new edge for the next time */
		const uint64_t most = FULL;
		uint64_t count;
		if (read(link->room_fd, &count, sizeof count) < 0 && errno != EAGAIN)
			return;
		CHECK(write(link->room_fd, &most, sizeof most) == sizeof most);
	}
}

static uint64_t mem_sent(struct lr_link *link)
{
	return MEM(link)->sent;
}

static bool mem_unseen(struct lr_link *link, uint64_t mark)
{
	return MEM(link)->seen < mark;
}

static void mem_hang_up(struct lr_link *link)
{
	struct memlink *m = MEM(link);

	if (link->held)
		mem_flush(link);
	m->closed = true;
	link->unfinished = link->held = false;
	if (m->other)
		memlink_end(m->other);
}

static void mem_release(struct lr_link *link)
{
	CHECK(MEM(link)->closed);
}

/* Everything that its calls were charged must have been refunded. */
static void check_accounts(const struct memlink *m)
{
	for (uint32_t i = 0; m->engine && i < m->engine->nconns; i++) {
		const struct lr_conn *conn = m->engine->conns[i];

		if (!conn || conn->link != &m->link || conn->refs)
			continue;
		if (conn->queued || conn->posted)
			world_fail("a connection ends with %llu bytes queued, %llu posted",
				(unsigned long long)conn->queued, (unsigned long long)conn->posted);
	}
}

static void mem_destroy(struct lr_link *link)
{
	struct memlink *m = MEM(link);
	struct mem_frame *f;

	check_accounts(m);
	while ((f = m->first)) {
		m->first = f->next;
		frame_free(f);
	}
	frame_free(m->half);
	while ((f = m->held)) {
		m->held = f->next;
		frame_free(f);
	}
	if (m->other) {
		memlink_end(m->other);
		m->other->other = NULL;
	}
	if (link->sock_fd != link->bell_fd)
		close(link->sock_fd);
	close(link->bell_fd);
	lr_close_if(link->pidfd);
	lr_close_if(link->room_fd);
	lr_close_if(m->far_end);
	if (m->place)
		*m->place = NULL;
	wire_free(&m->wire);
	free(m);
	memlinks--;
}

#define MEM_OPS                                                                          \
	.peek = mem_peek, .consume = mem_consume, .poll = mem_poll, .peer_closed = mem_peer_closed,    \
	.arm = mem_arm, .disarm = mem_disarm, .send = mem_send, .room = mem_room,        \
	.arm_room = mem_arm_room, .disarm_room = mem_disarm_room, .sent = mem_sent,      \
	.unseen = mem_unseen, .hang_up = mem_hang_up, .destroy = mem_destroy
#define RINGS .ring = mem_ring, .rung = mem_rung

static const struct lr_link_ops plain_ops = {MEM_OPS, RINGS};
static const struct lr_link_ops releasing_ops = {MEM_OPS, RINGS, .release = mem_release};
static const struct lr_link_ops gathering_ops = {MEM_OPS, .flush = mem_flush,
	.release = mem_release};

struct memlink *memlink_new(struct lr_engine *e, int role, uint64_t window, uint8_t like)
{
	struct memlink *m = world_calloc(sizeof *m);
	int pair[2];

	m->engine = e;
	m->last = &m->first;
	m->last_held = &m->held;
	m->gathers = like & MEM_GATHERS;
	m->wire.role = role;
	m->wire.window = window;
	m->partial = like & MEM_PARTIAL;
	m->far_end = -1;
	m->link.ops = m->gathers ? &gathering_ops : like & MEM_RELEASES ? &releasing_ops : &plain_ops;
	m->link.bell_fd = m->link.sock_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	m->link.pidfd = like & MEM_PIDFD ? eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK) : -1;
	m->link.room_fd = like & MEM_ROOM_FD ? eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK) : -1;
	if (m->link.room_fd >= 0)
		mem_disarm_room(&m->link);
	if (like & MEM_RINGLIKE) {
		CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == 0);
		m->link.sock_fd = pair[0];
		m->far_end = pair[1];
	}
	m->link.piece = like & MEM_RINGLIKE ? LR_PIECE / 2 : LR_PIECE;
	m->link.stride = like & MEM_RINGLIKE ? LR_PIECE : 0;
	m->link.lazy = like & MEM_LAZY;
	m->link.spin = like & MEM_SPINS ? LR_SPIN_ALWAYS : -1;
	memlinks++;
	return m;
}

void memlink_join(struct memlink *a, struct memlink *b)
{
	a->other = b;
	b->other = a;
	a->room = b->room = ROOM_IN_PAIR;
}
