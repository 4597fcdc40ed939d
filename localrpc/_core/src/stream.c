/*
 * stream.c - the byte-stream link: frames one after another on a socket, Unix or TCP.
 *
 * Reading goes through a buffer. A DATA frame larger than what has come is
 * given out in pieces, each a DATA frame of its own: to its receiver DATA is a
 * run of bytes, wherever it was cut. Every other frame is at most
 * LR_MAX_CONTROL and given out whole.
 *
 * A frame that has begun is ours to finish: what the socket did not take stays
 * in `rest`, and nothing else is sent before it.
 */
#include "core.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#define BUFFER (LR_HEADER_SIZE + LR_MAX_CONTROL)

struct stream {
	struct lr_link link;

	/* The reader's. */
	uint8_t *buffer;
	uint32_t start, end; /* what has come and is not consumed */
	uint32_t piece;      /* bytes that consume() takes */
	bool drained;        /* the last read emptied the socket: new bytes give a new edge */
	bool eof;
	struct lr_header data; /* of the DATA frame that is given out in pieces */
	uint32_t data_left;

	/* The writer's. */
	_Alignas(64) uint8_t *rest;
	size_t rest_at, rest_len;
	bool full;
	bool broken;
	bool asks; /* TCP takes what is sent to a peer that has gone: ask before a call opens */
	uint64_t sent;
};

#define STREAM(l) ((struct stream *)(l))

/* Read once. 1 something came, 0 nothing there, LR_CLOSED. */
static int fill(struct stream *s)
{
	ssize_t got;

	if (s->start == s->end)
		s->start = s->end = 0;
	else if (s->end == BUFFER || s->start > BUFFER / 2) {
		memmove(s->buffer, s->buffer + s->start, s->end - s->start);
		s->end -= s->start;
		s->start = 0;
	}
	if (s->end == BUFFER)
		return 1; /* full: there is something to consume first */
	s->link.edge = false; /* what comes after this read gives another */
	do
		got = recv(s->link.sock_fd, s->buffer + s->end, BUFFER - s->end, MSG_DONTWAIT);
	while (got < 0 && errno == EINTR);
	if (got > 0) {
		/* A short read means that the socket is empty: epoll(7), question 9. */
		s->drained = (uint32_t)got < BUFFER - s->end;
		s->end += (uint32_t)got;
		return 1;
	}
	if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
		s->drained = true;
		return 0;
	}
	s->eof = true;
	return LR_CLOSED;
}

/* 1: *frame is set; 0: more bytes are needed; LR_PROTOCOL. */
static int parse(struct stream *s, struct lr_frame *frame)
{
	uint32_t have = s->end - s->start;

	if (s->data_left == 0) {
		if (have < LR_HEADER_SIZE)
			return 0;
		memcpy(&frame->h, s->buffer + s->start, LR_HEADER_SIZE);
		if (frame->h.length > LR_MAX_FRAME - LR_HEADER_SIZE)
			return LR_PROTOCOL;
		if (frame->h.type != LR_T_DATA) {
			if (frame->h.length > LR_MAX_CONTROL)
				return LR_PROTOCOL;
			if (have - LR_HEADER_SIZE < frame->h.length)
				return 0;
			frame->payload = s->buffer + s->start + LR_HEADER_SIZE;
			s->piece = LR_HEADER_SIZE + frame->h.length;
			return 1;
		}
		s->data = frame->h;
		s->data_left = frame->h.length;
		s->start += LR_HEADER_SIZE;
		have -= LR_HEADER_SIZE;
		if (s->data_left == 0) { /* an empty DATA frame says nothing */
			s->piece = 0;
			frame->payload = s->buffer + s->start;
			return 1;
		}
	}
	if (have == 0)
		return 0;
	frame->h = s->data;
	frame->h.length = have < s->data_left ? have : s->data_left;
	frame->payload = s->buffer + s->start;
	s->piece = frame->h.length;
	return 1;
}

static int stream_peek(struct lr_link *link, struct lr_frame *frame)
{
	struct stream *s = STREAM(link);
	int r;

	while ((r = parse(s, frame)) == 0) {
		if (s->eof)
			return LR_CLOSED;
		r = fill(s);
		if (r <= 0)
			return r;
	}
	if (r == 1)
		atomic_store_explicit(&link->peer_cpu, frame->h.cpu, memory_order_relaxed);
	return r;
}

static void stream_consume(struct lr_link *link)
{
	struct stream *s = STREAM(link);
	s->start += s->piece;
	if (s->data_left)
		s->data_left -= s->piece;
	s->piece = 0;
}

static bool stream_poll(struct lr_link *link)
{
	struct stream *s = STREAM(link);
	struct lr_frame frame;
	/* A frame or the end of the stream: worth a peek. */
	return s->eof || parse(s, &frame) != 0 || fill(s) != 0;
}

static bool stream_arm(struct lr_link *link, uint32_t sleeper)
{
	struct stream *s = STREAM(link);
	struct lr_frame frame;
	(void)sleeper;
	/* The edge belongs to the kernel: there will be one if all that had come was read. */
	return s->drained && !link->edge && !s->eof && parse(s, &frame) == 0;
}

static void stream_disarm(struct lr_link *link)
{
	(void)link;
}

