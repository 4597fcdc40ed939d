/* wire.h - what one side of a connection may send, according to PROTOCOL.md alone. */
#ifndef LR_FUZZ_WIRE_H
#define LR_FUZZ_WIRE_H

#include "world.h"

struct wire_call {
	uint64_t id;
	uint64_t big_left; /* of the large message that has begun */
	uint64_t outstanding;
	bool headers, spoken, half, last, ended;
	bool opened;
	bool reused; /* before this side sent its end: a frame may belong to either call */
};

struct wire {
	int role; /* of the sender */
	uint64_t window;
	struct wire_call *calls; /* all there were: frames of one may still come after its end */
	uint32_t used, room;
	uint8_t methods[LR_MAX_NAMES / 8];
	uint32_t name_bytes;
	bool last_goaway_came;
};

/* NULL, or what is wrong with the frame. */
const char *wire_check(struct wire *w, const struct lr_header *h, const uint8_t *payload);
/* The other side has granted `bytes`. */
void wire_granted(struct wire *w, uint64_t call, uint64_t bytes);

/* The other side uses this id, for the first time or again. */
void wire_opened(struct wire *w, uint64_t call);

void wire_free(struct wire *w);

#endif
