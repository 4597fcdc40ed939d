/* ref.c - references to connections, and the bytes that each and its user are charged for. */
#include "engine.h"

void lr_conn_charge(struct lr_conn *conn, uint64_t *which, uint64_t cost)
{
	*which += cost;
	if (conn->user)
		conn->user->kept += cost;
}

void lr_conn_refund(struct lr_conn *conn, uint64_t *which, uint64_t cost)
{
	*which -= cost;
	if (conn->user)
		conn->user->kept -= cost;
}

bool lr_conn_may_queue(const struct lr_conn *conn, uint64_t size)
{
	const struct lr_user *user = conn->user;
	uint64_t limit = conn->engine->user_bytes, cost = lr_cost(sizeof(struct lr_item) + size);

	return !user || (user->kept <= limit && cost <= limit - user->kept);
}

struct lr_conn *lr_conn_get(struct lr_engine *e, uint32_t id)
{
	uint32_t slot = id & 0xfffff;
	struct lr_conn *conn = slot < e->nconns ? e->conns[slot] : NULL;
	return conn && conn->id == id ? conn : NULL;
}

/* Open file descriptions shared with the peer or a child outlive our descriptors: remove them
 * from epoll. ENOENT, for one that is not in a set any more, is the only possible error. */
void lr_conn_unwatch(struct lr_conn *conn)
{
	struct lr_engine *e = conn->engine;
	struct lr_link *link = conn->link;
	int fds[4] = {link->bell_fd, link->sock_fd, link->pidfd, link->room_fd};

	for (int i = 0; i < 4; i++) {
		if (fds[i] < 0)
			continue;
		epoll_ctl(e->epoll_fd, EPOLL_CTL_DEL, fds[i], NULL);
		if (e->service_epoll >= 0)
			epoll_ctl(e->service_epoll, EPOLL_CTL_DEL, fds[i], NULL);
	}
}

void lr_conn_unref(struct lr_conn *conn)
{
	struct lr_engine *e = conn->engine;
	struct lr_link *link = conn->link;

	if (--conn->refs)
		return;
	lr_conn_unwatch(conn);
	e->stats.bells += atomic_load(&link->bells);
	link->ops->destroy(link);
	lr_conn_refund(conn, &conn->named, conn->named);
	for (uint32_t i = 0; i < conn->names_size; i++)
		free(conn->names[i].text);
	free(conn->names);
	free(conn->by_slot);
	e->conns[conn->slot] = NULL;
	e->stats.conns--;
	e->counts->conns--;
	free(conn);
}
