/* accept.c - frames that only a client sends: method names, and calls that begin. */
#include "engine.h"

/* The number that lr_intern() gave a name, or -1. */
static int32_t find_interned(const struct lr_engine *e, const void *text, uint32_t len)
{
	for (uint32_t i = 0; i < e->ninterned; i++)
		if (e->interned[i].len == len && !memcmp(e->interned[i].text, text, len))
			return e->interned[i].id;
	return -1;
}

int lr_on_method(struct lr_engine *e, struct lr_conn *conn, const struct lr_frame *f,
	const char **why)
{
	uint32_t number = lr_read32(f->payload), len = f->h.length - 4;
	struct lr_name *name;

	if (number == 0 || number >= LR_MAX_NAMES) {
		*why = "a method number out of bounds";
		return LR_PROTOCOL;
	}
	if (conn->name_bytes + len > LR_MAX_NAME_BYTES) {
		*why = "more names of methods than may have numbers";
		return LR_PROTOCOL;
	}
	if (number >= conn->names_size) {
		uint32_t size = number < 16 ? 16 : number * 2 > LR_MAX_NAMES ? LR_MAX_NAMES
									     : number * 2;
		struct lr_name *names = realloc(conn->names, size * sizeof *names);
		if (!names)
			return LR_NOMEM;
		memset(names + conn->names_size, 0, (size - conn->names_size) * sizeof *names);
		lr_conn_charge(conn, &conn->named, (size - conn->names_size) * sizeof *names);
		conn->names = names;
		conn->names_size = size;
	}
	name = &conn->names[number];
	if (name->text) {
		*why = "a method number that is already defined";
		return LR_PROTOCOL;
	}
	name->text = malloc(len + 1);
	if (!name->text)
		return LR_NOMEM;
	lr_conn_charge(conn, &conn->named, lr_cost(len + 1));
	conn->name_bytes += len;
	memcpy(name->text, f->payload + 4, len);
	name->text[len] = 0;
	name->len = len;
	name->id = find_interned(e, name->text, len);
	return 0;
}

static int store_by_slot(struct lr_conn *conn, struct lr_call *call, uint64_t wire,
	const char **why)
{
	uint32_t slot = (uint32_t)wire;
	struct lr_call *old;

	if (slot >= LR_MAX_SLOTS || wire >> 32 == 0) {
		*why = "a call id out of bounds";
		return LR_PROTOCOL;
	}
	if (slot >= conn->by_slot_size) {
		uint32_t size = conn->by_slot_size ? conn->by_slot_size : 16;
		struct lr_call **table;
		while (size <= slot)
			size *= 2;
		table = realloc(conn->by_slot, size * sizeof *table);
		if (!table)
			return LR_NOMEM;
		memset(table + conn->by_slot_size, 0,
			(size - conn->by_slot_size) * sizeof *table);
		conn->by_slot = table;
		conn->by_slot_size = size;
	}
	old = conn->by_slot[slot];
	if (old && old->life == LIVE) {
		*why = "a call id that is in use";
		return LR_PROTOCOL;
	}
	conn->by_slot[slot] = call;
	call->wire = wire;
	return 0;
}

/* Before its handler runs, have the client know that. Calls of one connection are given in the
 * order in which they came; one that was deferred is given again. */
static void note_given(const struct lr_call *call)
{
	struct lr_conn *conn = call->conn;

	if (call->ordinal <= conn->given)
		return;
	conn->given = call->ordinal;
	if (conn->link->begun)
		atomic_store_explicit(conn->link->begun, conn->given, memory_order_release);
}

/* Give a queued or just opened call to a worker. */
static void give_to_worker(struct lr_call *call, struct lr_io *io, const uint8_t *data, uint32_t head,
	uint64_t size)
{
	io->call = lr_call_handle(call);
	io->conn = call->conn->id;
	io->method = call->method;
	io->deadline = call->deadline;
	io->flags = call->open_flags;
	io->head = head;
	io->size = (int64_t)size;
	if (size)
		memcpy(io->buf, data, size);
	if (call->state & CALL_TOO_LARGE) {
		io->flags |= LR_F_TOO_LARGE;
		io->size = (int64_t)call->refused_size;
	}
	io->kind = LR_K_CALL;
	note_given(call);
}

