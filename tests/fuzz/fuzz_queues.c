/*
 * fuzz_queues.c - a link on two POSIX or System V message queues.
 *
 * Invariant: as fuzz_stream.c's, wherever messages are cut, and whatever messages of
 * other kinds, ends and removals a peer puts among them; no thread waits in a queue without end.
 */
#include "bytes.h"

#include "../native/queues.h"

#include <sys/msg.h>
#include <sys/stat.h>

static bool posix;
static int far_in, far_out; /* descriptors, or ids of System V queues */

struct piece {
	long type;
	uint8_t bytes[8192];
};

/* One message: 0 or more, or -1. */
static ssize_t put(const uint8_t *data, size_t size, unsigned kind)
{
	static struct piece piece;
	static const struct timespec now_or_not = {0, 0};

	if (posix)
		return syscall(SYS_mq_timedsend, far_out, data, size, kind, &now_or_not);
	piece.type = kind;
	memcpy(piece.bytes, data, size);
	return msgsnd(far_out, &piece, size, IPC_NOWAIT);
}

static size_t feed(const uint8_t *data, size_t size)
{
	size_t done = 0;

	while (done < size) {
		size_t n = size - done < 8192 ? size - done : 8192;

		if (put(data + done, n, posix ? 0 : 1) < 0)
			break;
		done += n;
	}
	return done;
}

static ssize_t drain(uint8_t *data, size_t size)
{
	static struct piece piece;
	static const struct timespec now_or_not = {0, 0};
	unsigned kind;
	ssize_t n;

	if (size < 8192)
		return 0;
	if (posix) {
		n = syscall(SYS_mq_timedreceive, far_in, data, size, &kind, &now_or_not);
		return n < 0 ? 0 : n && kind == 0 ? n : -1;
	}
	n = msgrcv(far_in, &piece, sizeof piece.bytes, 0, IPC_NOWAIT | MSG_NOERROR);
	if (n > 0)
		memcpy(data, piece.bytes, (size_t)n);
	return n < 0 ? 0 : n && piece.type == 1 ? n : -1;
}

static void end(void)
{
	struct msqid_ds ds;

	if (!posix) {
		msgctl(far_in, IPC_RMID, NULL);
		if (msgctl(far_out, IPC_STAT, &ds) == 0 && ds.msg_qnum)
			put((const uint8_t *)"", 0, 1);
		else
			msgctl(far_out, IPC_RMID, NULL);
		return;
	}
	while (syscall(SYS_mq_timedsend, far_in, "", 0, 0, &(struct timespec){0, 0}) == 0)
		;
	fchmod(far_out, 0400);
	put((const uint8_t *)"", 0, 0);
}

static bool misbehave(uint8_t which)
{
	switch (which % 8) {
	case 0: /* an end in the middle */
		put((const uint8_t *)"", 0, posix ? 0 : 1);
		return true;
	case 1: /* an interrupt from the peer */
		put((const uint8_t *)"", 0, 2);
		return false;
	case 2:
		put(pattern(0), which, 2);
		return true;
	case 3:
		put(pattern(0), which, 3 + which % 4);
		return true;
	case 4:
		if (posix)
			fchmod(far_out, 0400);
		else
			msgctl(which & 8 ? far_out : far_in, IPC_RMID, NULL);
		return true;
	case 5: /* into the queue that it reads */
		if (posix)
			syscall(SYS_mq_timedsend, far_in, "x", which & 1, 0, &(struct timespec){0, 0});
		return true;
	}
	return false;
}

static const struct far far = {feed, drain, end, misbehave};

static struct lr_link *on_posix(int theirs[2])
{
	pid_t us = getpid();
	char error[100];
	struct lr_link *link;

	far_out = open_mqueue(us, 0);
	far_in = open_mqueue(us, 1);
	theirs[0] = open_mqueue(us, 0);
	theirs[1] = open_mqueue(us, 1);
	unlink_mqueues(us);
	link = lr_mqueue_open(theirs[0], theirs[1], -1, -1, error, sizeof error);
	return link;
}

static struct lr_link *on_sysv(void)
{
	char error[100];

	far_out = lr_msgget(0, 1);
	far_in = lr_msgget(0, 1);
	return lr_sysv_open(far_out, far_in, in_byte() & 1 ? 64 : LR_SYSV_MAX, -1, -1, NULL, -1, error,
		sizeof error);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct lr_link *link;
	int theirs[2];

	world_begin(data, size);
	posix = in_byte() & 1;
	link = posix ? on_posix(theirs) : on_sysv();
	CHECK(link);
	bytes_run(&far, link);
	if (posix) {
		close(far_in);
		close(far_out);
	} else {
		msgctl(far_in, IPC_RMID, NULL);
		msgctl(far_out, IPC_RMID, NULL);
	}
	world_finish();
	return 0;
}
