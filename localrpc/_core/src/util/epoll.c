/* epoll.c - waiting for events until a moment of CLOCK_MONOTONIC, in nanoseconds. */
#include "util.h"

#include <limits.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

int lr_wait_events(int epoll, struct epoll_event *events, int most, int64_t deadline,
	const sigset_t *mask)
{
	struct timespec left, *timeout = NULL;
	int64_t ns;
	long n;

	if (deadline) {
		ns = deadline - lr_now();
		if (ns < 0)
			ns = 0;
		left.tv_sec = ns / 1000000000;
		left.tv_nsec = ns % 1000000000;
		timeout = &left;
	}
#ifdef SYS_epoll_pwait2
	/* An old kernel returns ENOSYS; a sandbox that does not know the call may return any
	 * error, usually EPERM. The older call then returns the true error. */
	static _Atomic int refused;
	if (!atomic_load_explicit(&refused, memory_order_relaxed)) {
		n = syscall(SYS_epoll_pwait2, epoll, events, most, timeout, mask, (size_t)8);
		if (n >= 0 || errno == EINTR)
			return n < 0 ? -errno : (int)n;
		if (errno != EBADF && errno != EINVAL && errno != EFAULT)
			atomic_store(&refused, 1);
	}
#endif
	n = epoll_pwait(epoll, events, most,
		timeout ? (int)(ns > 2000000000000 ? INT_MAX : (ns + LR_MS - 1) / LR_MS) : -1, mask);
	return n < 0 ? -errno : (int)n;
}
