/*
 * fuzz_looped.c - a client and a server that event loops drive, joined in memory.
 *
 * Invariant: no function waits; what is sent keeps the protocol, and what is received is what was
 * sent; news come in order, and nothing of a call after its end; whenever nothing more is reported,
 * nothing is left to report; when the connection ends, the owner of each call is told, whether it
 * reads or has paused, and the client's end of the connection is told last; at the end nothing
 * is charged to any user.
 */
#include "actor.h"

#define SETTLED 3 /* drains in a row without news or frames */

struct loop {
	struct actor actor;
	struct lr_batch batch;
	bool told_end;
	int fd;
	bool spins, waits; /* waits: the loop has nothing else to do */
};

static struct loop loops[2];

static void begin(struct loop *l, int role, uint8_t how, uint8_t like)
{
	static const uint64_t windows[] = {200, 4096, 1 << 16, 4 << 20};
	static const int64_t largest[] = {-1, 4 << 20, 1000, 40000};
	struct actor *a = &l->actor;

	l->told_end = false;
	if (!l->batch.buf) {
		l->batch.buf = world_malloc(LR_NEWS_BUFFER);
		l->batch.cap = LR_NEWS_BUFFER;
	}
	*a = (struct actor){.role = role, .window = windows[how & 3], .checks = true, .nlinks = 1};
	a->e = lr_engine_new(role, a->window, largest[how >> 2 & 3], how & 128 ? how >> 4 & 3 : -1);
	CHECK(a->e && (l->fd = lr_loop_begin(a->e)) >= 0);
	l->spins = like & MEM_LAZY;
	l->waits = like & MEM_SPINS;
	CHECK(!l->spins || lr_loop_spins(a->e) == 0);
	a->links[0] = memlink_new(a->e, role, windows[how >> 4 & 3], like);
	a->links[0]->place = &a->links[0];
}

/* ---- news ---- */

/* Its owner is told that nothing will follow: it lets the call go. */
static void ended(struct actor *a, uint64_t handle)
{
	CHECK(owned_find(a, handle));
	lr_cancel(a->e, handle, 1, NULL, 0);
	owned_release(a, handle);
}

static void take(struct loop *l, const struct lr_news *n)
{
	struct actor *a = &l->actor;
	const uint8_t *bytes = l->batch.buf + n->at;
	struct owned_call *d = owned_find(a, n->call);

	CHECK(!l->told_end);
	if (!n->call) {
		CHECK(n->kind == LR_K_ROOM || n->kind == LR_CLOSED || n->kind == LR_K_CONN_CLOSED ||
		      n->kind == LR_K_DRAINED || n->kind == LR_K_STOP);
		if (a->role == LR_CLIENT && n->kind == LR_CLOSED) {
			l->told_end = true;
			for (uint32_t i = 0; i < COUNT(a->owned); i++)
				CHECK(!a->owned[i].handle);
		}
		return;
	}
	if (n->kind == LR_K_CALL) {
		CHECK(a->role == LR_SERVER && !d);
		owned_add(a, n->call, false);
		return;
	}
	CHECK(d);
	switch (n->kind) {
	case LR_K_MESSAGES:
		CHECK(n->size >= 0 && !memcmp(bytes, pattern(0), (size_t)n->size));
		if (n->flags & LR_F_END) { /* released, as with its status */
			CHECK(a->role == LR_CLIENT);
			owned_forget(a, n->call);
		}
		break;
	case LR_K_BIG:
		CHECK(!d->big && n->size > 0);
		d->big = (uint64_t)n->size;
		break;
	case LR_K_STATUS:
		CHECK(a->role == LR_CLIENT);
		owned_forget(a, n->call); /* released with it */
		break;
	case LR_K_HEADERS:
	case LR_K_END:
	case LR_K_ROOM:
		break;
	default:
		CHECK(n->kind == LR_K_RESET || n->kind == LR_K_ENDED || n->kind < 0);
		ended(a, n->call);
	}
}

