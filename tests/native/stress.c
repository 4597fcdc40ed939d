/*
 * stress.c - both engines in one process, over a link of the kind named, run
 * under AddressSanitizer and ThreadSanitizer by test_native.py.
 *
 *	stress ring|signal|futex|spin|stream|pipe|mq|sysvmq ROUNDS SEED
 *
 * Invariant: every call ends, with the bytes it sent or with the status that its end
 * requires. Busy rounds mix unary calls small and large, deadlines, streams both ways,
 * cancels from other threads and calls that are dropped. In quiet rounds all threads go
 * idle, then two threads call once: steady traffic hides a lead that no thread took over. So
 * the thread that only looks whether the server is there does that in busy rounds.
 * Nothing here has a timeout: a lost wake-up stops the program, and the watchdog reports it.
 */
#include "links.h"

#include <time.h>
#include <unistd.h>

#define CLIENTS 6
#define WORKERS 4
#define WINDOW (128u << 10)

static struct lr_engine *server, *client;
static const char *kind;
static _Atomic uint64_t done;
static pthread_barrier_t gate;
static _Atomic bool busy_round, over;
static int rounds;
static unsigned base_seed;

static void connect_pair(void)
{
	struct lr_link *a, *b;

	open_links(kind, &a, &b);
	CHECK(lr_engine_add(server, b, WINDOW) >= 0);
	CHECK(lr_engine_add(client, a, WINDOW) >= 0);
}

static void io_init(struct lr_io *io)
{
	memset(io, 0, sizeof *io);
	io->buf = malloc(LR_SCRATCH);
	io->cap = LR_SCRATCH;
}

static void nap(unsigned us)
{
	struct timespec t = {0, us * 1000L};
	clock_nanosleep(CLOCK_MONOTONIC, 0, &t, NULL);
}

static void fill_pattern(uint8_t *at, uint64_t len, unsigned seed)
{
	for (uint64_t i = 0; i < len; i++)
		at[i] = (uint8_t)(seed + i * 7 + (i >> 8));
}

/* ---- server ---- */

enum { ECHO, SLOW_ECHO, PRODUCE, CONSUME, BIDI, NEVER, KINDS };

static int get(struct lr_engine *e, struct lr_io *io, uint64_t call)
{
	int r;
	while ((r = lr_recv(e, io, call, 0)) == LR_AGAIN)
		;
	return r;
}

static void stream_back(struct lr_io *io, uint64_t call, uint32_t what)
{
	char text[64] = {0};
	uint64_t count = 0;
	int r;

	if (what == PRODUCE) {
		for (int i = 0; i < 500; i++) {
			memcpy(text, &i, sizeof i);
			while ((r = lr_send(server, call, text, sizeof text, 0, 0)) == LR_AGAIN)
				;
			if (r < 0)
				break;
		}
	} else {
		while ((r = get(server, io, call)) == LR_K_MESSAGES || r == LR_K_BIG) {
			if (r == LR_K_BIG) {
				char *big = malloc((size_t)io->size);
				uint64_t size = (uint64_t)io->size;
				while ((r = lr_fill(server, call, big, size, 0)) == LR_AGAIN)
					;
				free(big);
				if (r < 0)
					break;
				count++;
				continue;
			}
			count += io->count;
			for (uint32_t i = 0; what == BIDI && i < io->count; i++) {
				uint32_t from = i ? io->ends[i - 1] : 0;
				while ((r = lr_send(server, call, (char *)io->buf + from,
						io->ends[i] - from, 0, 0)) == LR_AGAIN)
					;
			}
		}
	}
	lr_finish(server, call, NULL, 0, (char *)&count, sizeof count, 0);
}

