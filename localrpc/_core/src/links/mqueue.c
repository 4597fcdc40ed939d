/*
 * mqueue.c - a byte channel: two POSIX message queues, one for each direction.
 *
 * Message boundaries have no meaning: a frame may span messages. An empty message is the end
 * of its direction. The queue may be too full for it, so the end is also stored before, in
 * the queue's mode: a reader that has read as many messages as a full queue holds, and then
 * finds the queue empty, checks the mode; so does a throttled reader when an event reports room.
 * A side that hangs up fills the queue that it will not read, so that the peer cannot send.
 *
 * The descriptor for reading is blocking, so that the reader can wait in the queue; a read that
 * must not wait passes a timeout in the past. A message that is given to a waiting reader wakes
 * no poller. An interrupt is an empty message of its own priority, to ourselves.
 *
 * The calls are made by number, because they are in another library before
 * glibc 2.34.
 */
#include "stream.h"

#include <fcntl.h>
#include <mqueue.h>
#include <poll.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define INTERRUPT 2 /* the priority of an interrupt */
#define ENDED 0400  /* the mode of a queue that has its end */

struct queues {
	struct lr_byte_channel channel; /* bell_fd: for reading; room_fd: for writing */
	size_t size;             /* of the largest message for the queue that we write */
	uint8_t *scratch;        /* room for a message of either queue */
	int pidfd;               /* the link's */
	long depth;              /* messages that fill the queue that we read */
	/* for the reader: messages taken since the queue may have been empty */
	long in_a_row;
	_Atomic bool hung_up;
	_Atomic bool ended; /* the peer has hung up: it reads and sends nothing more */
	uint32_t fork_generation;
};

static const struct timespec now_or_not = {0, 0};

/* Never waits: -1 with EAGAIN, or with ETIMEDOUT for the descriptor that we read. */
static long put(int fd, const void *data, size_t size, unsigned priority)
{
	long r;

	do
		r = syscall(SYS_mq_timedsend, fd, data, size, priority, &now_or_not);
	while (r < 0 && errno == EINTR);
	return r;
}

static long get(int fd, void *at, size_t room, unsigned *priority, const struct timespec *until)
{
	return syscall(SYS_mq_timedreceive, fd, at, room, priority, until);
}

/* The leader may read while another thread hangs up: keep the queue full. */
static void refill(struct lr_byte_channel *ch)
{
	if (atomic_load(&((struct queues *)ch)->hung_up))
		put(ch->bell_fd, "", 0, 0);
}

static bool queue_peer_closed(struct lr_byte_channel *ch)
{
	struct stat st;
	return fstat(ch->bell_fd, &st) == 0 && (st.st_mode & 0777) == ENDED;
}

/*
 * True if an end may have found the queue full and has not come. The messages that filled it
 * were unread then, and the mode had been set before.
 */
static bool has_ended_full(struct lr_byte_channel *ch)
{
	struct queues *q = (struct queues *)ch;

	if (q->in_a_row < q->depth)
		return false;
	if (queue_peer_closed(ch))
		return true;
	q->in_a_row = 0;
	return false;
}

static void took_one(struct lr_byte_channel *ch)
{
	((struct queues *)ch)->in_a_row++;
	refill(ch);
}

static ssize_t received(struct lr_byte_channel *ch, long got)
{
	if (got > 0)
		return got;
	atomic_store(&((struct queues *)ch)->ended, true);
	return LR_CLOSED;
}

static ssize_t queue_read(struct lr_byte_channel *ch, uint8_t *at, size_t room, bool *emptied)
{
	unsigned priority;
	long got;

	*emptied = false; /* only a read that finds nothing shows that the queue is empty */
	do {
		got = get(ch->bell_fd, at, room, &priority, &now_or_not);
		if (got >= 0)
			took_one(ch);
	} while (got < 0 ? errno == EINTR : priority == INTERRUPT);
	if (got < 0 && errno == ETIMEDOUT && !has_ended_full(ch)) {
		((struct queues *)ch)->in_a_row = 0;
		return 0;
	}
	return received(ch, got);
}

static ssize_t queue_wait(struct lr_byte_channel *ch, uint8_t *at, size_t room)
{
	unsigned priority;
	bool emptied;
	long got;

	if (has_ended_full(ch))
		return queue_read(ch, at, room, &emptied);
	got = get(ch->bell_fd, at, room, &priority, NULL);
	if (got < 0)
		return errno == EINTR ? LR_AGAIN : LR_CLOSED;
	took_one(ch);
	return priority == INTERRUPT ? 0 : received(ch, got);
}

