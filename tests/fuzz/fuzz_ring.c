/*
 * fuzz_ring.c - our end of a ring in shared memory, whose other end changes words and bytes
 * at any moment, between a peek and its consume, too.
 *
 * Invariant: a frame that is given lies within the ring, and its header does not change any
 * more; each side's words are its own and only grow; no thread is signalled but with a signal
 * that the protocol has; and a peer that keeps to the rules gets what was sent.
 */
#include "world.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#define SIZE LR_RING_MIN
#define PEER_PID 4242424 /* beyond pid_max: no process is hit */

/* Where PROTOCOL.md has the words of a control page. */
enum { TAIL = 0, ROOM_EPOCH = 8, CPU = 16, ROOM_AT = 24, BELL = 32, HEAD = 64, EPOCH = 128,
	SLEEPER = 136 };

static uint8_t *ours, *theirs; /* control page and ring, as the other side sees them */
static int memory[2];
static struct lr_link *own;
static struct lr_frame peeked;
static bool has_peeked, lied;
static uint64_t tail, head, taken; /* theirs: written, read; the head of ours */

static uint64_t word(const uint8_t *page, int at)
{
	return atomic_load((const _Atomic uint64_t *)(page + at));
}

static void set(uint8_t *page, int at, uint64_t value)
{
	atomic_store((_Atomic uint64_t *)(page + at), value);
}

static void prepare(void)
{
	for (int i = 0; i < 2; i++) {
		if (memory[i])
			continue;
		memory[i] = memfd_create("fuzz-ring", MFD_CLOEXEC | MFD_ALLOW_SEALING);
		CHECK(memory[i] > 0 && ftruncate(memory[i], lr_page() + SIZE) == 0);
		CHECK(fcntl(memory[i], F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) == 0);
	}
	if (!ours) {
		ours = mmap(NULL, lr_page() + SIZE, PROT_READ, MAP_SHARED, memory[0], 0);
		theirs = mmap(NULL, lr_page() + SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, memory[1], 0);
		CHECK(ours != MAP_FAILED && theirs != MAP_FAILED);
	}
	memset(theirs, 0, lr_page());
	uint8_t *first = mmap(NULL, lr_page(), PROT_READ | PROT_WRITE, MAP_SHARED, memory[0], 0);
	CHECK(first != MAP_FAILED);
	memset(first, 0, lr_page());
	munmap(first, lr_page());
}

static void open_link(void)
{
	int pair[2], bell = lr_make_bell(),
		peer_bell = lr_make_bell();
	static const int wakes[] = {0, 0, SIGURG, LR_WAKE_FUTEX};
	char error[200];

	CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == 0);
	close(pair[1]);
	own = lr_ring_open(LR_MEMORY_SEALED, dup(memory[0]), dup(memory[1]), SIZE, bell, peer_bell,
		pair[0], -1, in_one_of(8) ? 0 : PEER_PID, wakes[in_byte() & 3], -1, error, sizeof error);
	CHECK(own);
}

/* ---- what the other side does ---- */

static void put_bytes(uint64_t at, const void *bytes, uint32_t size)
{
	for (uint32_t i = 0; i < size; i++)
		theirs[lr_page() + (at + i) % SIZE] = ((const uint8_t *)bytes)[i];
}

static void write_frame(void)
{
	struct lr_header h = {.type = in_byte() % 12, .flags = in_byte() & 15, .call = in_byte()};
	uint64_t record;

	h.length = in_size(SIZE - LR_HEADER_SIZE);
	record = LR_HEADER_SIZE + lr_pad8(h.length);
	if (tail + record - word(ours, HEAD) > SIZE)
		return;
	put_bytes(tail, &h, sizeof h);
	put_bytes(tail + LR_HEADER_SIZE, pattern(0), h.length < 64 ? h.length : 64);
	tail += record;
	set(theirs, TAIL, tail);
}

static void change_bytes(void)
{
	uint32_t got;
	uint64_t at = taken + in_byte() % 32;
	const uint8_t *bytes = in_bytes(1 + in_byte() % 24, &got);

	put_bytes(at, bytes, got);
	lied = true;
}

static void change_word(void)
{
	static const int words[] = {TAIL, ROOM_EPOCH, ROOM_AT, HEAD, EPOCH, SLEEPER, CPU, BELL};
	int at = words[in_byte() % COUNT(words)];
	uint64_t value = word(theirs, at);
	uint8_t how = in_byte();

	if (how < 96)
		value += how;
	else if (how < 128)
		value -= how - 95u;
	else if (how < 160)
		value = tail + 8 * (how - 128u);
	else if (how < 192)
		value = word(ours, TAIL) - (how - 160u) * 8;
	else if (how < 224)
		value = (uint64_t)(how - 192u) << 24 | 77; /* signals */
	else
		value = in_u64();
	if (at == SLEEPER || at == CPU)
		value &= 0xffffffff;
	set(theirs, at, value);
	lied |= at == TAIL || at == HEAD;
}

