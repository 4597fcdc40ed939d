/* table.c - calls by handle, and the items that wait for their owners. */
#include "engine.h"

#define SLAB 64

uint64_t lr_call_handle(const struct lr_call *call)
{
	return (uint64_t)call->generation << 32 | call->index;
}

static bool grow(struct lr_engine *e)
{
	struct lr_call **calls = realloc(e->calls, (e->ncalls + SLAB) * sizeof *calls);
	struct lr_call *slab;

	if (!calls)
		return false;
	e->calls = calls;
	slab = calloc(SLAB, sizeof *slab);
	if (!slab)
		return false;
	/* Backwards, so that low slots are used first: the peer's table stays small. */
	for (int i = SLAB - 1; i >= 0; i--) {
		slab[i].index = e->ncalls + (uint32_t)i;
		slab[i].generation = 1;
		slab[i].next = e->free_calls;
		e->free_calls = &slab[i];
		calls[slab[i].index] = &slab[i];
	}
	e->ncalls += SLAB;
	return true;
}

struct lr_call *lr_call_new(struct lr_engine *e, struct lr_conn *conn)
{
	struct lr_call *call;
	uint32_t index, generation;
	uint32_t limit = e->role == LR_CLIENT ? LR_MAX_SLOTS : LR_MAX_SLOTS * 16u;

	if (!e->free_calls && (e->ncalls >= limit || !grow(e)))
		return NULL;
	call = e->free_calls;
	e->free_calls = call->next;
	index = call->index;
	generation = call->generation;
	memset(call, 0, sizeof *call);
	call->index = index;
	call->generation = generation;
	call->life = LIVE;
	call->in = IN_START;
	call->out = OUT_START;
	call->place = OWNED;
	call->last = &call->first;
	call->conn = conn;
	call->method = -1;
	conn->refs++;
	e->live++;
	if (conn->user)
		conn->user->calls++;
	return call;
}

struct lr_call *lr_call_get(struct lr_engine *e, uint64_t handle)
{
	uint32_t index = (uint32_t)handle;
	struct lr_call *call = index < e->ncalls ? e->calls[index] : NULL;

	if (!call || call->generation != handle >> 32 || !call->life ||
	    call->place == RELEASED)
		return NULL;
	return call;
}

/* Free its slot: its handle is stale from here on, and late frames find no call. */
void lr_call_free(struct lr_engine *e, struct lr_call *call)
{
	struct lr_conn *conn = call->conn;
	struct lr_item *item;
	uint32_t slot = (uint32_t)call->wire;

	if (e->role == LR_SERVER && slot < conn->by_slot_size && conn->by_slot[slot] == call)
		conn->by_slot[slot] = NULL;
	if (call->state & CALL_WATCHED)
		lr_call_unwatch(e, call);
	if (call->at_ended)
		lr_ended_drop(e, call);
	lr_news_drop(e, call);
	while ((item = lr_item_pop(call)))
		lr_item_free(conn, item);
	if (call->status)
		lr_item_free(conn, call->status);
	if (call->opened)
		lr_item_free(conn, call->opened);
	if (call->name)
		lr_item_free(conn, call->name);
	free(call->after); /* this side's status, which the thread inside would have sent */
	if (call->state & CALL_LEFT_OPEN)
		e->open--;
	lr_count_end(e, call);
	call->life = 0;
	call->state = 0;
	call->opened = call->status = call->big = call->name = NULL;
	if (++call->generation == 0)
		call->generation = 1;
	call->next = e->free_calls;
	e->free_calls = call;
	if (conn->user)
		conn->user->calls--;
	if (--e->live == 0 && e->refusing)
		lr_service_again(e);
	lr_conn_unref(conn);
}

void lr_table_free(struct lr_engine *e)
{
	for (uint32_t i = 0; i < e->ncalls; i += SLAB)
		free(e->calls[i]); /* the first call of each slab */
	free(e->calls);
}

struct lr_item *lr_item_new(struct lr_conn *conn, uint32_t kind, const void *data, uint64_t size)
{
	uint64_t bytes = sizeof(struct lr_item) + (kind == LR_K_BIG ? 0 : size);
	struct lr_item *item = malloc(bytes);

	if (!item)
		return NULL;
	memset(item, 0, sizeof *item);
	item->kind = kind;
	item->size = size;
	if (data)
		memcpy(item->data, data, size);
	lr_conn_charge(conn, &conn->queued, lr_cost(bytes));
	return item;
}

