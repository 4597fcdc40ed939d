/* wake.c - waking parked threads, the leader and the service thread. */
#include "engine.h"

#include <sys/timerfd.h>
#include <unistd.h>

/* In addition to the grace of lr_service; and if useless wake-ups have been frequent. */
#define HANDLER_PATIENCE (100 * LR_US)
#define LONGER_PATIENCE LR_MS

void lr_wake(struct lr_engine *e, struct lr_waiter *w)
{
	if (!w || !w->parked || atomic_load(&w->word))
		return;
	atomic_store(&w->word, 1);
	if (e->nwakes < LR_WAKES)
		e->wakes[e->nwakes++] = w;
	else
		lr_futex_wake(&w->word);
}

void lr_wake_worker(struct lr_engine *e)
{
	if (e->leader && e->leader->wants == WANT_CALL)
		return; /* the leader takes the call itself */
	for (struct lr_waiter *w = e->first; w; w = w->next)
		if (w->wants == WANT_CALL && !atomic_load(&w->word)) {
			lr_wake(e, w);
			return;
		}
}

void lr_kick_leader(struct lr_engine *e)
{
	static const uint64_t one = 1;

	/* SYNC no-lost-kick: we store kicked, then load sleeping; the leader, in
	 * lr_sleep(), stores sleeping, then loads kicked. */
	atomic_store(&e->kicked, 1);
	switch (atomic_load(&e->sleeping)) {
	case ON_FUTEXES:
		lr_futex_wake(&e->kicked);
		break;
	case IN_LINK:
		e->slept_in->ops->interrupt(e->slept_in);
		break;
	case ON_EPOLL:
		if (write(e->kick_fd, &one, sizeof one) < 0)
			return; /* full: kicked already */
	}
}

/* With the mutex, as lr_drain takes the kick: then either of them sees the other. */
void lr_loop_kick(struct lr_engine *e)
{
	static const uint64_t one = 1;

	if (!atomic_exchange(&e->kicked, 1) && write(e->kick_fd, &one, sizeof one) < 0)
		return;
}

void lr_news_push(struct lr_engine *e, struct lr_call *call)
{
	if (call->at_news || call->place != OWNED)
		return;
	call->next_news = NULL;
	call->at_news = e->news_last;
	*e->news_last = call;
	e->news_last = &call->next_news;
	if (!e->leader)
		lr_loop_kick(e);
}

void lr_news_drop(struct lr_engine *e, struct lr_call *call)
{
	if (!call->at_news)
		return;
	*call->at_news = call->next_news;
	*(call->next_news ? &call->next_news->at_news : &e->news_last) = call->at_news;
	call->next_news = NULL;
	call->at_news = NULL;
}

void lr_wake_receiver(struct lr_engine *e, struct lr_call *call)
{
	if (e->looped)
		lr_news_push(e, call);
	else
		lr_wake(e, call->receiver);
}

void lr_wake_sender(struct lr_engine *e, struct lr_call *call)
{
	if (!e->looped) {
		lr_wake(e, call->sender);
	} else if (call->state & CALL_WANTS_CREDIT) {
		call->state &= ~(uint32_t)CALL_WANTS_CREDIT;
		call->state |= CALL_HAS_CREDIT;
		lr_news_push(e, call);
	}
}

void lr_wake_all(struct lr_engine *e)
{
	for (struct lr_waiter *w = e->first; w; w = w->next)
		lr_wake(e, w);
	if (e->looped)
		lr_loop_kick(e);
	else if (e->leader)
		lr_kick_leader(e);
}

void lr_service_ring(struct lr_engine *e)
{
	static const uint64_t one = 1;

	if (e->service_kick < 0)
		return;
	/* SYNC no-lost-service: as no-lost-kick, with service_work and service_sleeping. */
	atomic_store(&e->service_work, 1);
	if (atomic_load(&e->service_sleeping) && write(e->service_kick, &one, sizeof one) < 0)
		return;
}

void lr_service_alarm(struct lr_engine *e)
{
	struct itimerspec soon = {.it_value.tv_nsec = HANDLER_PATIENCE};

	/* Setting a timer can take longer than a call does: set it once, not for each handler. */
	if (e->alarm_set)
		return;
	if (e->useless_wakes >= LR_USELESS_WAKES)
		soon.it_value.tv_nsec = LONGER_PATIENCE;
	e->alarm_set = timerfd_settime(e->service_alarm, 0, &soon, NULL) == 0;
}

void lr_service_again(struct lr_engine *e)
{
	e->recheck_deadlines = true;
	if (e->looped) {
		if (!e->leader)
			lr_loop_kick(e);
		return;
	}
	if (e->role == LR_SERVER)
		lr_service_ring(e);
	if (e->leader && e->leader->wants == WANT_SERVICE)
		lr_kick_leader(e);
	for (struct lr_waiter *w = e->first; w; w = w->next)
		if (w->wants == WANT_SERVICE)
			lr_wake(e, w);
}

void lr_request_read(struct lr_engine *e)
{
	if (e->looped)
		lr_loop_kick(e);
	else if (e->leader)
		lr_kick_leader(e);
	else if (e->first)
		lr_wake(e, e->first);
	else
		lr_service_ring(e);
}
