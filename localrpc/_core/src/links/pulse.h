/* pulse.h - how the two sides of a spool see each other's end: heartbeats, and locks. */
#ifndef LR_PULSE_H
#define LR_PULSE_H

#include "../util/util.h"

struct lr_pulse {
	int ours, theirs; /* records; the caller's, like `near` */
	bool near;        /* on the same kernel: a lock says whether it lives */
	bool beats;
	_Atomic uint32_t stop;
	pthread_t thread;
	int64_t interval, patience;
	int dead_fd; /* an eventfd */
	uint32_t fork_generation;
};

/* Readable when the peer is dead, now the caller's; -1 if there is no such thing to be had. */
int lr_pulse_begin(struct lr_pulse *pulse, const struct lr_spool_pulse *how);
void lr_pulse_end(struct lr_pulse *pulse); /* nothing for one that has not begun */
bool lr_record_is_free(int record); /* whose lock says that its process is gone */

#endif
