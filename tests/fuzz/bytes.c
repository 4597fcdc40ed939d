/*
 * bytes.c - bytes that are written to a stream must come out of the link as the frames
 * that they are, wherever they were cut; and what the link sends must arrive byte by byte.
 */
#include "bytes.h"

#include <poll.h>

#define MOST (1u << 20)

/* One direction: bytes from 0 to `end`, of which `passed` have gone to the byte channel, and
 * the reader has come to `at`. */
struct lane {
	uint8_t *bytes;
	size_t at, passed, end;
};

static struct lane in, out; /* to the link, from the link */
static uint32_t data_left;  /* of the DATA frame that is given out in pieces */
static struct lr_header data;
static bool ended, odd, hung_up;

static void empty(struct lane *lane)
{
	if (!lane->bytes)
		lane->bytes = malloc(MOST);
	CHECK(lane->bytes);
	lane->at = lane->passed = lane->end = 0;
}

static void append(struct lane *lane, const void *bytes, size_t size)
{
	if (size > MOST - lane->end)
		size = MOST - lane->end;
	memcpy(lane->bytes + lane->end, bytes, size);
	lane->end += size;
}

static void write_frame(void)
{
	struct lr_header h = {.type = in_byte() % 12, .flags = in_byte() & 7, .cpu = in_byte(),
		.call = in_byte()};
	uint8_t how = in_byte();

	h.length = in_size(h.type == LR_T_DATA ? LR_MAX_FRAME - LR_HEADER_SIZE : LR_MAX_CONTROL);
	if (how == 255)
		h.length = (uint32_t)in_u64();
	append(&in, &h, sizeof h);
	append(&in, pattern(0), h.length < PATTERN_MAX ? h.length : 0);
}

static void write_junk(void)
{
	uint32_t got;
	const uint8_t *bytes = in_bytes(in_byte() % 64, &got);

	append(&in, bytes, got);
}

static void feed(const struct far *far)
{
	size_t most = in.end - in.passed, size;

	if (ended)
		return;
	size = in_one_of(2) ? in_size(MOST) : most;
	in.passed += far->feed(in.bytes + in.passed, size < most ? size : most);
}

/* ---- the result that the reader must have ---- */

static bool impossible(const struct lr_header *h)
{
	return h->length > LR_MAX_FRAME - LR_HEADER_SIZE ||
	       (h->type != LR_T_DATA && h->length > LR_MAX_CONTROL);
}

/* For the bytes passed on: 1 a frame, or a piece of one, 0 not yet, LR_PROTOCOL. */
static int expected(struct lr_header *h)
{
	size_t have = in.passed - in.at;

	if (data_left)
		return have > 0;
	if (have < LR_HEADER_SIZE)
		return 0;
	memcpy(h, in.bytes + in.at, LR_HEADER_SIZE);
	if (impossible(h))
		return LR_PROTOCOL;
	if (h->type != LR_T_DATA)
		return have - LR_HEADER_SIZE >= h->length;
	return h->length == 0 || have > LR_HEADER_SIZE;
}

static bool is_empty_data(const struct lr_header *h)
{
	return h->type == LR_T_DATA && h->length == 0;
}

/* An empty DATA frame has no effect: a peek may have skipped it, and others after it. */
static void skip_empty(const struct lr_frame *f)
{
	struct lr_header h;

	while (!data_left && expected(&h) == 1 && is_empty_data(&h) &&
		!(f && is_empty_data(&f->h) && f->h.flags == h.flags && f->h.call == h.call))
		in.at += LR_HEADER_SIZE;
}

/* Like expected(), after a peek that may have skipped an empty frame. */
static int expected_behind_empty(void)
{
	size_t at = in.at;
	int want;

	skip_empty(NULL);
	want = expected(&(struct lr_header){0});
	in.at = at;
	return want;
}

static void check_frame(const struct lr_frame *f)
{
	struct lr_header h = data;
	static uint8_t sink[LR_MAX_FRAME];

	if (odd) { /* its bytes are not known, but it has come */
		CHECK(f->h.length <= LR_MAX_FRAME - LR_HEADER_SIZE);
		memcpy(sink, f->payload, f->h.length);
		return;
	}
	CHECK(expected(&h) == 1);
	if (!data_left) {
		in.at += LR_HEADER_SIZE;
		if (h.type == LR_T_DATA) {
			data = h;
			data_left = h.length;
		}
	}
	CHECK(f->h.type == h.type && f->h.flags == h.flags && f->h.call == h.call);
	CHECK(h.type == LR_T_DATA ? f->h.length <= data_left : f->h.length == h.length);
	CHECK(f->h.length || !data_left);
	CHECK(f->h.length <= in.passed - in.at);
	CHECK(!memcmp(f->payload, in.bytes + in.at, f->h.length));
	in.at += f->h.length;
	if (h.type == LR_T_DATA)
		data_left -= f->h.length;
}

