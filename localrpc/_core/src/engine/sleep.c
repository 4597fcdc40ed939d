/* sleep.c - spinning and sleeping: by the leader, without the mutex. */
#include "engine.h"

#include <sched.h>
#include <signal.h>

/*
 * Longer than a small handler, a frame each way and waking a thread: a peer that has slept
 * once answers late once, and does not count as slow.
 */
#define SPIN (150 * LR_US)
#define RECENT (8 * LR_MS) /* two ticks of the coarse clock */
#define SPIN_MISSES 4      /* in a row: then spin only every eighth time */
#define LONG_YIELD (500 * LR_US) /* another thread has run, too; usually some milliseconds */
#define SHORTEST_PAUSE 1024     /* calls without a yield after a long one, which takes as long as */
#define LONGEST_PAUSE 32768     /* a thousand others save; more if they are long again */
#define SHORT_YIELDS 4096       /* after this many the pause is halved */
#define IDLE_AFTER 8       /* sleeps without a frame */
#define SILENT (1000 * LR_MS) /* a server that always spins may sleep then */
#define EPOLL_CHECK LR_MS     /* how often a leader that always spins checks epoll and signals */

/*
 * ?wakeup=spin: a client's thread that waits for something of a call spins until it comes. A
 * server cannot know whether a call will come.
 */
static bool spins_always(const struct lr_engine *e, const struct lr_waiter *w,
	const struct lr_conn *conn, int64_t now)
{
	return conn->link->spin == LR_SPIN_ALWAYS && w->wants != WANT_SERVICE &&
	       (e->role == LR_CLIENT || now - conn->last_frame_at < SILENT);
}

int64_t lr_spin_budget(struct lr_engine *e, const struct lr_waiter *w)
{
	uint16_t cpu = lr_cpu();
	int64_t now, budget = 0;

	now = lr_now_coarse();
	for (uint32_t i = 0; i < e->npolled; i++)
		if (spins_always(e, w, e->polled[i], now))
			return LR_SPIN_ALWAYS;
	if (!cpu)
		return 0;
	for (uint32_t i = 0; i < e->npolled; i++) {
		struct lr_conn *conn = e->polled[i];
		uint16_t peer = atomic_load_explicit(&conn->link->peer_cpu, memory_order_relaxed);
		int64_t spin = conn->link->spin < 0 ? SPIN : conn->link->spin;

		if (peer && peer != cpu && now - conn->last_frame_at < RECENT && spin > budget)
			budget = spin;
	}
	if (budget && e->spin_misses >= SPIN_MISSES && (e->spin_misses++ & 7))
		return 0;
	return budget;
}

/*
 * Does a peer that sent a frame lately run on this CPU, so that spinning only keeps it from
 * running? A leader that can sleep in its link does not need to yield: sleeping costs no more.
 */
static bool shares_cpu_with_peer(const struct lr_engine *e)
{
	uint16_t cpu = lr_cpu();
	int64_t now = lr_now_coarse();

	for (uint32_t i = 0; cpu && i < e->npolled; i++) {
		const struct lr_conn *conn = e->polled[i];
		const struct lr_link_ops *ops = conn->link->ops;

		if (conn->link->spin && now - conn->last_frame_at < RECENT &&
		    atomic_load_explicit(&conn->link->peer_cpu, memory_order_relaxed) == cpu &&
		    !(ops->may_wait && ops->may_wait(conn->link)))
			return true;
	}
	return false;
}

bool lr_may_yield_cpu(struct lr_engine *e)
{
	if (!shares_cpu_with_peer(e))
		return false;
	if (e->yield_skip) {
		e->yield_skip--;
		return false;
	}
	return true;
}

/*
 * Such a peer runs when we yield, and its answer may be there when we return: then no thread
 * has slept and none was woken, which is most of what a call costs. Other threads on this
 * CPU also run when we yield, as long as they like, while a thread that wakes up runs
 * before them: yield seldom then. 1: something came; 0: nothing.
 */
int lr_yield_cpu(struct lr_engine *e)
{
	int64_t start = lr_now();
	bool found = false;

	sched_yield();
	for (uint32_t i = 0; i < e->npolled && !found; i++) {
		const struct lr_conn *conn = e->polled[i];
		found = !lr_conn_throttled(conn) && conn->link->ops->poll(conn->link);
	}
	e->yield_misses = found ? 0 : e->yield_misses + 1;
	if (lr_now() - start > LONG_YIELD) {
		e->yield_skip = e->yield_pause ? e->yield_pause : SHORTEST_PAUSE;
		if (e->yield_pause < LONGEST_PAUSE)
			e->yield_pause = 2 * e->yield_skip;
		e->short_yields = 0;
	} else if (!found) {
		e->yield_skip = e->yield_misses < SPIN_MISSES ? 0 : 7;
	} else if (++e->short_yields == SHORT_YIELDS) {
		e->short_yields = 0;
		e->yield_pause /= 2;
	}
	return found;
}

/* May a thread that always spins share its CPU with a peer? */
bool lr_shares_cpu(const struct lr_engine *e, uint16_t cpu)
{
	for (uint32_t i = 0; i < e->npolled; i++) {
		uint16_t peer = atomic_load_explicit(&e->polled[i]->link->peer_cpu,
			memory_order_relaxed);
		if (!peer || peer == cpu)
			return true;
	}
	return false;
}

