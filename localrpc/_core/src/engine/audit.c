/*
 * audit.c - count again what an engine keeps, to check what its users and connections are
 * charged, and what lr_counts says. With the mutex.
 */
#include "engine.h"

static uint64_t cost_of(const struct lr_item *item)
{
	uint64_t bytes = sizeof *item;

	if (item->kind != LR_K_BIG)
		return lr_cost(bytes + item->size);
	return lr_cost(bytes) + (item->mem && !item->lent ? lr_cost(item->size) : 0);
}

static uint64_t cost_of_call(const struct lr_call *call)
{
	uint64_t cost = call->place == QUEUED ? lr_cost(sizeof *call) : 0;

	for (const struct lr_item *item = call->first; item; item = item->next)
		cost += cost_of(item);
	if (call->status)
		cost += cost_of(call->status);
	if (call->opened)
		cost += cost_of(call->opened);
	if (call->name)
		cost += cost_of(call->name);
	return cost;
}

static uint64_t cost_of_names(const struct lr_conn *conn)
{
	uint64_t cost = conn->names_size * sizeof *conn->names;

	for (uint32_t i = 0; i < conn->names_size; i++)
		if (conn->names[i].text)
			cost += lr_cost(conn->names[i].len + 1);
	return cost;
}

static uint64_t difference(uint64_t one, uint64_t other)
{
	return one > other ? one - other : other - one;
}

/* How far the counts are from what there is, and from each other. */
static uint64_t wrong_counts(const struct lr_engine *e)
{
	const struct lr_counts *counts = e->counts;
	uint64_t live = 0, streams = 0, waiting = 0, conns = 0, ended = 0, lasted = 0;

	for (uint32_t i = 0; i < e->ncalls; i++)
		if (e->calls[i]->life && e->calls[i]->began) {
			live++;
			streams += (e->calls[i]->state & CALL_STREAMS) != 0;
		}
	for (const struct lr_call *call = e->queue; call; call = call->next)
		waiting++;
	for (uint32_t i = 0; i < e->nconns; i++)
		conns += e->conns[i] != NULL;
	for (int i = 0; i < LR_CODES; i++)
		ended += counts->ended[i];
	for (int i = 0; i < LR_BUCKETS; i++)
		lasted += counts->lasted[i];
	return difference(live, counts->live) + difference(streams, counts->streams) +
	       difference(waiting, counts->waiting) + difference(conns, counts->conns) +
	       difference(counts->begun, live + ended) + difference(ended, lasted);
}

uint64_t lr_audit(const struct lr_engine *e)
{
	uint64_t queued = 0, charged = 0, kept = 0, users = 0, wrong = 0;

	for (uint32_t i = 0; i < e->ncalls; i++)
		if (e->calls[i]->life)
			queued += cost_of_call(e->calls[i]);
	for (uint32_t i = 0; i < e->nconns; i++) {
		const struct lr_conn *conn = e->conns[i];
		uint64_t posted = 0;
		if (!conn)
			continue;
		for (const struct lr_out *out = conn->out; out; out = out->next)
			posted += lr_cost(sizeof *out + out->header.length);
		wrong += difference(posted, conn->posted);
		wrong += difference(cost_of_names(conn), conn->named);
		charged += conn->queued;
		if (conn->user)
			kept += conn->queued + conn->posted + conn->named;
	}
	for (const struct lr_user *user = e->users; user; user = user->next)
		users += user->kept;
	return wrong + wrong_counts(e) + difference(queued, charged) + difference(kept, users);
}