static void *worker(void *arg)
{
	struct lr_io io;
	unsigned seed = base_seed + (unsigned)(uintptr_t)arg;
	int r;

	io_init(&io);
	r = lr_next(server, &io);
	while (r == LR_K_CALL || r == LR_AGAIN || r == LR_K_YIELD) {
		uint32_t what;
		uint64_t call = io.call;
		char name[8];

		if (r != LR_K_CALL) {
			r = lr_next(server, &io);
			continue;
		}
		CHECK(io.head == 0);
		CHECK(lr_call_method(server, call, name, sizeof name) == 2 ||
		      !lr_active(server, call));
		what = (uint32_t)(name[1] - '0');
		if (what == SLOW_ECHO && rand_r(&seed) % 4 == 0)
			nap((unsigned)rand_r(&seed) % 300);
		if (what == NEVER) {
			/* Until it is cancelled, or its client's deadline passes. */
			lr_watch(server, call, 0);
			r = get(server, &io, call);
			CHECK(r == LR_K_RESET || r == LR_CLOSED || r == LR_CANCELLED ||
			      r == LR_K_END);
			while (r == LR_K_END)
				r = get(server, &io, call);
			lr_release(server, call);
			r = lr_next(server, &io);
		} else if (what >= PRODUCE) {
			stream_back(&io, call, what);
			r = lr_next(server, &io);
		} else if (io.flags & LR_F_BIG) {
			char *big;
			uint64_t size;
			r = get(server, &io, call);
			if (r == LR_K_BIG) {
				size = (uint64_t)io.size;
				big = malloc(size);
				r = lr_fill(server, call, big, size, lr_now() + 2 * LR_MS);
				if (r == LR_TIMEOUT || r == LR_AGAIN) {
					lr_defer(server, call);
					free(big);
					r = lr_next(server, &io);
					continue;
				}
				io.call = call;
				if (r == 0)
					r = lr_reply_next(server, &io, big, size);
				else {
					lr_release(server, call);
					r = lr_next(server, &io);
				}
				free(big);
			} else {
				lr_release(server, call);
				r = lr_next(server, &io);
			}
		} else if (io.size == 0 && !(io.flags & LR_F_MESSAGE)) {
			/* It was deferred, and its message is whole now. */
			r = get(server, &io, call);
			if (r == LR_K_BIG) {
				uint64_t size = (uint64_t)io.size;
				char *big = malloc(size);
				r = lr_fill(server, call, big, size, 0);
				io.call = call;
				if (r == 0)
					r = lr_reply_next(server, &io, big, size);
				else {
					lr_release(server, call);
					r = lr_next(server, &io);
				}
				free(big);
			} else {
				lr_release(server, call);
				r = lr_next(server, &io);
			}
		} else {
			char *copy = malloc((size_t)io.size + 1);
			uint64_t size = (uint64_t)io.size;
			memcpy(copy, io.buf, size);
			r = lr_reply_next(server, &io, copy, size);
			free(copy);
		}
	}
	CHECK(r == LR_K_STOP);
	free(io.buf);
	return NULL;
}

static void *service(void *arg)
{
	struct lr_io io;
	int r;

	(void)arg;
	io_init(&io);
	while ((r = lr_service(server, &io)) != LR_K_STOP)
		CHECK(r == LR_K_ENDED || r == LR_K_CONN_CLOSED || r == LR_K_YIELD || r == LR_AGAIN);
	free(io.buf);
	return NULL;
}

/* ---- client ---- */

/* Has the call ended because of its deadline? The client's clock says so, or the server's did. */
static bool too_late(const struct lr_io *io, int k, int64_t deadline)
{
	if (k != LR_TIMEOUT && k != LR_ENDED && (k != LR_K_RESET || io->size != 4))
		return false;
	CHECK(deadline && lr_now() >= deadline);
	return true;
}

