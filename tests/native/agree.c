/*
 * agree.c - one side's `out` table of state.c against the other side's `in` table.
 *
 * Invariant: in every pair of states that is possible, the events that one side may send are
 * those that the other side accepts. Prints the number of pairs.
 */
#include "../../localrpc/_core/src/engine/engine.h"

/* Events of the other side, in this order; PUT_WHOLE sends a status that waits. */
static const struct { const char *name; enum lr_event put; int got[2]; } frames[] = {
	{"HEADERS", PUT_HEADERS, {GOT_HEADERS, -1}},
	{"MESSAGE", PUT_MESSAGE, {GOT_MESSAGE, -1}},
	{"BIG", PUT_BIG, {GOT_BIG, -1}},
	{"BIG|END", PUT_BIG_END, {GOT_BIG_END, -1}},
	{"DATA", PUT_DATA, {GOT_DATA, -1}},
	{"last DATA", PUT_WHOLE, {GOT_WHOLE, -1}},
	{"END", PUT_END, {GOT_END, -1}},
	{"STATUS", PUT_STATUS, {GOT_STATUS, -1}},
	{"STATUS|MESSAGE", PUT_STATUS_WITH, {GOT_MESSAGE, GOT_STATUS}},
	{"STATUS|BIG", PUT_STATUS_BIG, {GOT_STATUS_BIG, -1}},
	{"STATUS later", PUT_STATUS_AFTER, {-1, -1}},
	{"STATUS|MESSAGE later", PUT_STATUS_WITH_AFTER, {-1, -1}},
};

struct pair {
	struct lr_call from, to;
	enum lr_event later; /* the status that waits for the end of a message; 0 none */
};

static uint32_t seen[4096], count;

static bool got(struct pair *p, int event)
{
	return event < 0 || lr_call_step(&p->to, (enum lr_event)event) == 1;
}

static bool take(struct pair *p, size_t frame)
{
	enum lr_event put = frames[frame].put;

	if (!got(p, frames[frame].got[0]) || !got(p, frames[frame].got[1]))
		return false;
	if (put == PUT_STATUS_BIG || put == PUT_STATUS_AFTER || put == PUT_STATUS_WITH_AFTER)
		p->later = put;
	if (put != PUT_WHOLE || !p->later)
		return true;
	return (p->later != PUT_STATUS_WITH_AFTER || got(p, GOT_MESSAGE)) && got(p, GOT_STATUS);
}

static void walk(const struct pair *at)
{
	uint32_t key = (uint32_t)(at->from.life << 12 | at->from.out << 8 | at->to.life << 4 | at->to.in) |
		       (uint32_t)at->later << 16;

	for (uint32_t i = 0; i < count; i++)
		if (seen[i] == key)
			return;
	seen[count++] = key;
	for (size_t i = 0; i < sizeof frames / sizeof *frames; i++) {
		struct pair sent = *at;
		bool may = lr_call_step(&sent.from, frames[i].put) == 1;
		bool takes = take(&sent, i);

		if (may != takes && frames[i].got[0] >= 0) {
			fprintf(stderr, "%s: out %d, in %d: %s\n", frames[i].name, at->from.out,
				at->to.in, may ? "sent, but not accepted" : "accepted, but never sent");
			exit(1);
		}
		if (may)
			walk(&sent);
	}
}

int main(void)
{
	struct pair start = {.from = {.life = LIVE, .in = IN_START, .out = OUT_START, .place = OWNED}};

	start.to = start.from;
	walk(&start);
	printf("%u\n", count);
	return 0;
}
