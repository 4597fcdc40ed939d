/*
 * frames.c - the rules of PROTOCOL.md for a single frame. The order of frames is checked
 * by state.c, their effect is in dispatch.c.
 */
#include "engine.h"

enum { CLIENT = 1 << LR_CLIENT, SERVER = 1 << LR_SERVER, BOTH = CLIENT | SERVER };

struct rule {
	const char *name;
	uint8_t from;     /* the roles that send it */
	uint8_t flags;    /* the flags that it may carry */
	bool of_call;     /* otherwise of the connection, and its call is 0 */
	bool has_message; /* the payload ends with a message part */
	uint32_t least, most; /* bytes of payload */
};

#define PARTS (LR_F_MESSAGE | LR_F_BIG)

/* HELLO is not here: it belongs to the handshake, and never comes again. */
static const struct rule rules[] = {
	[LR_T_METHOD] = {"METHOD", CLIENT, 0, false, false, 5, 4 + LR_MAX_NAME},
	[LR_T_OPEN] = {"OPEN", CLIENT, PARTS | LR_F_END, true, true, 16, LR_MAX_CONTROL},
	[LR_T_MESSAGE] = {"MESSAGE", BOTH, PARTS | LR_F_END, true, true, 0, LR_MAX_CONTROL},
	[LR_T_DATA] = {"DATA", BOTH, 0, true, false, 0, LR_MAX_FRAME - LR_HEADER_SIZE},
	[LR_T_HEADERS] = {"HEADERS", SERVER, 0, true, false, 0, LR_MAX_BLOCK},
	[LR_T_STATUS] = {"STATUS", SERVER, PARTS, true, true, 4, LR_MAX_CONTROL},
	[LR_T_RESET] = {"RESET", BOTH, LR_F_UNSEEN, true, false, 4, LR_MAX_CONTROL},
	[LR_T_CREDIT] = {"CREDIT", BOTH, 0, true, false, 8, 8},
	[LR_T_GOAWAY] = {"GOAWAY", SERVER, LR_F_END, false, false, 0, LR_MAX_CONTROL},
};

static int __attribute__((format(printf, 2, 3))) bad_frame(struct lr_engine *e, const char *format,
	...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(e->frame_error, sizeof e->frame_error, format, args);
	va_end(args);
	return LR_PROTOCOL;
}

/* Check the part of the payload before the message, which contains its own length. */
static int check_block(struct lr_engine *e, const struct rule *rule, const struct lr_frame *f,
	uint32_t *fixed)
{
	const uint8_t *length = f->h.type == LR_T_OPEN ? f->payload + 4 : f->payload;
	uint32_t block = f->h.type == LR_T_MESSAGE ? 0 : lr_read32(length), limit = LR_MAX_BLOCK;

	if (f->h.type == LR_T_OPEN && lr_read32(f->payload) == 0)
		limit += 4 + LR_MAX_NAME; /* the method's name is in the block */
	if (block > f->h.length - rule->least)
		return bad_frame(e, "a %s frame of %u bytes with a block of %u", rule->name,
			f->h.length, block);
	if (block > limit)
		return bad_frame(e, "a block of %u bytes in a %s frame, and %u is the limit", block,
			rule->name, limit);
	*fixed = rule->least + block;
	return 0;
}

static int check_message(struct lr_engine *e, const struct rule *rule, const struct lr_frame *f)
{
	uint32_t fixed = 0, rest;
	int flags = f->h.flags, r = check_block(e, rule, f, &fixed);

	if (r < 0)
		return r;
	rest = f->h.length - fixed;
	if ((flags & PARTS) == PARTS)
		return bad_frame(e, "a %s frame with both a message and a large message", rule->name);
	if ((flags & LR_F_BIG) && rest != 8)
		return bad_frame(e, "a large message whose size takes %u bytes", rest);
	if (!(flags & PARTS) && rest)
		return bad_frame(e, "a %s frame with %u excess bytes", rule->name, rest);
	if (f->h.type == LR_T_MESSAGE && !flags)
		return bad_frame(e, "a MESSAGE frame without a message and without END");
	if (f->h.type == LR_T_OPEN && (flags & PARTS) && !(flags & LR_F_END))
		return bad_frame(e, "an OPEN frame with a message that is not the only one");
	return 0;
}

int lr_check_frame(struct lr_engine *e, const struct lr_conn *conn, const struct lr_frame *f)
{
	const struct rule *rule = f->h.type < sizeof rules / sizeof *rules ? &rules[f->h.type] : NULL;
	int peer = e->role == LR_CLIENT ? SERVER : CLIENT;

	if (!rule || !rule->name)
		return bad_frame(e, f->h.type == LR_T_HELLO ? "a second HELLO frame"
							 : "a frame of unknown type %u", f->h.type);
	if (!(rule->from & peer))
		return bad_frame(e, "a %s frame, which only a %s sends", rule->name,
			peer == SERVER ? "client" : "server");
	if (f->h.flags & ~rule->flags)
		return bad_frame(e, "a %s frame with unknown flags 0x%x", rule->name,
			f->h.flags & ~rule->flags);
	if (f->h.length < rule->least || f->h.length > rule->most)
		return bad_frame(e, "a %s frame of %u bytes", rule->name, f->h.length);
	if (!rule->of_call && f->h.call)
		return bad_frame(e, "a %s frame of a call", rule->name);
	if (f->h.type == LR_T_GOAWAY && (f->h.flags & LR_F_END) && f->h.length != 8)
		return bad_frame(e, "a last GOAWAY frame of %u bytes", f->h.length);
	if (conn->last_goaway_came)
		return bad_frame(e, "a %s frame after the last GOAWAY", rule->name);
	return rule->has_message ? check_message(e, rule, f) : 0;
}

/*
 * A message frame of a call. The sender counts a byte as outstanding until our grant arrives,
 * so it never counts fewer than we do here.
 */
int lr_check_window(struct lr_engine *e, struct lr_call *call, const struct lr_frame *f)
{
	uint64_t charge = (f->h.flags & LR_F_BIG ? lr_read64(f->payload) : f->h.length) + LR_OVERHEAD;

	if (call->ungranted && call->ungranted + charge > e->window)
		return bad_frame(e, "messages beyond the window of %llu bytes",
			(unsigned long long)e->window);
	call->ungranted += charge;
	return 0;
}
