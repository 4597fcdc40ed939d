/*
 * peer.c - frames that the input chooses: well-formed ones of every type, in any order, with
 * sizes that like the limits; and sometimes a field with a wrong value.
 */
#include "peer.h"

#include <sys/socket.h>

#define MOST (LR_MAX_FRAME + 64)

static uint8_t buffer[MOST];

struct draft {
	struct lr_header h;
	uint32_t at;
};

static void put(struct draft *d, const void *data, uint32_t size)
{
	if (size > MOST - d->at)
		size = MOST - d->at;
	memcpy(buffer + d->at, data, size);
	d->at += size;
}

static void put32(struct draft *d, uint32_t value)
{
	put(d, &value, sizeof value);
}

static void put64(struct draft *d, uint64_t value)
{
	put(d, &value, sizeof value);
}

static void put_pattern(struct draft *d, uint32_t size)
{
	put(d, pattern(0), size);
}

/* One of its calls, usually one that has not ended. */
static struct peer_call *some_call(struct peer *p, uint32_t link)
{
	uint8_t which = in_byte();
	struct peer_call *call = &p->calls[link & 3][which & 7];
	uint64_t id;

	if (p->of->role == LR_SERVER)
		return call;
	id = actor_some_call(p->of);
	call = &p->calls[link & 3][id & 7];
	if (call->id != id)
		*call = (struct peer_call){.id = id};
	return call;
}

/* A message at the end of a frame, or nothing, or the size of a large one. */
static void put_message(struct draft *d, struct peer_call *call, uint8_t how)
{
	switch (how % 4) {
	case 0:
		d->h.flags |= LR_F_MESSAGE;
		put_pattern(d, in_size(LR_MAX_CONTROL - d->at));
		break;
	case 1:
		d->h.flags |= LR_F_BIG;
		call->big_left = in_one_of(16) ? in_u64() : 1 + in_size(PATTERN_MAX);
		put64(d, call->big_left);
		break;
	case 2:
		d->h.flags |= LR_F_MESSAGE;
		put_pattern(d, in_byte());
		break;
	}
}

static void open_frame(struct peer *p, struct draft *d, struct peer_call *call, uint8_t how)
{
	static const uint32_t slots[] = {LR_MAX_SLOTS - 1, LR_MAX_SLOTS, 1000, 63};
	uint32_t slot = how & 8 ? slots[how >> 6] : how >> 5;
	uint32_t head = how & 4 ? in_size(LR_INLINE - 64) : 0, number, name = 0;

	call->id = (uint64_t)(how & 16 && in_one_of(4) ? in_byte() : ++p->generation) << 32 | slot;
	call->big_left = 0;
	d->h.call = call->id;
	number = in_byte() % 10;
	if (number == 0) /* the method's name comes first */
		name = in_size(head < 8 ? 8 : head);
	put32(d, number);
	put32(d, (how == 255 ? head + 1000 : head) + (number ? 0 : 4));
	put64(d, in_one_of(2) ? UINT64_MAX : in_one_of(8) ? in_u64() : in_u16());
	if (number == 0)
		put32(d, name);
	put_pattern(d, head);
	if (how & 1) {
		d->h.flags |= LR_F_END;
		put_message(d, call, in_byte());
	} else if (how & 2) {
		put_message(d, call, in_byte());
	}
}

static void method_frame(struct draft *d, uint8_t how)
{
	put32(d, how < 192 ? 1 + how % 9u : how < 250 ? how * 20u : LR_MAX_NAMES);
	put_pattern(d, in_size(how == 255 ? LR_MAX_NAME + 1 : 200));
	d->h.call = 0;
}

static void data_frame(struct draft *d, struct peer_call *call, uint8_t how)
{
	uint64_t size = how & 1 ? call->big_left : in_size(LR_MAX_FRAME);

	if (how & 2 && size > call->big_left)
		size = call->big_left;
	if (size > LR_MAX_FRAME - LR_HEADER_SIZE)
		size = LR_MAX_FRAME - LR_HEADER_SIZE;
	call->big_left -= size < call->big_left ? size : call->big_left;
	put_pattern(d, (uint32_t)size);
}

