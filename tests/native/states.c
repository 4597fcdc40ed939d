/*
 * states.c - every state of a call with every event: frames from a peer, the end of the link,
 * this side's functions, the deadline. The engine is the real one; the peer is a socket that
 * frames are written to.
 *
 *	states      prints a line for each pair: role, state, event, outcome
 *
 * The outcome is the call's state afterwards, `gone` if it was freed, `broken` if the
 * connection has ended because the peer broke the protocol, and the result of a function.
 */
#include "../../localrpc/_core/src/engine/engine.h"

#include <signal.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#define CHECK(x)                                                                          \
	do {                                                                              \
		if (!(x)) {                                                               \
			fprintf(stderr, "%s:%d: not true: %s (%s, %s)\n", __FILE__, __LINE__, #x, \
				state_name, event_name);                                  \
			abort();                                                          \
		}                                                                         \
	} while (0)

#define BIG 40000   /* bytes of the peer's large messages */
#define HUGE_SIZE (4u << 20) /* more than the socket takes */

static const char *state_name = "", *event_name = "";
static struct lr_engine *engine;
static struct lr_io io;
static struct lr_conn *conn; /* kept after its end */
static struct lr_call *call;
static struct lr_waiter waiter;
static uint64_t handle, wire;
static int peer, role;
static bool peer_open;
static char huge[HUGE_SIZE];
static uint8_t bytes[LR_MAX_CONTROL];

/* ---- the peer ---- */

static void frame(int type, int flags, const void *payload, uint32_t size)
{
	struct lr_header header = {size, (uint8_t)type, (uint8_t)flags, 0,
		type == LR_T_METHOD ? 0 : wire};
	struct iovec iov[2] = {{&header, sizeof header}, {(void *)(uintptr_t)payload, size}};

	CHECK(writev(peer, iov, size ? 2 : 1) == (ssize_t)(sizeof header + size));
}

/* Have the engine read everything that has come. */
static void pump(void)
{
	struct lr_waiter reader = {.wants = WANT_CREDIT, .io = &io, .ignores_signals = true};
	struct lr_call none = {.life = LIVE, .outstanding = UINT64_MAX / 2, .conn = conn};

	reader.call = &none; /* never ready: the leader reads everything */
	CHECK(lr_enter(engine) == 0);
	atomic_store(&conn->link->edge, true);
	lr_read_conns(engine, &reader);
	lr_leave(engine);
}

static void headers(void) { frame(LR_T_HEADERS, 0, NULL, 0); }
static void message(void) { frame(LR_T_MESSAGE, LR_F_MESSAGE, "x", 1); }
static void big_with(int type, int flags)
{
	struct { uint32_t trailer; uint64_t size; } __attribute__((packed)) with = {0, BIG};
	uint32_t skip = type == LR_T_STATUS ? 0 : sizeof with.trailer;

	frame(type, LR_F_BIG | flags, (char *)&with + skip, sizeof with - skip);
}
static void big(void) { big_with(LR_T_MESSAGE, 0); }
static void big_end(void) { big_with(LR_T_MESSAGE, LR_F_END); }
static void data(void) { frame(LR_T_DATA, 0, bytes, 100); }
static void whole(void) { frame(LR_T_DATA, 0, bytes, BIG); }
static void end(void) { frame(LR_T_MESSAGE, LR_F_END, NULL, 0); }
static void status(void) { frame(LR_T_STATUS, 0, bytes, 4); }
static void status_with(void) { frame(LR_T_STATUS, LR_F_MESSAGE, bytes, 5); }
static void status_big(void) { big_with(LR_T_STATUS, 0); }
static void credit(void) { frame(LR_T_CREDIT, 0, bytes, 8); }
static void reset(void) { frame(LR_T_RESET, 0, "\001\000\000\000no", 6); }
static void death(void) { close(peer); peer_open = false; }

/* ---- this side: the results of its functions ---- */

static int recv_now(void) { return lr_recv(engine, &io, handle, 1); }
static int send_one(void) { return lr_send(engine, handle, "x", 1, 0, 1); }
static int send_huge(void) { return lr_send(engine, handle, huge, sizeof huge, 0, 1); }
static int send_last(void) { return lr_send(engine, handle, huge, sizeof huge, LR_F_END, 1); }
static int half_close(void) { return lr_half_close(engine, handle); }
static int give_headers(void) { return lr_headers(engine, handle, "", 0); }
static int finish(void) { return lr_finish(engine, handle, "", 0, NULL, 0, 0); }
static int finish_with(void) { return lr_finish(engine, handle, "", 0, "x", 1, 0); }
static int finish_big(void) { return lr_finish(engine, handle, "", 0, huge, BIG, 0); }
static int cancel(void) { return lr_cancel(engine, handle, 1, NULL, 0); }
static int release(void) { return lr_release(engine, handle); }
static int defer(void) { return lr_defer(engine, handle); }
static int take(void) { return lr_next_now(engine, &io); }
static int watch(void) { return lr_watch(engine, handle, 0); }
static int active(void) { return lr_active(engine, handle); }
static int expire(void)
{
	int r;

	call->deadline = 1;
	CHECK(lr_enter(engine) == 0);
	r = role == LR_SERVER && call->life ? lr_call_expired(engine, call) : 0;
	lr_leave(engine);
	return r;
}

