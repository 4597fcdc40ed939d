/*
 * endings.c - how calls end when several things happen at once. One case a name:
 *
 *	endings CASE    exit code 0 if the case holds
 *
 * Threads that have to be inside a call are waited for. Nothing here has a timeout: the
 * program that runs this reports a case that does not end.
 */
#include "../../localrpc/_core/src/engine/engine.h"
#include "check.h"

#include <sched.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#define HUGE_SIZE (4u << 20) /* more than a socket takes */

static struct lr_engine *client, *server;
static struct lr_io ci, si;
static int peer = -1;
static char huge[HUGE_SIZE], came[HUGE_SIZE];

static void io_init(struct lr_io *io)
{
	memset(io, 0, sizeof *io);
	io->buf = malloc(LR_SCRATCH);
	io->cap = LR_SCRATCH;
}

static struct lr_engine *engine_on(int role, int fd)
{
	struct lr_engine *e = lr_engine_new(role, 16 << 20, -1, -1);
	char error[200];

	CHECK(e && lr_engine_add(e, lr_stream_open(fd, -1, 0, error, sizeof error), 16 << 20) >= 0);
	return e;
}

/* A client, a server, or both, over one socket; `peer` is the end that no engine has. */
static void connect_engines(bool with_client, bool with_server)
{
	int s[2];

	CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, s) == 0);
	io_init(&ci);
	io_init(&si);
	if (with_client)
		client = engine_on(LR_CLIENT, s[0]);
	if (with_server)
		server = engine_on(LR_SERVER, s[1]);
	if (!with_client || !with_server)
		peer = with_client ? s[1] : s[0];
	if (with_client)
		CHECK(lr_method(client, 1, "/a/b", 4) == 0);
}

static uint64_t open_call(int64_t timeout_us)
{
	ci.resumed = 0;
	CHECK(lr_open(client, &ci, 1, NULL, 0, timeout_us, NULL, 0, 0, 0) == 0);
	return ci.call;
}

/* Wait again after LR_AGAIN, which the main thread gets now and then because of signals. */
#define PATIENTLY(wait)                       \
	do {                                  \
		int r;                        \
		while ((r = wait) == LR_AGAIN) \
			;                     \
		return r;                     \
	} while (0)

static int next_call(void) { PATIENTLY(lr_next(server, &si)); }
static int receive_for(uint64_t call) { PATIENTLY(lr_recv(client, &ci, call, 0)); }
static int fill_for(uint64_t call) { PATIENTLY(lr_fill(client, call, came, HUGE_SIZE, 0)); }

static void frame(int type, int flags, uint64_t call, const void *payload, uint32_t size)
{
	struct lr_header header = {size, (uint8_t)type, (uint8_t)flags, 0, call};

	CHECK(write(peer, &header, sizeof header) == sizeof header);
	CHECK(!size || write(peer, payload, size) == (ssize_t)size);
}

/* The next frame that the engine under test has sent, except METHOD. */
static struct lr_header next_frame(void *payload)
{
	struct lr_header header = {0};

	do {
		CHECK(recv(peer, &header, sizeof header, MSG_WAITALL) == sizeof header);
		CHECK(!header.length || recv(peer, payload, header.length, MSG_WAITALL) == header.length);
	} while (header.type == LR_T_METHOD);
	return header;
}

static void until_inside(struct lr_engine *e, uint64_t call)
{
	bool inside = false;

	while (!inside) {
		struct lr_call *found;
		CHECK(lr_enter(e) == 0);
		found = lr_call_get(e, call);
		inside = found && (found->receiver || found->sender);
		lr_leave(e);
		sched_yield();
	}
}

static uint64_t served; /* the server's handle of the call */
static int result;

static void *send_huge(void *unused)
{
	(void)unused;
	result = lr_send(server, served, huge, sizeof huge, 0, 0);
	return NULL;
}

static void *receive(void *unused)
{
	(void)unused;
	result = lr_recv(server, &si, served, 0);
	return NULL;
}

static void *service(void *unused)
{
	struct lr_io io;

	(void)unused;
	io_init(&io);
	while (lr_service(server, &io) != LR_K_STOP)
		;
	free(io.buf);
	return NULL;
}

