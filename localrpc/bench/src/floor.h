/*
 * floor.h - the benchmark's floors: the fastest round trips that are possible.
 * cffi parses this file as it stands, after the core's api.h.
 *
 * An echo function answers messages until the end. A ping function makes round trips, one
 * after the other, for `ns` nanoseconds: it returns their number, the time of each in `taken`,
 * and the last answer, which is as long as the message, in `back`.
 */

/* Over the system's primitives: what rx and tx are. */
#define LR_FLOOR_DESCRIPTOR 0 /* descriptors that block: of pipes, of a socket */
#define LR_FLOOR_MQUEUE 1     /* those of POSIX queues */
#define LR_FLOOR_SYSV 2       /* ids of System V queues */
int lr_floor_echo(int how, int rx, int tx);
int64_t lr_floor_ping(int how, int rx, int tx, const char *data, char *back, uint32_t len,
	int64_t ns, int64_t *taken, int64_t room);
int lr_floor_msgsnd(int id, const char *data, uint32_t size); /* lr_msgsnd that waits for room */

/* Over a link of the core: a message is one or more frames of at most LR_PIECE bytes, with its
 * whole length instead of a call; sending waits for room. lr_link_await is lr_link_recv after a
 * spin, if the peer runs on another CPU. */
int lr_link_put(struct lr_link *link, const char *data, uint32_t len);
int lr_link_await(struct lr_link *link, struct lr_io *io);
int lr_link_echo(struct lr_link *link, struct lr_io *io);
int64_t lr_link_ping(struct lr_link *link, struct lr_io *io, const char *data, char *back,
	uint32_t len, int64_t ns, int64_t *taken, int64_t room);
