/*
 * sysv.c - a byte channel: two System V message queues, one for each direction.
 *
 * Such a queue is no descriptor, so nothing can be waited for beside it. While
 * a side is awake it tries without blocking. Who has nothing else to wait for
 * sleeps in msgrcv(2); who has, sends a porter out before it sleeps: a thread that
 * blocks in msgrcv(2) and rings an eventfd with what it got. A message that finds
 * the queue full is left to a second one, in msgsnd(2). Each has one load, which
 * belongs to it while it is OUT and to us otherwise:
 *
 *	RESTING -> OUT (we send it) -> BACK (it got something, or is done) -> RESTING
 *
 * An empty message is the end of its direction, and so is a queue that is gone.
 * Who hangs up removes the queue it reads, so that the peer's sends fail, and the
 * other unless something in it is still to be read: then that is the peer's to
 * remove.
 */
#include "stream.h"

#include <sys/eventfd.h>
#include <sys/ipc.h>
#include <sys/msg.h>
#include <time.h>
#include <unistd.h>

#define TYPE 1
#define INTERRUPT 2 /* the type of an empty message to ourselves, to whoever waits in the queue */

enum { RESTING, OUT, BACK, DISMISSED };

struct load {
	long type;
	uint8_t data[];
};

struct porter {
	struct queues *of;
	_Atomic uint32_t state;
	bool hired;
	pthread_t thread;
	struct load *load;
	ssize_t size; /* of the load; receiver: negative when the queue is gone */
};

struct queues {
	struct lr_byte_channel channel; /* bell_fd: an eventfd of ours, rung by the porters */
	int rx, tx;
	size_t size; /* of the largest message we send */
	struct porter receiver, sender;
	struct load *in, *out; /* ours: the reader's without a lock, the writer's */
	bool hung_up;
	int pidfd; /* the link's */
	uint32_t fork_generation;
	int record_fd; /* names the queues, and goes with them; -1: it is the peer's */
	char *record;
};

static void ring(struct queues *q)
{
	static const uint64_t one = 1;
	if (write(q->channel.bell_fd, &one, sizeof one) < 0)
		return; /* its count is at the top: rung already */
}

static void *carry(void *argument)
{
	struct porter *p = argument;
	struct queues *q = p->of;
	bool receives = p == &q->receiver;
	uint32_t state;
	ssize_t done;

	for (;;) {
		uint32_t out = OUT;
		while ((state = atomic_load(&p->state)) != OUT) {
			if (state == DISMISSED)
				return NULL;
			lr_futex_wait(&p->state, state, 0);
		}
		if (receives)
			do
				done = msgrcv(q->rx, p->load, q->channel.grain, 0, 0);
			while (done == 0 && p->load->type == INTERRUPT);
		else
			done = msgsnd(q->tx, p->load, (size_t)p->size, 0);
		if (done < 0 && errno == EINTR)
			continue; /* the load is still to be carried */
		p->size = done;
		/* SYNC no-lost-load: state, then the bell; who is about to sleep on the
		 * bell looks at the state first, in queue_arm() and queue_writable(). */
		if (!atomic_compare_exchange_strong(&p->state, &out, receives ? BACK : RESTING))
			return NULL;
		ring(q);
	}
}

static bool hire(struct porter *p)
{
	if (p->hired)
		return true;
	if (!p->load && !(p->load = malloc(sizeof *p->load + LR_SYSV_MAX)))
		return false;
	p->hired = lr_start_thread(&p->thread, carry, p, 64 << 10) == 0;
	return p->hired;
}

static void send_out(struct porter *p)
{
	atomic_store(&p->state, OUT);
	lr_futex_wake(&p->state);
}

/* The queue it waits at has been removed, or it rests. */
static void dismiss(struct porter *p)
{
	if (p->hired) {
		atomic_store(&p->state, DISMISSED);
		lr_futex_wake(&p->state);
		pthread_join(p->thread, NULL);
	}
	free(p->load);
}

static ssize_t queue_read(struct lr_byte_channel *ch, uint8_t *at, size_t room, bool *emptied)
{
	struct queues *q = (struct queues *)ch;
	struct load *load = q->in;
	ssize_t got;

	(void)room; /* at least the grain */
	*emptied = false;
	switch (atomic_load(&q->receiver.state)) {
	case OUT:
		*emptied = true; /* whatever comes, it brings, with a ring */
		return 0;
	case BACK:
		load = q->receiver.load;
		got = q->receiver.size;
		if (got > 0)
			memcpy(at, load->data, (size_t)got);
		atomic_store(&q->receiver.state, RESTING);
		return got > 0 ? got : LR_CLOSED;
	}
	do
		got = msgrcv(q->rx, load, ch->grain, 0, IPC_NOWAIT);
	while (got < 0 ? errno == EINTR : load->type == INTERRUPT);
	if (got < 0 && errno == ENOMSG) {
		*emptied = true;
		return 0;
	}
	if (got <= 0)
		return LR_CLOSED;
	memcpy(at, load->data, (size_t)got);
	return got;
}

