/* heartbeat.h - how each side of a spool sees the other's end: heartbeats, and locks. */
#ifndef LR_HEARTBEAT_H
#define LR_HEARTBEAT_H

#include "../util/util.h"

struct lr_heartbeat {
	int ours, theirs; /* records; owned by the caller, like `near` */
	bool near;        /* on the same kernel: a lock shows whether the other side lives */
	bool running;
	_Atomic uint32_t stop;
	pthread_t thread;
	int64_t interval, patience;
	int dead_fd; /* an eventfd */
	uint32_t fork_generation;
};

/* A descriptor, now the caller's, that is readable when the peer is dead; -1 if it fails. */
int lr_heartbeat_begin(struct lr_heartbeat *heartbeat, const struct lr_spool_heartbeat *how);
void lr_heartbeat_end(struct lr_heartbeat *heartbeat); /* does nothing if it has not begun */
bool lr_record_is_free(int record); /* if its lock is free, its process is gone */

#endif
