/*
 * leave.c - a thread leaves the engine. The last one inside removes dead connections, and
 * closes the descriptors of an engine that has been closed or whose connection is dead.
 *
 * Frames that a client's last thread leaves unsent are sent by the flush thread. A frame that
 * the link has taken must be finished, and there may be no room for the rest of it, or for
 * a posted frame. While a thread waits in the engine, it sends them as soon as there is room.
 * If the last thread leaves before, the flush thread waits instead: it is started when it is
 * first needed, and sleeps until it is needed again. On a server the service thread does this.
 */
#include "engine.h"

#include <time.h>

#define GRACE (200 * LR_US) /* for a thread that comes back at once, like one that sends a stream */
#define STACK (256u << 10)

static void flush(struct lr_engine *e, struct lr_conn *conn)
{
	struct lr_waiter w = {.wants = WANT_FLUSH, .ignores_signals = true, .conn = conn};

	conn->refs++;
	lr_wait(e, &w, 0);
	lr_conn_unref(conn);
}

static void *run(void *arg)
{
	struct lr_engine *e = arg;
	struct timespec grace = {0, GRACE};

	for (;;) {
		lr_futex_wait(&e->flush_wanted, 0, 0);
		if (!atomic_load(&e->flush_wanted))
			continue;
		clock_nanosleep(CLOCK_MONOTONIC, 0, &grace, NULL);
		pthread_mutex_lock(&e->lock);
		if (e->flush_over) {
			pthread_mutex_unlock(&e->lock);
			return NULL;
		}
		/* Before the check: frames left unsent from here on set it again. */
		atomic_store(&e->flush_wanted, 0);
		if (e->conns[0] && lr_conn_unsent(e->conns[0]))
			flush(e, e->conns[0]);
		lr_leave(e);
	}
}

static void flush_later(struct lr_engine *e)
{
	e->unsent_left = false;
	if (e->looped) { /* lr_drain arms it for room */
		lr_loop_kick(e);
		lr_late_room(e);
		return;
	}
	if (e->role != LR_CLIENT || !e->conns[0] || !lr_conn_unsent(e->conns[0]))
		return;
	if (!e->flushes && lr_start_thread(&e->flusher, run, e, STACK) == 0) {
		e->flushes = true;
		pthread_setname_np(e->flusher, "localrpc-flush");
	}
	if (!e->flushes)
		e->unsent_left = true; /* no thread could be started: the next thread to leave tries again */
	else if (!atomic_exchange(&e->flush_wanted, 1))
		lr_futex_wake(&e->flush_wanted);
}

/* Like lr_watch_end(); the flush thread itself may be the last one to leave an engine. */
void lr_flush_end(struct lr_engine *e)
{
	if (!e->flushes || e->fork_generation != lr_fork_generation())
		return;
	pthread_mutex_lock(&e->lock);
	e->flush_over = true;
	pthread_mutex_unlock(&e->lock);
	atomic_store(&e->flush_wanted, 1);
	lr_futex_wake(&e->flush_wanted);
	if (pthread_equal(pthread_self(), e->flusher))
		return;
	pthread_join(e->flusher, NULL);
	e->flushes = false;
}

void lr_close_fds(struct lr_engine *e)
{
	int *fds[] = {&e->epoll_fd, &e->kick_fd, &e->service_epoll, &e->service_kick,
		&e->service_alarm, &e->loop_timer};

	for (uint32_t i = 0; i < sizeof fds / sizeof *fds; i++) {
		lr_close_if(*fds[i]);
		*fds[i] = -1;
	}
}

/*
 * A closed engine may stay in memory for long, in a cycle that Python has not collected yet;
 * its descriptors are closed when the last thread that slept leaves. No wait can begin after
 * that, because the connections are dead.
 */
static bool close_if_finished(struct lr_engine *e)
{
	/* An event loop may watch them until it closes the engine. */
	if (e->looped && !e->closed)
		return false;
	if (e->leader || e->first || e->service_watches || e->dead_conns || e->epoll_fd < 0)
		return false;
	lr_close_fds(e);
	return true;
}

void lr_leave(struct lr_engine *e)
{
	bool retired;

	if (e->dead_conns && !e->leader)
		lr_remove_dead(e);
	if (e->unsent_left && !e->leader && !e->first)
		flush_later(e);
	retired = e->no_more_waits && close_if_finished(e);
	lr_unlock(e);
	if (retired) { /* they take the mutex */
		lr_watch_end(e);
		lr_flush_end(e);
	}
}
