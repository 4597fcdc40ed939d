/* floor.c - what the benchmark calls floors: round trips over a bare link, without an engine. */
#include "core.h"

#include <string.h>

#define SPIN (150 * LR_US) /* as an engine's leader does */

/* The next frame, after a spin where the peer runs on another CPU. */
static int await(struct lr_link *link, struct lr_io *io)
{
	uint16_t cpu = lr_cpu();
	uint16_t peer = atomic_load_explicit(&link->peer_cpu, memory_order_relaxed);
	int64_t spin = link->spin < 0 ? SPIN : link->spin;

	if (spin && cpu && peer && peer != cpu) {
		int64_t until = lr_now() + spin;
		while (!link->ops->poll(link) && lr_now() < until)
			for (int turn = 0; turn < 16; turn++)
				lr_relax();
	}
	return lr_link_recv(link, io, 0);
}

int lr_floor_serve(struct lr_link *link, struct lr_io *io)
{
	for (;;) {
		int r = await(link, io);
		if (r == 1)
			r = lr_link_send(link, LR_T_MESSAGE, 0, 1, (const char *)io->buf,
				(uint32_t)io->size);
		if (r < 0)
			return r;
		if (r == 0) /* the client asks for nothing more before it has its answer */
			return LR_NOROOM;
	}
}

int64_t lr_floor_ping(struct lr_link *link, struct lr_io *io, const char *data, uint32_t len,
	int64_t ns, int64_t *taken, int64_t room)
{
	int64_t start = lr_now(), now = start, count = 0;

	while (now - start < ns && count < room) {
		int64_t then = now;
		int r = lr_link_send(link, LR_T_MESSAGE, 0, 1, data, len);
		if (r == 1)
			r = await(link, io);
		if (r != 1)
			return r ? r : LR_NOROOM;
		now = lr_now();
		taken[count++] = now - then;
	}
	return count;
}
