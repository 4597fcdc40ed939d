/*
 * sysv.c - a byte channel: two System V message queues, one for each direction.
 *
 * Such a queue is not a descriptor, so a thread cannot wait for it and for something else.
 * While a side is awake it tries without blocking. A thread that waits for nothing else
 * sleeps in msgrcv(2). Any other starts a helper thread before it sleeps, which blocks in
 * msgrcv(2) and rings an eventfd when it has a message. If the queue is full, a second
 * helper sends the message with msgsnd(2). Each helper has one message, which belongs to
 * the helper while it is BUSY and to the link otherwise:
 *
 *	IDLE -> BUSY (the link gives it a task) -> DONE (it has received) -> IDLE
 *
 * The sender goes from BUSY to IDLE. An empty message is the end of its direction, and so is
 * a removed queue. A side that hangs up removes the queue it reads, so that the peer's sends
 * fail, and the other queue too unless it still holds messages: then the peer removes it.
 */
#include "stream.h"

#include <sys/eventfd.h>
#include <sys/ipc.h>
#include <sys/msg.h>
#include <time.h>
#include <unistd.h>

#define TYPE 1
#define INTERRUPT 2 /* the type of an empty message to ourselves, which ends a wait */

enum { IDLE, BUSY, DONE, STOPPED };

struct message {
	long type;
	uint8_t data[];
};

struct helper {
	struct queues *of;
	_Atomic uint32_t state;
	bool started;
	pthread_t thread;
	struct message *message;
	ssize_t size; /* of the message; receiver: negative when the queue is gone */
};

struct queues {
	struct lr_byte_channel channel; /* bell_fd: our own eventfd, which the helpers ring */
	int rx, tx;
	size_t size; /* of the largest message we send */
	struct helper receiver, sender;
	struct message *in, *out; /* the reader's, without a lock, and the writer's */
	bool hung_up;
	int pidfd; /* the link's */
	uint32_t fork_generation;
	int record_fd; /* names the queues, and is removed with them; -1: the peer's */
	char *record;
};

static void ring(struct queues *q)
{
	static const uint64_t one = 1;
	if (write(q->channel.bell_fd, &one, sizeof one) < 0)
		return; /* its count is at the top: rung already */
}

static void *run_helper(void *argument)
{
	struct helper *p = argument;
	struct queues *q = p->of;
	bool receives = p == &q->receiver;
	uint32_t state;
	ssize_t done;

	for (;;) {
		uint32_t busy = BUSY;
		while ((state = atomic_load(&p->state)) != BUSY) {
			if (state == STOPPED)
				return NULL;
			lr_futex_wait(&p->state, state, 0);
		}
		if (receives)
			do
				done = msgrcv(q->rx, p->message, q->channel.min_read, 0, 0);
			while (done == 0 && p->message->type == INTERRUPT);
		else
			done = msgsnd(q->tx, p->message, (size_t)p->size, 0);
		if (done < 0 && errno == EINTR)
			continue; /* the message is still to be sent or received */
		p->size = done;
		/* SYNC no-lost-message: we store the state, then ring; a thread that is about to
		 * sleep on the bell loads the state first, in queue_arm() and queue_writable(). */
		if (!atomic_compare_exchange_strong(&p->state, &busy, receives ? DONE : IDLE))
			return NULL;
		ring(q);
	}
}

static bool start_helper(struct helper *p)
{
	if (p->started)
		return true;
	if (!p->message && !(p->message = malloc(sizeof *p->message + LR_SYSV_MAX)))
		return false;
	p->started = lr_start_thread(&p->thread, run_helper, p, 64 << 10) == 0;
	return p->started;
}

static void give_task(struct helper *p)
{
	atomic_store(&p->state, BUSY);
	lr_futex_wake(&p->state);
}

/* The queue that it blocks on has been removed, or it is idle. */
static void stop_helper(struct helper *p)
{
	if (p->started) {
		atomic_store(&p->state, STOPPED);
		lr_futex_wake(&p->state);
		pthread_join(p->thread, NULL);
	}
	free(p->message);
}

static ssize_t queue_read(struct lr_byte_channel *ch, uint8_t *at, size_t room, bool *emptied)
{
	struct queues *q = (struct queues *)ch;
	struct message *message = q->in;
	ssize_t got;

	(void)room; /* at least min_read */
	*emptied = false;
	switch (atomic_load(&q->receiver.state)) {
	case BUSY:
		*emptied = true; /* the helper receives the next message, and rings */
		return 0;
	case DONE:
		message = q->receiver.message;
		got = q->receiver.size;
		if (got > 0)
			memcpy(at, message->data, (size_t)got);
		atomic_store(&q->receiver.state, IDLE);
		return got > 0 ? got : LR_CLOSED;
	}
	do
		got = msgrcv(q->rx, message, ch->min_read, 0, IPC_NOWAIT);
	while (got < 0 ? errno == EINTR : message->type == INTERRUPT);
	if (got < 0 && errno == ENOMSG) {
		*emptied = true;
		return 0;
	}
	if (got <= 0)
		return LR_CLOSED;
	memcpy(at, message->data, (size_t)got);
	return got;
}