static void read_frame(struct lr_link *link)
{
	struct lr_frame f, again;
	struct lr_header h;
	size_t at;
	int r, want;

	atomic_store(&link->edge, true);
	r = link->ops->peek(link, &f);
	at = in.at;
	skip_empty(r == 1 ? &f : NULL);
	want = expected(&h);
	if (r != 1) /* these may still follow */
		in.at = at;
	world_trace("peek returned %d instead of %d: %zu of %zu bytes read", r, want, in.at, in.passed);
	if (r == 1) {
		if (f.h.length && in_one_of(4)) /* a second peek returns the same */
			CHECK(link->ops->poll(link) && link->ops->peek(link, &again) == 1 &&
			      again.h.type == f.h.type);
		if (in_one_of(4) && f.h.type != LR_T_DATA)
			return;
		check_frame(&f);
		link->ops->consume(link);
	} else if (r == LR_PROTOCOL) {
		CHECK(want == LR_PROTOCOL || odd);
	} else if (r == LR_CLOSED) {
		CHECK((ended && want == 0) || odd || hung_up);
	} else {
		/* A poll may miss bytes, but no thread sleeps then: a helper receives the
		 * rest, or arming finds it. */
		CHECK(r == 0);
		if (want && !odd && !hung_up && !link->lazy)
			CHECK(!link->ops->arm(link, 0));
		link->ops->disarm(link);
	}
}

static void look(struct lr_link *link)
{
	bool edge, armed;

	switch (in_byte() % 4) {
	case 0:
		link->ops->poll(link);
		break;
	case 1:
		/* Without an edge, bytes that came after the last read will cause one. */
		if ((edge = in_one_of(2)))
			atomic_store(&link->edge, true);
		armed = link->ops->arm(link, 0);
		CHECK(!armed || !edge || link->lazy || odd || !expected_behind_empty());
		link->ops->disarm(link);
		break;
	case 2:
		if (link->ops->peer_closed)
			link->ops->peer_closed(link);
		break;
	default:
		/* A wait does not sleep after an interrupt. */
		if (link->ops->wait && link->ops->may_wait(link)) {
			link->ops->interrupt(link);
			CHECK(link->ops->wait(link) >= LR_CLOSED);
		}
	}
}

/* ---- what the writer sends ---- */

static void send(struct lr_link *link)
{
	uint32_t size = in_size(LR_PIECE), cut = size ? in_size(size) : 0;
	struct lr_header h = {.length = size, .type = in_byte() % 4 ? LR_T_DATA : LR_T_OPEN,
		.call = in_byte()};
	struct iovec iov[3] = {{(void *)(uintptr_t)pattern(0), cut}, {NULL, 0},
		{(void *)(uintptr_t)(pattern(0) + cut), size - cut}};
	int r;

	if (out.end + size + LR_HEADER_SIZE > MOST)
		return;
	r = link->ops->send(link, &h, iov, 3);
	CHECK(r == 1 || r == 0 || r == LR_CLOSED);
	world_trace("a frame of %u bytes: %d", size, r);
	CHECK(r != 1 || !hung_up);
	CHECK(r != LR_CLOSED || ended || odd || hung_up);
	if (r == 1) {
		append(&out, &h, sizeof h);
		append(&out, pattern(0), size);
		CHECK(link->ops->sent(link) == out.end);
	}
}

static bool drain(const struct far *far, size_t size)
{
	static uint8_t got[LR_MAX_FRAME];
	ssize_t n;

	if (size > sizeof got)
		size = sizeof got;
	n = far->drain(got, size);
	CHECK(n <= (ssize_t)size);
	if (n > 0) {
		CHECK(odd || (size_t)n <= out.end - out.at);
		CHECK(odd || !memcmp(got, out.bytes + out.at, (size_t)n));
		out.at += (size_t)n;
	}
	return n > 0;
}

static void hang_up(struct lr_link *link)
{
	if (!in_one_of(16))
		return;
	hung_up = odd = true; /* nothing is read after that, and the order is not kept */
	link->ops->hang_up(link);
	if (link->ops->release && in_one_of(2))
		link->ops->release(link);
}

static void act(const struct far *far, struct lr_link *link)
{
	bool released = hung_up && link->bell_fd < 0;
	uint8_t what = in_byte() % 24;

	if (what < 5)
		write_frame();
	else if (what == 5)
		write_junk();
	else if (what < 10)
		feed(far);
	else if (what == 21 && in_one_of(8)) {
		ended = true;
		far->end();
	} else if (what == 22 && in_one_of(2))
		odd |= far->misbehave(in_byte());
	else if (released)
		return;
	else if (what < 14)
		read_frame(link);
	else if (what == 14)
		look(link);
	else if (what < 18)
		send(link);
	else if (what == 18)
		drain(far, in_size(MOST) + 1);
	else if (what == 19)
		link->ops->room(link, in_size(LR_PIECE));
	else if (what == 20) {
		link->ops->arm_room(link, in_size(LR_PIECE));
		link->ops->disarm_room(link);
	} else if (what == 23) {
		link->ops->unseen(link, in_u16());
		hang_up(link);
	}
}

/* Everything that was accepted arrives, if it is read. */
static void finish(const struct far *far, struct lr_link *link)
{
	for (int rounds = 0; rounds < 4000 && !hung_up && !odd && !ended; rounds++) {
		bool moved = drain(far, MOST);

		if (link->unfinished)
			link->ops->room(link, 0);
		else if (!moved && out.at == out.end)
			break;
		if (!moved && link->lazy) /* by a thread of its own */
			poll(NULL, 0, 1);
	}
	CHECK(hung_up || odd || ended || (out.at == out.end && !link->unfinished));
}

void bytes_run(const struct far *far, struct lr_link *link)
{
	empty(&in);
	empty(&out);
	data_left = 0;
	ended = odd = hung_up = false;
	while (in_left() && world.steps--)
		act(far, link);
	finish(far, link);
	lr_link_close(link);
}
