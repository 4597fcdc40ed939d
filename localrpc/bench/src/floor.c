/*
 * floor.c - the benchmark's floors: the fastest round trips that are possible.
 *
 * Over the system's primitives: the loop of a plain program, with blocking calls only, one
 * write and one read for a message that fits. A message is {u32 length, bytes}, cut to what a
 * queue takes at once; it is collected whole before it is answered, so that no size
 * makes both sides wait for room. Over a ring in shared memory: links without an
 * engine, where a message is one or more frames with its whole length instead of a call.
 *
 * The links are made by the core, which is another shared object: this one calls them through
 * their tables, and has its own copies of the functions of bare.c, bell.c and util.c.
 */
#include "links/link.h"

#include "floor.h"

#include <mqueue.h>
#include <poll.h>
#include <sys/ipc.h>
#include <sys/msg.h>
#include <sys/syscall.h>
#include <unistd.h>

#define LARGEST (64u << 20)  /* of a message: a larger number is not a length, but another protocol */
#define ROOM (64 << 10)      /* of a buffer, at first */
#define SPIN (150 * LR_US)   /* as an engine's leader does */

/* ---- the system's primitives ---- */

struct load { /* System V has a word before each message */
	long type;
	uint8_t data[LR_SYSV_MAX];
};

struct way {
	int how, rx, tx;
	size_t piece; /* the most that goes out at once */
	size_t min_read; /* a read needs at least this much room */
	struct load load;
};

static bool prepare(struct way *w, int how, int rx, int tx)
{
	struct mq_attr in, out;

	w->how = how;
	w->rx = rx;
	w->tx = tx;
	w->piece = LARGEST;
	w->min_read = 1;
	if (how == LR_FLOOR_SYSV) {
		w->piece = w->min_read = LR_SYSV_MAX;
	} else if (how == LR_FLOOR_MQUEUE) {
		if (syscall(SYS_mq_getsetattr, rx, NULL, &in) < 0 ||
		    syscall(SYS_mq_getsetattr, tx, NULL, &out) < 0)
			return false;
		w->min_read = (size_t)in.mq_msgsize;
		w->piece = (size_t)out.mq_msgsize;
	}
	return true;
}

/* Bytes that have come; 0 at the end, negative for an error. */
static ssize_t get(struct way *w, uint8_t *at, size_t room)
{
	ssize_t got;

	do {
		if (w->how == LR_FLOOR_DESCRIPTOR)
			got = read(w->rx, at, room);
		else if (w->how == LR_FLOOR_MQUEUE)
			got = syscall(SYS_mq_timedreceive, w->rx, at, room, NULL, NULL);
		else
			got = msgrcv(w->rx, &w->load, sizeof w->load.data, 0, 0);
	} while (got < 0 && errno == EINTR);
	if (got > 0 && w->how == LR_FLOOR_SYSV)
		memcpy(at, w->load.data, (size_t)got);
	return got;
}

static int put(struct way *w, const uint8_t *at, size_t left)
{
	while (left) {
		size_t size = left < w->piece ? left : w->piece;
		ssize_t done = (ssize_t)size;
		long r;

		if (w->how == LR_FLOOR_SYSV)
			memcpy(w->load.data, at, size);
		w->load.type = 1;
		do {
			if (w->how == LR_FLOOR_DESCRIPTOR)
				r = done = write(w->tx, at, size);
			else if (w->how == LR_FLOOR_MQUEUE)
				r = syscall(SYS_mq_timedsend, w->tx, at, size, 0, NULL);
			else
				r = msgsnd(w->tx, &w->load, size, 0);
		} while (r < 0 && errno == EINTR);
		if (r < 0)
			return LR_CLOSED;
		at += done;
		left -= (size_t)done;
	}
	return 1;
}

struct message {
	uint8_t *at; /* the length, then the bytes */
	size_t size; /* of both */
	size_t room;
};

static bool make_room(struct message *m, size_t room)
{
	uint8_t *grown;

	if (room <= m->room)
		return true;
	if (!(grown = realloc(m->at, room)))
		return false;
	m->at = grown;
	m->room = room;
	return true;
}

/* The next message, whole. Nothing follows it before it is answered. */
static int collect(struct way *w, struct message *m)
{
	size_t have = 0;

	m->size = sizeof(uint32_t);
	while (have < m->size) {
		size_t enough = m->size + w->min_read;
		ssize_t got;

		if (!make_room(m, enough > ROOM ? enough : ROOM))
			return LR_NOMEM;
		got = get(w, m->at + have, m->room - have);
		if (got <= 0)
			return LR_CLOSED;
		have += (size_t)got;
		if (m->size == sizeof(uint32_t) && have >= m->size) {
			if (lr_read32(m->at) > LARGEST)
				return LR_PROTOCOL;
			m->size += lr_read32(m->at);
		}
	}
	return have == m->size ? 1 : LR_PROTOCOL;
}

int lr_floor_echo(int how, int rx, int tx)
{
	struct message m = {0};
	struct way w;
	int r = prepare(&w, how, rx, tx) ? 1 : LR_INVALID;

	while (r == 1 && (r = collect(&w, &m)) == 1)
		r = put(&w, m.at, m.size);
	free(m.at);
	return r;
}

