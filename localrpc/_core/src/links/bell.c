/*
 * bell.c - the eventfd that wakes a ring's sleeper.
 *
 * Each side makes its own and gives it to the peer: a semaphore with the highest count. The
 * peer rings by reading it, which takes one from the count: then it is writable, and each
 * read is a new edge for epoll.
 *
 * A peer must not be able to block the ringing thread. Whether write(2) blocks depends on a
 * flag of the open file description, which both sides share and the peer can clear at any
 * moment; a read can be made nonblocking in the call itself. An eventfd is read under a
 * spinlock. A pipe is not suitable: its mutex is held while data is copied to the reader's
 * memory, and a peer can delay that without limit with a page that a FUSE server or
 * userfaultfd(2) has to fill.
 */
#include "ring.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#ifndef RWF_NOWAIT
#define RWF_NOWAIT 8
#endif

/* True if read_nonblocking() works: since Linux 5.8, unless a sandbox refuses preadv2(2). */
static _Atomic bool never_waits;

static long read_nonblocking(int bell_fd)
{
#ifdef SYS_preadv2
	uint64_t one;
	struct iovec into = {&one, sizeof one};

	return syscall(SYS_preadv2, bell_fd, &into, 1L, -1L, -1L, RWF_NOWAIT);
#else
	(void)bell_fd;
	errno = ENOSYS;
	return -1;
#endif
}

int lr_make_bell(void)
{
	static const uint64_t full = 0xfffffffffffffffe;
	int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK | EFD_SEMAPHORE), saved;

	if (fd < 0)
		return -errno;
	if (read_nonblocking(fd) < 0 && errno == EAGAIN)
		atomic_store_explicit(&never_waits, true, memory_order_relaxed);
	if (write(fd, &full, sizeof full) == sizeof full)
		return fd;
	saved = errno;
	close(fd);
	return -saved;
}

static bool may_block(int bell_fd)
{
	return !(fcntl(bell_fd, F_GETFL) & O_NONBLOCK);
}

const char *lr_bell_fault(int bell_fd)
{
	static const char eventfd[] = "anon_inode:[eventfd]";
	char path[32], kind[sizeof eventfd];
	ssize_t n;

	snprintf(path, sizeof path, "/proc/self/fd/%d", bell_fd);
	n = readlink(path, kind, sizeof kind);
	if (n >= 0 && (n != sizeof eventfd - 1 || memcmp(kind, eventfd, (size_t)n)))
		return "its bell is not an eventfd";
	return may_block(bell_fd) ? "its bell is without O_NONBLOCK" : NULL;
}

/* With a count of 0, which only its owner can cause, this does not wake the owner. */
bool lr_bell_ring(int bell_fd)
{
	uint64_t one;

	if (atomic_load_explicit(&never_waits, memory_order_relaxed))
		read_nonblocking(bell_fd);
	else if (may_block(bell_fd)) /* best effort: the flag could be cleared after this check */
		return false;
	else
		syscall(SYS_read, bell_fd, &one, sizeof one);
	return true;
}

short lr_bell_events(const struct lr_link *link)
{
	return link->rung_by_read ? POLLOUT : POLLIN;
}

bool lr_bell_clear(const struct lr_link *link)
{
	uint64_t count = 1;

	if (!link->rung_by_read)
		return read(link->bell_fd, &count, sizeof count) > 0;
	while (write(link->bell_fd, &count, sizeof count) > 0)
		;
	return errno == EAGAIN;
}