int lr_take_call(struct lr_engine *e, struct lr_io *io)
{
	struct lr_call *call;

	while ((call = lr_queue_pop(e))) {
		struct lr_item *opened = call->opened;
		lr_call_expired(e, call);
		if (call->life != LIVE) { /* it ended while it was queued */
			lr_call_release(e, call);
			continue;
		}
		if (call->method < 0 && call->name)
			call->method =
				find_interned(e, call->name->data, (uint32_t)call->name->size);
		else if (call->method < 0)
			call->method = call->conn->names[call->number].id;
		if (opened) {
			give_to_worker(call, io, opened->data, opened->count, opened->size);
			call->opened = NULL;
			lr_item_free(call->conn, opened);
		} else {
			give_to_worker(call, io, NULL, 0, 0); /* deferred: Python has the rest */
		}
		return 1;
	}
	return 0;
}

static const char no_memory[] = "the server has no memory for the call";

static void post_reset(struct lr_conn *conn, uint64_t call, int flags, uint32_t code,
	const char *text)
{
	struct iovec iov[2] = {{&code, 4}, {(void *)(uintptr_t)text, strlen(text)}};

	lr_conn_post(conn, LR_T_RESET, flags, call, iov, 2);
}

static void reject_call(struct lr_engine *e, struct lr_conn *conn, struct lr_call *call, int flags,
	uint32_t code, const char *text)
{
	post_reset(conn, call->wire, flags, code, text);
	call->code = code;
	if (!call->began)
		e->counts->refused++;
	lr_call_free(e, call);
}

/* The text for a client whose user may not have more memory kept. */
void lr_over_memory(const struct lr_conn *conn, char *text, size_t size)
{
	const struct lr_user *user = conn->user;

	if (user)
		snprintf(text, size,
			"uid %lld keeps %llu bytes of this server's memory, and %llu is the most for one user"
			" (localrpc.max_memory_per_user)",
			(long long)user->uid, (unsigned long long)user->kept,
			(unsigned long long)conn->engine->user_bytes);
	else
		snprintf(text, size, "%s", no_memory);
}

/* Refuse the call if its user has too many, or the server shuts down. True: the call is freed. */
static bool refuse(struct lr_engine *e, struct lr_conn *conn, struct lr_call *call)
{
	const struct lr_user *user = conn->user;
	char text[160];

	if (e->refusing)
		snprintf(text, sizeof text, "the server is shutting down");
	else if (user && e->user_waiting >= 0 && user->waiting >= e->user_waiting)
		snprintf(text, sizeof text,
			"uid %lld has %lld calls that wait for a thread, the most that this server allows"
			" one user (localrpc.max_waiting_calls_per_user)",
			(long long)user->uid, (long long)e->user_waiting);
	else if (user && e->user_calls >= 0 && user->calls > e->user_calls)
		snprintf(text, sizeof text,
			"uid %lld has %lld calls in progress, the most that this server allows one user"
			" (localrpc.max_calls_per_user)",
			(long long)user->uid, (long long)e->user_calls);
	else
		return false;
	reject_call(e, conn, call, e->refusing ? LR_F_UNSEEN : 0, e->refusing ? 14 : 8, text);
	return true;
}

/* Find the method of a call whose OPEN named it; keep the name for lr_call_method(). */
static bool name_call(struct lr_engine *e, struct lr_call *call, const uint8_t *text, uint32_t len)
{
	call->method = find_interned(e, text, len);
	if (call->method < 0 && lr_conn_may_queue(call->conn, len))
		call->name = lr_item_new(call->conn, LR_K_CALL, text, len);
	return call->method >= 0 || call->name;
}

