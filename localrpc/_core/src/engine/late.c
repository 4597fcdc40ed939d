/*
 * late.c - what a loop does not send in time.
 *
 * What a loop sends in one turn leaves with its first frame or when the turn ends, and what finds
 * no room leaves when the loop hears of room (loop.c). But a handler may compute for as long as
 * it likes, and a loop may stop. So a thread, one for all loops of the process, sends what a loop
 * has kept for LATE. It is started when a loop first keeps something, and sleeps until one does
 * again.
 *
 * SYNC no-lost-late: a loop stores since when it keeps something, then looks whether the thread
 * is awake; the thread stores that it sleeps, then looks whether a loop keeps something
 * (tests/model/late.pml).
 *
 * The registry's mutex is not kept while the thread is inside an engine, where a peer may make it
 * wait (bell.c says how); lr_late_remove and a fork wait until it has left. It only tries to take
 * an engine's mutex: where that fails, the loop is in the core at this moment.
 */
#include "engine.h"

#include <time.h>

#define TICK LR_MS
#define LATE (300 * LR_US)
#define LONGEST (32 * LR_MS) /* between two looks for room, of which the loop hears itself */
#define IDLE 20              /* ticks in which no turn kept anything, before it sleeps */
#define FORK_WAIT (100 * LR_MS)
#define STACK (256u << 10)

static pthread_mutex_t registry = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t left = PTHREAD_COND_INITIALIZER;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static struct lr_engine *engines;
static struct lr_engine *inside; /* where the thread is */
static struct lr_engine *cursor; /* where it looks next */
static bool started;
static _Atomic uint32_t awake;

/* A child's copy of an engine should not be one that the thread has half changed. */
static void before_fork(void)
{
	struct timespec until;
	int64_t at;

	clock_gettime(CLOCK_REALTIME, &until);
	at = until.tv_nsec + FORK_WAIT;
	until.tv_sec += at / 1000000000;
	until.tv_nsec = at % 1000000000;
	pthread_mutex_lock(&registry);
	while (inside && pthread_cond_timedwait(&left, &registry, &until) == 0)
		continue;
}

static void in_parent(void)
{
	pthread_mutex_unlock(&registry);
}

/* The thread and the parent's engines are not there. */
static void in_child(void)
{
	pthread_mutex_init(&registry, NULL);
	pthread_cond_init(&left, NULL);
	engines = inside = cursor = NULL;
	started = false;
	atomic_store(&awake, 0);
}

static void watch_forks(void)
{
	pthread_atfork(before_fork, in_parent, in_child);
}

void lr_late_add(struct lr_engine *e, void (*send_late)(struct lr_engine *))
{
	pthread_once(&once, watch_forks);
	pthread_mutex_lock(&registry);
	e->send_late = send_late;
	e->next_looped = engines;
	engines = e;
	pthread_mutex_unlock(&registry);
}

void lr_late_remove(struct lr_engine *e)
{
	struct lr_engine **place = &engines;

	pthread_mutex_lock(&registry);
	while (*place && *place != e)
		place = &(*place)->next_looped;
	if (*place)
		*place = e->next_looped;
	if (cursor == e)
		cursor = e->next_looped;
	while (inside == e)
		pthread_cond_wait(&left, &registry);
	pthread_mutex_unlock(&registry);
}

/* When it is to be looked at; INT64_MAX: it keeps nothing. */
static int64_t due_at(struct lr_engine *e)
{
	int64_t since = atomic_load(&e->held_since);

	if (since)
		return since + LATE;
	return atomic_load(&e->lacks_room) ? e->room_due : INT64_MAX;
}

static void look_at(struct lr_engine *e, int64_t now)
{
	inside = e;
	pthread_mutex_unlock(&registry);
	if (pthread_mutex_trylock(&e->lock) == 0) {
		e->room_pause = 2 * e->room_pause < LONGEST ? 2 * e->room_pause : LONGEST;
		if (e->room_pause < LATE) /* the last time something was sent */
			e->room_pause = LATE;
		e->room_due = now + e->room_pause;
		e->send_late(e);
	}
	pthread_mutex_lock(&registry);
	inside = NULL;
	pthread_cond_broadcast(&left);
}

/* Send what is late; when there may be more. `held`: did a turn keep something? */
static int64_t look_at_all(bool sends, bool *held)
{
	int64_t now = lr_now(), next = INT64_MAX;

	*held = false;
	pthread_mutex_lock(&registry);
	/* An engine that is removed meanwhile stays until this mutex is unlocked. */
	for (struct lr_engine *e = engines; e; e = cursor) {
		int64_t due;

		cursor = e->next_looped;
		*held |= atomic_load(&e->held_since) != 0;
		if (sends && now >= due_at(e))
			look_at(e, now);
		due = due_at(e);
		if (due < next)
			next = due;
	}
	pthread_mutex_unlock(&registry);
	return next;
}

static void *run(void *arg)
{
	struct timespec tick = {0, TICK};
	int idle = 0;
	bool held;

	for (;;) {
		int64_t next = look_at_all(true, &held);

		idle = held ? 0 : idle < IDLE ? idle + 1 : IDLE;
		if (idle < IDLE) {
			clock_nanosleep(CLOCK_MONOTONIC, 0, &tick, NULL);
			continue;
		}
		atomic_store(&awake, 0);
		next = look_at_all(false, &held);
		while (!atomic_load(&awake) && lr_now() < next)
			lr_futex_wait(&awake, 0, next == INT64_MAX ? 0 : next);
		if (atomic_exchange(&awake, 1))
			idle = 0; /* what woke it may be over: then the next turns need not wake it */
	}
	return arg;
}

/* Only for the thread that has set `awake`. */
static bool start(void)
{
	pthread_t thread;

	if (!started && lr_start_thread(&thread, run, NULL, STACK) == 0) {
		started = true;
		pthread_setname_np(thread, "localrpc-turns");
		pthread_detach(thread);
	}
	return started;
}

static void wake(void)
{
	if (atomic_load(&awake) || atomic_exchange(&awake, 1))
		return;
	if (start())
		lr_futex_wake(&awake);
	else /* it leaves when the turn ends; the next time another try is made */
		atomic_store(&awake, 0);
}

void lr_late_turn(struct lr_engine *e)
{
	if (atomic_load(&e->held_since))
		return;
	atomic_store(&e->held_since, lr_now());
	wake();
}

void lr_late_room(struct lr_engine *e)
{
	if (atomic_load(&e->lacks_room))
		return;
	e->room_pause = LATE;
	e->room_due = lr_now() + LATE;
	atomic_store(&e->lacks_room, true);
	wake();
}
