/*
 * world.c - the input, the clock, and the system calls of the core, by the linker's
 * --wrap: build.py has the list.
 */
#include "world.h"

#include <poll.h>
#include <linux/futex.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define STEPS 4000       /* the most steps of one input */
#define TICK (5 * LR_US) /* how far the clock moves when it is read, so that spinning ends */
#define ENDS 8           /* how often world.end() may have no effect */
#define CLOCK_READS 256  /* reads of the clock after which others run, too */
#define EMPTY_POLLS 64   /* polls in a row that find nothing, before world.end() */

struct world world;
static const uint8_t *at, *end;
static uint8_t *pattern_bytes;
static int empty_polls; /* in a row */
static int clock_reads;

_Noreturn void world_fail(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	fprintf(stderr, "\n==fuzz== ");
	vfprintf(stderr, format, args);
	fprintf(stderr, "\n");
	va_end(args);
	abort();
}

void world_trace(const char *format, ...)
{
	static int says = -1;
	va_list args;

	if (says < 0)
		says = getenv("LR_FUZZ_TRACE") != NULL;
	if (!says)
		return;
	va_start(args, format);
	fprintf(stderr, "%*s", 1 + 2 * (int)world.depth, "");
	vfprintf(stderr, format, args);
	fprintf(stderr, "\n");
	va_end(args);
}

bool in_left(void)
{
	return at < end;
}

uint8_t in_byte(void)
{
	return at < end ? *at++ : 0;
}

uint16_t in_u16(void)
{
	uint16_t low = in_byte();
	return (uint16_t)(low | in_byte() << 8);
}

uint64_t in_u64(void)
{
	uint64_t value = 0;

	for (int i = 0; i < 8; i++)
		value |= (uint64_t)in_byte() << (8 * i);
	return value;
}

bool in_one_of(uint8_t n)
{
	return in_byte() % n == 0;
}

uint32_t in_size(uint32_t most)
{
	static const uint32_t sizes[] = {0, 1, 4, 7, 8, 16, 64, 100, 511, 1000, 4096, LR_INLINE - 65,
		LR_INLINE - 64, LR_INLINE - 1, LR_INLINE, LR_INLINE + 1, LR_PIECE - 16, LR_PIECE,
		LR_PIECE + 1, 2 * LR_PIECE, LR_MAX_FRAME - 16, LR_MAX_FRAME, 700000};
	uint8_t how = in_byte();
	uint32_t size = how < 128 ? sizes[how % COUNT(sizes)] : how < 240 ? how - 128u : in_u16();

	return size < most ? size : most;
}

const uint8_t *in_bytes(uint32_t size, uint32_t *got)
{
	const uint8_t *from = at;

	*got = size < (size_t)(end - at) ? size : (uint32_t)(end - at);
	at += *got;
	return from;
}

void world_begin(const uint8_t *data, size_t size)
{
	setenv("LOCALRPC_KEEP_MEMORY", "0", 1);
	at = data;
	end = data + size;
	empty_polls = clock_reads = 0;
	lr_may_sleep = false; /* of the previous input */
	world = (struct world){.on = true, .now = 1000000 * LR_MS, .steps = STEPS};
}

void world_finish(void)
{
	world = (struct world){0};
}

const uint8_t *pattern(uint64_t size)
{
	CHECK(size <= PATTERN_MAX);
	if (!pattern_bytes) {
		pattern_bytes = world_malloc(PATTERN_MAX);
		CHECK(pattern_bytes);
		for (uint32_t i = 0; i < PATTERN_MAX; i++)
			pattern_bytes[i] = (uint8_t)(i * 7 + (i >> 8));
	}
	return pattern_bytes;
}

/* ---- time ---- */

static void glance(void);

static void pass(const struct timespec *how_long)
{
	world.now += (int64_t)how_long->tv_sec * 1000000000 + how_long->tv_nsec;
}

int __real_clock_gettime(clockid_t clock, struct timespec *t);
int __wrap_clock_gettime(clockid_t clock, struct timespec *t);
int __wrap_clock_gettime(clockid_t clock, struct timespec *t)
{
	if (!world.on || clock == CLOCK_REALTIME) /* which the core does not use; libFuzzer does */
		return __real_clock_gettime(clock, t);
	world.now += TICK;
	if (world.end && ++clock_reads % CLOCK_READS == 0) /* it spins */
		glance();
	t->tv_sec = world.now / 1000000000;
	t->tv_nsec = world.now % 1000000000;
	return 0;
}

int __real_clock_nanosleep(clockid_t clock, int flags, const struct timespec *t,
	struct timespec *left);
int __wrap_clock_nanosleep(clockid_t clock, int flags, const struct timespec *t,
	struct timespec *left);
int __wrap_clock_nanosleep(clockid_t clock, int flags, const struct timespec *t,
	struct timespec *left)
{
	if (!world.on)
		return __real_clock_nanosleep(clock, flags, t, left);
	CHECK(flags == 0);
	pass(t);
	return 0;
}

int __real_nanosleep(const struct timespec *t, struct timespec *left);
int __wrap_nanosleep(const struct timespec *t, struct timespec *left);
int __wrap_nanosleep(const struct timespec *t, struct timespec *left)
{
	if (!world.on)
		return __real_nanosleep(t, left);
	pass(t);
	return 0;
}

int __real_sched_getcpu(void);
int __wrap_sched_getcpu(void);
int __wrap_sched_getcpu(void)
{
	return world.on ? 0 : __real_sched_getcpu();
}

