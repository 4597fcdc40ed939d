/*
 * fuzz_pair.c - a client and a server, joined in memory, and their users.
 *
 * Invariant: neither ever reports an error of the other; what is sent keeps the protocol, and
 * what is received is what was sent; no call waits longer than its connection lasts, and
 * at the end nothing is charged to any user.
 */
#include "actor.h"

static struct actor actors[2];
static int level;

static void act(void)
{
	uint8_t what = in_byte();
	struct actor *a = &actors[what & 1];

	if (what >= 252) {
		for (uint32_t i = 0; i < 2; i++)
			if (actors[i].links[0] && what == 255)
				memlink_end(actors[i].links[0]);
	} else if (a->links[0] && what >= 240) {
		a->links[0]->epoch++;
	} else if (a->links[0] && what >= 236) {
		a->links[0]->seen = a->links[0]->sent;
	} else {
		actor_act(a);
	}
}

static bool idle(void)
{
	if (!in_left())
		return false;
	act();
	return true;
}

static bool locked(void)
{
	return actor_locked(&actors[0]) || actor_locked(&actors[1]);
}

static void end(void)
{
	for (uint32_t i = 0; i < 2; i++) {
		if (level == 0 && actors[i].links[0])
			memlink_end(actors[i].links[0]);
		actor_end_waits(&actors[i], level);
	}
	level++;
}

static void check_peace(struct actor *a)
{
	char why[160];

	lr_engine_error(a->e, why, sizeof why);
	if (strstr(why, "protocol"))
		world_fail("the %s: %s", a->role == LR_CLIENT ? "client" : "server", why);
}

static void begin(struct actor *a, int role, uint8_t how, uint8_t like)
{
	static const uint64_t windows[] = {200, 4096, 1 << 16, 4 << 20};
	static const int64_t largest[] = {-1, 4 << 20, 1000, 40000};

	*a = (struct actor){.role = role, .window = windows[how & 3], .checks = true, .nlinks = 1};
	a->e = lr_engine_new(role, a->window, largest[how >> 2 & 3], how & 128 ? how >> 4 & 3 : -1);
	CHECK(a->e);
	a->links[0] = memlink_new(a->e, role, windows[how >> 4 & 3], like);
	a->links[0]->place = &a->links[0];
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint8_t ours, theirs;

	world_begin(data, size);
	level = 0;
	ours = in_byte();
	theirs = (in_byte() & 0x8c) | (ours >> 4 & 3) | (ours & 3) << 4;
	begin(&actors[0], LR_CLIENT, ours & 0x7f, in_byte());
	begin(&actors[1], LR_SERVER, theirs, in_byte());
	memlink_join(actors[0].links[0], actors[1].links[0]);
	for (uint32_t i = 0; i < 2; i++)
		CHECK(lr_engine_admit(actors[i].e, &actors[i].links[0]->link,
			      actors[1 - i].window, 1000) >= 0);
	world.idle = idle;
	world.end = end;
	world.locked = locked;
	while (in_left() && world.steps--)
		act();
	world.idle = NULL;
	check_peace(&actors[0]);
	check_peace(&actors[1]);
	actor_finish(&actors[0]);
	actor_finish(&actors[1]);
	CHECK(memlinks == 0);
	world_finish();
	return 0;
}
