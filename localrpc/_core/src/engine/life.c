/* life.c - engines: creating, closing, freeing and inspecting them. */
#include "engine.h"

#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <unistd.h>

static int watch(int epoll, int fd, uint32_t events, uint64_t data)
{
	struct epoll_event ev = {.events = events, .data.u64 = data};
	return epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &ev);
}

struct lr_engine *lr_engine_new(int role, uint64_t window, int64_t max_receive, int64_t max_calls)
{
	struct lr_engine *e = calloc(1, sizeof *e);
	bool server = role == LR_SERVER;

	if (!e)
		return NULL;
	e->role = role;
	e->window = window;
	e->max_receive = max_receive;
	e->max_calls = max_calls;
	e->user_calls = e->user_waiting = -1;
	e->user_bytes = UINT64_MAX;
	e->fork_generation = lr_fork_generation();
	e->counts = &e->own_counts;
	e->queue_last = &e->queue;
	e->ended_last = &e->ended;
	e->ready_last = &e->ready;
	pthread_mutex_init(&e->lock, NULL);
	e->news_last = &e->news;
	e->watch_epoll = e->watch_kick = e->loop_timer = -1;
	e->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	e->kick_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	e->service_epoll = server ? epoll_create1(EPOLL_CLOEXEC) : -1;
	e->service_kick = server ? eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK) : -1;
	e->service_alarm = -1;
	if (e->epoll_fd < 0 || e->kick_fd < 0 || (server && (e->service_epoll < 0 ||
							     e->service_kick < 0)) ||
	    watch(e->epoll_fd, e->kick_fd, EPOLLIN, EVENT_KICK) < 0 ||
	    (server && watch(e->service_epoll, e->service_kick, EPOLLIN, EVENT_KICK) < 0)) {
		int saved = errno;
		lr_engine_free(e);
		errno = saved;
		return NULL;
	}
	return e;
}

/* Links that are not armed for each handler need the alarm; most engines have none. */
static int need_alarm(struct lr_engine *e, const struct lr_link *link)
{
	if (!link->lazy || e->role != LR_SERVER || e->service_alarm >= 0 || e->looped)
		return 0;
	e->service_alarm = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	return e->service_alarm < 0 ? -1
				    : watch(e->service_epoll, e->service_alarm, EPOLLIN, EVENT_ALARM);
}

static int watch_conn(struct lr_engine *e, struct lr_conn *conn)
{
	struct lr_link *link = conn->link;
	uint64_t id = (uint64_t)conn->id << 8;
	/*
	 * The leader's set first: the kernel wakes one exclusive sleeper, in this order, and
	 * passes over a set in which no thread sleeps. So the service thread is woken only while
	 * no leader sleeps.
	 */
	int sets[2] = {e->epoll_fd, e->service_epoll};
	uint32_t edges = EPOLLET | (e->role == LR_SERVER ? EPOLLEXCLUSIVE : 0);
	uint32_t how = EPOLLIN | edges, rung = (uint32_t)lr_bell_events(link) | edges;

	for (int i = 0; i < 2; i++) {
		if (sets[i] < 0)
			continue;
		if (watch(sets[i], link->bell_fd, rung, id | EVENT_BELL) < 0 ||
		    (link->sock_fd != link->bell_fd &&
			    watch(sets[i], link->sock_fd, how, id | EVENT_SOCKET) < 0) ||
		    (link->pidfd >= 0 &&
			    watch(sets[i], link->pidfd, how, id | EVENT_PIDFD) < 0))
			return -1;
	}
	return 0;
}

static struct lr_user *user_of(struct lr_engine *e, int64_t uid)
{
	struct lr_user *user = e->users;

	while (user && user->uid != uid)
		user = user->next;
	if (!user && (user = calloc(1, sizeof *user))) {
		user->uid = uid;
		user->next = e->users;
		e->users = user;
	}
	return user;
}

int lr_limit_users(struct lr_engine *e, int64_t calls, uint64_t bytes)
{
	int r = lr_enter(e);

	if (r < 0)
		return r;
	e->user_calls = calls;
	e->user_bytes = bytes;
	lr_leave(e);
	return 0;
}

int lr_limit_waiting(struct lr_engine *e, int64_t calls)
{
	int r = lr_enter(e);

	if (r < 0)
		return r;
	e->user_waiting = calls;
	lr_leave(e);
	return 0;
}

