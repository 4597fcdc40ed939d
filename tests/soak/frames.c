/*
 * frames.c - two processes, an engine each, and frames both exchanges with random
 * delays on both sides, over a ring writer sleepers are woken in the way named, or
 * over another link.
 *
 *	frames eventfd|signal|futex|spin|socket|pipe|mq|sysvmq FRAMES SEED
 *
 * Invariant: every message comes once, in order, and everything that was begun
 * ends. No wait here has a timeout, and the safety timers are off, so a lost
 * wake-up stops the program; the watchdog then prints the state of both sides.
 *
 * Each round starts a new pair of processes, and draws the sizes of messages, the
 * delays and each side's spin budget. Three threads of the client and three workers
 * of the server take turns to lead; or there is one caller, which mostly waits
 * for one answer at a time, because a further frame would ring the bell and hide a
 * missing ring. The window is larger than the ring: a flooding side waits for room,
 * an answering side for frames.
 */
#include "../../localrpc/_core/src/links/link.h"
#include "../native/check.h"
#include "../native/queues.h"

#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <mqueue.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define RING LR_RING_MIN
#define WINDOW (1u << 20)
#define CALLERS 3
#define WORKERS 3
#define ROUND 100000u /* frames */
#define SIZES 5
#define PATIENCE 60   /* seconds without a frame */

enum side { CLIENT, SERVER };

/* How the links of a round are made; arrays are indexed by the side that writes. */
struct parts {
	void (*make)(void);      /* before the fork */
	struct lr_link *(*open)(enum side me, pid_t peer, char *error, int size);
	void (*drop)(void);      /* when both processes have ended */
};

static const struct parts ring_parts, socket_parts, pipe_parts, mq_parts, sysv_parts;

/* One line for each kind of wake-up and of link. */
static const struct kind {
	const char *name;
	const struct parts *parts;
	int wake;
	int64_t spin; /* 0: random */
} kinds[] = {
	{"eventfd", &ring_parts, 0, 0},
	{"signal", &ring_parts, SIGURG, 0},
	{"futex", &ring_parts, LR_WAKE_FUTEX, 0},
	{"spin", &ring_parts, 0, LR_SPIN_ALWAYS},
	{"socket", &socket_parts, 0, 0},
	{"pipe", &pipe_parts, 0, 0},
	{"mq", &mq_parts, 0, 0},
	{"sysvmq", &sysv_parts, 0, 0},
};

/* Between the two processes, and for the watchdog. */
static struct shared {
	_Atomic uint64_t frames[2]; /* in, so far in this round */
	_Atomic uint64_t sleeps[2], bells[2];
	_Atomic int doing[2][8]; /* by thread: the method, or -1 outside of calls */
	_Atomic uint64_t at[2][8]; /* its message */
	_Atomic uint64_t notes[2][8]; /* how often it was stored */
} *shared;

static const struct kind *kind;
static struct lr_engine *engine;
static enum side side;
static int rings[2]; /* the memory that each side writes; -1: it is not a ring */
static int bells[2], socks[2];
static int pipes[2][2];
static int queues[2];
static unsigned round_seed;
static int delays, sizes, callers;
static int64_t spins[2]; /* by side */
static uint64_t quota;

static _Thread_local unsigned seed;
static _Thread_local int self;

static unsigned draw(unsigned below)
{
	return (unsigned)rand_r(&seed) % below;
}

/* Mostly none; otherwise a busy loop, a yield or a sleep, as long as this round has them. */
static void random_delay(void)
{
	struct timespec nap = {0, 0};
	unsigned dice = draw(256);

	if (!delays || dice >= 64)
		return;
	if (dice < (delays == 2 ? 4 : 1)) {
		nap.tv_nsec = draw(delays == 2 ? 200000 : 20000);
		clock_nanosleep(CLOCK_MONOTONIC, 0, &nap, NULL);
	} else if (dice < 12) {
		sched_yield();
	} else {
		for (unsigned n = draw(delays == 2 ? 2000 : 200); n; n--)
			lr_relax();
	}
}

static uint64_t length(void)
{
	static const unsigned most[SIZES] = {8, 200, 4000, 30000, 30000};
	return 8 + draw(most[sizes]);
}

static void note(int what, uint64_t at)
{
	atomic_store_explicit(&shared->doing[side][self], what, memory_order_relaxed);
	atomic_store_explicit(&shared->at[side][self], at, memory_order_relaxed);
	atomic_fetch_add_explicit(&shared->notes[side][self], 1, memory_order_relaxed);
}