static void unary(struct lr_io *io, uint32_t what, uint64_t len, int64_t timeout, unsigned seed)
{
	char *msg = malloc(len + 1), *answer = NULL;
	int64_t deadline = timeout ? lr_now() + timeout : 0, r;

	fill_pattern((uint8_t *)msg, len, seed);
	r = lr_unary(client, io, what + 1, NULL, 0, msg, len, deadline);
	while (r == LR_AGAIN)
		r = lr_unary_wait(client, io, msg, len, deadline);
	if (r == LR_SLOW) {
		uint64_t call = io->call;
		int k = get(client, io, call);
		if (k == LR_K_BIG) {
			CHECK((uint64_t)io->size == len);
			answer = malloc(len);
			while ((k = lr_fill(client, call, answer, len, 0)) == LR_AGAIN)
				;
			if (!too_late(io, k, deadline)) {
				CHECK(k == 0 && !memcmp(answer, msg, len));
				k = get(client, io, call);
				CHECK(k == LR_K_STATUS || too_late(io, k, deadline));
			}
			free(answer);
		} else if (!too_late(io, k, deadline)) {
			CHECK(k == LR_K_MESSAGES && io->count == 1 && io->fill == len);
			CHECK(!memcmp(io->buf, msg, len));
			k = get(client, io, call);
			CHECK(k == LR_K_STATUS || too_late(io, k, deadline));
		}
		lr_release(client, call);
	} else if (r == LR_TIMEOUT) {
		CHECK(deadline && lr_now() >= deadline);
	} else {
		if (r != (int64_t)len) {
			char why[200];
			lr_engine_error(client, why, sizeof why);
			fprintf(stderr, "client: %s\n", why);
			lr_engine_error(server, why, sizeof why);
			fprintf(stderr, "server: %s\n", why);
			fprintf(stderr, "a call of %llu bytes ended with %lld\n", (unsigned long long)len, (long long)r);
		}
		CHECK(r == (int64_t)len && !memcmp(io->buf, msg, len));
	}
	free(msg);
}

struct canceller {
	uint64_t call;
	unsigned delay;
};

static void *cancel_later(void *arg)
{
	struct canceller *c = arg;
	nap(c->delay);
	lr_cancel(client, c->call, 1, "no more", 7);
	return NULL;
}

static void stream(struct lr_io *io, uint32_t what, unsigned *seed)
{
	char msg[64] = {0};
	uint64_t call, total = 0;
	int r, cancelled = rand_r(seed) % 4 == 0;
	struct canceller c;
	pthread_t canceller;

	io->resumed = 0;
	while ((r = lr_open(client, io, what + 1, NULL, 0, -1, what == PRODUCE ? "" : NULL, 0,
			what == PRODUCE || what == NEVER ? LR_F_END : 0, 0)) == LR_AGAIN)
		;
	CHECK(r == 0);
	call = io->call;
	if (what == NEVER || cancelled) {
		c = (struct canceller){call, (unsigned)rand_r(seed) % 500};
		cancelled = 1;
		CHECK(pthread_create(&canceller, NULL, cancel_later, &c) == 0);
	}
	if (what == CONSUME || what == BIDI) {
		int n = what == BIDI ? 50 : 400;
		for (int i = 0; i < n; i++) {
			static const char big[50000];
			uint64_t len = what == CONSUME && i % 97 == 5 ? sizeof big : sizeof msg;
			while ((r = lr_send(client, call, len > 64 ? big : msg, len, 0, 0)) ==
				LR_AGAIN)
				;
			if (r < 0)
				break;
			if (what == BIDI && (r = get(client, io, call)) != LR_K_MESSAGES)
				break;
			total += what == BIDI ? io->count : 0;
		}
		lr_half_close(client, call);
	}
	while ((r = get(client, io, call)) == LR_K_MESSAGES)
		total += io->count;
	if (cancelled) {
		CHECK(r == LR_CANCELLED || r == LR_K_STATUS);
		pthread_join(canceller, NULL);
	} else {
		CHECK(r == LR_K_STATUS);
		/* The count that ends it is a message too. */
		CHECK(what == CONSUME ? total == 1 : what == BIDI ? total == 51 : total == 501);
	}
	lr_release(client, call);
}