static int64_t add(struct lr_engine *e, struct lr_link *link, uint64_t peer_window,
	const int64_t *uid)
{
	struct lr_conn *conn = NULL, **conns;
	struct lr_user *user = NULL;
	uint32_t slot = 0, id;
	int r = lr_enter(e);

	if (r < 0 || (uid && !(user = user_of(e, *uid))) || !(conn = calloc(1, sizeof *conn))) {
		link->ops->destroy(link);
		if (r == 0)
			lr_leave(e);
		return r < 0 ? r : LR_NOMEM;
	}
	while (slot < e->nconns && e->conns[slot])
		slot++;
	if (slot == e->nconns) {
		conns = realloc(e->conns, (e->nconns + 1) * sizeof *conns);
		if (conns) {
			e->conns = conns;
			e->conns[e->nconns++] = NULL;
		}
	}
	conn->engine = e;
	conn->user = user;
	conn->link = link;
	conn->slot = slot;
	conn->id = (e->conn_generation++ & 0xfff) << 20 | slot;
	conn->refs = 1; /* the table's */
	conn->out_last = &conn->out;
	conn->held_last = &conn->held;
	conn->peer_window = peer_window;
	if (slot >= e->nconns || slot > 0xfffff || e->closed ||
	    need_alarm(e, link) < 0 || watch_conn(e, conn) < 0) {
		snprintf(e->reason, sizeof e->reason, LR_UNWATCHED, strerror(errno));
		lr_conn_unwatch(conn);
		link->ops->destroy(link);
		free(conn);
		lr_leave(e);
		return LR_NOMEM;
	}
	e->conns[slot] = conn;
	e->stats.conns++;
	e->counts->conns++;
	e->counts->connected++;
	if (link->signo)
		atomic_store_explicit(&e->signo, link->signo, memory_order_relaxed);
	lr_conn_ready(conn);
	lr_request_read(e);
	id = conn->id; /* after unlocking it may have ended already, and be freed */
	lr_leave(e);
	return id;
}

int64_t lr_engine_add(struct lr_engine *e, struct lr_link *link, uint64_t peer_window)
{
	return add(e, link, peer_window, NULL);
}

int64_t lr_engine_admit(struct lr_engine *e, struct lr_link *link, uint64_t peer_window,
	int64_t uid)
{
	return add(e, link, peer_window, &uid);
}

/* The last GOAWAY says which calls the server took up, for those it read too late or never. */
static void send_last_goaway(struct lr_conn *conn)
{
	struct iovec iov = {&conn->begun, sizeof conn->begun};

	if (conn->engine->role == LR_SERVER)
		lr_conn_put(conn, LR_T_GOAWAY, LR_F_END, 0, &iov, 1);
}

void lr_engine_close(struct lr_engine *e)
{
	if (lr_enter(e) < 0)
		return;
	e->closed = e->no_more_waits = true;
	if (e->entry)
		lr_page_leave(e->entry, false);
	for (uint32_t i = 0; i < e->nconns; i++)
		if (e->conns[i]) {
			lr_conn_flush(e->conns[i]); /* send what there is room for */
			send_last_goaway(e->conns[i]);
			lr_conn_die(e->conns[i], LR_CLOSED, "closed by this side");
		}
	/* lr_service will not report these any more, and the peer waits for our end to close. */
	while (e->unreported) {
		struct lr_conn *conn = e->unreported;
		e->unreported = conn->next_unreported;
		lr_conn_unref(conn);
	}
	lr_wake_all(e);
	lr_service_again(e);
	lr_leave(e);
}

static void drop_links(struct lr_engine *e)
{
	for (uint32_t i = 0; i < e->nconns; i++)
		if (e->conns[i] && e->conns[i]->link) {
			e->conns[i]->link->ops->destroy(e->conns[i]->link);
			e->conns[i]->link = NULL;
		}
}

/*
 * In a forked child: close this process's copies of the parent's descriptors. Not if another
 * thread held the mutex during the fork: the state is unknown then, and lr_engine_free() does.
 */
void lr_engine_disown(struct lr_engine *e)
{
	if (e->fork_generation == lr_fork_generation() || pthread_mutex_trylock(&e->lock) != 0)
		return;
	drop_links(e);
	pthread_mutex_unlock(&e->lock);
}

