/*
 * pipe.c - a byte channel: two pipes or FIFOs, one for each direction.
 *
 * We keep a reading end of the pipe that we write: writing to a pipe without a reader raises
 * SIGPIPE, which belongs to the program. The other pipe shows when the peer is gone.
 */
#include "stream.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <unistd.h>

struct pipes {
	struct lr_byte_channel channel; /* bell_fd: for reading; room_fd: for writing */
	int keep_fd;
};

static ssize_t pipe_read(struct lr_byte_channel *ch, uint8_t *at, size_t room, bool *emptied)
{
	ssize_t got;

	do
		got = read(ch->bell_fd, at, room);
	while (got < 0 && errno == EINTR);
	if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
		return 0;
	*emptied = (size_t)got < room;
	return got > 0 ? got : LR_CLOSED;
}

static ssize_t pipe_write(struct lr_byte_channel *ch, const struct iovec *iov, int count)
{
	uint8_t piece[LR_SMALL];
	size_t small;
	ssize_t n;

	if (ch->room_fd < 0)
		return LR_CLOSED;
	small = lr_in_one_piece(iov, count, piece);
	do
		n = small ? write(ch->room_fd, piece, small) : writev(ch->room_fd, iov, count);
	while (n < 0 && errno == EINTR);
	if (n >= 0)
		return n;
	return errno == EAGAIN || errno == EWOULDBLOCK ? 0 : LR_CLOSED;
}

static bool pipe_writable(struct lr_byte_channel *ch)
{
	struct pollfd p = {.fd = ch->room_fd, .events = POLLOUT};
	return ch->room_fd < 0 || poll(&p, 1, 0) > 0;
}

static bool pipe_gone(struct lr_byte_channel *ch)
{
	struct pollfd p = {.fd = ch->bell_fd};
	return poll(&p, 1, 0) > 0 && (p.revents & POLLHUP);
}

/* A pipe takes bytes that no process will read; our reading end shows how many are left. */
static uint64_t pipe_unread(struct lr_byte_channel *ch)
{
	int bytes = 0;

	return ioctl(((struct pipes *)ch)->keep_fd, FIONREAD, &bytes) < 0 ? 0 : (uint64_t)bytes;
}

/* Only the writing end: a thread may be about to read from the other. */
static void pipe_hang_up(struct lr_byte_channel *ch)
{
	struct pipes *p = (struct pipes *)ch;

	if (ch->room_fd < 0)
		return;
	close(ch->room_fd);
	close(p->keep_fd);
	ch->room_fd = p->keep_fd = -1;
}

static void pipe_close(struct lr_byte_channel *ch)
{
	pipe_hang_up(ch);
	close(ch->bell_fd);
	free(ch);
}

static const struct lr_byte_channel_ops pipe_ops = {
	.read = pipe_read,
	.write = pipe_write,
	.writable = pipe_writable,
	.gone = pipe_gone,
	.unread = pipe_unread,
	.hang_up = pipe_hang_up,
	.close = pipe_close,
};

struct lr_link *lr_pipe_open(int rx_fd, int tx_fd, int keep_fd, int pidfd, int64_t spin_us,
	char *error, int error_size)
{
	struct pipes *p = calloc(1, sizeof *p);

	if (!p || fcntl(rx_fd, F_SETFL, O_NONBLOCK) < 0 || fcntl(tx_fd, F_SETFL, O_NONBLOCK) < 0) {
		int saved = p ? errno : ENOMEM;
		lr_fill_error(error, error_size, "%s", strerror(saved));
		close(rx_fd);
		close(tx_fd);
		close(keep_fd);
		lr_close_if(pidfd);
		free(p);
		errno = saved;
		return NULL;
	}
	p->channel = (struct lr_byte_channel){.ops = &pipe_ops, .bell_fd = rx_fd, .room_fd = tx_fd,
		.min_read = 1};
	p->keep_fd = keep_fd;
	return lr_stream_new(&p->channel, pidfd, spin_us, error, error_size);
}
