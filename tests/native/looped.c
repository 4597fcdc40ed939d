/*
 * looped.c - two engines that event loops drive, a thread each, under AddressSanitizer and
 * ThreadSanitizer.
 *
 *	looped ring|signal|futex|spin|stream|pipe|mq|sysvmq CALLS SEED sleeps|spins
 *
 * Invariant: every call ends as its kind requires, and a thread sleeps only in poll(2) on its
 * engine's descriptor, or in lr_loop_spin. Nothing here has a timeout: if the descriptor does not become readable
 * although something has come, the program stops, and the watchdog reports it.
 */
#include "links.h"

#include <pthread.h>
#include <time.h>

#define WINDOW (64u << 10)
#define SLOTS 24
#define STREAM 200

enum { ECHO, PRODUCE, NEVER, LATE, KINDS };
static const char *names[] = {"/0", "/1", "/2", "/2"}; /* LATE calls what never answers */

static struct lr_engine *client, *server;
static int client_fd, server_fd;
static int calls;
static unsigned seed;
static bool spins;
static _Atomic uint64_t progress;

/* A call of the client, or one on the server. */
struct slot {
	uint64_t call;
	int kind;
	uint8_t *message;
	uint64_t size, sent; /* sent: messages of a stream, or 1 */
	uint64_t got;
	bool sending, answered, paused;
};

static struct slot mine[SLOTS], theirs[SLOTS * 2];

static struct slot *find(struct slot *slots, int count, uint64_t call)
{
	for (int i = 0; i < count; i++)
		if (slots[i].call == call)
			return &slots[i];
	return NULL;
}

static void clear(struct slot *s)
{
	free(s->message);
	memset(s, 0, sizeof *s);
	atomic_fetch_add(&progress, 1);
}

static void batch_init(struct lr_batch *b)
{
	memset(b, 0, sizeof *b);
	b->buf = malloc(LR_NEWS_BUFFER);
	b->cap = LR_NEWS_BUFFER;
}

/* Wait until the descriptor is readable, unless the last drain left something. `sent` says whether
 * anything has been sent since: without that no flush is due, whatever the drain itself has sent. */
static void next_turn(struct lr_engine *e, struct lr_batch *b, int fd, bool sent)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};
	uint8_t due[2];

	if (sent)
		CHECK(lr_flush(e) == 0);
	if (!b->more && !(spins && lr_loop_spin(&e, 1, -1, fd, due)))
		while (poll(&p, 1, -1) < 0)
			CHECK(errno == EINTR);
	CHECK(lr_drain(e, b) >= 0);
}

/* ---- client ---- */

static void try_to_send(struct lr_engine *e, struct slot *s)
{
	int r = lr_send(e, s->call, (char *)s->message, s->size, LR_F_END, 0);

	CHECK(r == 0 || r == LR_AGAIN || r == LR_ENDED || r == LR_GONE || r == LR_CANCELLED);
	s->sending = r == LR_AGAIN;
}

static bool open_one(struct slot *s, unsigned *rand)
{
	struct lr_io io = {0};
	bool big;
	int r;

	s->kind = rand_r(rand) % KINDS;
	s->size = s->kind == ECHO ? (uint64_t)rand_r(rand) % (rand_r(rand) % 8 ? 300 : 200000) : 1;
	s->message = malloc(s->size + 1);
	for (uint64_t i = 0; i < s->size; i++)
		s->message[i] = (uint8_t)(s->size + i * 7);
	big = s->size > LR_INLINE;
	r = lr_open(client, &io, (uint32_t)s->kind + 1, NULL, 0,
		s->kind == LATE ? 2000 : -1, big ? NULL : (char *)s->message, big ? 0 : s->size,
		big ? 0 : LR_F_MESSAGE | LR_F_END, s->kind == LATE ? lr_now() + 2 * LR_MS : 0);
	if (r == LR_AGAIN) {
		free(s->message);
		memset(s, 0, sizeof *s);
		return false;
	}
	CHECK(r == 0);
	s->call = io.call;
	if (big)
		try_to_send(client, s);
	return true;
}

static void over(struct slot *s, uint32_t code)
{
	uint64_t call = s->call;

	if (code)
		CHECK(lr_cancel(client, call, code, NULL, 0) == 0);
	clear(s);
	CHECK(lr_release(client, call) == 0);
}

