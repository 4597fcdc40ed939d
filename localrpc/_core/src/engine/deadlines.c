/*
 * deadlines.c - the watched calls: a binary heap, the earliest deadline on top. Each call
 * knows its index, so that changing or removing one takes O(log n) steps.
 */
#include "engine.h"

#include <sys/timerfd.h>

#define NEVER INT64_MAX

static void put(struct lr_engine *e, uint32_t at, struct lr_watched entry)
{
	e->watched[at] = entry;
	entry.call->watched_at = at;
}

/* Put `entry` into the free place `at`, or as far up or down as it belongs. */
static void sift(struct lr_engine *e, uint32_t at, struct lr_watched entry)
{
	uint32_t next;

	for (; at && entry.deadline < e->watched[(at - 1) / 2].deadline; at = (at - 1) / 2)
		put(e, at, e->watched[(at - 1) / 2]);
	for (; (next = 2 * at + 1) < e->nwatched; at = next) {
		if (next + 1 < e->nwatched && e->watched[next + 1].deadline < e->watched[next].deadline)
			next++;
		if (entry.deadline <= e->watched[next].deadline)
			break;
		put(e, at, e->watched[next]);
	}
	put(e, at, entry);
}

int lr_call_watch(struct lr_engine *e, struct lr_call *call, int64_t deadline)
{
	struct lr_watched entry = {deadline ? deadline : NEVER, call};

	if (!(call->state & CALL_WATCHED)) {
		if (e->nwatched == e->watched_size) {
			uint32_t size = e->watched_size ? e->watched_size * 2 : 16;
			struct lr_watched *watched = realloc(e->watched, size * sizeof *watched);
			if (!watched)
				return LR_NOMEM;
			e->watched = watched;
			e->watched_size = size;
		}
		call->watched_at = e->nwatched++;
		call->state |= CALL_WATCHED;
	}
	sift(e, call->watched_at, entry);
	return 0;
}

void lr_call_unwatch(struct lr_engine *e, struct lr_call *call)
{
	struct lr_watched last = e->watched[--e->nwatched];

	if (last.call != call)
		sift(e, call->watched_at, last);
	call->state &= ~(uint32_t)CALL_WATCHED;
}

int64_t lr_next_deadline(const struct lr_engine *e)
{
	return e->nwatched && e->watched[0].deadline != NEVER ? e->watched[0].deadline : 0;
}

/* Most calls end before their deadlines, and most deadlines are later than those before: so the
 * timer is seldom set. It may fire for a call that has ended. */
void lr_loop_set_timer(struct lr_engine *e)
{
	int64_t next = lr_next_deadline(e);
	struct itimerspec at = {.it_value = {next / 1000000000, next % 1000000000}};

	if (!next || (e->loop_timer_at && e->loop_timer_at <= next))
		return;
	if (timerfd_settime(e->loop_timer, TFD_TIMER_ABSTIME, &at, NULL) == 0)
		e->loop_timer_at = next;
}

struct lr_call *lr_overdue(const struct lr_engine *e)
{
	int64_t next = lr_next_deadline(e);

	return next && next <= lr_now() ? e->watched[0].call : NULL;
}