/* One thread of a handler sends a large message, another ends the call: both arrive. */
static void status_behind_a_message(void)
{
	uint32_t trailer[2] = {0, 0};
	pthread_t sender, hearing;
	uint64_t call;

	connect_engines(true, true);
	pthread_create(&hearing, NULL, service, NULL);
	call = open_call(-1);
	CHECK(next_call() == LR_K_CALL);
	served = si.call;
	memset(huge, 7, sizeof huge);
	pthread_create(&sender, NULL, send_huge, NULL);
	until_inside(server, served);
	CHECK(lr_finish(server, served, (char *)trailer, 5, NULL, 0, 2) == 0);
	pthread_join(sender, NULL); /* although no thread reads yet */
	CHECK(receive_for(call) == LR_K_BIG && ci.size == HUGE_SIZE);
	CHECK(fill_for(call) == 0 && !memcmp(came, huge, HUGE_SIZE));
	CHECK(receive_for(call) == LR_K_STATUS && ci.size == 5);
	CHECK(lr_release(client, call) == 0 && lr_live(client) == 0 && lr_live(server) == 0);
	lr_engine_close(server);
	pthread_join(hearing, NULL);
}

/* No thread is inside that could finish the message: only a RESET can end the call. */
static void status_of_a_message_that_no_thread_finishes(void)
{
	pthread_t hearing;
	uint64_t call;

	connect_engines(true, true);
	pthread_create(&hearing, NULL, service, NULL);
	call = open_call(-1);
	CHECK(next_call() == LR_K_CALL);
	CHECK(lr_send(server, si.call, huge, sizeof huge, 0, 1) == LR_TIMEOUT);
	CHECK(lr_finish(server, si.call, "", 0, NULL, 0, 5) < 0);
	CHECK(receive_for(call) == LR_K_BIG && ci.size == HUGE_SIZE);
	CHECK(fill_for(call) == LR_ENDED);
	CHECK(receive_for(call) == LR_K_RESET && ci.size == 5);
	CHECK(lr_live(server) == 0);
	lr_engine_close(server);
	pthread_join(hearing, NULL);
}

static void a_thread_that_receives_is_sent_away(void)
{
	pthread_t receiver, hearing;

	connect_engines(true, true);
	pthread_create(&hearing, NULL, service, NULL);
	open_call(-1);
	CHECK(next_call() == LR_K_CALL);
	served = si.call;
	pthread_create(&receiver, NULL, receive, NULL);
	until_inside(server, served);
	CHECK(lr_finish(server, served, "", 0, NULL, 0, 0) == 0);
	pthread_join(receiver, NULL);
	CHECK(result == LR_GONE && lr_live(server) == 0);
	lr_engine_close(server);
	pthread_join(hearing, NULL);
}

/* Posted frames cannot be sent any more; frames that have arrived are still read. */
static void an_answer_before_the_end(void)
{
	static const char text[60000];
	uint64_t answered, others[12];
	uint32_t reply[2] = {0, 0};

	connect_engines(true, false);
	answered = open_call(-1);
	for (int i = 0; i < 12; i++)
		others[i] = open_call(-1);
	for (int i = 0; i < 11; i++)
		lr_cancel(client, others[i], 1, text, sizeof text); /* more than the socket takes */
	frame(LR_T_STATUS, LR_F_MESSAGE, answered, reply, 8);
	close(peer);
	lr_cancel(client, others[11], 1, "no", 2);
	CHECK(receive_for(answered) == LR_K_MESSAGES && ci.fill == 4);
	CHECK(receive_for(answered) == LR_K_STATUS);
}

/*
 * Two answers have come, and the peer's end after them, which an event has reported already:
 * taking the first answer leaves the second in place, and the connection alive.
 */
static void two_answers_before_the_end(void)
{
	struct epoll_event event = {.events = EPOLLIN | EPOLLHUP};
	uint64_t calls[2];

	connect_engines(true, false);
	for (int i = 0; i < 2; i++)
		calls[i] = open_call(-1);
	for (int i = 0; i < 2; i++)
		frame(LR_T_STATUS, 0, calls[i], "\0\0\0\0", 4);
	close(peer);
	event.data.u64 = (uint64_t)client->conns[0]->id << 8 | EVENT_BELL;
	CHECK(lr_enter(client) == 0);
	lr_take_events(client, &event, 1);
	lr_leave(client);
	for (int i = 0; i < 2; i++)
		CHECK(receive_for(calls[i]) == LR_K_STATUS);
}

