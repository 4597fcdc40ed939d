/* actor.c - the user of an engine: what it does next, and the checks of memory at the end. */
#include "actor.h"

static struct lr_io ios[32];

/* Each thread has its own. */
struct lr_io *my_io(void)
{
	struct lr_io *io = &ios[world.depth % COUNT(ios)];

	if (!io->buf) {
		io->buf = world_malloc(LR_SCRATCH);
		io->cap = LR_SCRATCH;
	}
	return io;
}

int64_t some_deadline(void)
{
	switch (in_byte() % 8) {
	case 0:
	case 1:
	case 2:
	case 3:
		return 1;
	case 4:
	case 5:
		return 0;
	case 6:
		return world.now + 3 * LR_MS;
	default:
		return world.now + (int64_t)in_u16() * LR_US;
	}
}

/* ---- calls that the actor owns ---- */

struct owned_call *owned_find(struct actor *a, uint64_t handle)
{
	for (uint32_t i = 0; handle && i < COUNT(a->owned); i++)
		if (a->owned[i].handle == handle)
			return &a->owned[i];
	return NULL;
}

struct owned_call *some_owned(struct actor *a)
{
	uint8_t which = in_byte();

	for (uint32_t i = 0; i < COUNT(a->owned); i++) {
		struct owned_call *d = &a->owned[(which + i) % COUNT(a->owned)];
		if (d->handle)
			return d;
	}
	return NULL;
}

uint64_t actor_some_call(struct actor *a)
{
	uint8_t which = in_byte();
	struct owned_call *d = &a->owned[which % COUNT(a->owned)];

	if (which >= 250)
		return a->stale[which % COUNT(a->stale)];
	if (!d->handle)
		for (d = a->owned; d < a->owned + COUNT(a->owned) - 1 && !d->handle; d++)
			;
	return d->handle;
}

void owned_forget(struct actor *a, uint64_t handle)
{
	struct owned_call *d = owned_find(a, handle);

	if (!d)
		return;
	a->stale[d->handle % COUNT(a->stale)] = d->handle;
	*d = (struct owned_call){0};
}

void owned_release(struct actor *a, uint64_t handle)
{
	int r = lr_release(a->e, handle);

	CHECK(r == 0 || r == LR_GONE);
	owned_forget(a, handle);
}

void owned_add(struct actor *a, uint64_t handle, bool half)
{
	for (uint32_t i = 0; i < COUNT(a->owned); i++)
		if (!a->owned[i].handle) {
			a->owned[i] = (struct owned_call){.handle = handle, .half = half};
			return;
		}
	CHECK(lr_release(a->e, handle) != LR_GONE);
}

/* The actor that waits now: nested calls restore the name. */
const char *wait_begins(struct actor *a, const char *name)
{
	const char *outer = a->waits_for;

	a->waits_for = name;
	return outer;
}

/* ---- actions ---- */

/* At any moment the memory that is charged is the memory that is kept. */
static void check_accounts(struct actor *a)
{
	struct lr_stats stats;

	lr_engine_stats(a->e, &stats);
	if (stats.miscounted)
		world_fail("%llu bytes are kept and not charged, or the reverse",
			(unsigned long long)stats.miscounted);
}

struct act {
	void (*run)(struct actor *a);
	const char *name;
};
#define ACT(f) {act_##f, #f}

void actor_act(struct actor *a)
{
	static const struct act clients[] = {ACT(open_call), ACT(open_call), ACT(open_call), ACT(receive),
		ACT(receive), ACT(receive), ACT(send), ACT(send), ACT(half_close), ACT(cancel),
		ACT(release), ACT(watch), ACT(service), ACT(flush), ACT(read_stats), ACT(time_passes),
		ACT(close)};
	static const struct act servers[] = {ACT(next), ACT(next), ACT(next), ACT(receive), ACT(receive),
		ACT(receive), ACT(send), ACT(send), ACT(finish), ACT(finish), ACT(reply_next),
		ACT(headers), ACT(cancel), ACT(release), ACT(defer), ACT(watch), ACT(service),
		ACT(read_stats), ACT(time_passes), ACT(intern), ACT(names), ACT(goaway), ACT(cancel_all),
		ACT(drop), ACT(yield), ACT(close), ACT(flood), ACT(leave_open)};
	bool client = a->role == LR_CLIENT;
	const struct act *act = client ? &clients[in_byte() % COUNT(clients)]
				       : &servers[in_byte() % COUNT(servers)];

	world_trace("%s: %s", client ? "client" : "server", act->name);
	act->run(a);
	check_accounts(a);
}