static void *caller(void *arg)
{
	unsigned me = (unsigned)(uintptr_t)arg, seed = base_seed * 31 + me;
	struct lr_io io;

	io_init(&io);
	for (int round = 0; round < rounds; round++) {
		bool quiet = round % 3 == 0;
		atomic_store(&busy_round, !quiet);
		pthread_barrier_wait(&gate);
		if (quiet) {
			if (me < 2)
				unary(&io, ECHO, 64, 0, seed);
		} else {
			for (int i = 0; i < 20; i++) {
				unsigned dice = (unsigned)rand_r(&seed) % 20;
				if (dice < 10)
					unary(&io, dice & 1 ? ECHO : SLOW_ECHO,
						(uint64_t)rand_r(&seed) % 2000, 0, seed);
				else if (dice < 12)
					unary(&io, ECHO, 30000 + (uint64_t)rand_r(&seed) % 200000,
						0, seed);
				else if (dice < 14)
					unary(&io, SLOW_ECHO, 100,
						1 + (int64_t)rand_r(&seed) % (200 * LR_US), seed);
				else if (dice < 15)
					unary(&io, ECHO, 100000,
						1 + (int64_t)rand_r(&seed) % (300 * LR_US), seed);
				else
					stream(&io, PRODUCE + dice % 4, &seed);
				atomic_fetch_add(&done, 1);
			}
		}
		pthread_barrier_wait(&gate);
	}
	free(io.buf);
	return NULL;
}

static void *looker(void *arg)
{
	unsigned seed = base_seed;

	(void)arg;
	while (!atomic_load(&over)) {
		if (atomic_load(&busy_round))
			CHECK(lr_engine_look(client) == 1);
		nap((unsigned)rand_r(&seed) % 300);
	}
	return NULL;
}

static void *watchdog(void *arg)
{
	uint64_t last = 0;
	(void)arg;
	for (int stuck = 0; stuck < 60; stuck++) {
		uint64_t now = atomic_load(&done);
		if (now != last)
			stuck = 0;
		last = now;
		nap(999999);
	}
	fprintf(stderr, "nothing has moved for a minute\n");
	abort();
}

int main(int argc, char **argv)
{
	pthread_t threads[CLIENTS + WORKERS + 2], looks;
	struct lr_stats stats;
	int n = 0;

	CHECK(argc == 4);
	kind = argv[1];
	rounds = atoi(argv[2]);
	base_seed = (unsigned)atoi(argv[3]);
	pthread_barrier_init(&gate, NULL, CLIENTS);
	server = lr_engine_new(LR_SERVER, WINDOW, 4 << 20, -1);
	client = lr_engine_new(LR_CLIENT, WINDOW, 4 << 20, -1);
	CHECK(server && client);
	CHECK(lr_publish(server, "server") == 0 && lr_publish(client, "client") == 0);
	CHECK(lr_load_page(server) >= 0);
	connect_pair();
	for (uint32_t i = 0; i < KINDS; i++) {
		char name[2] = {'/', (char)('0' + i)};
		CHECK(lr_method(client, i + 1, name, 2) == 0);
	}
	for (int i = 0; i < WORKERS; i++)
		pthread_create(&threads[n++], NULL, worker, (void *)(uintptr_t)i);
	pthread_create(&threads[n++], NULL, service, NULL);
	pthread_create(&threads[n], NULL, watchdog, NULL);
	pthread_detach(threads[n]);
	CHECK(pthread_create(&looks, NULL, looker, NULL) == 0);
	for (int i = 0; i < CLIENTS; i++)
		pthread_create(&threads[n + i], NULL, caller, (void *)(uintptr_t)i);
	for (int i = 0; i < CLIENTS; i++)
		pthread_join(threads[n + i], NULL);
	atomic_store(&over, true);
	pthread_join(looks, NULL);
	CHECK(lr_live(client) == 0);
	lr_engine_stats(client, &stats);
	lr_engine_close(client);
	lr_stop(server);
	lr_engine_close(server);
	for (int i = 0; i < n; i++)
		pthread_join(threads[i], NULL);
	lr_engine_free(client);
	lr_engine_free(server);
	printf("%s: %llu operations, %llu calls, %llu sleeps, %llu bells\n", kind,
		(unsigned long long)atomic_load(&done), (unsigned long long)stats.calls,
		(unsigned long long)stats.sleeps, (unsigned long long)stats.bells);
	return 0;
}