static ssize_t push(struct stream *s, struct iovec *iov, int count)
{
	struct msghdr message = {.msg_iov = iov, .msg_iovlen = (size_t)count};
	ssize_t n;

	do
		n = sendmsg(s->link.sock_fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
	while (n < 0 && errno == EINTR);
	if (n >= 0)
		return n;
	if (errno == EAGAIN || errno == EWOULDBLOCK || errno == ENOBUFS) {
		s->full = true;
		return 0;
	}
	s->broken = true;
	s->link.unfinished = false;
	return LR_CLOSED;
}

/* Finish the frame that has begun. 1 done, 0 not yet, LR_CLOSED. */
static int flush_rest(struct stream *s)
{
	while (s->rest_len) {
		struct iovec iov = {s->rest + s->rest_at, s->rest_len};
		ssize_t n = push(s, &iov, 1);
		if (n <= 0)
			return (int)n;
		s->rest_at += (size_t)n;
		s->rest_len -= (size_t)n;
	}
	free(s->rest);
	s->rest = NULL;
	s->link.unfinished = false;
	return 1;
}

/* Has the peer closed its end, though there may still be something of it to read? */
static bool has_gone(struct stream *s)
{
	uint8_t state = TCP_ESTABLISHED; /* the first byte of struct tcp_info */
	socklen_t size = sizeof state;

	getsockopt(s->link.sock_fd, IPPROTO_TCP, TCP_INFO, &state, &size);
	return state != TCP_ESTABLISHED;
}

static int stream_send(struct lr_link *link, struct lr_header *header, const struct iovec *given,
	int count)
{
	struct stream *s = STREAM(link);
	size_t total = LR_HEADER_SIZE + header->length;
	struct iovec iov[LR_MAX_IOV + 1];
	ssize_t n;
	int r = s->broken ? LR_CLOSED : flush_rest(s);

	if (r <= 0)
		return r;
	if (s->asks && header->type == LR_T_OPEN && has_gone(s)) {
		s->broken = true;
		return LR_CLOSED;
	}
	header->cpu = lr_cpu();
	iov[0].iov_base = header;
	iov[0].iov_len = LR_HEADER_SIZE;
	if (count)
		memcpy(iov + 1, given, (size_t)count * sizeof *given);
	n = push(s, iov, count + 1);
	if (n <= 0)
		return (int)n;
	s->sent += total;
	if ((size_t)n < total) {
		s->rest = malloc(total - (size_t)n);
		if (!s->rest) {
			s->broken = true; /* half a frame is out: nothing can follow it */
			return LR_CLOSED;
		}
		s->rest_at = s->rest_len = 0;
		for (int i = 0; i <= count; i++) {
			size_t skip = (size_t)n < iov[i].iov_len ? (size_t)n : iov[i].iov_len;
			n -= (ssize_t)skip;
			memcpy(s->rest + s->rest_len, (uint8_t *)iov[i].iov_base + skip,
				iov[i].iov_len - skip);
			s->rest_len += iov[i].iov_len - skip;
		}
		s->full = link->unfinished = true;
	}
	return 1;
}

static bool stream_room(struct lr_link *link, uint32_t need)
{
	struct stream *s = STREAM(link);
	struct pollfd p = {.fd = link->sock_fd, .events = POLLOUT};
	(void)need;

	if (s->broken)
		return true; /* the send that follows says so */
	if (s->full) {
		if (poll(&p, 1, 0) <= 0)
			return false;
		s->full = false;
	}
	return s->rest_len == 0 || flush_rest(s) != 0;
}

static uint64_t stream_sent(struct lr_link *link)
{
	return STREAM(link)->sent;
}

static bool stream_unseen(struct lr_link *link, uint64_t mark)
{
	(void)link;
	(void)mark;
	return false; /* what the kernel took, the peer may have read */
}

static void stream_destroy(struct lr_link *link)
{
	struct stream *s = STREAM(link);

	close(link->sock_fd);
	close(link->room_fd);
	if (link->pidfd >= 0)
		close(link->pidfd);
	free(s->rest);
	free(s->buffer);
	free(s);
}

static bool stream_arm_room(struct lr_link *link, uint32_t need)
{
	return !stream_room(link, need);
}

static const struct lr_link_ops stream_ops = {
	.peek = stream_peek,
	.consume = stream_consume,
	.poll = stream_poll,
	.arm = stream_arm,
	.disarm = stream_disarm,
	.send = stream_send,
	.room = stream_room,
	.arm_room = stream_arm_room,
	.disarm_room = stream_disarm,
	.sent = stream_sent,
	.unseen = stream_unseen,
	.destroy = stream_destroy,
};

struct lr_link *lr_stream_open(int fd, int pidfd, int64_t spin_us, char *error, int error_size)
{
	struct stream *s = aligned_alloc(64, (sizeof *s + 63) & ~(size_t)63);
	int room_fd = fcntl(fd, F_DUPFD_CLOEXEC, 0); /* watched for writing only, apart from reading */
	int family = AF_UNIX;
	socklen_t size = sizeof family;

	if (s)
		memset(s, 0, sizeof *s);
	if (!s || room_fd < 0 || !(s->buffer = malloc(BUFFER))) {
		lr_fill_error(error, error_size, "%s", strerror(room_fd < 0 ? errno : ENOMEM));
		free(s);
		if (room_fd >= 0)
			close(room_fd);
		close(fd);
		if (pidfd >= 0)
			close(pidfd);
		return NULL;
	}
	s->link.ops = &stream_ops;
	s->link.bell_fd = fd;
	s->link.sock_fd = fd;
	s->link.pidfd = pidfd;
	s->link.room_fd = room_fd;
	s->asks = getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &family, &size) == 0 && family != AF_UNIX;
	s->link.piece = LR_PIECE;
	s->link.spin = spin_us < 0 ? -1 : spin_us * LR_US;
	return &s->link;
}
