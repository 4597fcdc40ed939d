/* bytes.h - a byte-stream link on a real byte channel, and what must come of it. */
#ifndef LR_FUZZ_BYTES_H
#define LR_FUZZ_BYTES_H

#include "world.h"

/* The far end of the byte channel, in the fuzzer's hands. Nothing of it ever waits. */
struct far {
	size_t (*feed)(const uint8_t *data, size_t size); /* as much as there is room for */
	ssize_t (*drain)(uint8_t *data, size_t size);     /* 0: nothing there; -1: an end */
	void (*end)(void);
	/* What an honest peer does not do. True: the link may take the byte channel for closed,
	 * or for its end, from now on. */
	bool (*oddity)(uint8_t which);
};

/* Uses and closes the link, as the input says. */
void bytes_run(const struct far *far, struct lr_link *link);

#endif
