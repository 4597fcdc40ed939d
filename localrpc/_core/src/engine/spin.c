/*
 * spin.c - a loop that looks for frames before it sleeps, as a thread in lead.c does.
 *
 * Meanwhile the connections are not armed: a peer that sends rings no bell, and this side takes
 * no event. Only the loop's own thread calls lr_drain and this, so nothing else reads.
 */
#include "engine.h"

#include <poll.h>
#include <sched.h>

#define LONGEST (150 * LR_US)   /* also for connections that spin always: a loop has other work */
#define FD_CHECK (20 * LR_US)
#define LOOKS 16                /* at engines, between two looks at the clock */
#define SWEEP (8 * LR_MS)       /* how often a busy loop arms engines that have become silent */

int lr_loop_spins(struct lr_engine *e)
{
	int r = lr_enter(e);

	if (r < 0)
		return r;
	e->loop_spins = true;
	lr_leave(e);
	return 0;
}

static bool is_unarmed(const struct lr_engine *e)
{
	return e->unarmed && e->fork_generation == lr_fork_generation();
}

static bool has_come(const struct lr_engine *e)
{
	for (uint32_t i = 0; i < e->npolled; i++) {
		const struct lr_conn *conn = e->polled[i];

		if (conn->dead || (!lr_conn_throttled(conn) && conn->link->ops->poll(conn->link)))
			return true;
	}
	return false;
}

static int look(struct lr_engine **engines, uint32_t count, uint8_t *due)
{
	int found = 0;

	for (uint32_t i = 0; i < count; i++)
		if (is_unarmed(engines[i]) && has_come(engines[i])) {
			engines[i]->spin_misses = 0;
			due[i] = 1;
			found++;
		}
	return found;
}

static bool is_readable(int fd)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};
	return poll(&p, 1, 0) > 0;
}

/* From now on its peers have to ring. Has something come meanwhile? */
static bool arm(struct lr_engine *e)
{
	bool more;

	if (!e->unarmed || lr_enter(e) < 0)
		return false;
	more = e->unarmed = !lr_loop_arm(e);
	lr_leave(e);
	return more;
}

static int arm_all(struct lr_engine **engines, uint32_t count, uint8_t *due)
{
	int found = 0;

	for (uint32_t i = 0; i < count; i++)
		found += due[i] = arm(engines[i]);
	return found;
}

struct plan {
	int64_t budget;
	bool yields; /* the peer of a connection that spins always needs this CPU */
	int found;
};

/* How long to look. Engines of which nothing is expected soon are armed, and not looked at. */
static struct plan plan_of(struct lr_engine **engines, uint32_t count, uint8_t *due)
{
	const struct lr_waiter w = {.wants = WANT_NEWS};
	struct plan plan = {0, false, 0};

	for (uint32_t i = 0; i < count; i++) {
		struct lr_engine *e = engines[i];
		int64_t budget = is_unarmed(e) ? lr_spin_budget(e, &w) : 0;

		if (!budget)
			plan.found += due[i] = arm(e);
		if (budget == LR_SPIN_ALWAYS)
			plan.yields |= lr_shares_cpu(e, lr_cpu());
		if (budget == LR_SPIN_ALWAYS || budget > LONGEST)
			budget = LONGEST;
		if (budget > plan.budget)
			plan.budget = budget;
	}
	return plan;
}

static void note_miss(struct lr_engine **engines, uint32_t count)
{
	for (uint32_t i = 0; i < count; i++)
		if (is_unarmed(engines[i]))
			engines[i]->spin_misses++;
}

int lr_loop_spin(struct lr_engine **engines, uint32_t count, int64_t timeout, int fd, uint8_t *due)
{
	int64_t start = lr_now(), now = start, looked_at = start;
	uint16_t cpu = lr_cpu();
	uint32_t looks = 0;
	struct plan plan;
	int found;

	memset(due, 0, count + 1);
	if (!count)
		return 0;
	found = look(engines, count, due);
	/* A socket's bytes make fd readable, too; but others must have their turn. */
	if (!found || now - engines[0]->last_epoll_check > FD_CHECK) {
		engines[0]->last_epoll_check = now;
		found += due[count] = is_readable(fd);
	}
	if (!found && (timeout || now - engines[0]->last_swept > SWEEP)) {
		engines[0]->last_swept = now;
		plan = plan_of(engines, count, due);
		found = plan.found;
	}
	if (found || !timeout)
		return found;
	if (timeout > 0 && timeout < plan.budget)
		plan.budget = timeout;
	while (plan.budget) {
		if ((found = look(engines, count, due)))
			return found;
		if (plan.yields)
			sched_yield();
		else
			lr_relax();
		looks += plan.yields ? LOOKS : count; /* a yield may take milliseconds */
		if (looks < LOOKS)
			continue;
		looks = 0;
		now = lr_now();
		if (now - looked_at > FD_CHECK) {
			looked_at = now;
			if (is_readable(fd)) {
				due[count] = 1;
				return 1;
			}
		}
		if (now - start > plan.budget || lr_cpu() != cpu) {
			note_miss(engines, count);
			break;
		}
	}
	return arm_all(engines, count, due);
}