/* What its owner releases in between is not news any more. A loop that spins goes on while it finds
 * frames, although these may be news for no call. */
static uint32_t drain(struct loop *l)
{
	struct actor *a = &l->actor;
	uint8_t due[2] = {0};

	world_acts();
	if (l->spins)
		CHECK(lr_loop_spin(&a->e, 1, l->waits ? -1 : 0, l->fd, due) >= 0);
	CHECK(lr_drain(a->e, &l->batch) >= 0);
	for (uint32_t i = 0; i < l->batch.count; i++) {
		const struct lr_news *n = &l->batch.news[i];

		if (n->kind == LR_K_CALL || !n->call || owned_find(a, n->call))
			take(l, n);
	}
	if (l->batch.count)
		lr_flush(a->e);
	return l->batch.count + due[0];
}

static bool is_readable(struct actor *a)
{
	struct lr_stats stats;

	lr_engine_stats(a->e, &stats);
	if (stats.miscounted)
		world_fail("%llu bytes are kept and not charged, or the reverse",
			(unsigned long long)stats.miscounted);
	return true; /* its timer follows another clock than the world's: look */
}

static void settle(void)
{
	int quiet = 0, rounds = 0;

	while (quiet < SETTLED) {
		uint32_t news = 0;

		CHECK(rounds++ < 100000);
		for (int i = 0; i < 2; i++)
			if (!loops[i].told_end && is_readable(&loops[i].actor))
				news += drain(&loops[i]) + loops[i].batch.more;
		quiet = news ? 0 : quiet + 1;
	}
}

/* ---- actions ---- */

static void open_call(struct actor *a)
{
	struct lr_io *io = my_io();
	uint32_t head = in_size(LR_MAX_BLOCK), size = in_size(LR_INLINE);
	uint8_t how = in_byte();
	bool with = how & 1;
	int flags = with ? LR_F_MESSAGE | LR_F_END : 0, r;
	int64_t until = how & 4 ? world.now + (int64_t)in_u16() * 10 * LR_US : 0;

	if (!a->methods) {
		if (lr_method(a->e, 1, "/a/b", 4) != 0)
			return;
		a->methods = 1;
	}
	io->resumed = 0;
	io->call = 0;
	r = lr_open(a->e, io, 1, (const char *)pattern(head), head, until ? (until - world.now) / LR_US : -1,
		with ? (const char *)pattern(size) : NULL, with ? size : 0, flags, until);
	CHECK(r <= 0 && r >= LR_FULL);
	if (r == 0)
		owned_add(a, io->call, flags & LR_F_END);
	else
		CHECK(!io->resumed);
}

static void fill(struct actor *a)
{
	struct owned_call *d = some_owned(a);
	uint64_t size;
	char *dest;
	int r;

	for (uint32_t i = 0; d && !d->big && i < COUNT(a->owned); i++)
		d = a->owned[i].big ? &a->owned[i] : d;
	if (!d || !(size = d->big))
		return;
	d->big = 0;
	if (size > 4 * PATTERN_MAX) {
		ended(a, d->handle);
		return;
	}
	dest = world_malloc(size);
	r = lr_fill(a->e, d->handle, dest, size, 1);
	if (r == 0)
		CHECK(!memcmp(dest, pattern(size), size));
	else
		CHECK(r < 0 && r != LR_AGAIN && r != LR_TIMEOUT); /* it is whole, or its call is over */
	free(dest);
}

/* A message that has begun comes first. */
static void finish_call(struct actor *a)
{
	struct owned_call *d = some_owned(a);
	uint64_t size = in_size(PATTERN_MAX);
	uint32_t trailer = in_one_of(2) ? 0 : in_size(LR_INLINE - 64);
	bool with = in_one_of(2);

	if (!d || d->sending || lr_sending(a->e, d->handle) == 1)
		return;
	CHECK(lr_finish(a->e, d->handle, (const char *)pattern(trailer), trailer,
		      with ? (const char *)pattern(size) : NULL, size, 0) <= 0);
	owned_forget(a, d->handle);
}