static void publish_stats(void)
{
	struct lr_stats stats;
	lr_engine_stats(engine, &stats);
	atomic_store(&shared->frames[side], stats.frames_in);
	atomic_store(&shared->sleeps[side], stats.sleeps);
	atomic_store(&shared->bells[side], stats.bells);
}

static void io_init(struct lr_io *io)
{
	memset(io, 0, sizeof *io);
	io->buf = malloc(LR_SCRATCH);
	io->cap = LR_SCRATCH;
}

static int get(struct lr_io *io, uint64_t call)
{
	int r;
	while ((r = lr_recv(engine, io, call, 0)) == LR_AGAIN)
		;
	return r;
}

/* ---- messages: each begins with its number ---- */

static int put(int what, uint64_t call, uint64_t number)
{
	static _Thread_local char message[32768];
	uint64_t len = length();
	int r;

	random_delay();
	note(what, number);
	memcpy(message, &number, sizeof number);
	while ((r = lr_send(engine, call, message, len, 0, 0)) == LR_AGAIN)
		;
	return r;
}

/* Receive messages, and check that they count on from *number: a kind or an error. */
static int take(int what, struct lr_io *io, uint64_t call, uint64_t *number)
{
	int r;

	random_delay();
	note(what, *number);
	r = get(io, call);
	for (uint32_t i = 0; r == LR_K_MESSAGES && i < io->count; i++) {
		uint32_t at = i ? io->ends[i - 1] : 0;
		CHECK(io->ends[i] - at >= 8 && lr_read64(io->buf + at) == *number);
		++*number;
	}
	return r;
}

enum { ECHO, PRODUCE, CONSUME, BIDI, KINDS };

/* ---- server ---- */

static void handle(struct lr_io *io, uint64_t call, int what)
{
	uint64_t received = 0, sent = 0, wanted = lr_read64(io->buf + io->head);
	int r;

	if (what == PRODUCE) {
		while (sent < wanted)
			CHECK(put(what, call, sent++) == 0);
	} else {
		while ((r = take(what, io, call, &received)) == LR_K_MESSAGES)
			for (; what == BIDI && sent < received; sent++)
				CHECK(put(what, call, sent) == 0);
		CHECK(r == LR_K_END);
	}
	random_delay();
	CHECK(lr_finish(engine, call, NULL, 0, (char *)&received, sizeof received, 0) == 0);
}

static void *work(void *arg)
{
	struct lr_io io;
	char copy[32768 + 8];
	int r;

	self = (int)(intptr_t)arg;
	seed = round_seed * 7 + 100 + (unsigned)self;
	io_init(&io);
	r = lr_next(engine, &io);
	while (r != LR_K_STOP) {
		char name[8] = "";
		uint64_t call = io.call;

		CHECK(r == LR_K_CALL || r == LR_AGAIN || r == LR_K_YIELD);
		note(-1, 0);
		if (r != LR_K_CALL) {
			r = lr_next(engine, &io);
			continue;
		}
		CHECK(lr_call_method(engine, call, name, sizeof name) == 2);
		random_delay();
		publish_stats();
		if (name[1] - '0' == ECHO) {
			note(ECHO, 0);
			memcpy(copy, io.buf, (size_t)io.size);
			r = lr_reply_next(engine, &io, copy, (uint64_t)io.size);
		} else {
			handle(&io, call, name[1] - '0');
			note(-1, 0);
			r = lr_next(engine, &io);
		}
	}
	free(io.buf);
	return NULL;
}

static void serve(void)
{
	pthread_t workers[WORKERS];
	struct lr_io io;
	int r;

	for (intptr_t i = 0; i < WORKERS; i++)
		CHECK(pthread_create(&workers[i], NULL, work, (void *)i) == 0);
	io_init(&io);
	while ((r = lr_service(engine, &io)) != LR_K_CONN_CLOSED)
		CHECK(r == LR_K_ENDED || r == LR_K_YIELD || r == LR_AGAIN);
	publish_stats();
	lr_stop(engine);
	for (int i = 0; i < WORKERS; i++)
		pthread_join(workers[i], NULL);
	lr_engine_close(engine);
	lr_engine_free(engine);
	free(io.buf);
}

/* ---- client ---- */

static uint64_t open_call(struct lr_io *io, int what, uint64_t wanted)
{
	bool sends_request = what == PRODUCE;
	int r;

	io->resumed = 0;
	while ((r = lr_open(engine, io, (uint32_t)what + 1, NULL, 0, -1,
			sends_request ? (char *)&wanted : NULL, sends_request ? sizeof wanted : 0,
			sends_request ? LR_F_END : 0, 0)) == LR_AGAIN)
		;
	CHECK(r == 0);
	return io->call;
}

