/*
 * heartbeat.c - heartbeats of a spool's sides, if neither can see the other's process.
 *
 * A thread touches our record. It considers the other side dead when that side has not touched
 * its own record for some heartbeats; or at once, on the same kernel, when its lock is gone.
 */
#include "heartbeat.h"

#include <fcntl.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define MOST_SILENT 5 /* heartbeats that may be missing */

bool lr_record_is_free(int record)
{
	if (record < 0 || flock(record, LOCK_SH | LOCK_NB) < 0)
		return false;
	flock(record, LOCK_UN);
	return true;
}

static void *run(void *argument)
{
	struct lr_heartbeat *p = argument;
	static const uint64_t one = 1;
	struct timespec last = {0};
	int64_t heard = lr_now(), now, until;
	struct stat st;

	for (;;) {
		futimens(p->ours, NULL);
		now = lr_now();
		if (fstat(p->theirs, &st) == 0 && memcmp(&st.st_mtim, &last, sizeof last)) {
			last = st.st_mtim;
			heard = now;
		}
		if ((p->near && lr_record_is_free(p->theirs)) || now - heard > p->patience)
			break;
		until = now + p->interval;
		while (!atomic_load(&p->stop) && lr_now() < until)
			lr_futex_wait(&p->stop, 0, until);
		if (atomic_load(&p->stop))
			return NULL;
	}
	if (write(p->dead_fd, &one, sizeof one) < 0)
		return NULL; /* full: it is readable already */
	return NULL;
}

int lr_heartbeat_begin(struct lr_heartbeat *p, const struct lr_spool_heartbeat *how)
{
	int dead = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);

	p->fork_generation = lr_fork_generation();
	p->interval = how->interval_ms * LR_MS;
	p->patience = how->peer_interval_ms ? how->peer_interval_ms * MOST_SILENT * LR_MS
					    : INT64_MAX;
	p->dead_fd = dead < 0 ? -1 : fcntl(dead, F_DUPFD_CLOEXEC, 0);
	p->running = p->dead_fd >= 0 && lr_start_thread(&p->thread, run, p, 64 << 10) == 0;
	if (p->running)
		return dead;
	lr_close_if(p->dead_fd);
	lr_close_if(dead);
	return -1;
}

void lr_heartbeat_end(struct lr_heartbeat *p)
{
	if (!p->running)
		return;
	if (p->fork_generation == lr_fork_generation()) {
		atomic_store(&p->stop, 1);
		lr_futex_wake(&p->stop);
		pthread_join(p->thread, NULL);
	}
	close(p->dead_fd);
	p->running = false;
}
