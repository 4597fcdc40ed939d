/*
 * stream.h - the parts of a byte stream: a byte channel (socket.c, pipe.c, mqueue.c, sysv.c,
 * spool.c), and the sending half (writer.c). The receiving half is in stream.c.
 */
#ifndef LR_STREAM_H
#define LR_STREAM_H

#include "link.h"

/* ---- byte channels: what carries the frames of stream.c ---- */

struct lr_byte_channel;

struct lr_byte_channel_ops {
	/* Bytes read, 0 for none, LR_CLOSED; sets *emptied if nothing is left to read. */
	ssize_t (*read)(struct lr_byte_channel *ch, uint8_t *at, size_t room, bool *emptied);
	/* Bytes taken, 0 for none, LR_CLOSED. */
	ssize_t (*write)(struct lr_byte_channel *ch, const struct iovec *iov, int count);
	/* Is it worth calling write again? */
	bool (*writable)(struct lr_byte_channel *ch);
	/* Has the peer gone? NULL: a write reports it. */
	bool (*gone)(struct lr_byte_channel *ch);
	/* Bytes written that the peer has certainly not read, if it has gone: then a write need not
	 * check first whether it has gone. NULL: not known. */
	uint64_t (*unread)(struct lr_byte_channel *ch);
	/* Has the peer hung up while the byte channel was full, so that its end comes after the
	 * rest? NULL: epoll or a write reports it. */
	bool (*peer_closed)(struct lr_byte_channel *ch);
	/* The reader is about to sleep. False: something has come. NULL: the kernel makes bell_fd
	 * readable by itself. */
	bool (*arm)(struct lr_byte_channel *ch);
	/* Like a link's: bytes, 0, LR_AGAIN, LR_CLOSED. NULL: not possible; may_wait: not now. */
	ssize_t (*wait)(struct lr_byte_channel *ch, uint8_t *at, size_t room);
	bool (*may_wait)(const struct lr_byte_channel *ch);
	void (*interrupt)(struct lr_byte_channel *ch);
	void (*hang_up)(struct lr_byte_channel *ch);
	void (*close)(struct lr_byte_channel *ch);
};

struct lr_byte_channel {
	const struct lr_byte_channel_ops *ops;
	int bell_fd;    /* readable when bytes have come or the peer has gone */
	int room_fd;    /* writable when there is room; -1 after a hang_up that closed it */
	uint32_t min_read; /* read() needs at least this much room */
	bool lazy;      /* arm() gives a helper thread a task */
	_Atomic(const char *) fault; /* why it is LR_CLOSED, if not by the peer; or NULL */
};

/* ---- writer.c: for the thread that holds the connection's sending lock ---- */

struct lr_writer {
	struct lr_link *link;
	struct lr_byte_channel *channel;
	const _Atomic bool *eof; /* the reader has seen the peer's end */
	uint8_t *rest;
	size_t rest_at, rest_len, rest_size;
	bool full;
	bool broken;
	uint64_t sent;
	bool hung_up;
	uint64_t unread; /* after that: bytes sent that no peer will read */
};

/* The link's operations of these names. */
int lr_writer_send(struct lr_writer *w, struct lr_header *header, const struct iovec *given,
	int count);
int lr_writer_flush(struct lr_writer *w);
bool lr_writer_room(struct lr_writer *w);
bool lr_writer_unseen(struct lr_writer *w, uint64_t mark);
void lr_writer_hang_up(struct lr_writer *w);

/* ---- stream.c ---- */

/* Takes ownership of the byte channel and pidfd, also when it fails: NULL with errno. */
struct lr_link *lr_stream_new(struct lr_byte_channel *channel, int pidfd, int64_t spin_us,
	char *error, int error_size);

#endif