static void end_call(int what, struct lr_io *io, uint64_t call, uint64_t received, uint64_t last)
{
	int r;

	/* The last message is the count. */
	while ((r = get(io, call)) == LR_K_MESSAGES) {
		CHECK(io->count == 1 && lr_read64(io->buf) == last);
		received++;
	}
	CHECK(r == LR_K_STATUS && received == 1);
	note(what, last);
	lr_release(engine, call);
}

static void ping_pong(struct lr_io *io)
{
	uint64_t call = open_call(io, BIDI, 0), sent = 0, received = 0, last = 1 + draw(100);

	while (sent < last) {
		uint64_t until = sent + 1 + (callers > 1 ? draw(8) : 0);
		while (sent < until && sent < last)
			CHECK(put(BIDI, call, sent++) == 0);
		while (received < sent)
			CHECK(take(BIDI, io, call, &received) == LR_K_MESSAGES);
	}
	lr_half_close(engine, call);
	end_call(BIDI, io, call, 0, last);
}

static void flood(struct lr_io *io)
{
	uint64_t call = open_call(io, CONSUME, 0), sent = 0, last = 1 + draw(1000);

	while (sent < last)
		CHECK(put(CONSUME, call, sent++) == 0);
	lr_half_close(engine, call);
	end_call(CONSUME, io, call, 0, last);
}

static void receive_flood(struct lr_io *io)
{
	uint64_t last = 1 + draw(1000), call = open_call(io, PRODUCE, last), received = 0;
	int r = LR_K_MESSAGES;

	/* The count that ends it, 0, is a message too, and may come with the others. */
	while (received < last) {
		note(PRODUCE, received);
		random_delay();
		CHECK((r = get(io, call)) == LR_K_MESSAGES);
		for (uint32_t i = 0; i < io->count; i++) {
			uint64_t number = lr_read64(io->buf + (i ? io->ends[i - 1] : 0));
			CHECK(number == (received < last ? received : 0));
			received++;
		}
	}
	end_call(PRODUCE, io, call, received - last, 0);
}

static void echo(struct lr_io *io)
{
	static _Thread_local char message[32768];
	uint64_t len = length();
	int64_t r;

	random_delay();
	note(ECHO, 0);
	memcpy(message, &len, sizeof len);
	do { /* interrupted before it was sent: begin again */
		r = lr_unary(engine, io, ECHO + 1, NULL, 0, message, len, 0);
		while (r == LR_AGAIN)
			r = lr_unary_wait(engine, io, message, len, 0);
	} while (r == LR_UNSENT && io->call == 0);
	if (r == LR_SLOW) {
		uint64_t call = io->call;
		CHECK(get(io, call) == LR_K_MESSAGES && io->count == 1 && io->fill == len);
		CHECK(get(io, call) == LR_K_STATUS);
		lr_release(engine, call);
	} else {
		if (r != (int64_t)len)
			fprintf(stderr, "a call of %llu bytes ended with %lld\n",
				(unsigned long long)len, (long long)r);
		CHECK(r == (int64_t)len && lr_read64(io->buf) == len);
	}
}

static void *call(void *arg)
{
	static void (*const exchanges[])(struct lr_io *) = {ping_pong, flood, receive_flood, echo};
	struct lr_io io;

	self = (int)(intptr_t)arg;
	seed = round_seed * 7 + (unsigned)self;
	io_init(&io);
	while (atomic_load(&shared->frames[CLIENT]) + atomic_load(&shared->frames[SERVER]) < quota) {
		for (int i = draw(20); i >= 0; i--)
			echo(&io);
		if (callers > 1 || draw(8) == 0)
			exchanges[draw(4)](&io);
		publish_stats();
	}
	note(-1, 0);
	free(io.buf);
	return NULL;
}

/* ---- a round ---- */

static int memory(void)
{
	int fd = memfd_create("frames", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	CHECK(fd >= 0 && ftruncate(fd, lr_page() + RING) == 0);
	CHECK(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) == 0);
	return fd;
}

/* The control page of ring.c that a side writes. */
struct words {
	uint64_t tail, room_epoch, cpu, room_at, pad[4];
	uint64_t head, pad2[7];
	uint64_t epoch, sleeper;
};

static const volatile struct words *words_of(enum side writer)
{
	void *page = mmap(NULL, lr_page(), PROT_READ, MAP_SHARED, rings[writer], 0);
	CHECK(page != MAP_FAILED);
	return page;
}