/* ---- states ---- */

static void open_stream(int flags, uint64_t size)
{
	struct { uint32_t method, head; int64_t timeout; uint64_t size; } open = {1, 0, -1, size};

	frame(LR_T_METHOD, 0, "\001\000\000\000/a/b", 8);
	frame(LR_T_OPEN, flags, &open, size ? sizeof open : sizeof open - sizeof open.size);
	while (engine->live == 0)
		pump();
	call = engine->queue;
	handle = lr_call_handle(call);
}

static void begin(void)
{
	char error[200];
	int s[2], full = 1 << 16;

	CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, s) == 0);
	CHECK(setsockopt(s[1], SOL_SOCKET, SO_SNDBUF, &full, sizeof full) == 0);
	CHECK((engine = lr_engine_new(role, 1 << 20, 4 << 20, -1)));
	CHECK(lr_engine_add(engine, lr_stream_open(s[0], -1, 0, error, sizeof error), 64 << 20) >= 0);
	conn = engine->conns[0];
	conn->refs++;
	peer = s[1];
	peer_open = true;
	wire = 1ull << 32;
	memset(&waiter, 0, sizeof waiter);
	if (role == LR_SERVER)
		return;
	CHECK(lr_method(engine, 1, "/a/b", 4) == 0);
	io.resumed = 0;
	CHECK(lr_open(engine, &io, 1, NULL, 0, -1, NULL, 0, 0, 0) == 0);
	handle = wire = io.call;
	call = lr_call_get(engine, handle);
}

static void taken(void)
{
	if (role == LR_SERVER) {
		open_stream(0, 0);
		CHECK(take() == LR_K_CALL);
	}
}

static void queued(void) { open_stream(0, 0); }
static void deferred(void)
{
	open_stream(LR_F_BIG | LR_F_END, BIG);
	CHECK(take() == LR_K_CALL && defer() == 0);
}

static void then(void (*frames)(void)) { taken(); frames(); pump(); }
static void in_open(void) { then(message); }
static void in_big(void) { then(big); }
static void in_big_end(void) { then(big_end); }
static void in_big_status(void) { then(status_big); }
static void in_half(void) { then(end); }
static void out_open(void) { taken(); CHECK(role == LR_SERVER ? give_headers() == 0 : send_one() == 0); }
static void out_big(void) { taken(); CHECK(send_huge() == LR_TIMEOUT && call->out == OUT_BIG); }
static void out_big_end(void) { taken(); CHECK(send_last() == LR_TIMEOUT && call->out == OUT_BIG_END); }
/* As if a thread were inside, as long as this one has the call. */
static void sending(void) { out_big(); lr_call_hold(call); call->busy = true; }
static void sending_last(void) { out_big_end(); lr_call_hold(call); call->busy = true; }
static void out_half(void) { taken(); CHECK(half_close() == 0); }
static void answered(void) { then(status); }
static void reset_came(void) { then(reset); }
static void dead(void) { then(death); pump(); }
static void cancelled(void) { taken(); CHECK(cancel() >= 0); }
/* A client's: what comes too late for a thread that waited since before the deadline. */
static void expired(void)
{
	taken();
	if (role == LR_SERVER) {
		expire();
		return;
	}
	call->deadline = 1;
	call->receiver = &waiter;
	status();
	pump();
	call->receiver = NULL;
}
/* As if a thread were inside: the last one to leave frees the call. */
static void finishing(void)
{
	sending();
	CHECK(finish() == 0);
}
static void finished(void) { taken(); lr_call_hold(call); CHECK(finish() == 0); }
static void let_go(void) { taken(); lr_call_hold(call); CHECK(release() == 0); }

struct state { const char *name; int roles; void (*make)(void); };
enum { CLIENTS = 1 << LR_CLIENT, SERVERS = 1 << LR_SERVER, BOTH = CLIENTS | SERVERS };
static const struct state states[] = {
	{"queued", SERVERS, queued}, {"deferred", SERVERS, deferred}, {"begun", BOTH, taken},
	{"in open", BOTH, in_open}, {"in big", BOTH, in_big}, {"in big end", BOTH, in_big_end},
	{"in big status", CLIENTS, in_big_status}, {"in half", BOTH, in_half},
	{"out open", BOTH, out_open}, {"out big", BOTH, out_big}, {"out big end", BOTH, out_big_end},
	{"sending", SERVERS, sending}, {"sending last", SERVERS, sending_last}, {"out half", BOTH, out_half}, {"finishing", SERVERS, finishing},
	{"finished", SERVERS, finished}, {"answered", CLIENTS, answered},
	{"reset", BOTH, reset_came}, {"dead", BOTH, dead}, {"cancelled", BOTH, cancelled},
	{"expired", BOTH, expired}, {"released", BOTH, let_go},
};

