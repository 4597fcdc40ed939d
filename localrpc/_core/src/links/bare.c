/* bare.c - a link without an engine: for tests and for the benchmark. */
#include "link.h"

#include <poll.h>
#include <unistd.h>

void lr_link_close(struct lr_link *link)
{
	link->ops->destroy(link);
}

int lr_link_send(struct lr_link *link, int type, int flags, uint64_t call, const char *payload,
	uint32_t len)
{
	struct lr_header header = {len, (uint8_t)type, (uint8_t)flags, 0, call};
	struct iovec iov = {(void *)(uintptr_t)payload, len};
	int r = link->ops->send(link, &header, &iov, 1);

	if (link->ring_due) {
		link->ops->ring(link);
		link->ops->rung(link, link->ring_due);
		link->ring_due = 0;
	}
	return r;
}

int lr_link_flush(struct lr_link *link)
{
	if (link->unfinished)
		link->ops->room(link, 0);
	return !link->unfinished;
}

void lr_link_hang_up(struct lr_link *link)
{
	link->ops->hang_up(link);
}

void lr_link_trust_begun(struct lr_link *link)
{
	link->trusts_begun = link->peer_begun != NULL;
}

int lr_link_unseen(struct lr_link *link)
{
	return link->ops->unseen(link, link->ops->sent(link));
}

int lr_link_recv(struct lr_link *link, struct lr_io *io, int64_t deadline)
{
	struct pollfd fds[4] = {{.fd = link->bell_fd, .events = lr_bell_events(link)},
		{.fd = link->sock_fd, .events = POLLIN},
		{.fd = link->pidfd, .events = POLLIN}, /* poll(2) ignores a -1 */
		{.fd = -1, .events = POLLOUT}};
	struct lr_frame frame;
	bool ended = false;
	char byte;
	int r;

	atomic_store(&link->edge, true); /* nothing else checks the descriptors */
	while ((r = link->ops->peek(link, &frame)) == 0) {
		int64_t now = lr_now();
		if (ended)
			return LR_CLOSED;
		if (deadline && now >= deadline)
			return LR_TIMEOUT;
		fds[3].fd = lr_link_flush(link) ? -1 : link->room_fd;
		if (link->ops->arm(link, 0)) {
			int n = poll(fds, 4, deadline ? (int)((deadline - now + LR_MS - 1) / LR_MS) : -1);
			if (n < 0)
				return LR_AGAIN;
			/* A lazy link's bell is an eventfd that its helper thread writes. */
			if (link->lazy && (fds[0].revents & POLLIN) && !lr_bell_clear(link))
				return LR_CLOSED;
			if (link->sock_fd != link->bell_fd) {
				if ((fds[0].revents & fds[0].events) && !lr_bell_clear(link))
					return LR_CLOSED;
				if (fds[1].revents && read(link->sock_fd, &byte, 1) <= 0)
					ended = true;
			}
			if (fds[2].revents)
				ended = true;
		}
		atomic_store(&link->edge, true);
		link->ops->disarm(link);
	}
	if (r < 0)
		return r;
	io->kind = frame.h.type;
	io->flags = frame.h.flags;
	io->call = frame.h.call;
	io->size = frame.h.length;
	if (frame.h.length > io->cap)
		return LR_TOO_LARGE;
	memcpy(io->buf, frame.payload, frame.h.length);
	link->ops->consume(link);
	return 1;
}
