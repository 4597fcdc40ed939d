/* bytes.h - a byte-stream link on a real byte channel, and what it must return. */
#ifndef LR_FUZZ_BYTES_H
#define LR_FUZZ_BYTES_H

#include "world.h"

/* The other end of the byte channel, which the fuzzer controls. No function waits. */
struct far {
	size_t (*feed)(const uint8_t *data, size_t size); /* as much as there is room for */
	ssize_t (*drain)(uint8_t *data, size_t size);     /* 0: nothing there; -1: an end */
	void (*end)(void);
	/* Do what no correct peer does. True: from now on the link may report that the byte channel
	 * is closed, or at its end. */
	bool (*misbehave)(uint8_t which);
};

/* Use the link as the input chooses, and close it. */
void bytes_run(const struct far *far, struct lr_link *link);

#endif