struct event { const char *name; void (*peer)(void); int (*ours)(void); };
static const struct event events[] = {
	{"HEADERS", headers, NULL}, {"MESSAGE", message, NULL}, {"BIG", big, NULL},
	{"BIG|END", big_end, NULL}, {"DATA", data, NULL}, {"last DATA", whole, NULL},
	{"END", end, NULL}, {"STATUS", status, NULL}, {"STATUS|MESSAGE", status_with, NULL},
	{"STATUS|BIG", status_big, NULL}, {"CREDIT", credit, NULL}, {"RESET", reset, NULL},
	{"death", death, NULL}, {"recv", NULL, recv_now}, {"send", NULL, send_one},
	{"send big", NULL, send_huge}, {"send big last", NULL, send_last},
	{"half_close", NULL, half_close}, {"headers", NULL, give_headers},
	{"finish", NULL, finish}, {"finish with message", NULL, finish_with},
	{"finish with big", NULL, finish_big}, {"cancel", NULL, cancel}, {"release", NULL, release},
	{"defer", NULL, defer}, {"next", NULL, take}, {"watch", NULL, watch},
	{"active", NULL, active}, {"deadline", NULL, expire},
};

/* ---- outcomes ---- */

static const char *const lives[] = {"gone", "live", "finishing", "finished", "answered", "reset",
	"dead", "cancelled", "expired"};
static const char *const ins[] = {"", "start", "open", "big", "big-end", "big-status", "half"};
static const char *const outs[] = {"", "start", "open", "big", "big-end", "half"};
static const char *const places[] = {"", "owned", "queued", "deferred", "released"};

static const char *result(int r)
{
	static const char *const errors[] = {"", "AGAIN", "TIMEOUT", "GONE", "CLOSED", "FORKED",
		"TOO_LARGE", "PROTOCOL", "NOMEM", "CANCELLED", "ENDED", "SLOW", "NOROOM", "INVALID",
		"UNSENT"};
	static char number[16];

	if (r < 0)
		return errors[-r];
	snprintf(number, sizeof number, "%d", r);
	return number;
}

static void describe(char *text, size_t size, uint32_t generation)
{
	if (conn->dead && conn->why == LR_PROTOCOL)
		snprintf(text, size, "broken");
	else if (!call->life || call->generation != generation)
		snprintf(text, size, "gone");
	else
		snprintf(text, size, "%s in:%s out:%s %s", lives[call->life], ins[call->in],
			outs[call->out], places[call->place]);
}

static void try(const struct state *state, const struct event *event)
{
	char before[80], after[80];
	uint32_t generation;
	int r = 0;

	state_name = state->name;
	event_name = event->name;
	begin();
	state->make();
	generation = call->generation;
	describe(before, sizeof before, generation);
	if (event->peer && !peer_open) {
		printf("%s\t%s\t%s\tno link\n", role ? "server" : "client", state->name, event->name);
	} else {
		if (event->peer) {
			event->peer();
			pump();
			pump();
		} else {
			r = event->ours();
		}
		describe(after, sizeof after, generation);
		printf("%s\t%s\t%s\t%s%s%s\n", role ? "server" : "client", state->name, event->name,
			event->peer ? "" : result(r), event->peer ? "" : ", ",
			strcmp(before, after) ? after : "as before");
	}
	/* The thread that was inside leaves. */
	if (call->generation == generation && call->inside) {
		CHECK(lr_enter(engine) == 0);
		call->busy = false;
		lr_call_unhold(engine, call);
		lr_leave(engine);
	}
	if (peer_open)
		close(peer);
	CHECK(lr_enter(engine) == 0);
	lr_conn_unref(conn);
	lr_leave(engine);
	lr_engine_free(engine);
}

int main(void)
{
	signal(SIGPIPE, SIG_IGN);
	io.buf = malloc(LR_SCRATCH);
	io.cap = LR_SCRATCH;
	for (role = LR_CLIENT; role <= LR_SERVER; role++)
		for (size_t s = 0; s < sizeof states / sizeof *states; s++)
			for (size_t i = 0; i < sizeof events / sizeof *events; i++)
				if (states[s].roles & 1 << role)
					try(&states[s], &events[i]);
	free(io.buf);
	return 0;
}
