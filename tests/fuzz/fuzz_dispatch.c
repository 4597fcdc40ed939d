/*
 * fuzz_dispatch.c - one engine, client or server, and a peer that the input controls.
 *
 * Invariant: whatever frames come, whatever functions are called and however connections
 * end, no call waits longer than its connection lasts, what the engine sends keeps the
 * protocol, and once every call is released nothing is charged: live, queued and posted
 * are 0, of each connection and each user, and no memory is lost.
 */
#include "peer.h"

static struct actor actor;
static struct peer peer;
static int level;

static bool idle(void)
{
	if (peer_ring_without_reason(&peer))
		return true;
	if (!in_left())
		return false;
	if (in_byte() % 3 && world.depth)
		peer_act(&peer);
	else if (world.depth < 4)
		actor_act(&actor);
	return true;
}

static bool locked(void)
{
	return actor_locked(&actor);
}

static void end(void)
{
	actor_end_waits(&actor, level++);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const uint64_t windows[] = {200, 4096, 1 << 16, 4 << 20};
	static const int64_t largest[] = {-1, 4 << 20, 1000, 40000};
	uint8_t how, limits;

	world_begin(data, size);
	how = in_byte();
	limits = in_byte();
	level = 0;
	actor = (struct actor){.role = how & 1 ? LR_SERVER : LR_CLIENT};
	actor.window = windows[how >> 1 & 3];
	actor.e = lr_engine_new(actor.role, actor.window, largest[how >> 3 & 3],
		limits & 1 ? limits >> 4 : -1);
	CHECK(actor.e);
	peer = (struct peer){.of = &actor, .window = windows[how >> 5 & 3], .limits = !(limits & 2)};
	if (actor.role == LR_SERVER && peer.limits)
		lr_limit_users(actor.e, limits & 4 ? limits >> 4 : -1,
			limits & 8 ? UINT64_MAX : 200000u);
	lr_limit_waiting(actor.e, limits & 128 ? 3 : -1);
	world.idle = idle;
	world.end = end;
	world.locked = locked;
	peer_connect(&peer);
	while (in_left() && world.steps) {
		world.steps--;
		if (in_byte() % 3 && !world.depth)
			peer_act(&peer);
		else
			actor_act(&actor);
	}
	actor_finish(&actor);
	CHECK(memlinks == 0);
	world_finish();
	return 0;
}
