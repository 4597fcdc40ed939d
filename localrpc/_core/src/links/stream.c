/*
 * stream.c - the byte-stream link: frames one after another, on any byte channel
 * that keeps bytes in order: a socket, two pipes, two message queues.
 *
 * Reading goes through a buffer. A DATA frame larger than the bytes that have come is returned
 * in pieces, each as a DATA frame of its own: for the receiver DATA is a run of bytes, cut
 * anywhere. Every other frame is at most LR_MAX_CONTROL bytes and returned whole. Sending
 * is in writer.c.
 */
#include "stream.h"

#include <unistd.h>

#define BUFFER (LR_HEADER_SIZE + LR_MAX_CONTROL)

struct stream {
	struct lr_link link;
	struct lr_byte_channel *channel;

	/* The reader's. */
	uint8_t *buffer;
	uint32_t capacity;
	uint32_t start, end; /* bytes that have come and are not consumed */
	uint32_t piece;      /* bytes that consume() takes */
	bool emptied;        /* the last read emptied the byte channel: new bytes give a new edge */
	/* or is assumed to have, which saves a read before the next wait() */
	bool assumed_empty;
	_Atomic bool eof;
	struct lr_header data; /* of the DATA frame that is returned in pieces */
	uint32_t data_left;
	uint32_t fork_generation;

	_Alignas(64) struct lr_writer out;
};

#define STREAM(l) ((struct stream *)(l))

/* Is there room in the buffer for one more read? Otherwise consume() has to come first. */
static bool make_room(struct stream *s)
{
	uint32_t min_read = s->channel->min_read;

	if (s->start == s->end)
		s->start = s->end = 0;
	else if (s->capacity - s->end < min_read || s->start > s->capacity / 2) {
		memmove(s->buffer, s->buffer + s->start, s->end - s->start);
		s->end -= s->start;
		s->start = 0;
	}
	return s->capacity - s->end >= min_read;
}

/* The result of a read: 1 something came, 0 nothing, LR_CLOSED. */
static int take(struct stream *s, ssize_t got)
{
	if (got > 0) {
		s->end += (uint32_t)got;
		return 1;
	}
	if (got == 0) {
		s->emptied = true;
		return 0;
	}
	s->eof = true;
	atomic_store(&s->link.fault, atomic_load(&s->channel->fault));
	return LR_CLOSED;
}

static int fill(struct stream *s)
{
	struct lr_byte_channel *ch = s->channel;

	if (!make_room(s))
		return 1;
	atomic_store(&s->link.edge, false); /* bytes after this read give another */
	s->assumed_empty = false;
	return take(s, ch->ops->read(ch, s->buffer + s->end, s->capacity - s->end, &s->emptied));
}