static bool queue_may_wait(const struct lr_byte_channel *ch)
{
	return atomic_load(&((const struct queues *)ch)->receiver.state) == RESTING;
}

static ssize_t queue_wait(struct lr_byte_channel *ch, uint8_t *at, size_t room)
{
	struct queues *q = (struct queues *)ch;
	ssize_t got = msgrcv(q->rx, q->in, ch->grain, 0, 0);

	(void)room; /* at least the grain */
	if (got < 0)
		return errno == EINTR ? LR_AGAIN : LR_CLOSED;
	if (q->in->type == INTERRUPT)
		return 0;
	if (got == 0)
		return LR_CLOSED;
	memcpy(at, q->in->data, (size_t)got);
	return got;
}

static void queue_interrupt(struct lr_byte_channel *ch)
{
	struct load interrupt = {.type = INTERRUPT};

	while (msgsnd(((struct queues *)ch)->rx, &interrupt, 0, IPC_NOWAIT) < 0 && errno == EINTR)
		; /* full: nobody waits for something to come */
}

static bool queue_arm(struct lr_byte_channel *ch)
{
	struct queues *q = (struct queues *)ch;

	switch (atomic_load(&q->receiver.state)) {
	case OUT:
		return true;
	case BACK:
		return false;
	}
	if (!hire(&q->receiver))
		return false; /* no thread to be had: go on without sleep */
	send_out(&q->receiver);
	return true;
}

static ssize_t queue_write(struct lr_byte_channel *ch, const struct iovec *iov, int count)
{
	struct queues *q = (struct queues *)ch;
	struct lr_left left = lr_left_of(iov, count);
	size_t done = 0;

	if (q->hung_up)
		return LR_CLOSED;
	while (left.count && atomic_load(&q->sender.state) != OUT) {
		size_t size = lr_left_copy(&left, q->out->data, q->size);
		long r;

		q->out->type = TYPE;
		do
			r = msgsnd(q->tx, q->out, size, IPC_NOWAIT);
		while (r < 0 && errno == EINTR);
		if (r < 0 && errno == EAGAIN && hire(&q->sender)) {
			memcpy(q->sender.load, q->out, sizeof *q->out + size);
			q->sender.size = (ssize_t)size;
			send_out(&q->sender);
		} else if (r < 0) {
			return done || errno == EAGAIN ? (ssize_t)done : LR_CLOSED;
		}
		done += size;
		lr_left_pass(&left, size);
	}
	return (ssize_t)done;
}

static bool queue_writable(struct lr_byte_channel *ch)
{
	return atomic_load(&((struct queues *)ch)->sender.state) != OUT;
}

/* A queue takes what nobody will read, so ask before a call opens. */
static bool queue_gone(struct lr_byte_channel *ch)
{
	return lr_exited(((struct queues *)ch)->pidfd);
}

static uint64_t queue_unread(struct lr_byte_channel *ch)
{
	struct msqid_ds ds;
	return msgctl(((struct queues *)ch)->tx, IPC_STAT, &ds) < 0 ? 0 : ds.__msg_cbytes;
}

static void queue_hang_up(struct lr_byte_channel *ch)
{
	struct queues *q = (struct queues *)ch;
	struct timespec pause = {0, 100 * LR_US};
	struct load end = {.type = TYPE};
	struct msqid_ds ds;
	int patience = 200;

	if (q->hung_up || q->fork_generation != lr_fork_generation())
		return;
	q->hung_up = true;
	msgctl(q->rx, IPC_RMID, NULL);
	while (!queue_gone(ch) && msgctl(q->tx, IPC_STAT, &ds) == 0 && ds.msg_qnum) {
		if (queue_writable(ch) && msgsnd(q->tx, &end, 0, IPC_NOWAIT) == 0) {
			ring(q);
			return;
		}
		if (patience-- == 0)
			break;
		nanosleep(&pause, NULL);
	}
	msgctl(q->tx, IPC_RMID, NULL);
	ring(q); /* whoever sleeps is to see the end */
}

