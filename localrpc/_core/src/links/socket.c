/* socket.c - a byte channel: one connected stream socket, Unix or TCP. */
#include "stream.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

struct sock {
	struct lr_byte_channel channel; /* room_fd: the same socket, for writing */
	bool asks; /* TCP takes bytes for a peer that has gone: check before a call opens */
};

static ssize_t sock_read(struct lr_byte_channel *ch, uint8_t *at, size_t room, bool *emptied)
{
	ssize_t got;

	do
		got = recv(ch->bell_fd, at, room, MSG_DONTWAIT);
	while (got < 0 && errno == EINTR);
	if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
		return 0;
	/* Not even after a short read: the peer's end may have come behind these bytes, and one
	 * edge has reported both. */
	*emptied = false;
	return got > 0 ? got : LR_CLOSED;
}

static ssize_t sock_write(struct lr_byte_channel *ch, const struct iovec *iov, int count)
{
	struct msghdr message = {.msg_iov = (struct iovec *)(uintptr_t)iov,
		.msg_iovlen = (size_t)count};
	uint8_t piece[LR_SMALL];
	size_t small = lr_in_one_piece(iov, count, piece);
	ssize_t n;

	do
		n = small ? send(ch->bell_fd, piece, small, MSG_DONTWAIT | MSG_NOSIGNAL)
			  : sendmsg(ch->bell_fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
	while (n < 0 && errno == EINTR);
	if (n >= 0)
		return n;
	return errno == EAGAIN || errno == EWOULDBLOCK || errno == ENOBUFS ? 0 : LR_CLOSED;
}

static bool sock_writable(struct lr_byte_channel *ch)
{
	struct pollfd p = {.fd = ch->bell_fd, .events = POLLOUT};
	return poll(&p, 1, 0) > 0;
}

/* Has the peer closed its end, although there may still be bytes to read? */
static bool sock_gone(struct lr_byte_channel *ch)
{
	uint8_t state = TCP_ESTABLISHED; /* the first byte of struct tcp_info */
	socklen_t size = sizeof state;

	if (!((struct sock *)ch)->asks)
		return false;
	getsockopt(ch->bell_fd, IPPROTO_TCP, TCP_INFO, &state, &size);
	return state != TCP_ESTABLISHED;
}

static void sock_hang_up(struct lr_byte_channel *ch)
{
	shutdown(ch->bell_fd, SHUT_RDWR);
}

static void sock_close(struct lr_byte_channel *ch)
{
	close(ch->bell_fd);
	close(ch->room_fd);
	free(ch);
}

static const struct lr_byte_channel_ops sock_ops = {
	.read = sock_read,
	.write = sock_write,
	.writable = sock_writable,
	.gone = sock_gone,
	.hang_up = sock_hang_up,
	.close = sock_close,
};

struct lr_link *lr_stream_open(int fd, int pidfd, int64_t spin_us, char *error, int error_size)
{
	struct sock *s = calloc(1, sizeof *s);
	int room_fd = fcntl(fd, F_DUPFD_CLOEXEC, 0);
	int family = AF_UNIX, saved = room_fd < 0 ? errno : ENOMEM;
	socklen_t size = sizeof family;

	if (!s || room_fd < 0) {
		lr_fill_error(error, error_size, "%s", strerror(saved));
		free(s);
		lr_close_if(room_fd);
		close(fd);
		lr_close_if(pidfd);
		errno = saved;
		return NULL;
	}
	s->channel = (struct lr_byte_channel){.ops = &sock_ops, .bell_fd = fd, .room_fd = room_fd,
		.min_read = 1};
	s->asks = getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &family, &size) == 0 && family != AF_UNIX;
	return lr_stream_new(&s->channel, pidfd, spin_us, error, error_size);
}
