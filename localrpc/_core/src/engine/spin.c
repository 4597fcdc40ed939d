/*
 * spin.c - a loop that looks for frames before it sleeps, as a thread in lead.c does.
 *
 * Meanwhile the connections are not armed: a peer that sends rings no bell, and this side takes
 * no event. Only the loop's own thread calls lr_drain and this, so nothing else reads.
 */
#include "engine.h"

#include <poll.h>

#define LONGEST (150 * LR_US)   /* also for connections that spin always: a loop has other work */
#define FD_CHECK (20 * LR_US)

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

static int64_t budget_of(struct lr_engine **engines, uint32_t count)
{
	const struct lr_waiter w = {.wants = WANT_NEWS};
	int64_t longest = 0;

	for (uint32_t i = 0; i < count; i++) {
		int64_t budget = is_unarmed(engines[i]) ? lr_spin_budget(engines[i], &w) : 0;
		if (budget == LR_SPIN_ALWAYS || budget > LONGEST)
			budget = LONGEST;
		if (budget > longest)
			longest = budget;
	}
	return longest;
}

/* The loop will sleep: from now on peers have to ring. */
static int arm(struct lr_engine **engines, uint32_t count, uint8_t *due)
{
	int found = 0;

	for (uint32_t i = 0; i < count; i++) {
		struct lr_engine *e = engines[i];

		if (!e->unarmed || lr_enter(e) < 0)
			continue;
		e->unarmed = !lr_loop_arm(e);
		due[i] = e->unarmed;
		found += e->unarmed;
		lr_leave(e);
	}
	return found;
}

static void note_miss(struct lr_engine **engines, uint32_t count)
{
	for (uint32_t i = 0; i < count; i++)
		if (is_unarmed(engines[i]))
			engines[i]->spin_misses++;
}

int lr_loop_spin(struct lr_engine **engines, uint32_t count, int64_t timeout, int fd, uint8_t *due)
{
	int64_t start = lr_now(), now = start, looked_at = start, budget;
	uint16_t cpu = lr_cpu();
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
	if (found || !timeout)
		return found;
	budget = budget_of(engines, count);
	if (timeout > 0 && timeout < budget)
		budget = timeout;
	for (uint32_t turn = 1; budget; turn++) {
		if ((found = look(engines, count, due)))
			return found;
		lr_relax();
		if (turn & 15)
			continue;
		now = lr_now();
		if (now - looked_at > FD_CHECK) {
			looked_at = now;
			if (is_readable(fd)) {
				due[count] = 1;
				return 1;
			}
		}
		if (now - start > budget || lr_cpu() != cpu) {
			note_miss(engines, count);
			break;
		}
	}
	return arm(engines, count, due);
}