static void queue_close(struct lr_byte_channel *ch)
{
	struct queues *q = (struct queues *)ch;
	struct msqid_ds ds;

	if (q->fork_generation == lr_fork_generation()) {
		queue_hang_up(ch);
		if (queue_gone(ch) || !queue_writable(ch))
			msgctl(q->tx, IPC_RMID, NULL);
		dismiss(&q->receiver);
		dismiss(&q->sender);
		/* While the peer has something to read, the record is for whoever finds
		 * it dead. We remove our queue, then look at the peer's; it does the
		 * same: at least one of us sees both gone. */
		if (q->record && msgctl(q->tx, IPC_STAT, &ds) < 0)
			unlink(q->record);
	}
	lr_close_if(q->record_fd);
	close(ch->bell_fd);
	free(q->record);
	free(q->in);
	free(q->out);
	free(q);
}

static const struct lr_byte_channel_ops queue_ops = {
	.read = queue_read,
	.write = queue_write,
	.writable = queue_writable,
	.gone = queue_gone,
	.unread = queue_unread,
	.arm = queue_arm,
	.wait = queue_wait,
	.may_wait = queue_may_wait,
	.interrupt = queue_interrupt,
	.hang_up = queue_hang_up,
	.close = queue_close,
};

struct lr_link *lr_sysv_open(int rx_id, int tx_id, uint32_t size, int pidfd, int record_fd,
	const char *record, int64_t spin_us, char *error, int error_size)
{
	struct queues *q = calloc(1, sizeof *q);
	int bell = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);

	if (q && bell >= 0) {
		q->in = malloc(sizeof *q->in + LR_SYSV_MAX);
		q->out = malloc(sizeof *q->out + LR_SYSV_MAX);
		q->record = record ? strdup(record) : NULL;
	}
	if (!q || !q->in || !q->out || (record && !q->record) || size == 0 || size > LR_SYSV_MAX) {
		int saved = bell < 0 ? errno : size == 0 || size > LR_SYSV_MAX ? EINVAL : ENOMEM;
		lr_fill_error(error, error_size, "%s", strerror(saved));
		msgctl(rx_id, IPC_RMID, NULL);
		msgctl(tx_id, IPC_RMID, NULL);
		if (q) {
			free(q->in);
			free(q->out);
			free(q->record);
		}
		free(q);
		lr_close_if(bell);
		lr_close_if(pidfd);
		lr_close_if(record_fd);
		errno = saved;
		return NULL;
	}
	q->channel = (struct lr_byte_channel){.ops = &queue_ops, .bell_fd = bell, .room_fd = -1,
		.grain = LR_SYSV_MAX, .lazy = true};
	q->rx = rx_id;
	q->tx = tx_id;
	q->size = size;
	q->pidfd = pidfd;
	q->record_fd = record_fd;
	q->receiver.of = q->sender.of = q;
	q->fork_generation = lr_fork_generation();
	return lr_stream_new(&q->channel, pidfd, spin_us, error, error_size);
}

/* ---- what Python needs of System V: it has no module for it ---- */

int lr_msgget(int key, int create)
{
	int id = msgget(key, create ? IPC_CREAT | IPC_EXCL | 0600 : 0);
	return id < 0 ? -errno : id;
}

int lr_msgctl_remove(int id)
{
	return msgctl(id, IPC_RMID, NULL) < 0 ? -errno : 0;
}

int lr_msgctl_stat(int id, struct lr_msgq *facts)
{
	struct msqid_ds ds;

	if (msgctl(id, IPC_STAT, &ds) < 0)
		return -errno;
	/* Who made it: the owner is what msgctl(2) has last been told. */
	facts->uid = ds.msg_perm.cuid;
	facts->gid = ds.msg_perm.cgid;
	facts->mode = ds.msg_perm.mode;
	facts->sender = ds.msg_lspid;
	facts->bytes = ds.msg_qbytes;
	return 0;
}

int lr_msgsnd(int id, const char *data, uint32_t size)
{
	struct load *load = malloc(sizeof *load + size);
	int r;

	if (!load)
		return -ENOMEM;
	load->type = TYPE;
	memcpy(load->data, data, size);
	r = msgsnd(id, load, size, IPC_NOWAIT) < 0 ? -errno : 0;
	free(load);
	return r;
}

int lr_msgrcv(int id, char *data, uint32_t room, int wait)
{
	struct load *load = malloc(sizeof *load + room);
	ssize_t got;

	if (!load)
		return -ENOMEM;
	/* Cut what is too long: it would stay, and nobody get past it. */
	got = msgrcv(id, load, room, 0, MSG_NOERROR | (wait ? 0 : IPC_NOWAIT));
	if (got < 0)
		got = -errno;
	else
		memcpy(data, load->data, (size_t)got);
	free(load);
	return (int)got;
}