int __real_ppoll(struct pollfd *fds, nfds_t n, const struct timespec *t, const sigset_t *mask);
int __wrap_ppoll(struct pollfd *fds, nfds_t n, const struct timespec *t, const sigset_t *mask);
int __wrap_ppoll(struct pollfd *fds, nfds_t n, const struct timespec *t, const sigset_t *mask)
{
	if (world.on && t)
		pass(t);
	return world.on ? poll(fds, n, 0) : __real_ppoll(fds, n, t, mask);
}

/* ---- sleeping ---- */

static bool step(void)
{
	bool happened;

	if (!world.steps || !world.idle)
		return false;
	world.steps--;
	world.depth++;
	happened = world.idle();
	world.depth--;
	return happened;
}

void world_acts(void)
{
	empty_polls = clock_reads = 0;
}

/* A waiting thread does not sleep: let the others run. */
static void glance(void)
{
	if (world.depth || world.locked()) /* a poll that does not replace a sleep */
		return;
	if (step()) {
		empty_polls = clock_reads = 0;
	lr_may_sleep = false; /* of the previous input */
		return;
	}
	world.now += LR_MS;
	if (++empty_polls % EMPTY_POLLS)
		return;
	if (empty_polls > ENDS * EMPTY_POLLS)
		world_fail("a thread spins for something that will never come");
	world.end();
}

int __real_sched_yield(void);
int __wrap_sched_yield(void);
int __wrap_sched_yield(void)
{
	if (!world.end)
		return __real_sched_yield();
	glance();
	return 0;
}

static long sleep_on_epoll(int epoll, struct epoll_event *events, int most,
	const struct timespec *left)
{
	int ends = 0;

	CHECK((left && !left->tv_sec && !left->tv_nsec) || !world.locked());
	for (;;) {
		int n = epoll_wait(epoll, events, most, 0);

		if (n)
			return n;
		if (left && !left->tv_sec && !left->tv_nsec) {
			glance();
			return 0;
		}
		if (left && (world.depth > 4 || in_one_of(4))) {
			pass(left);
			return 0;
		}
		if (world.depth <= 4 && step()) {
			if (in_one_of(32)) {
				errno = EINTR;
				return -1;
			}
			continue;
		}
		if (left) {
			pass(left);
			return 0;
		}
		if (ends++ == ENDS)
			world_fail("a thread sleeps and will never be woken");
		if (world.depth) {
			errno = EINTR;
			return -1;
		}
		world.end();
	}
}

static long sleep_on_word(_Atomic uint32_t *word, uint32_t value, const struct timespec *until)
{
	CHECK(!world.locked());
	while (atomic_load(word) == value) {
		if (world.depth <= 4 && step())
			continue;
		if (until) {
			int64_t then = (int64_t)until->tv_sec * 1000000000 + until->tv_nsec;
			if (world.now < then)
				world.now = then;
			errno = ETIMEDOUT;
		} else {
			errno = EINTR; /* the leader goes on once this thread has returned */
		}
		return -1;
	}
	errno = EAGAIN;
	return -1;
}

/* There is one real thread, and the input acts for the others. */
int __real_lr_start_thread(pthread_t *thread, void *(*run)(void *), void *argument, size_t stack);
int __wrap_lr_start_thread(pthread_t *thread, void *(*run)(void *), void *argument, size_t stack);
int __wrap_lr_start_thread(pthread_t *thread, void *(*run)(void *), void *argument, size_t stack)
{
	return world.end ? EAGAIN : __real_lr_start_thread(thread, run, argument, stack);
}

/* ---- memory ---- */

void *__real_malloc(size_t size);
void *__real_calloc(size_t n, size_t size);
void *__real_realloc(void *old, size_t size);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t n, size_t size);
void *__wrap_realloc(void *old, size_t size);

static bool fails(void)
{
	if (!world.end || !world.fails || --world.fails)
		return false;
	world_trace("an allocation fails");
	world.failed = true;
	return true;
}

void *__wrap_malloc(size_t size)
{
	return fails() ? NULL : __real_malloc(size);
}

void *__wrap_calloc(size_t n, size_t size)
{
	return fails() ? NULL : __real_calloc(n, size);
}

void *__wrap_realloc(void *old, size_t size)
{
	return fails() ? NULL : __real_realloc(old, size);
}

void *world_malloc(size_t size)
{
	void *block = __real_malloc(size);

	CHECK(block);
	return block;
}

void *world_calloc(size_t size)
{
	void *block = __real_calloc(1, size);

	CHECK(block);
	return block;
}

long __real_syscall(long number, ...);
long __wrap_syscall(long number, ...);
/* It always takes six arguments. */
__attribute__((no_sanitize("address"))) long __wrap_syscall(long number, ...)
{
	long a[6];
	va_list args;

	va_start(args, number);
	for (int i = 0; i < 6; i++)
		a[i] = va_arg(args, long);
	va_end(args);
	if (world.end && number == SYS_epoll_pwait2)
		return sleep_on_epoll((int)a[0], (struct epoll_event *)a[1], (int)a[2],
			(const struct timespec *)a[3]);
	if (world.end && number == SYS_futex && (a[1] & FUTEX_CMD_MASK) == FUTEX_WAIT_BITSET)
		return sleep_on_word((_Atomic uint32_t *)a[0], (uint32_t)a[2],
			(const struct timespec *)a[3]);
	if (world.on && number == SYS_tgkill) {
		CHECK(lr_signal_allowed((int)a[2]));
		errno = ESRCH;
		return world.now & 1 ? 0 : -1;
	}
	return __real_syscall(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}
