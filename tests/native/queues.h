/*
 * queues.h - queues for two ends that are made by hand: each end has a descriptor of its own,
 * because one end blocks in a queue and the other does not.
 */
#include <errno.h>
#include <fcntl.h>
#include <mqueue.h>
#include <poll.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Open the queue that side `writer` writes, of `owner`'s two; make it if it is missing. Other
 * programs may have used up this user's limit for queues, for a while. */
static int open_mqueue(pid_t owner, int writer)
{
	struct mq_attr attr = {.mq_maxmsg = 3, .mq_msgsize = 8192};
	char name[40];
	int fd;

	snprintf(name, sizeof name, "localrpc-by-hand-%d-%d", owner, writer);
	for (int tries = 0; tries < 1000; tries++) {
		fd = (int)syscall(SYS_mq_open, name, O_CREAT | O_RDWR | O_CLOEXEC, 0600, &attr);
		if (fd >= 0 || errno != EMFILE)
			break;
		poll(NULL, 0, 20);
	}
	return fd;
}

static void unlink_mqueues(pid_t owner)
{
	char name[40];

	for (int writer = 0; writer < 2; writer++) {
		snprintf(name, sizeof name, "localrpc-by-hand-%d-%d", owner, writer);
		syscall(SYS_mq_unlink, name);
	}
}
