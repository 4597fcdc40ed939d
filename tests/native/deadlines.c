/*
 * deadlines.c - adds, changes and removes watched calls and ended calls in any order, and
 * compares the heap and the list with arrays that are searched from end to end.
 *
 * Invariant: the earliest deadline is the one that a search finds; every call knows its index;
 * ended calls are reported in the order in which they were added.
 */
#include "../../localrpc/_core/src/engine/engine.h"
#include "check.h"

#define CALLS 100
#define ROUNDS 20000

static struct lr_engine engine = {.ended_last = &engine.ended};
static struct lr_call calls[CALLS];
static int64_t deadlines[CALLS]; /* of a watched one; 0 none */
static uint32_t order[CALLS], count; /* the ended calls, in order */

static void check(void)
{
	const struct lr_call *call = engine.ended;
	int64_t next = 0;
	uint32_t watched = 0;

	for (uint32_t i = 0; i < CALLS; i++) {
		if (!(calls[i].state & CALL_WATCHED))
			continue;
		watched++;
		CHECK(engine.watched[calls[i].watched_at].call == &calls[i]);
		if (deadlines[i] && (!next || deadlines[i] < next))
			next = deadlines[i];
	}
	CHECK(watched == engine.nwatched && lr_next_deadline(&engine) == next);
	for (uint32_t i = 0; i < count; i++, call = call->next_ended)
		CHECK(call == &calls[order[i]] && *call->at_ended == call);
	CHECK(!call && !*engine.ended_last);
}

static void told(uint32_t which)
{
	uint32_t at = 0;

	if (!calls[which].at_ended) {
		lr_ended_push(&engine, &calls[which]);
		order[count++] = which;
		return;
	}
	lr_ended_drop(&engine, &calls[which]);
	while (order[at] != which)
		at++;
	memmove(&order[at], &order[at + 1], (--count - at) * sizeof *order);
}

int main(void)
{
	int64_t last = 0;
	struct lr_call *call;

	srand(1);
	for (int round = 0; round < ROUNDS; round++) {
		uint32_t which = (uint32_t)rand() % CALLS, what = (uint32_t)rand() % 4;

		if (what == 0) {
			told(which);
		} else if (what == 1 && calls[which].state & CALL_WATCHED) {
			lr_call_unwatch(&engine, &calls[which]);
		} else {
			/* the deadlines have long passed, or never pass */
			deadlines[which] = what == 2 ? rand() % 50 : 0;
			CHECK(lr_call_watch(&engine, &calls[which], deadlines[which]) == 0);
		}
		check();
	}
	while ((call = lr_overdue(&engine))) {
		CHECK(deadlines[call - calls] >= last);
		last = deadlines[call - calls];
		lr_call_unwatch(&engine, call);
		check();
	}
	CHECK(last && engine.nwatched);
	free(engine.watched);
	return 0;
}
