/* calling.c - actions of either side on a call, and of a client on its engine. */
#include "actor.h"

#define COUNT_HEADS 8 /* one for each depth of nested calls */

/* ---- receiving ---- */

static void check_messages(const struct actor *a, const struct lr_io *io)
{
	uint32_t from = 0;

	for (uint32_t i = 0; i < io->count; from = io->ends[i++]) {
		CHECK(io->ends[i] >= from && io->ends[i] <= io->fill);
		if (a->checks)
			CHECK(!memcmp(io->buf + from, pattern(0), io->ends[i] - from));
	}
	CHECK(io->count <= LR_BATCH && from == io->fill);
}

static void fill(struct actor *a, uint64_t handle, uint64_t size, int64_t until)
{
	struct owned_call *d;
	char *dest;
	int r, tries = 0;

	if (size > 4 * PATTERN_MAX) { /* no reader has room for it */
		owned_release(a, handle);
		return;
	}
	dest = world_malloc(size);
	const char *outer = wait_begins(a, "lr_fill");
	do
		r = lr_fill(a->e, handle, dest, size, until);
	while (r == LR_AGAIN && tries++ < PATIENCE);
	a->waits_for = outer;
	if (r == 0 && a->checks)
		CHECK(!memcmp(dest, pattern(size), size));
	free(dest);
	d = owned_find(a, handle);
	if (d && (r == LR_TIMEOUT || r == LR_AGAIN))
		d->big = size;
}

void act_receive(struct actor *a)
{
	uint64_t handle = actor_some_call(a);
	struct owned_call *d = owned_find(a, handle);
	struct lr_io *io = my_io();
	int64_t until = some_deadline();
	int r, tries = 0;

	if (!handle)
		return;
	if (d && d->big) {
		uint64_t size = d->big;
		d->big = 0;
		fill(a, handle, size, until);
		return;
	}
	const char *outer = wait_begins(a, "lr_recv");
	do
		r = lr_recv(a->e, io, handle, until);
	while (r == LR_AGAIN && tries++ < PATIENCE);
	a->waits_for = outer;
	switch (r) {
	case LR_K_MESSAGES:
		check_messages(a, io);
		break;
	case LR_K_BIG:
		CHECK(io->size > 0);
		if (in_one_of(8)) /* later, or never */
			break;
		fill(a, handle, (uint64_t)io->size, in_one_of(3) ? some_deadline() : until);
		break;
	case LR_K_RESET:
		CHECK(io->count <= LR_MAX_CONTROL);
		break;
	case LR_K_HEADERS:
	case LR_K_STATUS:
		CHECK(io->size >= 0 && io->size <= LR_MAX_CONTROL);
		if (a->checks)
			CHECK(!memcmp(io->buf, pattern(0), (size_t)io->size));
		break;
	default:
		CHECK(r == LR_K_END || (r < 0 && r >= LR_FULL));
	}
}

/* ---- sending ---- */

void act_send(struct actor *a)
{
	uint64_t handle = actor_some_call(a), size;
	struct owned_call *d = owned_find(a, handle);
	int flags = in_one_of(8) && a->role == LR_CLIENT ? LR_F_END : 0, r, tries = 0;
	int64_t until = some_deadline();

	if (!handle || (d && (d->in_send || d->half)))
		return;
	size = d && d->sending ? d->sending - 1 : in_size(PATTERN_MAX);
	if (d) {
		d->in_send = true;
		d->spoken = true;
		if (d->sending)
			flags = 0;
	}
	const char *outer = wait_begins(a, "lr_send");
	do
		r = lr_send(a->e, handle, (const char *)pattern(size), size, flags, until);
	while (r == LR_AGAIN && tries++ < PATIENCE);
	a->waits_for = outer;
	CHECK(r <= 0 && r >= LR_FULL);
	if (!(d = owned_find(a, handle)))
		return;
	d->in_send = false;
	d->sending = r == LR_TIMEOUT || r == LR_AGAIN ? size + 1 : 0;
	if (r == 0 && flags)
		d->half = true;
	/* It may have begun, with its END or without. */
	if (d->sending && flags)
		owned_release(a, handle);
}

void act_half_close(struct actor *a)
{
	struct owned_call *d = some_owned(a);

	if (!d || d->in_send || d->half || d->sending)
		return;
	d->half = true;
	lr_half_close(a->e, d->handle);
}

/* The metadata; of a method without a number its name is before it. */
static const char *head_of(uint32_t method, uint32_t *size)
{
	static char heads[COUNT_HEADS][4 + LR_MAX_NAME + LR_MAX_BLOCK];
	char *head = heads[world.depth % COUNT_HEADS];
	uint32_t name = method ? 0 : 1 + in_size(LR_MAX_NAME - 1);

	if (method)
		return (const char *)pattern(*size);
	memcpy(head, &name, sizeof name);
	memcpy(head + 4, pattern(0), name + *size);
	*size += 4 + name;
	return head;
}

