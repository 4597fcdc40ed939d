/* ring.h - the parts of a ring in shared memory: its memory (map.c), its wake-ups (bell.c). */
#ifndef LR_RING_H
#define LR_RING_H

#include "link.h"

/* ---- map.c ---- */

/* Map the control page and the ring, the ring twice; NULL with errno, or with *why. */
void *lr_map_ring(int memory, int fd, uint64_t size, int protection, const char **why);
void lr_unmap_ring(const void *ring, uint64_t size); /* does nothing for NULL */

/* ---- bell.c ---- */

/* Why this cannot be a peer's bell; or NULL. Without /proc its kind cannot be checked. */
const char *lr_bell_fault(int bell_fd);
bool lr_bell_ring(int bell_fd); /* false: not rung, because that could block */

#endif