static bool queue_may_wait(const struct lr_byte_channel *ch)
{
	return atomic_load(&((const struct queues *)ch)->receiver.state) == IDLE;
}

static ssize_t queue_wait(struct lr_byte_channel *ch, uint8_t *at, size_t room)
{
	struct queues *q = (struct queues *)ch;
	ssize_t got = msgrcv(q->rx, q->in, ch->min_read, 0, 0);

	(void)room; /* at least min_read */
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
	struct message interrupt = {.type = INTERRUPT};

	while (msgsnd(((struct queues *)ch)->rx, &interrupt, 0, IPC_NOWAIT) < 0 && errno == EINTR)
		; /* full: no thread waits for a message */
}

static bool queue_arm(struct lr_byte_channel *ch)
{
	struct queues *q = (struct queues *)ch;

	switch (atomic_load(&q->receiver.state)) {
	case BUSY:
		return true;
	case DONE:
		return false;
	}
	if (!start_helper(&q->receiver))
		return false; /* no thread could be started: go on without sleep */
	give_task(&q->receiver);
	return true;
}

static ssize_t queue_write(struct lr_byte_channel *ch, const struct iovec *iov, int count)
{
	struct queues *q = (struct queues *)ch;
	struct lr_iov_rest left = lr_iov_rest_of(iov, count);
	size_t done = 0;

	if (q->hung_up)
		return LR_CLOSED;
	while (left.count && atomic_load(&q->sender.state) != BUSY) {
		size_t size = lr_iov_rest_copy(&left, q->out->data, q->size);
		long r;

		q->out->type = TYPE;
		do
			r = msgsnd(q->tx, q->out, size, IPC_NOWAIT);
		while (r < 0 && errno == EINTR);
		if (r < 0 && errno == EAGAIN && start_helper(&q->sender)) {
			memcpy(q->sender.message, q->out, sizeof *q->out + size);
			q->sender.size = (ssize_t)size;
			give_task(&q->sender);
		} else if (r < 0) {
			return done || errno == EAGAIN ? (ssize_t)done : LR_CLOSED;
		}
		done += size;
		lr_iov_rest_skip(&left, size);
	}
	return (ssize_t)done;
}

static bool queue_writable(struct lr_byte_channel *ch)
{
	return atomic_load(&((struct queues *)ch)->sender.state) != BUSY;
}

/* A queue takes messages that no process will read, so check before a call opens. */
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
	struct message end = {.type = TYPE};
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
	ring(q); /* wake a sleeping thread of this side, so that it sees the end */
}

static void queue_close(struct lr_byte_channel *ch)
{
	struct queues *q = (struct queues *)ch;
	struct msqid_ds ds;

	if (q->fork_generation == lr_fork_generation()) {
		queue_hang_up(ch);
		if (queue_gone(ch) || !queue_writable(ch))
			msgctl(q->tx, IPC_RMID, NULL);
		stop_helper(&q->receiver);
		stop_helper(&q->sender);
		/* While the peer has messages to read, keep the record: a process that finds the
		 * peer dead needs it to remove the queue. Each side removes its own queue, then
		 * looks at the other's, so at least one side sees that both are removed. */
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
		.min_read = LR_SYSV_MAX, .lazy = true};
	q->rx = rx_id;
	q->tx = tx_id;
	q->size = size;
	q->pidfd = pidfd;
	q->record_fd = record_fd;
	q->receiver.of = q->sender.of = q;
	q->fork_generation = lr_fork_generation();
	return lr_stream_new(&q->channel, pidfd, spin_us, error, error_size);
}

/* ---- System V queues for Python, which has no module for them ---- */

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
	/* The creator: the owner can be changed with msgctl(2). */
	facts->uid = ds.msg_perm.cuid;
	facts->gid = ds.msg_perm.cgid;
	facts->mode = ds.msg_perm.mode;
	facts->sender = ds.msg_lspid;
	facts->bytes = ds.msg_qbytes;
	return 0;
}

int lr_msgsnd(int id, const char *data, uint32_t size)
{
	struct message *message = malloc(sizeof *message + size);
	int r;

	if (!message)
		return -ENOMEM;
	message->type = TYPE;
	memcpy(message->data, data, size);
	r = msgsnd(id, message, size, IPC_NOWAIT) < 0 ? -errno : 0;
	free(message);
	return r;
}

int lr_msgrcv(int id, char *data, uint32_t room, int wait)
{
	struct message *message = malloc(sizeof *message + room);
	ssize_t got;

	if (!message)
		return -ENOMEM;
	/* Cut a message that is too long: otherwise it would block the queue. */
	got = msgrcv(id, message, room, 0, MSG_NOERROR | (wait ? 0 : IPC_NOWAIT));
	if (got < 0)
		got = -errno;
	else
		memcpy(data, message->data, (size_t)got);
	free(message);
	return (int)got;
}
