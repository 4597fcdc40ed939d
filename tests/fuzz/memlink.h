/*
 * memlink.h - a link in memory: frames that the input made, or that another engine sent.
 *
 * It is as small, as slow or as dead as the input says, and every payload lies in a
 * block of its own size, so that AddressSanitizer sees a read beyond it.
 */
#ifndef LR_FUZZ_MEMLINK_H
#define LR_FUZZ_MEMLINK_H

#include "wire.h"

struct mem_frame {
	struct mem_frame *next;
	struct lr_header h;
	uint8_t *payload;
	bool peeked;
};

struct memlink {
	struct lr_link link;
	struct lr_engine *engine;
	struct memlink *other;  /* an engine's; NULL: the peer is the input */
	struct memlink **place; /* set to NULL when it is destroyed */
	struct mem_frame *first, **last; /* received and not consumed */
	uint64_t waiting;                /* their bytes */
	struct mem_frame *half;          /* a frame that is sent in part */
	struct mem_frame *held, **last_held; /* to be sent by the flush */
	int64_t room;                    /* bytes that it still accepts */
	uint64_t sent, seen;             /* bytes; seen: by a peer that has gone */
	uint64_t epoch;                  /* odd: the peer sleeps */
	bool eof, garbage, closed, armed, room_armed, partial, gathers;
	int far_end; /* of sock_fd, where that is a socket */
	struct wire wire; /* the rules for what the engine sends */
};

/* A link like a ring, with a socket, or like a stream; NULL: no descriptor is left. */
struct memlink *memlink_new(struct lr_engine *e, int role, uint64_t window, uint8_t like);
void memlink_join(struct memlink *a, struct memlink *b);
void memlink_deliver(struct memlink *m, const struct lr_header *h, const uint8_t *payload);
void memlink_grant(struct memlink *m, uint64_t bytes); /* room */
void memlink_end(struct memlink *m); /* the peer has gone */
void memlink_bell(struct memlink *m);
extern uint32_t memlinks; /* how many are not destroyed */

#define MEM_RINGLIKE 1
#define MEM_PIDFD 2
#define MEM_RELEASES 4
#define MEM_ROOM_FD 8
#define MEM_PARTIAL 16
#define MEM_SPINS 32
#define MEM_LAZY 64
#define MEM_GATHERS 128

#endif