static void take(struct slot *s, const struct lr_news *n, const uint8_t *bytes)
{
	switch (n->kind) {
	case LR_K_ROOM:
		if (s->sending)
			try_to_send(client, s);
		return;
	case LR_K_BIG: {
		uint8_t *big = malloc((size_t)n->size);
		CHECK(s->kind == ECHO && (uint64_t)n->size == s->size);
		CHECK(lr_fill(client, s->call, (char *)big, s->size, 1) == 0);
		CHECK(!memcmp(big, s->message, s->size));
		free(big);
		s->answered = true;
		return;
	}
	case LR_K_MESSAGES:
		if (s->kind == ECHO) {
			CHECK((uint64_t)n->size == s->size && !memcmp(bytes, s->message, s->size));
			s->answered = true;
		} else {
			CHECK(s->kind == PRODUCE && n->size == sizeof s->got);
			CHECK(!memcmp(bytes, &s->got, sizeof s->got));
			s->got++;
		}
		if (!(n->flags & LR_F_END))
			return;
		__attribute__((fallthrough));
	case LR_K_STATUS:
		CHECK(s->kind == ECHO ? s->answered : s->kind == PRODUCE && s->got == STREAM);
		CHECK(lr_release(client, s->call) == LR_GONE);
		clear(s);
		return;
	case LR_K_ENDED: /* its deadline */
		CHECK(s->kind == LATE);
		over(s, 4);
		return;
	case LR_K_RESET: /* the server's clock was first */
		CHECK(s->kind == LATE);
		over(s, 0);
		return;
	default:
		fprintf(stderr, "client: kind %d for a call of kind %d\n", n->kind, s->kind);
		abort();
	}
}

static void *run_client(void *unused)
{
	struct lr_batch b;
	unsigned rand = seed;
	int left = calls, live = 0;

	(void)unused;
	batch_init(&b);
	for (uint32_t i = 0; i < KINDS; i++)
		CHECK(lr_method(client, i + 1, names[i], 2) == 0);
	b.more = 1;
	while (left || live) {
		next_turn(client, &b, client_fd, true);
		for (uint32_t i = 0; i < b.count; i++) {
			struct slot *s = b.news[i].call ? find(mine, SLOTS, b.news[i].call) : NULL;
			if (s)
				take(s, &b.news[i], b.buf + b.news[i].at);
			else if (!b.news[i].call && b.news[i].kind == LR_K_ROOM)
				for (int k = 0; k < SLOTS; k++)
					if (mine[k].sending)
						try_to_send(client, &mine[k]);
		}
		live = 0;
		for (int k = 0; k < SLOTS; k++) {
			struct slot *s = &mine[k];
			if (s->call && s->kind == NEVER && rand_r(&rand) % 4 == 0)
				over(s, 1);
			if (s->call && s->kind == PRODUCE && rand_r(&rand) % 4 == 0)
				lr_pause(client, s->call, s->paused = !s->paused);
			if (!s->call && left && open_one(s, &rand))
				left--;
			live += s->call != 0;
			/* what only time or this loop moves on */
			if (s->call && (s->kind == NEVER || s->paused))
				b.more = 1;
		}
	}
	lr_engine_close(client);
	free(b.buf);
	return NULL;
}

/* ---- server ---- */

static void answer(struct slot *s)
{
	int r = 0;

	if (s->kind == ECHO) {
		if (s->size > LR_INLINE) {
			r = lr_send(server, s->call, (char *)s->message, s->size, 0, 0);
			s->sending = r == LR_AGAIN;
			if (r == 0)
				lr_finish(server, s->call, NULL, 0, NULL, 0, 0);
		} else {
			lr_finish(server, s->call, NULL, 0, (char *)s->message, s->size, 0);
		}
	} else {
		while (s->sent < STREAM &&
			(r = lr_send(server, s->call, (char *)&s->sent, sizeof s->sent, 0, 0)) == 0)
			s->sent++;
		s->sending = r == LR_AGAIN;
		if (r == 0)
			lr_finish(server, s->call, NULL, 0, NULL, 0, 0);
	}
	if (!s->sending) {
		if (r < 0)
			lr_release(server, s->call);
		clear(s);
	}
}

