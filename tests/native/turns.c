/*
 * turns.c - what a looped engine sends in one turn, over byte streams.
 *
 *	turns stream|pipe|mq|sysvmq
 *
 * Invariant: the first frame of a turn leaves at once; those that follow leave with lr_flush, or
 * with the close, in their order and none missing; or soon by themselves, if late.c has its
 * thread, which it does not get at first.
 */
#include "links.h"

static bool may_start;

int __real_lr_start_thread(pthread_t *thread, void *(*run)(void *), void *argument, size_t stack);
int __wrap_lr_start_thread(pthread_t *thread, void *(*run)(void *), void *argument, size_t stack);
int __wrap_lr_start_thread(pthread_t *thread, void *(*run)(void *), void *argument, size_t stack)
{
	return may_start ? __real_lr_start_thread(thread, run, argument, stack) : EAGAIN;
}

static struct lr_link *peer;
static struct lr_engine *engine;
static uint8_t payload[LR_MAX_CONTROL];
static uint32_t sent, received; /* OPEN frames: each has its number as its message */

/* False: there is no room. */
static bool send_open(uint32_t size)
{
	uint8_t message[2048] = {0};
	uint32_t number = sent + 1;
	struct lr_io io = {0};
	int r;

	memcpy(message, &number, sizeof number);
	r = lr_open(engine, &io, 1, NULL, 0, -1, (char *)message, size, LR_F_MESSAGE | LR_F_END, 0);
	CHECK(r == 0 || r == LR_AGAIN);
	sent += r == 0;
	return r == 0;
}

/* How many frames the peer can read now. */
static uint32_t arrived(void)
{
	struct lr_io io = {.buf = payload, .cap = sizeof payload};
	uint32_t count = 0, number;
	int r;

	while ((r = lr_link_recv(peer, &io, 1)) == 1) {
		count++;
		if (io.kind != LR_T_OPEN)
			continue;
		memcpy(&number, payload + 16, sizeof number);
		CHECK(number == ++received);
	}
	CHECK(r == LR_TIMEOUT || r == LR_CLOSED);
	return count;
}

/* As a loop does when there may be room again. */
static void drain(void)
{
	static struct lr_batch batch;

	arrived();
	CHECK(lr_drain(engine, &batch) >= 0);
}

/* What lacked room, and was sent without the loop, is not the beginning of its next turn. */
static void next_turn(void)
{
	static char name[2000] = "/";
	uint32_t number = 2, left;

	memset(name + 1, 'x', sizeof name - 1);
	for (; number < 300; number++)
		CHECK(lr_method(engine, number, name, sizeof name) == 0);
	CHECK(lr_flush(engine) == 0);
	for (left = number - 2; left;)
		left -= arrived();
	CHECK(lr_method(engine, number, "/last", 5) == 0);
	CHECK(arrived() == 1);
	CHECK(lr_flush(engine) == 0);
}

static void begin(const char *kind)
{
	struct lr_link *link;

	open_links(kind, &link, &peer);
	engine = lr_engine_new(LR_CLIENT, 1 << 20, 1 << 20, -1);
	CHECK(engine && lr_loop_begin(engine) >= 0);
	CHECK(lr_engine_add(engine, link, 1 << 20) >= 0);
	CHECK(lr_method(engine, 1, "/0", 2) == 0); /* the first frame */
	CHECK(arrived() == 1);
}

int main(int argc, char **argv)
{
	CHECK(argc == 2);
	begin(argv[1]);
	for (int i = 0; i < 10; i++)
		CHECK(send_open(8));
	CHECK(arrived() == 0);
	CHECK(lr_flush(engine) == 0);
	CHECK(arrived() == 10);

	/* The next turn; more than is gathered at a time, and perhaps more than there is room for. */
	CHECK(send_open(2000));
	CHECK(arrived() == 1);
	while (sent < 100)
		if (!send_open(2000))
			drain();
	CHECK(received < 100);
	CHECK(lr_flush(engine) == 0);
	while (received < 100)
		drain();

	/* A close sends what is held. */
	CHECK(lr_flush(engine) == 0);
	CHECK(send_open(8) && send_open(8));
	CHECK(arrived() == 1);
	lr_engine_close(engine);
	CHECK(arrived() == 1);
	CHECK(received == sent);
	lr_engine_free(engine);
	lr_link_close(peer);

	/* A turn that does not end. */
	may_start = true;
	begin(argv[1]);
	received = sent;
	next_turn();
	for (int i = 0; i < 50; i++) {
		CHECK(send_open(8) && send_open(8) && send_open(8));
		while (received < sent) /* the test has a time limit */
			arrived();
		if (i % 10 == 0) /* it has fallen asleep meanwhile */
			usleep(50000);
	}
	lr_engine_close(engine);
	lr_engine_free(engine);
	lr_link_close(peer);
	printf("%s: %u calls\n", argv[1], sent);
	return 0;
}