static void free_message_memory(struct lr_conn *conn, struct lr_item *item)
{
	if (item->mem && !item->lent) {
		lr_conn_refund(conn, &conn->queued, lr_cost(item->size));
		free(item->mem);
	}
	item->mem = NULL;
}

void lr_item_free(struct lr_conn *conn, struct lr_item *item)
{
	uint64_t bytes = sizeof *item;

	if (item->kind == LR_K_BIG)
		free_message_memory(conn, item);
	else
		bytes += item->size;
	lr_conn_refund(conn, &conn->queued, lr_cost(bytes));
	free(item);
}

bool lr_item_hold(struct lr_conn *conn, struct lr_item *item)
{
	item->lent = false;
	item->mem = lr_big_alloc(item->size);
	if (item->mem)
		lr_conn_charge(conn, &conn->queued, lr_cost(item->size));
	return item->mem != NULL;
}

void lr_item_append(struct lr_call *call, struct lr_item *item)
{
	item->next = NULL;
	*call->last = item;
	call->last = &item->next;
}

struct lr_item *lr_item_pop(struct lr_call *call)
{
	struct lr_item *item = call->first;

	if (!item)
		return NULL;
	call->first = item->next;
	if (!call->first)
		call->last = &call->first;
	if (item == call->big)
		call->big = NULL;
	return item;
}

/* Free the message that DATA frames bring: nothing is queued behind it. */
void lr_item_drop_last(struct lr_call *call)
{
	struct lr_item *item, **at = &call->first;

	while (*at != call->big)
		at = &(*at)->next;
	item = *at;
	*at = NULL;
	call->last = at;
	call->big = NULL;
	lr_item_free(call->conn, item);
}

/* The call itself is charged while it is queued: there may be many. */
#define CALL_COST lr_cost(sizeof(struct lr_call))

static void count_waiting(struct lr_conn *conn, int64_t more)
{
	conn->engine->counts->waiting += (uint64_t)more;
	if (conn->user)
		conn->user->waiting += more;
}

void lr_queue_push(struct lr_engine *e, struct lr_call *call)
{
	struct lr_conn *conn = call->conn;

	lr_call_step(call, QUEUE);
	call->next = NULL;
	lr_conn_charge(conn, &conn->queued, CALL_COST);
	if (lr_conn_throttled(conn)) {
		*conn->held_last = call;
		conn->held_last = &call->next;
		conn->nheld++;
	} else {
		*e->queue_last = call;
		e->queue_last = &call->next;
		count_waiting(conn, 1);
	}
}

/* Hold the calls of a throttled connection until it reads: answers would only be posted. */
void lr_queue_hold(struct lr_engine *e, struct lr_conn *conn)
{
	struct lr_call **at = &e->queue, *call;

	while ((call = *at)) {
		if (call->conn != conn) {
			at = &call->next;
			continue;
		}
		*at = call->next;
		call->next = NULL;
		*conn->held_last = call;
		conn->held_last = &call->next;
		conn->nheld++;
		count_waiting(conn, -1);
	}
	e->queue_last = at;
}

void lr_queue_resume(struct lr_engine *e, struct lr_conn *conn)
{
	if (!conn->held)
		return;
	*e->queue_last = conn->held;
	e->queue_last = conn->held_last;
	conn->held = NULL;
	conn->held_last = &conn->held;
	count_waiting(conn, conn->nheld);
	conn->nheld = 0;
	lr_wake_worker(e);
	if (!e->leader)
		lr_request_read(e);
}

struct lr_call *lr_queue_pop(struct lr_engine *e)
{
	struct lr_call *call = e->queue;

	if (!call)
		return NULL;
	e->queue = call->next;
	if (!e->queue)
		e->queue_last = &e->queue;
	count_waiting(call->conn, -1);
	lr_conn_refund(call->conn, &call->conn->queued, CALL_COST);
	lr_call_step(call, TAKE);
	call->next = NULL;
	return call;
}

void lr_ended_push(struct lr_engine *e, struct lr_call *call)
{
	call->state |= CALL_REPORTED;
	call->next_ended = NULL;
	call->at_ended = e->ended_last;
	*e->ended_last = call;
	e->ended_last = &call->next_ended;
}

void lr_ended_drop(struct lr_engine *e, struct lr_call *call)
{
	*call->at_ended = call->next_ended;
	*(call->next_ended ? &call->next_ended->at_ended : &e->ended_last) = call->at_ended;
	call->next_ended = NULL;
	call->at_ended = NULL;
}