/* The link's death is not an answer: after the deadline the call has ended with the deadline. */
static void a_death_after_the_deadline(void)
{
	uint64_t late, early;

	connect_engines(true, false);
	late = open_call(-1);
	early = open_call(-1);
	CHECK(lr_enter(client) == 0);
	lr_call_get(client, late)->deadline = lr_now();
	lr_call_get(client, early)->deadline = lr_now() + 3600000 * LR_MS;
	lr_leave(client);
	close(peer);
	CHECK(receive_for(early) == LR_CLOSED);
	CHECK(receive_for(late) == LR_TIMEOUT);
}

static void raw_open(uint64_t call, int64_t timeout_us)
{
	struct { uint32_t method, head; int64_t timeout; } open = {1, 0, timeout_us};

	frame(LR_T_OPEN, LR_F_END, call, &open, sizeof open);
}

/* Its deadline passes now. */
static void expire(uint64_t call)
{
	CHECK(lr_enter(server) == 0);
	lr_call_get(server, call)->deadline = lr_now();
	lr_leave(server);
}

/* A connection became idle while a thread waited for room: when it is polled again it is not
 * armed for room, because the next thread that waits for room would not tell the leader. */
static void room_is_asked_for_again(void)
{
	struct lr_conn *conn;

	connect_engines(false, true);
	frame(LR_T_METHOD, 0, 0, "\001\000\000\000/a/b", 8);
	raw_open(1ull << 32, -1);
	CHECK(lr_next_now(server, &si) == LR_K_CALL);
	CHECK(lr_send(server, si.call, huge, sizeof huge, 0, 1) == LR_TIMEOUT);
	CHECK(lr_enter(server) == 0);
	conn = server->conns[0];
	conn->room_waiters++;
	conn->room_need = LR_PIECE;
	while (!conn->polled)
		lr_conn_ready(conn), lr_polled_fill(server);
	CHECK(lr_polled_leave(server, 0) && conn->room_armed && !conn->polled);
	conn->room_waiters--;
	lr_conn_ready(conn);
	lr_polled_fill(server);
	CHECK(conn->polled && !conn->room_armed);
	lr_leave(server);
}

static void expect_deadline(uint64_t call)
{
	uint8_t payload[LR_MAX_CONTROL];
	struct lr_header header = next_frame(payload);

	CHECK(header.type == LR_T_RESET && header.call == call && lr_read32(payload) == 4);
}

/* A server never begins a call that comes, or is taken by a worker, after its deadline. */
static void a_call_that_is_too_late(void)
{
	uint64_t first = 1ull << 32, second = first | 1;

	connect_engines(false, true);
	frame(LR_T_METHOD, 0, 0, "\001\000\000\000/a/b", 8);
	raw_open(first, 0);
	CHECK(lr_next_now(server, &si) == LR_K_YIELD);
	expect_deadline(first);
	raw_open(second, -1);
	CHECK(lr_next_now(server, &si) == LR_K_CALL);
	CHECK(lr_defer(server, si.call) == 0); /* as if it had waited for a thread */
	expire(si.call);
	CHECK(lr_next_now(server, &si) == LR_K_YIELD);
	expect_deadline(second);
	CHECK(lr_live(server) == 0);
}

/* After the deadline a server sends only that status, whatever its handler does. */
static void a_handler_that_is_too_late(void)
{
	for (uint64_t act = 0; act < 7; act++) {
		uint64_t call = (act + 1) << 32, own;

		if (act == 0) {
			connect_engines(false, true);
			frame(LR_T_METHOD, 0, 0, "\001\000\000\000/a/b", 8);
		}
		raw_open(call, -1);
		CHECK(lr_next_now(server, &si) == LR_K_CALL);
		own = si.call;
		expire(own);
		switch (act) {
		case 0:
			CHECK(lr_finish(server, own, "", 0, "x", 1, 0) == LR_TIMEOUT);
			break;
		case 1:
			CHECK(lr_finish(server, own, "", 0, huge, LR_INLINE + 1, 0) == LR_TIMEOUT);
			break;
		case 2:
			CHECK(lr_send(server, own, "x", 1, 0, 0) == LR_TIMEOUT);
			break;
		case 3:
			CHECK(lr_headers(server, own, "", 0) == LR_TIMEOUT);
			break;
		case 4:
			CHECK(lr_cancel(server, own, 1, "no", 2) == 0);
			break;
		case 5:
			CHECK(lr_release(server, own) == 0);
			break;
		default:
			CHECK(lr_cancel_all(server, 14, "stopping", 8) == 0);
		}
		expect_deadline(call);
		lr_release(server, own);
		CHECK(lr_live(server) == 0);
	}
}