static void open_stream(struct actor *a, struct lr_io *io, uint32_t method, int64_t until)
{
	uint32_t head = in_size(LR_MAX_BLOCK);
	uint64_t size = in_size(PATTERN_MAX);
	bool with = in_one_of(3);
	int flags = with || in_one_of(4) ? LR_F_END : 0, r, tries = 0;
	const char *block = head_of(method, &head), *msg = with ? (const char *)pattern(size) : NULL;

	io->resumed = 0;
	io->call = 0;
	const char *outer = wait_begins(a, "lr_open");
	do
		r = lr_open(a->e, io, method, block, head, in_one_of(2) ? -1 : in_u16(), msg, size, flags,
			until);
	while (r == LR_AGAIN && tries++ < PATIENCE);
	a->waits_for = outer;
	if (r == 0)
		owned_add(a, io->call, flags);
	else if (r == LR_AGAIN && io->resumed)
		owned_release(a, io->call);
	else
		CHECK(r < 0 && r >= LR_FULL);
}

static void unary(struct actor *a, struct lr_io *io, uint32_t method, int64_t until)
{
	uint32_t head = in_size(LR_MAX_BLOCK);
	uint64_t size = in_size(PATTERN_MAX);
	const char *msg = (const char *)pattern(size), *block = head_of(method, &head);
	int64_t r;
	int tries = 0;

	io->call = 0;
	const char *outer = wait_begins(a, "lr_unary");
	r = lr_unary(a->e, io, method, block, head, msg, size, until);
	while (r == LR_AGAIN && tries++ < PATIENCE)
		r = io->call ? lr_unary_wait(a->e, io, msg, size, until)
			     : lr_unary(a->e, io, method, block, head, msg, size, until);
	a->waits_for = outer;
	if (r == LR_SLOW)
		owned_add(a, io->call, true);
	else if (r == LR_AGAIN && io->call)
		owned_release(a, io->call);
	else if (r == LR_FULL)
		CHECK(io->size >= 0 && io->size + io->head + io->count <= io->cap);
	else if (r >= 0)
		CHECK(r <= io->cap && (!a->checks || !memcmp(io->buf, msg, (size_t)r)));
}

void act_open_call(struct actor *a)
{
	struct lr_io *io = my_io();
	int64_t until = some_deadline();
	uint32_t method = in_byte() % 8;

	/* 0: its name is in the OPEN. */
	if (method > a->methods) {
		const char *name = (const char *)pattern(0);
		uint32_t len = 1 + in_size(LR_MAX_NAME - 1);

		if (a->name_bytes + len > LR_MAX_NAME_BYTES ||
			lr_method(a->e, a->methods + 1, name, len) != 0)
			return;
		a->name_bytes += len;
		method = ++a->methods;
	}
	if (in_one_of(2))
		open_stream(a, io, method, until ? until : world.now + LR_MS * 50);
	else
		unary(a, io, method, until == 1 ? world.now + LR_MS : until);
}

/* ---- either side ---- */

void act_cancel(struct actor *a)
{
	uint32_t len = in_size(400);

	lr_cancel(a->e, actor_some_call(a), in_byte() % 17, (const char *)pattern(len), len);
}

void act_release(struct actor *a)
{
	uint64_t handle = actor_some_call(a);

	if (handle)
		owned_release(a, handle);
}

void act_watch(struct actor *a)
{
	int64_t until = some_deadline();
	int r = lr_watch(a->e, actor_some_call(a), until == 1 ? world.now + LR_MS : until);

	CHECK(r == 0 || r == LR_GONE || r == LR_ENDED || r == LR_NOMEM);
}

void act_service(struct actor *a)
{
	struct lr_io *io = my_io();
	int r;

	if (a->serving)
		return;
	if (world.depth || !in_one_of(3))
		lr_kick(a->e);
	a->serving = true;
	r = lr_service(a->e, io);
	a->serving = false;
	CHECK(r == LR_K_ENDED || r == LR_K_CONN_CLOSED || r == LR_K_DRAINED || r == LR_K_YIELD ||
	      r == LR_K_STOP || (a->role == LR_CLIENT && r == LR_CLOSED));
}

/* Like the flush thread of leave.c: world.c does not start threads. */
void act_flush(struct actor *a)
{
	struct lr_waiter w = {.wants = WANT_FLUSH, .ignores_signals = true};
	const char *outer;

	if (world.depth || a->role == LR_SERVER || lr_enter(a->e) < 0)
		return;
	if ((w.conn = a->e->conns[0]) && lr_conn_unsent(w.conn)) {
		outer = wait_begins(a, "the flusher");
		w.conn->refs++;
		lr_wait(a->e, &w, 0);
		lr_conn_unref(w.conn);
		a->waits_for = outer;
	}
	lr_leave(a->e);
}

void act_read_stats(struct actor *a)
{
	struct lr_stats stats;
	char text[40];

	lr_engine_stats(a->e, &stats);
	CHECK(lr_live(a->e) == (int64_t)stats.live_calls && stats.conns <= COUNT(a->links));
	CHECK(lr_engine_error(a->e, text, sizeof text) == 0);
	CHECK(lr_engine_faulty(a->e) == 0 || world.failed); /* without memory for a RESET */
	lr_engine_alive(a->e);
	lr_active(a->e, actor_some_call(a));
}

void act_time_passes(struct actor *a)
{
	(void)a;
	world.now += (int64_t)in_u16() * 10 * LR_US;
}

void act_close(struct actor *a)
{
	if (!in_one_of(8))
		return;
	if (a->role == LR_SERVER)
		lr_stop(a->e);
	if (in_one_of(2))
		lr_engine_close(a->e);
	a->closed = true;
}
