/* wire.c - the rules of PROTOCOL.md for a sender, sections 1 and 3 to 6. */
#include "wire.h"

static void grow(struct wire *w)
{
	struct wire_call *old = w->calls;

	w->room = w->room ? 2 * w->room : 64;
	w->calls = world_calloc(w->room * sizeof *w->calls);
	if (w->used)
		memcpy(w->calls, old, w->used * sizeof *old);
	free(old);
}

static struct wire_call *find(struct wire *w, uint64_t id)
{
	struct wire_call *call;

	for (uint32_t i = 0; i < w->used; i++)
		if (w->calls[i].id == id)
			return &w->calls[i];
	if (w->used == w->room)
		grow(w);
	call = &w->calls[w->used++];
	*call = (struct wire_call){.id = id};
	return call;
}

void wire_granted(struct wire *w, uint64_t id, uint64_t bytes)
{
	struct wire_call *call = find(w, id);
	call->outstanding -= bytes < call->outstanding ? bytes : call->outstanding;
}

void wire_opened(struct wire *w, uint64_t id)
{
	struct wire_call *call = find(w, id);
	bool reused = call->reused || (call->opened && !call->ended);

	*call = (struct wire_call){.id = id, .opened = true, .reused = reused};
}

void wire_free(struct wire *w)
{
	free(w->calls);
}

static const char *shape(const struct wire *w, const struct lr_header *h)
{
	static const uint8_t flags[] = {[LR_T_OPEN] = 7, [LR_T_MESSAGE] = 7, [LR_T_STATUS] = 5,
		[LR_T_RESET] = LR_F_UNSEEN, [LR_T_GOAWAY] = LR_F_END};
	static const uint8_t least[] = {[LR_T_METHOD] = 5, [LR_T_OPEN] = 16, [LR_T_STATUS] = 4,
		[LR_T_RESET] = 4, [LR_T_CREDIT] = 8};
	const uint32_t clients = 1 << LR_T_METHOD | 1 << LR_T_OPEN;
	const uint32_t servers = 1 << LR_T_HEADERS | 1 << LR_T_STATUS | 1 << LR_T_GOAWAY;

	if (h->type <= LR_T_HELLO || h->type > LR_T_GOAWAY)
		return "an unknown type";
	if ((w->role == LR_CLIENT ? servers : clients) & 1u << h->type)
		return "a frame that only the other role sends";
	if (h->flags & ~(h->type < COUNT(flags) ? flags[h->type] : 0))
		return "an unknown flag";
	if (h->length > (h->type == LR_T_DATA ? LR_MAX_FRAME - LR_HEADER_SIZE : LR_MAX_CONTROL))
		return "longer than its type allows";
	if (h->type < COUNT(least) && h->length < least[h->type])
		return "shorter than its fixed part";
	if ((h->type == LR_T_METHOD || h->type == LR_T_GOAWAY) != (h->call == 0))
		return "a call id that is missing, or is not 0";
	return NULL;
}

/* The message, or the beginning of one, at the end of a payload. */
static const char *message(struct wire_call *call, const struct lr_header *h,
	const uint8_t *payload, uint32_t before)
{
	uint32_t rest = h->length - before;

	if ((h->flags & LR_F_MESSAGE) && (h->flags & LR_F_BIG))
		return "both MESSAGE and BIG";
	if (h->flags & LR_F_BIG) {
		if (rest != 8 || !(call->big_left = lr_read64(payload + before)))
			return "a BIG message without its size";
	} else if (!(h->flags & LR_F_MESSAGE) && rest) {
		return "excess bytes";
	}
	return NULL;
}

