/*
 * count.c - what an engine counts for its users. The buckets are those of HdrHistogram: linear
 * within each power of two, so that any percentile is right within 1/8 of itself.
 */
#include "engine.h"

#define PACE_OVER 8 /* completions */
#define LINEAR (1u << LR_BUCKET_BITS)

uint32_t lr_bucket(uint64_t time)
{
	uint32_t power, at;

	if (time < 1ull << LR_BUCKET_FIRST)
		return 0;
	power = 63u - (uint32_t)__builtin_clzll(time);
	at = 1 + (power - LR_BUCKET_FIRST) * LINEAR +
	     ((uint32_t)(time >> (power - LR_BUCKET_BITS)) & (LINEAR - 1));
	return at < LR_BUCKETS ? at : LR_BUCKETS - 1;
}

uint64_t lr_bucket_from(uint32_t bucket)
{
	uint32_t power = LR_BUCKET_FIRST + (bucket - 1) / LINEAR;

	return bucket ? (uint64_t)(LINEAR + (bucket - 1) % LINEAR) << (power - LR_BUCKET_BITS) : 0;
}

/* Other processes read it without a lock, each number for itself. */
static void put(uint64_t *at, uint64_t value)
{
	__atomic_store_n(at, value, __ATOMIC_RELEASE);
}

void lr_count_begin(struct lr_engine *e, struct lr_call *call, int64_t now)
{
	struct lr_load *load = e->load;

	e->counts->begun++;
	e->counts->live++;
	call->began = now;
	if (!load)
		return;
	call->state |= CALL_LOADS;
	if (load->calls == 0 || load->since == 0)
		put(&load->since, (uint64_t)now);
	put(&load->calls, load->calls + 1);
}

/* Calls that go on for long, while others come and end, say nothing of how long one more takes: the
 * time before this one came does not count, nor do calls that came before it ended. */
static void completed(struct lr_engine *e, const struct lr_call *call, int64_t now)
{
	struct lr_load *load = e->load;
	int64_t from = call->began > e->completed_at ? call->began : e->completed_at;
	int64_t pace = (int64_t)load->pace;

	e->completed_at = now;
	put(&load->pace, (uint64_t)(pace + (now - from - pace) / PACE_OVER));
	put(&load->since, 0);
	put(&load->calls, load->calls - 1);
}

void lr_count_done(struct lr_call *call)
{
	struct lr_load *load = call->conn->engine->load;

	if (!(call->state & CALL_LOADS))
		return;
	call->state &= ~(uint32_t)CALL_LOADS;
	if (call->state & CALL_STREAMS)
		put(&load->streams, load->streams - 1);
	else
		completed(call->conn->engine, call, lr_now());
}

void lr_count_end(struct lr_engine *e, struct lr_call *call)
{
	struct lr_counts *counts = e->counts;
	uint64_t time;
	uint32_t code;

	if (!call->began)
		return;
	lr_count_done(call);
	time = (uint64_t)(lr_now() - call->began);
	counts->live--;
	if (call->state & CALL_STREAMS)
		counts->streams--;
	counts->nanoseconds += time;
	code = call->life == EXPIRED ? 4 : call->code;
	if (call->state & CALL_TOO_LARGE && call->life != EXPIRED)
		code = 8; /* whatever the status that came with the message */
	counts->ended[code < LR_CODES ? code : LR_CODES - 1]++;
	counts->lasted[lr_bucket(time)]++;
}

void lr_count_stream(struct lr_call *call)
{
	struct lr_load *load = call->conn->engine->load;

	if ((call->state & CALL_STREAMS) || !call->began)
		return;
	call->state |= CALL_STREAMS;
	call->conn->engine->counts->streams++;
	if (call->state & CALL_LOADS) {
		put(&load->calls, load->calls - 1);
		put(&load->streams, load->streams + 1);
	}
}

void lr_count_code(struct lr_call *call, const void *trailer, uint32_t len)
{
	const uint8_t *at = trailer;

	/* The first field of a Trailer, if it is there: tag 1, a varint. */
	call->code = len < 2 || at[0] != 8 ? 0 : at[1];
}

/* The memory may have counts of engines before; no other engine counts there now. */
void lr_count_in(struct lr_engine *e, struct lr_counts *counts)
{
	uint64_t *to = (uint64_t *)counts;
	const uint64_t *from = (const uint64_t *)e->counts;

	for (size_t i = 0; i < sizeof *counts / sizeof *to; i++)
		to[i] += from[i];
	e->counts = counts;
}

/* The engine ends: what it has now is no more. */
void lr_count_out(struct lr_engine *e)
{
	e->counts->conns = e->counts->live = e->counts->waiting = e->counts->streams = 0;
}