static void begin(const struct lr_news *n, const uint8_t *bytes)
{
	struct slot *s = find(theirs, SLOTS * 2, 0);
	char name[8];

	CHECK(s && !n->head);
	if (lr_call_method(server, n->call, name, sizeof name) != 2) {
		CHECK(!lr_active(server, n->call));
		lr_release(server, n->call);
		return;
	}
	s->call = n->call;
	s->kind = name[1] - '0';
	if (!(n->flags & LR_F_MESSAGE)) {
		s->kind = s->kind == ECHO ? ECHO : NEVER; /* a large request follows */
		return;
	}
	s->size = (uint64_t)n->size;
	s->message = malloc(s->size + 1);
	memcpy(s->message, bytes, s->size);
	if (s->kind != NEVER)
		answer(s);
}

static void on_call(struct slot *s, const struct lr_news *n)
{
	uint64_t call = s->call;

	if (n->kind == LR_K_ROOM && s->sending) {
		answer(s);
	} else if (n->kind == LR_K_BIG) {
		s->size = (uint64_t)n->size;
		s->message = malloc(s->size + 1);
		CHECK(lr_fill(server, call, (char *)s->message, s->size, 1) == 0);
		answer(s);
	} else if (n->kind == LR_K_RESET || n->kind == LR_K_ENDED || n->kind < 0) {
		clear(s);
		lr_release(server, call);
	} else {
		CHECK(n->kind == LR_K_END || n->kind == LR_K_ROOM);
	}
}

static void *run_server(void *unused)
{
	struct lr_batch b;
	bool closed = false;

	(void)unused;
	batch_init(&b);
	while (!closed) {
		next_turn(server, &b, server_fd, b.count > 0);
		for (uint32_t i = 0; i < b.count; i++) {
			const struct lr_news *n = &b.news[i];
			struct slot *s = n->call ? find(theirs, SLOTS * 2, n->call) : NULL;

			if (n->kind == LR_K_CALL)
				begin(n, b.buf + n->at);
			else if (s)
				on_call(s, n);
			else if (n->kind == LR_K_CONN_CLOSED)
				closed = true;
			else if (!n->call && n->kind == LR_K_ROOM)
				for (int k = 0; k < SLOTS * 2; k++)
					if (theirs[k].sending)
						answer(&theirs[k]);
		}
	}
	for (int k = 0; k < SLOTS * 2; k++)
		if (theirs[k].call) {
			lr_release(server, theirs[k].call);
			clear(&theirs[k]);
		}
	free(b.buf);
	return NULL;
}

static void *watch(void *kind)
{
	for (uint64_t before = ~0ull, now;; before = now) {
		struct timespec pause = {60, 0};

		nanosleep(&pause, NULL);
		now = atomic_load(&progress);
		if (now == before) {
			fprintf(stderr, "%s: no progress after %llu ends\n", (char *)kind,
				(unsigned long long)now);
			abort();
		}
	}
	return NULL;
}

int main(int argc, char **argv)
{
	pthread_t threads[2], watchdog;
	struct lr_link *a, *b;
	struct lr_stats stats;

	CHECK(argc == 5);
	spins = !strcmp(argv[4], "spins");
	calls = atoi(argv[2]);
	seed = (unsigned)atoi(argv[3]);
	client = lr_engine_new(LR_CLIENT, WINDOW, -1, -1);
	server = lr_engine_new(LR_SERVER, WINDOW, -1, -1);
	CHECK(client && server);
	client_fd = lr_loop_begin(client);
	server_fd = lr_loop_begin(server);
	CHECK(client_fd >= 0 && server_fd >= 0);
	CHECK(!spins || (lr_loop_spins(client) == 0 && lr_loop_spins(server) == 0));
	open_links(argv[1], &a, &b);
	CHECK(lr_engine_add(server, b, WINDOW) >= 0);
	CHECK(lr_engine_add(client, a, WINDOW) >= 0);
	CHECK(pthread_create(&watchdog, NULL, watch, argv[1]) == 0);
	CHECK(pthread_create(&threads[0], NULL, run_client, NULL) == 0);
	CHECK(pthread_create(&threads[1], NULL, run_server, NULL) == 0);
	for (int i = 0; i < 2; i++)
		CHECK(pthread_join(threads[i], NULL) == 0);
	lr_engine_stats(server, &stats);
	CHECK(stats.miscounted == 0 && stats.queued_bytes == 0 && stats.live_calls == 0);
	lr_engine_stats(client, &stats);
	CHECK(stats.miscounted == 0 && stats.live_calls == 0);
	lr_engine_free(client);
	lr_engine_free(server);
	printf("%s: %d calls\n", argv[1], calls);
	return 0;
}
