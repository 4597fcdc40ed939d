/* serving.c - actions of a server's threads. */
#include "actor.h"

static void took(struct actor *a, const struct lr_io *io, int r)
{
	CHECK(r == LR_K_CALL || r == LR_K_STOP || r == LR_K_YIELD || r == LR_AGAIN);
	if (r != LR_K_CALL)
		return;
	CHECK(io->call && io->size >= 0 && (io->flags & LR_F_TOO_LARGE || io->head <= io->size));
	if (io->flags & LR_F_REFUSED && in_one_of(2))
		lr_release(a->e, io->call);
	else
		owned_add(a, io->call, false);
}

void act_next(struct actor *a)
{
	struct lr_io *io = my_io();
	bool now = world.depth || !in_one_of(3);
	int r = now ? lr_next_now(a->e, io) : lr_next(a->e, io);

	took(a, io, r);
}

void act_finish(struct actor *a)
{
	uint64_t handle = actor_some_call(a), size = in_size(PATTERN_MAX);
	uint32_t trailer = in_one_of(2) ? 0 : in_size(LR_INLINE - 64);
	bool with = in_one_of(2);
	int r;

	if (!handle)
		return;
	r = lr_finish(a->e, handle, (const char *)pattern(trailer), trailer,
		with ? (const char *)pattern(size) : NULL, size, 0);
	CHECK(r <= 0);
	owned_forget(a, handle);
}

void act_reply_next(struct actor *a)
{
	uint64_t size = in_size(PATTERN_MAX);
	struct lr_io *io = my_io();
	struct owned_call *d = some_owned(a);

	if (!d || world.depth) /* it waits for the next call */
		return;
	io->call = d->handle;
	owned_forget(a, d->handle);
	lr_yield(a->e);
	took(a, io, lr_reply_next(a->e, io, (const char *)pattern(size), size));
}

void act_headers(struct actor *a)
{
	struct owned_call *d = some_owned(a);
	uint32_t size = in_size(LR_INLINE - 64);

	if (!d || d->headers || d->spoken)
		return;
	d->headers = true;
	lr_headers(a->e, d->handle, (const char *)pattern(size), size);
}

void act_defer(struct actor *a)
{
	struct owned_call *d = some_owned(a);
	uint64_t handle;

	if (!d || d->in_send || d->headers || d->spoken)
		return; /* a call that has begun to answer is not put back */
	handle = d->handle;
	owned_forget(a, handle);
	lr_defer(a->e, handle);
}

void act_intern(struct actor *a)
{
	uint32_t len = 1 + in_byte() % 8;

	lr_intern(a->e, (const char *)pattern(0), len, in_byte() % 8);
}

void act_names(struct actor *a)
{
	char name[64];
	int r = lr_call_method(a->e, actor_some_call(a), name, sizeof name);

	CHECK(r <= (int)sizeof name);
}

void act_goaway(struct actor *a)
{
	uint32_t size = in_size(300);

	if (in_one_of(4))
		lr_goaway(a->e, (const char *)pattern(size), size);
}

void act_cancel_all(struct actor *a)
{
	if (in_one_of(4))
		lr_cancel_all(a->e, 14, "going", 5);
}

void act_drop(struct actor *a)
{
	uint8_t which = in_byte();

	if (in_one_of(4) && a->e->nconns && a->e->conns[which % a->e->nconns])
		drop(a, a->e->conns[which % a->e->nconns]);
}

void act_yield(struct actor *a)
{
	lr_yield(a->e);
}

/* Answers that may never be read. */
void act_flood(struct actor *a)
{
	for (uint32_t i = 0; i < COUNT(a->owned); i++) {
		uint64_t handle = a->owned[i].handle;

		if (!handle)
			continue;
		lr_finish(a->e, handle, NULL, 0, (const char *)pattern(700000), 700000, 0);
		owned_forget(a, handle);
	}
}

void act_leave_open(struct actor *a)
{
	lr_leave_open(a->e, actor_some_call(a));
}