static void queue_interrupt(struct lr_byte_channel *ch)
{
	put(ch->bell_fd, "", 0, INTERRUPT); /* full: no thread waits for a message */
}

static ssize_t queue_write(struct lr_byte_channel *ch, const struct iovec *iov, int count)
{
	struct queues *q = (struct queues *)ch;
	struct lr_iov_rest left = lr_iov_rest_of(iov, count);
	size_t done = 0;

	if (q->hung_up)
		return LR_CLOSED;
	while (left.count) {
		size_t size = lr_iov_rest_copy(&left, q->scratch, q->size);

		if (put(ch->room_fd, q->scratch, size, 0) < 0)
			return done || errno == EAGAIN ? (ssize_t)done : LR_CLOSED;
		done += size;
		lr_iov_rest_skip(&left, size);
	}
	return (ssize_t)done;
}

static bool queue_writable(struct lr_byte_channel *ch)
{
	struct pollfd p = {.fd = ch->room_fd, .events = POLLOUT};
	return poll(&p, 1, 0) > 0;
}

static bool queue_gone(struct lr_byte_channel *ch)
{
	return lr_exited(((struct queues *)ch)->pidfd);
}

/* mq_overview(7): reading the descriptor as a file gives the bytes in the queue. */
static uint64_t queue_unread(struct lr_byte_channel *ch)
{
	char text[128];
	unsigned long long bytes;
	ssize_t size = pread(ch->room_fd, text, sizeof text - 1, 0);

	if (size <= 0)
		return 0;
	text[size] = 0;
	return sscanf(text, "QSIZE:%llu", &bytes) == 1 ? bytes : 0;
}

static void queue_hang_up(struct lr_byte_channel *ch)
{
	struct queues *q = (struct queues *)ch;
	bool had_room = false;

	if (q->hung_up || q->fork_generation != lr_fork_generation())
		return;
	q->hung_up = true;
	if (atomic_load(&q->ended))
		return;
	while (put(ch->bell_fd, "", 0, 0) == 0)
		had_room = true;
	fchmod(ch->room_fd, ENDED);
	put(ch->room_fd, "", 0, 0);
	if (!had_room) /* the peer may sleep until there is room, and read nothing before */
		get(ch->bell_fd, q->scratch, ch->min_read, NULL, &now_or_not);
}

static void queue_close(struct lr_byte_channel *ch)
{
	struct queues *q = (struct queues *)ch;

	queue_hang_up(ch);
	close(ch->bell_fd);
	close(ch->room_fd);
	free(q->scratch);
	free(q);
}

static const struct lr_byte_channel_ops queue_ops = {
	.read = queue_read,
	.write = queue_write,
	.wait = queue_wait,
	.interrupt = queue_interrupt,
	.writable = queue_writable,
	.gone = queue_gone,
	.unread = queue_unread,
	.peer_closed = queue_peer_closed,
	.hang_up = queue_hang_up,
	.close = queue_close,
};

static bool prepare(int fd, long flags, struct mq_attr *attr)
{
	struct mq_attr ours = {.mq_flags = flags};
	return syscall(SYS_mq_getsetattr, fd, &ours, attr) == 0;
}

struct lr_link *lr_mqueue_open(int rx_fd, int tx_fd, int pidfd, int64_t spin_us, char *error,
	int error_size)
{
	struct queues *q = calloc(1, sizeof *q);
	struct mq_attr rx, tx;
	bool ready = prepare(rx_fd, 0, &rx) && prepare(tx_fd, O_NONBLOCK, &tx);
	int saved = ready ? ENOMEM : errno;

	if (q && ready)
		q->scratch = malloc((size_t)(tx.mq_msgsize + rx.mq_msgsize));
	if (!q || !q->scratch) {
		lr_fill_error(error, error_size, "%s", strerror(saved));
		free(q);
		close(rx_fd);
		close(tx_fd);
		lr_close_if(pidfd);
		errno = saved;
		return NULL;
	}
	q->channel = (struct lr_byte_channel){.ops = &queue_ops, .bell_fd = rx_fd, .room_fd = tx_fd,
		.min_read = (uint32_t)rx.mq_msgsize};
	q->size = (size_t)tx.mq_msgsize;
	q->depth = rx.mq_maxmsg;
	q->in_a_row = q->depth; /* messages taken during the handshake count, too: check at once */
	q->pidfd = pidfd;
	q->fork_generation = lr_fork_generation();
	return lr_stream_new(&q->channel, pidfd, spin_us, error, error_size);
}