static void draft_frame(struct peer *p, struct draft *d, struct peer_call *call)
{
	static const uint8_t from_client[] = {LR_T_METHOD, LR_T_OPEN, LR_T_OPEN, LR_T_OPEN, LR_T_MESSAGE,
		LR_T_MESSAGE, LR_T_MESSAGE, LR_T_DATA, LR_T_DATA, LR_T_DATA, LR_T_RESET, LR_T_CREDIT,
		LR_T_CREDIT};
	static const uint8_t from_server[] = {LR_T_HEADERS, LR_T_MESSAGE, LR_T_MESSAGE, LR_T_MESSAGE,
		LR_T_DATA, LR_T_DATA, LR_T_DATA, LR_T_STATUS, LR_T_STATUS, LR_T_RESET, LR_T_CREDIT,
		LR_T_CREDIT, LR_T_GOAWAY};
	bool to_server = p->of->role == LR_SERVER;
	uint8_t type = in_byte(), how = in_byte();

	*d = (struct draft){.h = {.call = call->id}};
	if (type >= 224)
		d->h.type = type % 13;
	else
		d->h.type = to_server ? from_client[type % COUNT(from_client)]
				      : from_server[type % COUNT(from_server)];
	switch (d->h.type) {
	case LR_T_METHOD:
		method_frame(d, how);
		break;
	case LR_T_OPEN:
		open_frame(p, d, call, how);
		break;
	case LR_T_MESSAGE:
		put_message(d, call, how);
		if ((how & 12) == 12 || !d->h.flags)
			d->h.flags |= LR_F_END;
		break;
	case LR_T_DATA:
		data_frame(d, call, how);
		break;
	case LR_T_STATUS: {
		uint32_t trailer = how & 4 ? in_size(LR_INLINE - 64) : 0;

		put32(d, how == 255 ? trailer + 1 : trailer);
		put_pattern(d, trailer);
		put_message(d, call, how);
		break;
	}
	case LR_T_RESET:
		put32(d, how % 18);
		put_pattern(d, in_one_of(4) ? in_size(LR_MAX_CONTROL - 4) : 3);
		d->h.flags = how & 64 ? LR_F_UNSEEN : 0;
		break;
	case LR_T_CREDIT:
		put64(d, how < 64 ? 0 : how < 224 ? in_size(PATTERN_MAX) + LR_OVERHEAD : in_u64());
		break;
	case LR_T_GOAWAY:
		d->h.call = 0;
		d->h.flags = how & 1 ? LR_F_END : 0;
		if (how & 1)
			put64(d, in_byte());
		else
			put_pattern(d, how);
		break;
	default: /* HEADERS, and types that do not exist */
		put_pattern(d, in_size(LR_MAX_CONTROL));
	}
}

/* Sometimes put an error into it. */
static void spoil(struct draft *d, uint8_t how)
{
	switch (how) {
	case 255:
		d->h.flags ^= in_byte();
		break;
	case 254:
		d->at = in_u16() < d->at ? d->at / 2 : 0;
		break;
	case 253:
		d->h.call = in_u64();
		break;
	case 252:
		put_pattern(d, in_byte());
		break;
	case 251:
		buffer[in_byte() % 32] = in_byte();
	}
}

static void frame(struct peer *p, uint32_t link, uint32_t times)
{
	struct memlink *m = p->of->links[link];
	struct draft d;
	uint8_t how;

	draft_frame(p, &d, some_call(p, link));
	how = in_byte();
	d.h.cpu = how % 8 == 7 ? (uint16_t)(1 + how / 128) : 0;
	if (how >= 248)
		spoil(&d, how);
	d.h.length = d.at;
	while (times-- && m->waiting < 4 * PATTERN_MAX)
		memlink_deliver(m, &d.h, buffer);
}

static int64_t uid(void)
{
	return in_byte() % 2 ? 1000 : 1001;
}

void peer_connect(struct peer *p)
{
	struct actor *a = p->of;
	struct memlink *m;
	int64_t id;

	for (uint32_t i = 0; i < COUNT(a->links); i++) {
		if (a->links[i])
			continue;
		m = memlink_new(a->e, a->role, p->window, in_byte());
		m->room = in_one_of(2) ? 1 << 30 : in_u16();
		m->place = &a->links[i];
		a->links[i] = m;
		a->nlinks = i + 1 > a->nlinks ? i + 1 : a->nlinks;
		memset(p->calls[i & 3], 0, sizeof p->calls[0]);
		id = p->limits ? lr_engine_admit(a->e, &m->link, p->window, uid())
			       : lr_engine_add(a->e, &m->link, p->window);
		CHECK(id >= 0 || id == LR_NOMEM);
		return;
	}
}

bool peer_ring_without_reason(struct peer *p)
{
	if (!p->rings_without_reason)
		return false;
	p->rings_without_reason--;
	if (p->of->links[p->prodded])
		memlink_bell(p->of->links[p->prodded]);
	return true;
}

void peer_act(struct peer *p)
{
	uint8_t what = in_byte();
	uint32_t link = what >> 6;
	struct memlink *m;
	char byte = 0;

	if (link == 3 && p->of->nlinks > 4)
		link = in_byte() % p->of->nlinks;
	if (p->of->role == LR_CLIENT || !p->of->links[link])
		link = 0;
	m = p->of->links[link];
	if (!m) {
		if (p->of->role == LR_SERVER && !p->of->closed)
			peer_connect(p);
		return;
	}
	switch (what & 31) {
	case 0:
		memlink_grant(m, in_one_of(2) ? 1 << 20 : in_u16());
		break;
	case 1:
		m->room = in_one_of(2) ? 0 : in_byte();
		break;
	case 2:
		if (in_one_of(4))
			memlink_end(m);
		break;
	case 3:
		if (in_one_of(16))
			m->garbage = true;
		else if (m->far_end >= 0 && in_one_of(16))
			send(m->far_end, &byte, 1, MSG_NOSIGNAL | MSG_DONTWAIT);
		break;
	case 4:
		m->epoch++;
		break;
	case 5:
		m->seen = in_one_of(2) ? m->sent : m->seen + (m->sent - m->seen) / 2;
		break;
	case 6:
		memlink_bell(m);
		p->prodded = link;
		p->rings_without_reason = in_one_of(4) ? 12 : 0;
		break;
	case 7:
		/* One, or many. */
		for (int n = in_one_of(16) ? 68 : 1; n && p->of->role == LR_SERVER && !p->of->closed; n--)
			peer_connect(p);
		break;
	case 9:
		world.fails = 1 + in_byte() % 32;
		break;
	case 8:
		frame(p, link, 1u << in_byte() % 14);
		break;
	default:
		frame(p, link, 1);
	}
}