static void read_ours(void)
{
	uint64_t end = word(ours, TAIL);
	struct lr_header h;

	if (lied)
		return;
	CHECK(end >= head && end - head <= SIZE);
	while (head < end && !in_one_of(4)) {
		for (uint32_t i = 0; i < sizeof h; i++)
			((uint8_t *)&h)[i] = ours[lr_page() + (head + i) % SIZE];
		CHECK(h.length <= LR_MAX_FRAME && head + LR_HEADER_SIZE + lr_pad8(h.length) <= end);
		for (uint32_t i = 0; i < h.length; i++)
			CHECK(ours[lr_page() + (head + LR_HEADER_SIZE + i) % SIZE] == pattern(0)[i]);
		head += LR_HEADER_SIZE + lr_pad8(h.length);
	}
	set(theirs, HEAD, head);
}

/* ---- what our side does ---- */

static void peek(void)
{
	static uint8_t sink[SIZE];
	uint64_t there = word(theirs, TAIL);
	int r = own->ops->peek(own, &peeked);

	has_peeked = r == 1;
	if (!has_peeked) {
		CHECK(r == 0 || r == LR_PROTOCOL);
		CHECK(r == 0 ? there == taken : lied);
		return;
	}
	CHECK(there % 8 == 0 && there - taken <= SIZE);
	CHECK(LR_HEADER_SIZE + lr_pad8(peeked.h.length) <= there - taken);
	memcpy(sink, peeked.payload, peeked.h.length);
}

static void consume(void)
{
	uint32_t length = peeked.h.length;

	if (!has_peeked)
		return;
	has_peeked = false;
	own->ops->consume(own);
	taken += LR_HEADER_SIZE + lr_pad8(length);
	CHECK(word(ours, HEAD) == taken);
}

static void send_frame(void)
{
	uint32_t size = in_size(LR_PIECE);
	struct lr_header h = {.length = size, .type = LR_T_DATA};
	struct iovec iov[2] = {{NULL, 0}, {(void *)(uintptr_t)pattern(0), size}};
	uint64_t before = word(ours, TAIL);
	bool room = own->ops->room(own, size);
	int r = own->ops->send(own, &h, iov, 2);

	CHECK(r == 1 || r == 0 || r == LR_CLOSED);
	CHECK(r == 1 ? room : r == LR_CLOSED ? lied : !room);
	CHECK(word(ours, TAIL) == (r == 1 ? before + LR_HEADER_SIZE + lr_pad8(size) : before));
	CHECK(own->ops->sent(own) == word(ours, TAIL));
	if (own->ring_due && !in_one_of(4)) {
		own->ops->ring(own);
		own->ops->rung(own, own->ring_due);
		own->ring_due = 0;
	}
}

static void sleep_or_wake(void)
{
	uint64_t epoch = word(ours, EPOCH), room_epoch = word(ours, ROOM_EPOCH);
	bool armed;

	switch (in_byte() % 6) {
	case 0:
		armed = own->ops->arm(own, in_byte() & 1 ? (uint32_t)SIGURG << 24 | 77 : 0);
		CHECK(armed == (word(theirs, TAIL) == taken));
		CHECK(word(ours, EPOCH) & 1);
		break;
	case 1:
		own->ops->disarm(own);
		CHECK(!(word(ours, EPOCH) & 1));
		break;
	case 2:
		own->ops->arm_room(own, in_size(LR_PIECE));
		CHECK(word(ours, ROOM_EPOCH) & 1);
		break;
	case 3:
		own->ops->disarm_room(own);
		CHECK(!(word(ours, ROOM_EPOCH) & 1));
		break;
	case 4:
		CHECK(own->ops->poll(own) == (word(theirs, TAIL) != taken));
		break;
	default:
		own->ops->unseen(own, in_u16());
	}
	CHECK(word(ours, EPOCH) >= epoch && word(ours, ROOM_EPOCH) >= room_epoch);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static void (*const acts[])(void) = {write_frame, write_frame, write_frame, change_bytes,
		change_word, read_ours, read_ours, peek, peek, peek, consume, consume, consume,
		send_frame, send_frame, sleep_or_wake};

	world_begin(data, size);
	tail = head = taken = 0;
	has_peeked = lied = false;
	prepare();
	open_link();
	while (in_left() && world.steps--)
		acts[in_byte() % COUNT(acts)]();
	if (in_byte() & 1)
		own->ops->hang_up(own);
	lr_link_close(own);
	world_finish();
	return 0;
}