/* ---- the end ---- */

bool actor_locked(struct actor *a)
{
	if (pthread_mutex_trylock(&a->e->lock) != 0)
		return true;
	pthread_mutex_unlock(&a->e->lock);
	return false;
}

void actor_end_waits(struct actor *a, int level)
{
	if (level > 1 && a->waits_for)
		world_fail("%s waits, although the connection has ended", a->waits_for);
	switch (level) {
	case 0:
		for (uint32_t i = 0; i < a->nlinks; i++)
			if (a->links[i] && !a->links[i]->other)
				memlink_end(a->links[i]);
		break;
	case 1:
		lr_kick(a->e);
		break;
	case 2:
		if (a->role == LR_SERVER)
			lr_stop(a->e);
		lr_engine_close(a->e);
		a->closed = true;
	}
}

static void drain(struct actor *a)
{
	struct lr_io *io = my_io();
	int r, rounds = 0;

	for (;;) {
		uint64_t busy = 0;

		CHECK(rounds++ < 100000);
		if (a->role == LR_SERVER) {
			while ((r = lr_next_now(a->e, io)) == LR_K_CALL) {
				lr_release(a->e, io->call);
				busy++;
			}
			CHECK(r == LR_K_YIELD || r == LR_K_STOP);
		}
		lr_kick(a->e);
		while ((r = lr_service(a->e, io)) == LR_K_ENDED || r == LR_K_CONN_CLOSED ||
			r == LR_K_DRAINED) {
			lr_kick(a->e);
			busy++;
		}
		if (!busy)
			return;
	}
}

static void check_users(const struct actor *a)
{
	for (const struct lr_user *user = a->e->users; user; user = user->next)
		if (user->calls || user->kept || user->waiting)
			world_fail("uid %lld is charged with %lld calls, %llu bytes at the end",
				(long long)user->uid, (long long)user->calls,
				(unsigned long long)user->kept);
}

void drop(struct actor *a, struct lr_conn *conn)
{
	if (lr_enter(a->e) < 0)
		return;
	lr_conn_die(conn, LR_CLOSED, "closed by this side");
	lr_leave(a->e);
}

void actor_finish(struct actor *a)
{
	uint8_t how = in_byte();
	struct lr_stats stats;

	world.fails = 0;
	world.idle = NULL;
	for (uint32_t i = 0; i < a->nlinks && (how & 1); i++)
		if (a->links[i] && !a->links[i]->closed)
			memlink_grant(a->links[i], 1 << 30);
	if (how & 2)
		actor_end_waits(a, 0);
	if (how & 4)
		drain(a);
	for (uint32_t i = 0; i < COUNT(a->owned); i++)
		if (a->owned[i].handle)
			owned_release(a, a->owned[i].handle);
	if (a->role == LR_SERVER && a->closed) /* no worker takes the queued calls */
		lr_cancel_all(a->e, 14, "going", 5);
	drain(a);
	lr_engine_stats(a->e, &stats);
	if (stats.miscounted)
		world_fail("%llu bytes are kept and not charged, or the reverse",
			(unsigned long long)stats.miscounted);
	for (uint32_t i = 0; i < a->e->nconns; i++)
		if (a->e->conns[i])
			drop(a, a->e->conns[i]);
	drain(a);
	lr_engine_stats(a->e, &stats);
	if (stats.live_calls || stats.queued_bytes || stats.user_bytes || stats.name_bytes || stats.conns)
		world_fail("at the end %llu calls are live, %llu bytes queued, %llu of names, users are"
			   " charged with %llu, %llu connections open",
			(unsigned long long)stats.live_calls, (unsigned long long)stats.queued_bytes,
			(unsigned long long)stats.name_bytes, (unsigned long long)stats.user_bytes,
			(unsigned long long)stats.conns);
	check_users(a);
	lr_engine_free(a->e);
}