static void act(void)
{
	uint8_t who = in_byte();
	struct loop *l = &loops[who & 1];
	struct actor *a = &l->actor;
	struct owned_call *d;

	world_trace("%s: %u", a->role == LR_CLIENT ? "client" : "server", who >> 1);
	switch (who >> 1 & 15) {
	case 0: case 1: case 2: case 3:
		if (!l->told_end)
			drain(l);
		break;
	case 4: case 5:
		if (a->role == LR_CLIENT)
			open_call(a);
		else
			finish_call(a);
		break;
	case 6: case 7:
		act_send(a);
		break;
	case 8:
		fill(a);
		break;
	case 9:
		if ((d = some_owned(a)))
			lr_pause(a->e, d->handle, in_byte() & 1);
		break;
	case 10:
		if (a->role == LR_CLIENT)
			act_half_close(a);
		else
			act_headers(a);
		break;
	case 11:
		act_cancel(a);
		break;
	case 12:
		act_release(a);
		break;
	case 13:
		act_time_passes(a);
		break;
	case 14:
		if (a->links[0])
			memlink_grant(a->links[0], 1 << 16);
		break;
	default:
		if (who >= 250 && a->links[0])
			memlink_end(a->links[0]);
		else if (a->role == LR_SERVER && who >= 224)
			act_goaway(a);
		else
			lr_flush(a->e);
	}
}

static bool locked(void)
{
	return actor_locked(&loops[0].actor) || actor_locked(&loops[1].actor);
}

static void never(void)
{
	world_fail("a function of a looped engine waits");
}

/* Every call's owner is told of the end, though it has not read what came before. */
static void end_connection(void)
{
	for (int i = 0; i < 2; i++)
		if (loops[i].actor.links[0])
			memlink_end(loops[i].actor.links[0]);
	settle();
	for (int i = 0; i < 2; i++) {
		struct actor *a = &loops[i].actor;
		int tries = 0;

		for (uint32_t k = 0; k < COUNT(a->owned); k++)
			while (a->owned[k].handle) {
				/* Behind a large message its end is news once that is taken. */
				if (!a->owned[k].big || tries++ > 1000)
					world_fail("the end of a call is not told");
				fill(a);
				settle();
			}
	}
	CHECK(loops[0].told_end);
}

static void finish(struct loop *l)
{
	struct actor *a = &l->actor;
	struct lr_stats stats;

	lr_engine_stats(a->e, &stats);
	if (stats.live_calls || stats.queued_bytes || stats.user_bytes || stats.conns)
		world_fail("at the end %llu calls are live, %llu bytes queued, users are charged with"
			   " %llu, %llu connections open",
			(unsigned long long)stats.live_calls, (unsigned long long)stats.queued_bytes,
			(unsigned long long)stats.user_bytes, (unsigned long long)stats.conns);
	lr_engine_close(a->e);
	lr_engine_free(a->e);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint8_t ours, theirs;

	world_begin(data, size);
	ours = in_byte();
	theirs = (in_byte() & 0x8c) | (ours >> 4 & 3) | (ours & 3) << 4;
	begin(&loops[0], LR_CLIENT, ours & 0x7f, in_byte());
	begin(&loops[1], LR_SERVER, theirs, in_byte());
	memlink_join(loops[0].actor.links[0], loops[1].actor.links[0]);
	for (int i = 0; i < 2; i++)
		CHECK(lr_engine_admit(loops[i].actor.e, &loops[i].actor.links[0]->link,
			      loops[1 - i].actor.window, 1000) >= 0);
	world.locked = locked;
	world.end = never;
	while (in_left() && world.steps--)
		act();
	end_connection();
	for (int i = 0; i < 2; i++)
		finish(&loops[i]);
	CHECK(memlinks == 0);
	world_finish();
	return 0;
}
