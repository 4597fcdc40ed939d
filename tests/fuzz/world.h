/*
 * world.h - the environment of a fuzzed core: the input's bytes, a clock that stands still
 * unless a thread waits, and system calls that never block.
 *
 * Everything happens in one thread, so an input always does the same. Where the core
 * would sleep, world.idle() acts for all others: the peer, or another thread of this
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

/* With LR_FUZZ_TRACE set, print what happens, a line each. */
void world_trace(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* ---- the input: after its end all bytes are 0 ---- */

bool in_left(void);
uint8_t in_byte(void);
uint16_t in_u16(void);
uint64_t in_u64(void);
bool in_one_of(uint8_t n);         /* true about once in n times */
uint32_t in_size(uint32_t most);   /* of a message or a block: often near a limit */
const uint8_t *in_bytes(uint32_t size, uint32_t *got);

/* ---- the world ---- */

struct world {
	bool on; /* the system calls below are replaced */
	int64_t now;
	uint32_t depth; /* of nested waits */
	uint32_t steps; /* left for this input */
	uint32_t fails; /* the core's allocation that fails, counted from now; 0: none */
	bool failed;    /* one has */
	/* Let the peer or another thread do something. False: nothing is left to do. */
	bool (*idle)(void);
	bool (*locked)(void); /* is an engine's mutex held? then no thread may sleep */
	/* Nothing is left to do: let a thread that waits without a time limit return. */
	void (*end)(void);
};

extern struct world world;

void world_begin(const uint8_t *data, size_t size);
void world_finish(void);
/* What follows does not wait for what came before: it may look at the clock as often again. */
void world_acts(void);

/* For the harness: these do not fail. */
void *world_malloc(size_t size);
void *world_calloc(size_t size);

/* The message of that size that is sent and expected everywhere. */
const uint8_t *pattern(uint64_t size);
#define PATTERN_MAX (1u << 20)

#endif