static void report(void)
{
	static const char *const names[] = {"client", "server"};

	for (int s = 0; s < 2; s++) {
		fprintf(stderr, "%s: %llu frames in, %llu sleeps, %llu bells at its last report;",
			names[s], (unsigned long long)atomic_load(&shared->frames[s]),
			(unsigned long long)atomic_load(&shared->sleeps[s]),
			(unsigned long long)atomic_load(&shared->bells[s]));
		if (rings[s] >= 0) {
			const volatile struct words *w = words_of(s);
			fprintf(stderr,
				" tail %llu, head %llu, epoch %llu, sleeper %llx, room epoch %llu"
				" at %llu;",
				(unsigned long long)w->tail, (unsigned long long)w->head,
				(unsigned long long)w->epoch,
				(unsigned long long)(w->sleeper & 0xffffffff),
				(unsigned long long)w->room_epoch, (unsigned long long)w->room_at);
		}
		fprintf(stderr, " threads at");
		for (int i = 0; i < 3; i++)
			fprintf(stderr, " %d:%llu", atomic_load(&shared->doing[s][i]),
				(unsigned long long)atomic_load(&shared->at[s][i]));
		fprintf(stderr, "\n");
	}
}

static void *watch(void *arg)
{
	const struct timespec second = {1, 0};
	uint64_t last = 0;

	for (int idle_seconds = 0; idle_seconds < PATIENCE; idle_seconds++) {
		uint64_t now = 0;
		for (int s = 0; s < 2; s++)
			for (int i = 0; i < 8; i++)
				now += atomic_load(&shared->notes[s][i]);
		if (now != last)
			idle_seconds = 0;
		last = now;
		clock_nanosleep(CLOCK_MONOTONIC, 0, &second, NULL);
	}
	fprintf(stderr, "%s: no frame for %d s, spins %lld and %lld, delays %d, sizes %d\n",
		kind->name, PATIENCE, (long long)spins[CLIENT], (long long)spins[SERVER], delays,
		sizes);
	report();
	kill(*(pid_t *)arg, SIGABRT);
	abort();
}

static void make_rings(void)
{
	CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, socks) == 0);
	for (int i = 0; i < 2; i++) {
		rings[i] = memory();
		bells[i] = lr_make_bell();
	}
}

static struct lr_link *open_ring(enum side me, pid_t peer, char *error, int size)
{
	CHECK(!kind->wake || kind->wake == LR_WAKE_FUTEX || lr_signal_claim(kind->wake) == 0);
	close(socks[!me]);
	return lr_ring_open(LR_MEMORY_SEALED, dup(rings[me]), dup(rings[!me]), RING, dup(bells[me]),
		dup(bells[!me]), socks[me], -1, peer, kind->wake, spins[me], error, size);
}

static void drop_rings(void)
{
	for (int i = 0; i < 2; i++) {
		close(rings[i]);
		close(bells[i]);
	}
}

static const struct parts ring_parts = {make_rings, open_ring, drop_rings};

static int pidfd_of(pid_t peer)
{
	return (int)syscall(SYS_pidfd_open, peer, 0);
}

static void drop_nothing(void)
{
}

static void make_sockets(void)
{
	CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, socks) == 0);
}

static struct lr_link *open_socket(enum side me, pid_t peer, char *error, int size)
{
	close(socks[!me]);
	return lr_stream_open(socks[me], pidfd_of(peer), spins[me], error, size);
}

static const struct parts socket_parts = {make_sockets, open_socket, drop_nothing};

static void make_pipes(void)
{
	CHECK(pipe2(pipes[CLIENT], O_CLOEXEC) == 0 && pipe2(pipes[SERVER], O_CLOEXEC) == 0);
}

static struct lr_link *open_pipes(enum side me, pid_t peer, char *error, int size)
{
	close(pipes[!me][1]);
	return lr_pipe_open(pipes[!me][0], pipes[me][1], pipes[me][0], pidfd_of(peer), spins[me],
		error, size);
}

static const struct parts pipe_parts = {make_pipes, open_pipes, drop_nothing};

static void make_queues(void)
{
	queues[0] = getpid();
}

static struct lr_link *open_queues(enum side me, pid_t peer, char *error, int size)
{
	int rx = open_mqueue(queues[0], !me), tx = open_mqueue(queues[0], me);

	CHECK(rx >= 0 && tx >= 0);
	return lr_mqueue_open(rx, tx, pidfd_of(peer), spins[me], error, size);
}