int64_t lr_floor_ping(int how, int rx, int tx, const char *data, char *back, uint32_t len,
	int64_t ns, int64_t *taken, int64_t room)
{
	int64_t start, now, count = 0;
	struct message ours = {0}, m = {0};
	struct way w;
	int r = prepare(&w, how, rx, tx) ? 1 : LR_INVALID;

	if (r == 1 && !make_room(&ours, ours.size = sizeof len + len))
		r = LR_NOMEM;
	if (r == 1) {
		memcpy(ours.at, &len, sizeof len);
		memcpy(ours.at + sizeof len, data, len);
	}
	start = now = lr_now();
	while (r == 1 && now - start < ns && count < room) {
		int64_t then = now;

		r = put(&w, ours.at, ours.size);
		if (r == 1)
			r = collect(&w, &m);
		if (r == 1 && m.size != ours.size)
			r = LR_PROTOCOL;
		now = lr_now();
		taken[count++] = now - then;
	}
	if (r == 1 && count)
		memcpy(back, m.at + sizeof len, len);
	free(ours.at);
	free(m.at);
	return r == 1 ? count : r;
}

int lr_floor_msgsnd(int id, const char *data, uint32_t size)
{
	struct load load;

	if (size > sizeof load.data)
		return -EINVAL;
	load.type = 1;
	memcpy(load.data, data, size);
	return msgsnd(id, &load, size, 0) < 0 ? -errno : 0;
}

/* ---- the ring ---- */

int lr_link_await(struct lr_link *link, struct lr_io *io)
{
	uint16_t cpu = lr_cpu();
	uint16_t peer = atomic_load_explicit(&link->peer_cpu, memory_order_relaxed);
	int64_t spin = link->spin < 0 ? SPIN : link->spin;

	if (spin && cpu && peer && peer != cpu) {
		int64_t until = lr_now() + spin;
		while (!link->ops->poll(link) && lr_now() < until)
			for (int turn = 0; turn < 16; turn++)
				lr_relax();
	}
	return lr_link_recv(link, io, 0);
}

static int await_frame(struct lr_link *link, struct lr_io *io)
{
	int r;

	while ((r = lr_link_await(link, io)) == LR_AGAIN)
		;
	return r;
}

/* Wait until there is room for a frame. The two sides take turns, so the peer sends nothing
 * meanwhile, and the bell can only mean room. */
static int await_room(struct lr_link *link, uint32_t size)
{
	bool apart = link->sock_fd != link->bell_fd; /* not where there is a socket instead */
	struct pollfd fds[4] = {{.fd = apart ? link->bell_fd : -1, .events = lr_bell_events(link)},
		{.fd = apart ? link->sock_fd : -1, .events = POLLIN},
		{.fd = link->pidfd, .events = POLLIN},
		{.fd = link->room_fd, .events = POLLOUT}};
	int r = 1;

	if (link->ops->arm_room(link, size) && poll(fds, 4, -1) > 0) {
		if (fds[1].revents || fds[2].revents ||
		    (fds[0].revents && !lr_bell_clear(link)))
			r = LR_CLOSED;
	}
	link->ops->disarm_room(link);
	return r;
}

int lr_link_put(struct lr_link *link, const char *data, uint32_t len)
{
	uint32_t done = 0;
	int r;

	do {
		uint32_t size = len - done < LR_PIECE ? len - done : LR_PIECE;

		r = lr_link_send(link, LR_T_MESSAGE, 0, len, data + done, size);
		if (r == 1)
			done += size;
		else if (r == 0)
			r = await_room(link, size);
	} while (r == 1 && done < len);
	return r;
}

/* The rest of a message whose first frame is in io. */
static int collect_frames(struct lr_link *link, struct lr_io *io, char *data, uint32_t len)
{
	uint32_t done = 0;
	int r = 1;

	for (;;) {
		if (io->call != len || (uint64_t)io->size > len - done)
			return LR_PROTOCOL;
		memcpy(data + done, io->buf, (size_t)io->size);
		done += (uint32_t)io->size;
		if (done == len)
			return 1;
		if ((r = await_frame(link, io)) != 1)
			return r;
	}
}

int lr_link_echo(struct lr_link *link, struct lr_io *io)
{
	char *large = NULL;
	int r;

	while ((r = await_frame(link, io)) == 1) {
		uint32_t len = (uint32_t)io->call;
		char *grown;

		if (io->call > LARGEST) {
			r = LR_PROTOCOL;
		} else if (io->size == len) {
			r = lr_link_put(link, (const char *)io->buf, len);
		} else if (!(grown = realloc(large, len))) {
			r = LR_NOMEM;
		} else {
			large = grown;
			r = collect_frames(link, io, large, len);
			if (r == 1)
				r = lr_link_put(link, large, len);
		}
		if (r != 1)
			break;
	}
	free(large);
	return r;
}

int64_t lr_link_ping(struct lr_link *link, struct lr_io *io, const char *data, char *back,
	uint32_t len, int64_t ns, int64_t *taken, int64_t room)
{
	int64_t start = lr_now(), now = start, count = 0;

	while (now - start < ns && count < room) {
		int64_t then = now;
		int r = lr_link_put(link, data, len);

		if (r == 1)
			r = await_frame(link, io);
		if (r == 1)
			r = collect_frames(link, io, back, len);
		if (r != 1)
			return r;
		now = lr_now();
		taken[count++] = now - then;
	}
	return count;
}
