/*
 * watch.c - the events that a leader does not get while it sleeps on futexes, or in its link.
 *
 * A server's service thread sleeps in an epoll set anyway. For a client a thread is started
 * here when its leader first sleeps in such a place. It waits for the peer's death and, for
 * a leader on futexes, for bells that are descriptors. A link's receive call has no timeout,
 * so for a leader in a link it also waits for the leader's deadline. It is not woken for each
 * sleep: it checks when an earlier deadline would have passed, and only an even earlier
 * one wakes it.
 *
 * SYNC no-lost-kick holds for a leader in its link, too: an interrupt stays in the link until
 * it is read there.
 *
 * A leader that sleeps on futexes waits for any of several words to change: a bell of each
 * polled connection, in shared memory and written by its peer, and e->kicked, of this engine.
 * The watcher passes on as a kick what only epoll reports: the peer's end, an idle
 * connection's eventfd.
 *
 * No wake-up is lost, pair by pair:
 *
 *	a frame, room	SYNC no-lost-bell: the sleeper loads the bell, then arms (an
 *			odd epoch, then looks again); the ringer publishes, sees the
 *			odd epoch, then adds to the bell. So a ring for this epoch
 *			comes after the load, and the kernel, which compares under
 *			its own lock, does not let the sleeper in. An older ring only
 *			ends the sleep early.
 *	a kick		SYNC no-lost-kick, as above; and the kernel compares kicked.
 *	epoll		a thread that takes an event stores check_epoll, then kicks, with
 *			the mutex; the leader, with the mutex, loads check_epoll after it
 *			stored that it sleeps on futexes. The next leader sees it, too.
 *	the watcher	a server's leader sleeps so only while service_watches, which
 *			lr_service clears with a kick before it leaves its set.
 */
#include "engine.h"

#include <sys/eventfd.h>
#include <unistd.h>

_Static_assert(LR_POLLED + 1 <= 128, "FUTEX_WAITV_MAX");

static void kick_watcher(struct lr_engine *e)
{
	static const uint64_t one = 1;

	if (write(e->watch_kick, &one, sizeof one) < 0)
		return; /* full: kicked already */
}

/* Kick the leader after an event or at its deadline; set when to check again. */
static void kick_if_due(struct lr_engine *e, bool event)
{
	bool late = e->wake_leader_at && lr_now() >= e->wake_leader_at;

	if (late)
		e->wake_leader_at = 0;
	if (event)
		atomic_store(&e->check_epoll, 1);
	if (e->leader && (event || late))
		lr_kick_leader(e);
	e->watch_until = e->wake_leader_at;
}

static void *watch(void *arg)
{
	struct lr_engine *e = arg;
	struct epoll_event events[2];
	int64_t until = 0;

	for (;;) {
		int n = lr_wait_events(e->watch_epoll, events, 2, until, NULL);
		bool event = false;
		uint64_t count;

		for (int i = 0; i < n; i++)
			if (events[i].data.u64 != EVENT_KICK)
				event = true;
			else if (read(e->watch_kick, &count, sizeof count) < 0)
				continue;
		pthread_mutex_lock(&e->lock);
		if (e->watch_over) {
			pthread_mutex_unlock(&e->lock);
			return NULL;
		}
		kick_if_due(e, event);
		until = e->watch_until;
		pthread_mutex_unlock(&e->lock);
	}
}

static bool start_watching(struct lr_engine *e)
{
	const struct lr_link *link = e->conns[0]->link;
	struct epoll_event kick = {.events = EPOLLIN, .data.u64 = EVENT_KICK};
	/* Edge-triggered: an event that is pending already counts as one. */
	struct epoll_event others = {.events = EPOLLIN | EPOLLET, .data.u64 = EVENT_BELL};
	/* The leader's whole set; for a leader in its link, only the peer's death. */
	int fd = link->ops->wait ? link->pidfd : e->epoll_fd;

	e->watch_epoll = epoll_create1(EPOLL_CLOEXEC);
	e->watch_kick = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (e->watch_epoll < 0 || e->watch_kick < 0 ||
	    epoll_ctl(e->watch_epoll, EPOLL_CTL_ADD, e->watch_kick, &kick) < 0 ||
	    (fd >= 0 && epoll_ctl(e->watch_epoll, EPOLL_CTL_ADD, fd, &others) < 0) ||
	    lr_start_thread(&e->watcher, watch, e, 0) != 0)
		return false;
	pthread_setname_np(e->watcher, "localrpc-watch");
	return true;
}

static bool is_watched(struct lr_engine *e)
{
	if (e->role == LR_SERVER) /* no thread watches for the service thread while it leads */
		return e->service_watches && e->leader->wants != WANT_SERVICE;
	if (!e->watched_by_thread && !e->no_watcher) {
		e->watched_by_thread = start_watching(e);
		e->no_watcher = !e->watched_by_thread;
	}
	return e->watched_by_thread;
}

/* May the leader sleep on futexes? Otherwise on epoll. With the mutex. */
bool lr_sleeps_on_futexes(struct lr_engine *e)
{
	if (e->no_futexes || !e->npolled)
		return false;
	for (uint32_t i = 0; i < e->npolled; i++)
		if (!e->polled[i]->link->futex) /* a socket, or another kind of wake-up */
			return false;
	return is_watched(e);
}

bool lr_sleeps_in_link(struct lr_engine *e, int64_t deadline)
{
	struct lr_conn *conn = e->npolled == 1 ? e->polled[0] : NULL;

	if (!conn || !conn->link->ops->wait || lr_conn_wants_room(conn) || lr_conn_throttled(conn) ||
	    !conn->link->ops->may_wait(conn->link))
		return false;
	if ((e->role == LR_SERVER && deadline) || !is_watched(e))
		return false;
	e->slept_in = conn->link;
	if (e->role == LR_SERVER)
		return true;
	e->wake_leader_at = deadline;
	if (deadline && (!e->watch_until || deadline < e->watch_until)) {
		e->watch_until = deadline;
		kick_watcher(e);
	}
	return true;
}

/* No thread is inside the engine; in a forked child the watcher does not exist. */
void lr_watch_end(struct lr_engine *e)
{
	if (e->fork_generation == lr_fork_generation()) {
		bool ours;

		/* Two threads may both be the last to leave: one of them joins it. */
		pthread_mutex_lock(&e->lock);
		ours = e->watched_by_thread;
		if (!ours && e->watch_over) {
			pthread_mutex_unlock(&e->lock);
			return;
		}
		e->watched_by_thread = false;
		e->watch_over = true;
		pthread_mutex_unlock(&e->lock);
		if (ours) {
			kick_watcher(e);
			pthread_join(e->watcher, NULL);
		}
	}
	e->watched_by_thread = false;
	lr_close_if(e->watch_epoll);
	lr_close_if(e->watch_kick);
	e->watch_epoll = e->watch_kick = -1;
}