int lr_on_open(struct lr_engine *e, struct lr_conn *conn, const struct lr_frame *f,
	const char **why)
{
	struct lr_waiter *w = e->leader;
	struct lr_call *call;
	uint32_t number = lr_read32(f->payload), head = lr_read32(f->payload + 4);
	uint32_t from = 16, at = 16 + head; /* where the metadata begins and ends */
	int64_t timeout = (int64_t)lr_read64(f->payload + 8);
	char text[160];
	int r;

	if (number == 0) {
		uint32_t len = head < 5 ? 0 : lr_read32(f->payload + from);
		if (len == 0 || len > LR_MAX_NAME || len > head - 4 || head - 4 - len > LR_MAX_BLOCK) {
			*why = "an OPEN frame without a method's name";
			return LR_PROTOCOL;
		}
		from += 4 + len;
		head -= 4 + len;
	} else if (number >= conn->names_size || !conn->names[number].text) {
		*why = "an OPEN frame with a method number that is not defined";
		return LR_PROTOCOL;
	}
	conn->opens++;
	if (!e->refusing)
		conn->begun = conn->opens;
	call = lr_call_new(e, conn);
	if (!call) {
		snprintf(text, sizeof text, "the server has %lld calls in progress, and no room for another",
			(long long)e->live);
		e->counts->refused++;
		post_reset(conn, f->h.call, 0, 8, text);
		return 0;
	}
	r = store_by_slot(conn, call, f->h.call, why);
	if (r < 0) {
		lr_call_free(e, call);
		if (r == LR_NOMEM)
			post_reset(conn, f->h.call, 0, 8, no_memory);
		return r == LR_NOMEM ? 0 : r;
	}
	call->ordinal = conn->opens;
	call->number = number;
	if (number)
		call->method = conn->names[number].id;
	else if (!name_call(e, call, f->payload + 20, from - 20)) {
		lr_over_memory(conn, text, sizeof text);
		reject_call(e, conn, call, 0, 8, text);
		return 0;
	}
	/* The timeout counts from now on, not from when a worker takes the call. */
	if (timeout >= 0 && timeout < LR_MAX_TIMEOUT / LR_US)
		call->deadline = lr_now() + timeout * LR_US;
	call->open_flags = f->h.flags & (LR_F_MESSAGE | LR_F_END | LR_F_BIG);
	if (e->max_calls >= 0 && e->live - e->open > e->max_calls)
		call->open_flags |= LR_F_REFUSED;
	if (refuse(e, conn, call))
		return 0;
	if (lr_call_expired(e, call)) { /* it came after its deadline */
		lr_call_free(e, call);
		return 0;
	}
	e->stats.calls++;
	lr_count_begin(e, call, lr_now());
	if (f->h.flags & LR_F_BIG) {
		r = lr_message(e, call, f, at, why);
		if (r == LR_NOMEM) {
			lr_over_memory(conn, text, sizeof text);
			reject_call(e, conn, call, 0, 8, text);
			return 0;
		}
		if (r < 0) {
			lr_call_free(e, call);
			return r;
		}
	} else if ((f->h.flags & LR_F_MESSAGE) && e->max_receive >= 0 &&
		   f->h.length - at > (uint64_t)e->max_receive) {
		lr_too_large(e, call, f->h.length - at, false);
		call->open_flags &= ~(uint32_t)LR_F_MESSAGE;
	}
	if (f->h.flags & LR_F_END)
		lr_call_step(call, f->h.flags & LR_F_BIG ? GOT_BIG_END : GOT_END);
	/* The worker gets the metadata, and a message that came whole. */
	if ((f->h.flags & LR_F_BIG) || (call->state & CALL_TOO_LARGE))
		at = from + head;
	else
		at = f->h.length;
	if (w && w->wants == WANT_CALL && w->io->kind == 0 && !e->queue && at - from <= w->io->cap) {
		give_to_worker(call, w->io, f->payload + from, head, at - from);
		return 0;
	}
	if (!lr_conn_may_queue(conn, at - from + sizeof *call)) {
		lr_over_memory(conn, text, sizeof text);
		reject_call(e, conn, call, 0, 8, text);
		return 0;
	}
	if (!(call->opened = lr_item_new(conn, LR_K_CALL, f->payload + from, at - from))) {
		reject_call(e, conn, call, 0, 8, no_memory);
		return 0;
	}
	call->opened->count = head;
	lr_queue_push(e, call);
	lr_wake_worker(e);
	return 0;
}