static void drop_queues(void)
{
	unlink_mqueues(queues[0]);
}

static const struct parts mq_parts = {make_queues, open_queues, drop_queues};

static void make_sysv(void)
{
	for (int i = 0; i < 2; i++)
		CHECK((queues[i] = lr_msgget(0, 1)) >= 0);
}

static struct lr_link *open_sysv(enum side me, pid_t peer, char *error, int size)
{
	return lr_sysv_open(queues[!me], queues[me], 8192, pidfd_of(peer), -1, NULL, spins[me],
		error, size);
}

static void drop_sysv(void)
{
	for (int i = 0; i < 2; i++)
		lr_msgctl_remove(queues[i]);
}

static const struct parts sysv_parts = {make_sysv, open_sysv, drop_sysv};

static struct lr_link *open_link(enum side me, pid_t peer)
{
	char error[200] = "";
	struct lr_link *link = kind->parts->open(me, peer, error, sizeof error);

	if (!link)
		fprintf(stderr, "%s\n", error);
	CHECK(link);
	return link;
}

static void start_engine(enum side me, struct lr_link *link)
{
	side = me;
	engine = lr_engine_new(me == SERVER ? LR_SERVER : LR_CLIENT, WINDOW, 4 << 20, -1);
	CHECK(engine && lr_engine_add(engine, link, WINDOW) >= 0);
}

static void run_round(uint64_t *arms, uint64_t *rooms)
{
	pthread_t threads[CALLERS], watcher;
	int status;
	pid_t parent = getpid(), child;

	memset(shared, 0, sizeof *shared);
	rings[CLIENT] = rings[SERVER] = -1;
	kind->parts->make();
	child = fork();
	CHECK(child >= 0);
	if (child == 0) {
		start_engine(SERVER, open_link(SERVER, parent));
		serve();
		_exit(0);
	}
	start_engine(CLIENT, open_link(CLIENT, child));
	CHECK(pthread_create(&watcher, NULL, watch, &child) == 0);
	for (uint32_t i = 0; i < KINDS; i++) {
		char name[2] = {'/', (char)('0' + i)};
		CHECK(lr_method(engine, i + 1, name, 2) == 0);
	}
	for (intptr_t i = 0; i < callers; i++)
		CHECK(pthread_create(&threads[i], NULL, call, (void *)i) == 0);
	for (int i = 0; i < callers; i++)
		pthread_join(threads[i], NULL);
	CHECK(lr_live(engine) == 0);
	publish_stats();
	lr_engine_close(engine);
	lr_engine_free(engine);
	CHECK(waitpid(child, &status, 0) == child && status == 0);
	pthread_cancel(watcher);
	pthread_join(watcher, NULL);
	for (int i = 0; i < 2 && rings[i] >= 0; i++) {
		const volatile struct words *w = words_of(i);
		*arms += w->epoch / 2;
		*rooms += w->room_epoch / 2;
		munmap((void *)(uintptr_t)w, lr_page());
	}
	kind->parts->drop();
}

int main(int argc, char **argv)
{
	static const int64_t some[] = {0, -1, 20};
	uint64_t frames = 0, sleeps = 0, bells = 0, arms = 0, rooms = 0, wanted;

	CHECK(argc == 4);
	for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
		if (!strcmp(argv[1], kinds[i].name))
			kind = &kinds[i];
	CHECK(kind);
	wanted = strtoull(argv[2], NULL, 10);
	seed = (unsigned)atoi(argv[3]);
	shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	CHECK(shared != MAP_FAILED);
	while (frames < wanted) {
		round_seed = (unsigned)rand_r(&seed);
		delays = (int)draw(3);
		sizes = (int)draw(SIZES);
		spins[CLIENT] = kind->spin ? kind->spin : some[draw(3)];
		spins[SERVER] = kind->spin ? kind->spin : some[draw(3)];
		callers = draw(2) ? CALLERS : 1;
		quota = wanted - frames < ROUND ? wanted - frames : ROUND;
		run_round(&arms, &rooms);
		for (int i = 0; i < 2; i++) {
			frames += atomic_load(&shared->frames[i]);
			sleeps += atomic_load(&shared->sleeps[i]);
			bells += atomic_load(&shared->bells[i]);
		}
	}
	printf("%s: %llu frames, %llu sleeps, %llu bells; armed %llu times for frames,"
	       " %llu times for room\n", kind->name, (unsigned long long)frames,
		(unsigned long long)sleeps, (unsigned long long)bells, (unsigned long long)arms,
		(unsigned long long)rooms);
	return 0;
}