/* 1: something came; 0: nothing came; LR_TIMEOUT; LR_AGAIN: check epoll and signals. */
int lr_spin(struct lr_engine *e, int64_t budget, int64_t deadline, bool tx_wanted)
{
	int64_t start = lr_now(), now;
	uint16_t cpu = lr_cpu();

	for (uint32_t turn = 1;; turn++) {
		for (uint32_t i = 0; i < e->npolled; i++)
			if (!lr_conn_throttled(e->polled[i]) &&
			    e->polled[i]->link->ops->poll(e->polled[i]->link)) {
				e->spin_misses = 0;
				return 1;
			}
		if (atomic_load_explicit(&e->kicked, memory_order_relaxed) ||
		    atomic_load_explicit(&e->check_epoll, memory_order_relaxed))
			return 1;
		lr_relax();
		if (turn & 15)
			continue;
		if (tx_wanted && budget != LR_SPIN_ALWAYS)
			return 1;
		now = lr_now();
		if (deadline && now >= deadline)
			return LR_TIMEOUT;
		if (budget == LR_SPIN_ALWAYS) {
			/* The thread that has to answer may wait for this CPU. */
			if (now - start > SPIN || lr_shares_cpu(e, lr_cpu()))
				sched_yield();
			if (now - e->last_epoll_check > EPOLL_CHECK) {
				e->last_epoll_check = now;
				return LR_AGAIN;
			}
			if (tx_wanted)
				return 1;
			continue;
		}
		if (now - start > budget || lr_cpu() != cpu) {
			e->spin_misses++;
			return 0;
		}
	}
}

/* Number of events, LR_TIMEOUT, or LR_AGAIN when a signal came. */
int lr_sleep(struct lr_engine *e, struct epoll_event *events, int64_t deadline,
	bool *slept)
{
	struct lr_futex words[LR_POLLED + 1];
	sigset_t block, before, inside;
	/* Read once: a connection that is added while we sleep may change it. */
	const int signo = atomic_load_explicit(&e->signo, memory_order_relaxed);
	uint32_t sleeper = 0, nwords = 0;
	bool quiet = true;
	uint32_t where;
	int n = 0;

	if (signo) {
		/* Blocked from before arming until inside the wait, so that a signal in between
		 * is not lost. */
		sigemptyset(&block);
		sigaddset(&block, signo);
		pthread_sigmask(SIG_BLOCK, &block, &before);
		inside = before;
		sigdelset(&inside, signo);
		sleeper = (uint32_t)signo << 24 | lr_tid();
		lr_signal_rang();
	}
	pthread_mutex_lock(&e->lock);
	where = lr_sleeps_in_link(e, deadline) ? IN_LINK
		: lr_sleeps_on_futexes(e)      ? ON_FUTEXES
					       : ON_EPOLL;
	/* SYNC no-lost-kick: partner of lr_kick_leader(). */
	atomic_store(&e->sleeping, where);
	if (atomic_load(&e->kicked) || e->ready || e->dead_conns)
		quiet = false;
	/* Epoll reports again what another thread saw there; futexes and links do not. */
	if (where != ON_EPOLL && atomic_load(&e->check_epoll))
		quiet = false;
	for (uint32_t i = 0; quiet && i < e->npolled;) {
		struct lr_conn *conn = e->polled[i];
		const struct lr_link_ops *ops = conn->link->ops;

		if (e->role == LR_SERVER && conn->idle_sleeps++ >= IDLE_AFTER) {
			quiet = lr_polled_leave(e, i);
			if (quiet)
				continue;
		} else if (where != IN_LINK) {
			uint32_t how = conn->link->signo ? sleeper : 0;
			bool armed;

			if (where == ON_FUTEXES) {
				how = (uint32_t)LR_WAKE_FUTEX << 24;
				/* SYNC no-lost-bell: before arming; partner of ring_bell(). */
				words[nwords++] = lr_futex_of(conn->link->futex,
					atomic_load(conn->link->futex), true);
			}
			armed = ops->arm(conn->link, how);
			quiet = (armed || lr_conn_throttled(conn)) && lr_conn_arm_room(conn) &&
				!lr_conn_check_end(conn);
		}
		i++;
	}
	if (where != ON_EPOLL && !e->npolled) { /* all are idle: only epoll reports their events */
		where = ON_EPOLL;
		atomic_store(&e->sleeping, where);
	}
	pthread_mutex_unlock(&e->lock);
	if (quiet && where == IN_LINK) {
		*slept = true;
		n = e->slept_in->ops->wait(e->slept_in);
		atomic_store(&e->sleeping, AWAKE);
		if (signo)
			pthread_sigmask(SIG_SETMASK, &before, NULL);
		if (n == 0 && deadline && lr_now() >= deadline)
			n = LR_TIMEOUT;
		return n > 0 ? 0 : n;
	}
	if (quiet && where == ON_FUTEXES) {
		words[nwords++] = lr_futex_of(&e->kicked, 0, false);
		*slept = true;
		n = lr_futex_wait_any(words, nwords, deadline);
		if (n == LR_INVALID)
			/* only the leader reads it, until it unlocks the mutex */
			e->no_futexes = true;
		atomic_store(&e->sleeping, AWAKE);
		if (signo)
			pthread_sigmask(SIG_SETMASK, &before, NULL);
		return n == LR_INVALID ? 0 : n;
	}
	if (quiet) {
		*slept = true;
		n = lr_wait_events(e->epoll_fd, events, LR_EVENTS, deadline,
			signo ? &inside : NULL);
	}
	atomic_store(&e->sleeping, AWAKE);
	if (signo)
		pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (n == -EINTR)
		return lr_signal_rang() ? 0 : LR_AGAIN;
	return n == 0 && quiet && deadline && lr_now() >= deadline ? LR_TIMEOUT : n < 0 ? 0 : n;
}