/* The last read emptied the byte channel, and no edge has come since: save the next read. */
static bool is_empty(const struct stream *s)
{
	return s->emptied && !atomic_load(&s->link.edge);
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
		if (s->data_left == 0) { /* an empty DATA frame has no effect */
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
		if (is_empty(s))
			return 0;
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

static bool stream_peer_closed(struct lr_link *link)
{
	struct lr_byte_channel *ch = STREAM(link)->channel;
	return ch->ops->peer_closed && ch->ops->peer_closed(ch);
}

static bool stream_arm(struct lr_link *link, uint32_t sleeper)
{
	struct stream *s = STREAM(link);
	struct lr_byte_channel *ch = s->channel;
	struct lr_frame frame;
	(void)sleeper;
	if (s->eof || parse(s, &frame) != 0)
		return false;
	/* There will be an edge if everything that had come was read. */
	if ((s->assumed_empty || !is_empty(s)) && fill(s) != 0)
		return false;
	if (!ch->ops->arm || ch->ops->arm(ch))
		return s->emptied;
	atomic_store(&link->edge, true); /* something has come, even if epoll reports nothing */
	return false;
}

static void stream_disarm(struct lr_link *link)
{
	(void)link;
}

static bool stream_may_wait(const struct lr_link *link)
{
	const struct lr_byte_channel *ch = ((const struct stream *)link)->channel;
	return ch->ops->wait && (!ch->ops->may_wait || ch->ops->may_wait(ch));
}

/*
 * A waiting thread usually found the byte channel empty, so assume that there is no more than
 * what it got; if there is, the next wait() returns it.
 */
static int stream_wait(struct lr_link *link)
{
	struct stream *s = STREAM(link);
	struct lr_byte_channel *ch = s->channel;
	struct lr_frame frame;
	ssize_t got;

	if (s->eof || parse(s, &frame) != 0 || !make_room(s))
		return 1;
	atomic_store(&link->edge, false);
	got = ch->ops->wait(ch, s->buffer + s->end, s->capacity - s->end);
	if (got == 0 || got == LR_AGAIN)
		return (int)got;
	s->emptied = s->assumed_empty = true;
	take(s, got);
	return 1;
}

static void stream_interrupt(struct lr_link *link)
{
	struct lr_byte_channel *ch = STREAM(link)->channel;
	ch->ops->interrupt(ch);
}

static int stream_send(struct lr_link *link, struct lr_header *header, const struct iovec *iov,
	int count)
{
	return lr_writer_send(&STREAM(link)->out, header, iov, count);
}

static int stream_flush(struct lr_link *link)
{
	return lr_writer_flush(&STREAM(link)->out);
}

static bool stream_room(struct lr_link *link, uint32_t need)
{
	(void)need;
	return lr_writer_room(&STREAM(link)->out);
}

static uint64_t stream_sent(struct lr_link *link)
{
	return STREAM(link)->out.sent;
}

static bool stream_unseen(struct lr_link *link, uint64_t mark)
{
	return lr_writer_unseen(&STREAM(link)->out, mark);
}

static void stream_hang_up(struct lr_link *link)
{
	lr_writer_hang_up(&STREAM(link)->out);
}

static void stream_release(struct lr_link *link)
{
	struct stream *s = STREAM(link);

	s->channel->ops->close(s->channel);
	s->channel = NULL;
	link->bell_fd = link->sock_fd = link->room_fd = -1;
}

static void stream_destroy(struct lr_link *link)
{
	struct stream *s = STREAM(link);

	if (s->channel) {
		if (s->out.rest_len && s->fork_generation == lr_fork_generation())
			stream_hang_up(link);
		stream_release(link);
	}
	lr_close_if(link->pidfd);
	free(s->out.rest);
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
	.peer_closed = stream_peer_closed,
	.arm = stream_arm,
	.disarm = stream_disarm,
	.may_wait = stream_may_wait,
	.wait = stream_wait,
	.interrupt = stream_interrupt,
	.send = stream_send,
	.flush = stream_flush,
	.room = stream_room,
	.arm_room = stream_arm_room,
	.disarm_room = stream_disarm,
	.sent = stream_sent,
	.unseen = stream_unseen,
	.hang_up = stream_hang_up,
	.release = stream_release,
	.destroy = stream_destroy,
};

struct lr_link *lr_stream_new(struct lr_byte_channel *channel, int pidfd, int64_t spin_us,
	char *error, int error_size)
{
	struct stream *s = aligned_alloc(64, (sizeof *s + 63) & ~(size_t)63);
	uint32_t capacity = BUFFER + channel->min_read;

	if (s)
		memset(s, 0, sizeof *s);
	if (!s || !(s->buffer = malloc(capacity))) {
		lr_fill_error(error, error_size, "%s", strerror(ENOMEM));
		free(s);
		channel->ops->close(channel);
		lr_close_if(pidfd);
		errno = ENOMEM;
		return NULL;
	}
	s->channel = channel;
	s->out = (struct lr_writer){.link = &s->link, .channel = channel, .eof = &s->eof};
	s->fork_generation = lr_fork_generation();
	s->capacity = capacity;
	s->link.ops = &stream_ops;
	s->link.bell_fd = channel->bell_fd;
	s->link.sock_fd = channel->bell_fd;
	s->link.room_fd = channel->room_fd;
	s->link.pidfd = pidfd;
	s->link.lazy = channel->lazy;
	s->link.piece = LR_PIECE;
	s->link.spin = spin_us < 0 ? -1 : spin_us * LR_US;
	return &s->link;
}
