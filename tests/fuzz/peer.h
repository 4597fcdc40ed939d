/* peer.h - a peer that the input controls: it may keep or break the protocol. */
#ifndef LR_FUZZ_PEER_H
#define LR_FUZZ_PEER_H

#include "actor.h"

struct peer_call {
	uint64_t id;
	uint64_t big_left;
};

struct peer {
	struct actor *of; /* the engine it talks to */
	struct peer_call calls[4][8];
	uint32_t generation;
	uint64_t window;
	bool limits; /* its user has limits, for bytes and calls */
	uint32_t rings_without_reason; /* rings of a link's bell in a row without a reason */
	uint32_t prodded;
};

void peer_connect(struct peer *p);
void peer_act(struct peer *p);
bool peer_ring_without_reason(struct peer *p); /* if it has to, and has */

#endif
