/*
 * watches.c - preloaded: epoll_ctl(2) fails with ENOSPC, as for a user who has all of
 * fs.epoll.max_user_watches, once the file LR_TEST_NO_WATCHES names is there: for events
 * that its first byte asks for ('o' room, 'i' what comes).
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <unistd.h>

int epoll_ctl(int epoll, int what, int fd, struct epoll_event *event)
{
	const char *path = getenv("LR_TEST_NO_WATCHES");
	int file = path && what == EPOLL_CTL_ADD ? open(path, O_RDONLY | O_CLOEXEC) : -1;
	char kind = 0;

	if (file >= 0 && read(file, &kind, 1) < 0)
		kind = 0;
	if (file >= 0)
		close(file);
	if ((kind == 'o' && event->events & EPOLLOUT) || (kind == 'i' && event->events & EPOLLIN)) {
		errno = ENOSPC;
		return -1;
	}
	return (int)syscall(SYS_epoll_ctl, epoll, what, fd, event);
}