static const char *streamed(struct wire *w, struct wire_call *call, const struct lr_header *h,
	const uint8_t *payload)
{
	uint64_t charge = LR_OVERHEAD;
	const char *why;

	if (call->half)
		return "a message after END";
	if ((why = message(call, h, payload, 0)))
		return why;
	if (h->flags & LR_F_END)
		call->half = true;
	else if (!(h->flags & (LR_F_MESSAGE | LR_F_BIG)))
		return "a MESSAGE frame without a message and without END";
	if (!(h->flags & (LR_F_MESSAGE | LR_F_BIG)))
		return NULL;
	call->spoken = true;
	charge += h->flags & LR_F_BIG ? call->big_left : h->length;
	if (call->outstanding && call->outstanding + charge > w->window)
		return "a message beyond the window";
	call->outstanding += charge;
	return NULL;
}

static const char *opening(struct wire_call *call, const struct lr_header *h,
	const uint8_t *payload)
{
	uint32_t number = lr_read32(payload), head = lr_read32(payload + 4), name = 0;

	if ((uint32_t)h->call >= LR_MAX_SLOTS || h->call >> 32 == 0)
		return "a call's id out of bounds";
	if (head > h->length - 16)
		return "an OPEN shorter than its metadata";
	if (number == 0 && (head < 5 || (name = lr_read32(payload + 16)) == 0 || name > LR_MAX_NAME ||
			       name > head - 4))
		return "an OPEN without a method's name";
	if (head - (number ? 0 : 4 + name) > LR_MAX_BLOCK)
		return "an OPEN with too much metadata";
	if ((h->flags & (LR_F_MESSAGE | LR_F_BIG)) && !(h->flags & LR_F_END))
		return "an OPEN with a message and without END";
	call->half = h->flags & LR_F_END;
	return message(call, h, payload, 16 + head);
}

static const char *of_connection(struct wire *w, const struct lr_header *h,
	const uint8_t *payload)
{
	uint32_t number;

	if (h->type == LR_T_GOAWAY) {
		w->last_goaway_came = h->flags & LR_F_END;
		return w->last_goaway_came && h->length != 8 ? "a last GOAWAY without its number" : NULL;
	}
	number = lr_read32(payload);
	w->name_bytes += h->length - 4;
	if (number == 0 || number >= LR_MAX_NAMES || h->length - 4 > LR_MAX_NAME ||
		w->name_bytes > LR_MAX_NAME_BYTES)
		return "a method out of bounds";
	if (w->methods[number / 8] & 1u << number % 8)
		return "a method number that is already defined";
	w->methods[number / 8] |= (uint8_t)(1u << number % 8);
	return NULL;
}

const char *wire_check(struct wire *w, const struct lr_header *h, const uint8_t *payload)
{
	const char *why = shape(w, h);
	struct wire_call *call;
	uint32_t trailer;

	if (why)
		return why;
	if (w->last_goaway_came)
		return "a frame after the last GOAWAY";
	if (!h->call)
		return of_connection(w, h, payload);
	call = find(w, h->call);
	if (call->reused)
		return NULL;
	if (call->ended)
		return "a frame after the call's end";
	if (call->big_left && h->type != LR_T_DATA && h->type != LR_T_CREDIT &&
	    h->type != LR_T_RESET)
		return "inside a message";
	switch (h->type) {
	case LR_T_OPEN:
		return opening(call, h, payload);
	case LR_T_MESSAGE:
		return streamed(w, call, h, payload);
	case LR_T_DATA:
		if (h->length > call->big_left)
			return "more DATA than the message's size";
		call->big_left -= h->length;
		call->ended = call->last && !call->big_left;
		return NULL;
	case LR_T_HEADERS:
		if (call->headers || call->spoken)
			return "HEADERS twice, or after a message";
		call->headers = true;
		return NULL;
	case LR_T_STATUS:
		trailer = lr_read32(payload);
		if (trailer > h->length - 4)
			return "a STATUS shorter than its trailer";
		/* If it carries a large message, it takes effect after that. */
		call->last = h->flags & LR_F_BIG;
		call->ended = !call->last;
		return message(call, h, payload, 4 + trailer);
	case LR_T_RESET:
		call->ended = true;
		call->big_left = 0;
		return NULL;
	}
	return NULL;
}
