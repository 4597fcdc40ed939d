/*
 * starving.c - there is no memory for a frame that the peer waits for. One case a name:
 *
 *	starving CASE N    N allocations in a row fail; exit code 0 if the case holds
 *
 * Must hold: if one allocation fails, the call ends for its peer with RESOURCE_EXHAUSTED, and
 * other calls go on; if there is no memory for that status either, the connection ends.
 */
#include "../../localrpc/_core/src/engine/engine.h"
#include "check.h"

#include <signal.h>
#include <sys/socket.h>

#define HUGE_SIZE (4u << 20) /* more than a socket takes */
#define WINDOW 4096

static struct lr_engine *client, *server;
static struct lr_io ci, si;
static char huge[HUGE_SIZE];
static uint64_t call, served, other, other_served;
static _Atomic int given, failing; /* this many allocations succeed, and then this many fail */

void *__real_malloc(size_t size);
void *__wrap_malloc(size_t size);
void *__wrap_malloc(size_t size)
{
	if (!atomic_load(&failing) || atomic_fetch_sub(&given, 1) > 0)
		return __real_malloc(size);
	atomic_fetch_sub(&failing, 1);
	return NULL;
}

static void fail(int n, int after)
{
	atomic_store(&given, after);
	atomic_store(&failing, n);
}

static struct lr_engine *engine_on(int role, int fd)
{
	struct lr_engine *e = lr_engine_new(role, WINDOW, -1, -1);
	struct lr_io *io = role == LR_CLIENT ? &ci : &si;
	char error[200];

	CHECK(e && lr_engine_add(e, lr_stream_open(fd, -1, 0, error, sizeof error), WINDOW) >= 0);
	io->buf = malloc(LR_SCRATCH);
	io->cap = LR_SCRATCH;
	return e;
}

static uint64_t open_call(uint64_t *at_server)
{
	int r;

	ci.resumed = 0;
	CHECK(lr_open(client, &ci, 1, NULL, 0, -1, NULL, 0, 0, 0) == 0);
	while ((r = lr_next(server, &si)) == LR_AGAIN)
		;
	CHECK(r == LR_K_CALL);
	*at_server = si.call;
	return ci.call;
}

/* From here on this side's frames find no room, and are posted. */
static void fill_link(struct lr_engine *e, uint64_t with)
{
	CHECK(lr_send(e, with, huge, sizeof huge, 0, 1) == LR_TIMEOUT);
}

static int receive(struct lr_engine *e, struct lr_io *io, uint64_t from)
{
	static char came[HUGE_SIZE];
	int r;

	while ((r = lr_recv(e, io, from, 0)) == LR_AGAIN || r == LR_K_BIG)
		if (r == LR_K_BIG)
			while (lr_fill(e, from, came, (uint64_t)io->size, 0) == LR_AGAIN)
				;
	return r;
}

static void *hear(void *unused)
{
	struct lr_io io = {.buf = __real_malloc(LR_SCRATCH), .cap = LR_SCRATCH};
	int r;

	(void)unused;
	while ((r = lr_service(server, &io)) != LR_K_STOP)
		;
	free(io.buf);
	return NULL;
}

/* ---- frames without memory ---- */

static void at_server(int n, int after)
{
	fill_link(server, other_served);
	fail(n, after);
}

static int status(int n)
{
	at_server(n, 0);
	return lr_finish(server, served, "", 0, "x", 1, 0);
}

static int status_with_big(int n)
{
	at_server(n, 0);
	return lr_finish(server, served, "", 0, huge, LR_INLINE + 1, 0);
}

static int data(int n)
{
	at_server(n, 1);
	/* its frames are posted, which never fails */
	lr_finish(server, served, "", 0, huge, LR_INLINE + 1, 0);
	return LR_NOMEM;
}

static int headers(int n)
{
	at_server(n, 0);
	return lr_headers(server, served, "", 0);
}

static int credit(int n)
{
	CHECK(lr_send(client, call, huge, WINDOW - LR_OVERHEAD, 0, 0) == 0);
	at_server(n, 0);
	CHECK(receive(server, &si, served) == LR_K_MESSAGES);
	return LR_NOMEM;
}

static int end(int n)
{
	fill_link(client, other);
	fail(n, 0);
	return lr_half_close(client, call);
}

static int asking_for_credit(int n)
{
	fill_link(client, other);
	CHECK(lr_send(client, call, "x", 1, LR_F_POST, 1) == 0);
	fail(n, 0);
	CHECK(lr_send(client, call, huge, WINDOW, 0, 0) == LR_CANCELLED);
	return LR_NOMEM;
}

static const struct { const char *name; int (*run)(int n); bool by_client; } cases[] = {
	{"status", status, false}, {"status-with-a-large-message", status_with_big, false},
	{"data", data, false}, {"headers", headers, false}, {"credit", credit, false},
	{"end", end, true}, {"asking-for-credit", asking_for_credit, true},
};

/* A watched call ends, although there is no memory for its status. */
static void watched(void)
{
	int r;

	CHECK(lr_watch(client, call, 0) == 0);
	CHECK(lr_finish(server, served, "12345", 5, NULL, 0, 2) == 0);
	fail(1, 0);
	while ((r = lr_service(client, &ci)) == LR_AGAIN)
		;
	CHECK(r == LR_K_ENDED && ci.call == call);
	CHECK(receive(client, &ci, call) == LR_ENDED);
}

static void one_ends(int (*run)(int n), bool by_client, int n)
{
	pthread_t hearing;

	CHECK(run(n) == LR_NOMEM);
	CHECK(!atomic_load(&failing));
	pthread_create(&hearing, NULL, hear, NULL); /* it sends the frames that are left */
	for (int r;;) {
		r = by_client ? receive(server, &si, served) : receive(client, &ci, call);
		if (r == LR_K_MESSAGES)
			continue;
		CHECK(n == 1 ? r == LR_K_RESET && (by_client ? si : ci).size == 8 : r == LR_CLOSED);
		break;
	}
	CHECK(lr_active(client, other) == (n == 1) && lr_engine_alive(client) == (n == 1 ? 1 : LR_CLOSED));
	lr_engine_close(server);
	pthread_join(hearing, NULL);
}

int main(int count, char **args)
{
	int s[2];

	signal(SIGPIPE, SIG_IGN);
	for (size_t i = 0; count < 2 && i < sizeof cases / sizeof *cases; i++)
		puts(cases[i].name);
	if (count < 3)
		return 0;
	CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, s) == 0);
	client = engine_on(LR_CLIENT, s[0]);
	server = engine_on(LR_SERVER, s[1]);
	CHECK(lr_method(client, 1, "/a/b", 4) == 0);
	call = open_call(&served);
	other = open_call(&other_served);
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
		if (!strcmp(args[1], cases[i].name))
			one_ends(cases[i].run, cases[i].by_client, atoi(args[2]));
	if (!strcmp(args[1], "watched"))
		watched();
	lr_engine_free(client);
	lr_engine_free(server);
	free(ci.buf);
	free(si.buf);
	return 0;
}
