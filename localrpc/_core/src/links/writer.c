/*
 * writer.c - the sending half of a byte-stream link.
 *
 * A frame that has begun must be finished: bytes that the byte channel did not take stay in
 * `rest`, and are sent before anything else. If the byte channel keeps a small number of
 * messages, frames that find it full are gathered in `rest`, so that one message carries many.
 * So are all frames while link->holds: then one write carries them, and wakes the peer once.
 */
#include "stream.h"

#include <time.h>
#include <unistd.h>

#define GATHER (32 << 10)
#define HOLD 1024 /* some ten small frames: the peer begins with these while others are made */
/* How often a hang-up looks for room for the rest, every 100 us or a little more. A count,
 * not a time limit: a process that does not run for a while still looks as often as others. */
#define LINGER 150

static ssize_t push(struct lr_writer *w, const struct iovec *iov, int count)
{
	ssize_t n = w->channel->ops->write(w->channel, iov, count);

	if (n == 0)
		w->full = true;
	if (n >= 0)
		return n;
	w->broken = true;
	w->link->unfinished = w->link->held = false;
	atomic_store(&w->link->fault, atomic_load(&w->channel->fault));
	return LR_CLOSED;
}

/* Finish the frame that has begun, and send those that are held. 1: done, 0: not yet, LR_CLOSED. */
static int flush_rest(struct lr_writer *w)
{
	w->link->held = false;
	while (w->rest_len) {
		struct iovec iov = {w->rest + w->rest_at, w->rest_len};
		ssize_t n = push(w, &iov, 1);
		if (n < 0)
			return LR_CLOSED;
		if (n == 0) {
			w->link->unfinished = true;
			return 0;
		}
		w->rest_at += (size_t)n;
		w->rest_len -= (size_t)n;
	}
	free(w->rest);
	w->rest = NULL;
	w->rest_at = w->rest_size = 0;
	w->link->unfinished = false;
	return 1;
}

/* Append the unsent bytes of a frame, from byte `skip` on, to the rest. */
static bool keep(struct lr_writer *w, const struct iovec *iov, int count, size_t skip, size_t total)
{
	size_t size = w->rest_len + total - skip;
	struct lr_iov_rest left = lr_iov_rest_of(iov, count);

	if (w->rest_at + size > w->rest_size) {
		/* More than one frame only if more are to be gathered. */
		size_t more = w->link->holds ? HOLD : w->channel->min_read > 1 ? GATHER : 0;
		size_t room = size < more ? more : size;
		uint8_t *grown = malloc(room);
		if (!grown)
			return false;
		if (w->rest_len)
			memcpy(grown, w->rest + w->rest_at, w->rest_len);
		free(w->rest);
		w->rest = grown;
		w->rest_at = 0;
		w->rest_size = room;
	}
	lr_iov_rest_skip(&left, skip);
	w->rest_len += lr_iov_rest_copy(&left, w->rest + w->rest_at + w->rest_len, total - skip);
	return true;
}

static void prepend(struct lr_header *header, const struct iovec *given, int count,
	struct iovec *iov)
{
	header->cpu = lr_cpu();
	iov[0].iov_base = header;
	iov[0].iov_len = LR_HEADER_SIZE;
	if (count)
		memcpy(iov + 1, given, (size_t)count * sizeof *given);
}

/* Has the peer gone, so that a call must not be written that it will not see? */
static bool is_gone(struct lr_writer *w)
{
	const struct lr_byte_channel_ops *ops = w->channel->ops;
	return ops->gone && !ops->unread && ops->gone(w->channel);
}

/* Keep a whole frame until the flush. False: it has to be sent now. */
static bool hold(struct lr_writer *w, const struct iovec *iov, int count, size_t total)
{
	if (!w->link->holds || w->broken || w->link->unfinished || w->rest_len + total > HOLD ||
		!keep(w, iov, count, 0, total))
		return false;
	w->link->held = true;
	w->sent += total;
	return true;
}

int lr_writer_send(struct lr_writer *w, struct lr_header *header, const struct iovec *given,
	int count)
{
	size_t total = LR_HEADER_SIZE + header->length;
	struct iovec iov[LR_MAX_IOV + 1];
	ssize_t n = 0;
	int r;

	prepend(header, given, count, iov);
	if (hold(w, iov, count + 1, total))
		return 1;
	r = w->broken ? LR_CLOSED : flush_rest(w);
	if (r < 0 || (r == 0 && (w->channel->min_read == 1 || w->rest_len + total > GATHER)))
		return r;
	if (header->type == LR_T_OPEN && is_gone(w)) {
		w->broken = true;
		return LR_CLOSED;
	}
	if (r == 1) {
		n = push(w, iov, count + 1);
		if (n < 0 || (n == 0 && w->channel->min_read == 1))
			return (int)n;
	}
	if ((size_t)n < total) {
		if (!keep(w, iov, count + 1, (size_t)n, total)) {
			if (n == 0)
				return 0;
			w->broken = true; /* part of a frame is sent: nothing can follow it */
			return LR_CLOSED;
		}
		w->full = w->link->unfinished = true;
	}
	w->sent += total;
	return 1;
}

int lr_writer_flush(struct lr_writer *w)
{
	if (!w->broken && !is_gone(w)) /* among them may be an OPEN */
		return flush_rest(w) < 0 ? LR_CLOSED : 0;
	w->broken = true;
	w->link->held = false;
	return LR_CLOSED;
}

bool lr_writer_room(struct lr_writer *w)
{
	if (w->broken)
		return true; /* the send that follows reports it */
	if (w->full) {
		if (!w->channel->ops->writable(w->channel))
			return false;
		w->full = false;
	}
	return w->rest_len == 0 || flush_rest(w) != 0;
}

/* Only the peer's end shows that it reads no more; after our end it may still read. */
static uint64_t unread(struct lr_writer *w)
{
	struct lr_byte_channel *ch = w->channel;

	if (w->hung_up)
		return w->unread;
	if (!ch->ops->unread || !(*w->eof || (ch->ops->gone && ch->ops->gone(ch))))
		return 0;
	return ch->ops->unread(ch);
}

/* The peer may have read what the byte channel took; it has no whole frame of the rest. */
bool lr_writer_unseen(struct lr_writer *w, uint64_t mark)
{
	return mark + unread(w) > w->sent - w->rest_len; /* handshake bytes may be unread, too */
}

static void linger(struct lr_writer *w)
{
	struct timespec pause = {0, 100 * LR_US};

	if (w->channel->ops->gone && w->channel->ops->gone(w->channel))
		return;
	for (int looks = 0; looks < LINGER && flush_rest(w) == 0; looks++)
		nanosleep(&pause, NULL);
}

void lr_writer_hang_up(struct lr_writer *w)
{
	if (w->link->held)
		lr_writer_flush(w);
	if (w->rest_len && w->channel->min_read > 1 && !w->broken && !*w->eof)
		linger(w);
	w->unread = unread(w);
	w->hung_up = true;
	w->broken = true;
	w->link->unfinished = w->link->held = false;
	w->channel->ops->hang_up(w->channel);
	if (w->channel->room_fd < 0)
		w->link->room_fd = -1;
}