/* No thread is inside, and none will enter. */
void lr_engine_free(struct lr_engine *e)
{
	struct lr_conn *conn;

	if (e->fork_generation != lr_fork_generation()) {
		/* In a forked child: a thread that does not exist here may hold the mutex, and
		 * shared objects are the parent's. Close only this process's descriptors. */
		drop_links(e);
	} else {
		lr_engine_close(e);
		if (e->looped)
			lr_late_remove(e);
		lr_watch_end(e); /* it takes the mutex */
		lr_flush_end(e);
		pthread_mutex_lock(&e->lock);
		while ((conn = lr_ready_pop(e)))
			lr_conn_unref(conn);
		while ((conn = e->rings)) {
			e->rings = conn->next_ring;
			lr_conn_unref(conn);
		}
		while (e->unreported) {
			conn = e->unreported;
			e->unreported = conn->next_unreported;
			lr_conn_unref(conn);
		}
		for (uint32_t i = 0; i < e->ncalls; i++)
			if (e->calls[i]->life)
				lr_call_free(e, e->calls[i]);
		lr_remove_dead(e);
		lr_count_out(e);
		pthread_mutex_unlock(&e->lock);
		pthread_mutex_destroy(&e->lock);
	}
	lr_table_free(e);
	for (uint32_t i = 0; i < e->ninterned; i++)
		free(e->interned[i].text);
	while (e->users) {
		struct lr_user *user = e->users;
		e->users = user->next;
		free(user);
	}
	if (e->entry && e->fork_generation == lr_fork_generation())
		lr_page_leave(e->entry, true); /* nothing counts there any more */
	if (e->load)
		lr_drop_page(e->load, e->load_fd);
	free(e->interned);
	free(e->conns);
	free(e->watched);
	if (e->fork_generation != lr_fork_generation())
		lr_watch_end(e); /* close its descriptors; in its own process it has ended before */
	lr_close_fds(e);
	free(e);
}

static int alive(struct lr_engine *e, bool look)
{
	struct lr_waiter w = {.wants = WANT_SERVICE};
	int r = lr_enter(e);

	if (r < 0)
		return r;
	if (look && !e->leader && !e->closed)
		lr_wait(e, &w, 1);
	if (!e->nconns || !e->conns[0] || e->conns[0]->dead || e->closed)
		r = LR_CLOSED;
	else
		r = e->goaway_came ? 0 : 1;
	lr_leave(e);
	return r;
}

int lr_engine_alive(struct lr_engine *e)
{
	return alive(e, false);
}

int lr_engine_look(struct lr_engine *e)
{
	return alive(e, true);
}

void lr_engine_stats(struct lr_engine *e, struct lr_stats *stats)
{
	memset(stats, 0, sizeof *stats);
	if (lr_enter(e) < 0)
		return;
	*stats = e->stats;
	for (uint32_t i = 0; i < e->nconns; i++) {
		const struct lr_conn *conn = e->conns[i];
		if (!conn)
			continue;
		stats->bells += atomic_load(&conn->link->bells);
		stats->queued_bytes += conn->queued + conn->posted;
		stats->posted_bytes += conn->posted;
		stats->name_bytes += conn->named;
		stats->held_calls += conn->nheld;
	}
	for (const struct lr_user *user = e->users; user; user = user->next) {
		stats->user_bytes += user->kept;
		stats->waiting_calls += (uint64_t)user->waiting;
	}
	stats->live_calls = (uint64_t)e->live;
	stats->miscounted = lr_audit(e);
	lr_leave(e);
}

int lr_publish(struct lr_engine *e, const char *name)
{
	int r = lr_enter(e);

	if (r < 0)
		return r;
	if (e->entry)
		lr_page_rename(e->entry, name);
	else if ((e->entry = lr_page_enter(e->role, name)))
		lr_count_in(e, &e->entry->counts);
	lr_leave(e);
	return 0;
}

int lr_load_page(struct lr_engine *e)
{
	int r = lr_enter(e);

	if (r < 0)
		return r;
	if (!e->load)
		e->load = lr_shared_page(&e->load_fd);
	r = e->load ? e->load_fd : -1;
	lr_leave(e);
	return r;
}

int64_t lr_live(struct lr_engine *e)
{
	int64_t r = lr_enter(e);

	if (r < 0)
		return r;
	r = e->live;
	lr_leave(e);
	return r;
}

int lr_engine_error(struct lr_engine *e, char *text, int size)
{
	int r = lr_enter(e);

	if (r < 0)
		return r;
	lr_fill_error(text, size, "%s", e->reason);
	lr_leave(e);
	return 0;
}

int lr_engine_faulty(struct lr_engine *e)
{
	int r = lr_enter(e);

	if (r < 0)
		return r;
	r = e->faulty;
	lr_leave(e);
	return r;
}

int lr_goaway(struct lr_engine *e, const char *block, uint32_t len)
{
	struct iovec iov = {(void *)(uintptr_t)block, len};
	int r = lr_enter(e);

	if (r < 0)
		return r;
	e->refusing = true;
	for (uint32_t i = 0; i < e->nconns; i++)
		if (e->conns[i] && !e->conns[i]->dead)
			lr_conn_post(e->conns[i], LR_T_GOAWAY, 0, 0, &iov, 1);
	lr_service_again(e);
	lr_leave(e);
	return 0;
}

void lr_kick(struct lr_engine *e)
{
	if (lr_enter(e) < 0)
		return;
	e->service_yields = 1;
	lr_service_again(e);
	lr_leave(e);
}
