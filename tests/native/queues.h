/*
 * queues.h - queues for two ends that are made by hand: each end has a descriptor of
 * its own, because one of the two waits in a queue and the other does not.
 */
#include <fcntl.h>
#include <mqueue.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <unistd.h>

/* The queue that this side writes, of `owner`'s two; made if it is not there. */
static int open_mqueue(pid_t owner, int writer)
{
	struct mq_attr attr = {.mq_maxmsg = 3, .mq_msgsize = 8192};
	char name[40];

	snprintf(name, sizeof name, "localrpc-by-hand-%d-%d", owner, writer);
	return (int)syscall(SYS_mq_open, name, O_CREAT | O_RDWR | O_CLOEXEC, 0600, &attr);
}

static void unlink_mqueues(pid_t owner)
{
	char name[40];

	for (int writer = 0; writer < 2; writer++) {
		snprintf(name, sizeof name, "localrpc-by-hand-%d-%d", owner, writer);
		syscall(SYS_mq_unlink, name);
	}
}