/* The client would see a violation of the protocol, and end the connection with all its calls. */
static void a_message_behind_the_last(void)
{
	static const uint64_t sizes[] = {1, LR_INLINE + 1};
	uint64_t other, kept, call;

	connect_engines(true, true);
	other = open_call(-1);
	CHECK(next_call() == LR_K_CALL);
	kept = si.call;
	for (int i = 0; i < 3; i++) {
		call = open_call(-1);
		CHECK(next_call() == LR_K_CALL);
		if (i < 2)
			CHECK(lr_half_close(server, si.call) == 0);
		else
			CHECK(lr_send(server, si.call, huge, LR_INLINE + 1, LR_F_END, 0) == 0);
		CHECK(lr_finish(server, si.call, "", 0, huge, sizes[i % 2], 0) < 0);
		if (i == 2) {
			CHECK(receive_for(call) == LR_K_BIG);
			CHECK(lr_fill(client, call, came, LR_INLINE + 1, 0) == 0);
		}
		CHECK(receive_for(call) == LR_K_END);
		CHECK(receive_for(call) == LR_K_RESET && ci.size == 13);
		CHECK(lr_release(client, call) == 0);
	}
	CHECK(lr_finish(server, kept, "", 0, "x", 1, 0) == 0);
	CHECK(receive_for(other) == LR_K_MESSAGES && receive_for(other) == LR_K_STATUS);
}

static atomic_bool entered;

static void *enter(void *unused)
{
	(void)unused;
	CHECK(lr_enter(server) == 0);
	atomic_store(&entered, true);
	lr_leave(server);
	return NULL;
}

/* lr_yield_mutex() lets a thread that waits for the mutex have it first. */
static void a_thread_that_waits_to_enter(void)
{
	pthread_t waiting;
	int yields = 0;

	connect_engines(false, true);
	CHECK(lr_enter(server) == 0);
	pthread_create(&waiting, NULL, enter, NULL);
	while (!atomic_load(&server->entering))
		sched_yield();
	while (!atomic_load(&entered) && yields++ < 10000) /* a busy machine may take several */
		lr_yield_mutex(server);
	CHECK(atomic_load(&entered));
	lr_leave(server);
	pthread_join(waiting, NULL);
}

static const struct { const char *name; void (*run)(void); } cases[] = {
	{"status-behind-a-message", status_behind_a_message},
	{"status-of-a-message-that-no-thread-finishes", status_of_a_message_that_no_thread_finishes},
	{"a-thread-that-receives-is-sent-away", a_thread_that_receives_is_sent_away},
	{"an-answer-before-the-end", an_answer_before_the_end},
	{"two-answers-before-the-end", two_answers_before_the_end},
	{"a-death-after-the-deadline", a_death_after_the_deadline},
	{"room-is-asked-for-again", room_is_asked_for_again},
	{"a-call-that-is-too-late", a_call_that_is_too_late},
	{"a-handler-that-is-too-late", a_handler_that_is_too_late},
	{"a-thread-that-waits-to-enter", a_thread_that_waits_to_enter},
	{"a-message-behind-the-last", a_message_behind_the_last},
};

int main(int count, char **names)
{
	signal(SIGPIPE, SIG_IGN);
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		if (count < 2)
			puts(cases[i].name);
		else if (!strcmp(names[1], cases[i].name))
			cases[i].run();
	}
	if (client)
		lr_engine_free(client);
	if (server)
		lr_engine_free(server);
	free(ci.buf);
	free(si.buf);
	return 0;
}
