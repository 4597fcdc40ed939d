/* peer.h - a peer that the input makes up: it may keep the protocol, and need not. */
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
	bool limits; /* its user's, of bytes and calls */
	uint32_t prods; /* times that a link's bell rings for nothing, one after the other */
	uint32_t prodded;
};

void peer_connect(struct peer *p);
void peer_act(struct peer *p);
bool peer_prods(struct peer *p); /* if it has to, and has */

#endif
