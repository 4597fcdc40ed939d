/*
 * world.h - what a fuzzed core runs in: bytes to decide by, a clock that stands still
 * unless a thread waits, and system calls that never block.
 *
 * Everything happens in one thread, so an input always does the same. Where the core
 * would sleep, world.idle() plays all others: the peer, or another thread of this
 * process that calls the core meanwhile. So calls nest as threads would interleave.
 */
#ifndef LR_FUZZ_WORLD_H
#define LR_FUZZ_WORLD_H

#include "../../localrpc/_core/src/engine/engine.h"

#define CHECK(x)                                                                             \
	do {                                                                                 \
		if (!(x))                                                                    \
			world_fail("%s:%d: not true: %s", __FILE__, __LINE__, #x);           \
	} while (0)
#define COUNT(a) (sizeof(a) / sizeof *(a))

_Noreturn void world_fail(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* With LR_FUZZ_SAYS set: what happens, a line each. */
void world_says(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* ---- the input: 0 for ever behind its end ---- */

bool in_left(void);
uint8_t in_byte(void);
uint16_t in_u16(void);
uint64_t in_u64(void);
bool in_one_of(uint8_t n);         /* true once in n times, as a rule */
uint32_t in_size(uint32_t most);   /* of a message or a block: likes the limits */
const uint8_t *in_bytes(uint32_t size, uint32_t *got);

/* ---- the world ---- */

struct world {
	bool on; /* the system calls below are ours */
	int64_t now;
	uint32_t depth; /* of waits that are nested */
	uint32_t steps; /* left of this input */
	uint32_t fails; /* so many allocations from now one of the core's fails; 0: none */
	bool failed;    /* one has */
	/* Something happens elsewhere. False: nothing more ever will. */
	bool (*idle)(void);
	bool (*locked)(void); /* is an engine's mutex held? no thread sleeps so */
	/* Nothing comes any more: let a thread that waits without a time limit return. */
	void (*end)(void);
};

extern struct world world;

void world_begin(const uint8_t *data, size_t size);
void world_over(void);

/* For the harness: these do not fail. */
void *world_malloc(size_t size);
void *world_calloc(size_t size);

/* The message of that size that is sent and expected everywhere. */
const uint8_t *pattern(uint64_t size);
#define PATTERN_MAX (1u << 20)

#endif
