/*
 * pages.c - preloaded: a system with larger pages than this one's, as far as a program can
 * see. LR_TEST_PAGES says how large; with LR_TEST_PAGES_UNTOLD only mapping knows.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/shm.h>
#include <sys/syscall.h>
#include <unistd.h>

static size_t page(void)
{
	const char *said = getenv("LR_TEST_PAGES");
	return said ? (size_t)atoi(said) : 4096;
}

static void *map(void *at, size_t size, int protection, int flags, int fd, off_t offset)
{
	return (void *)syscall(SYS_mmap, at, size, protection, flags, fd, offset);
}

/* Somewhere: at a multiple of the page, with what is too much given back. */
static void *map_anywhere(size_t size, int protection, int flags, int fd, off_t offset)
{
	size_t whole = (size + 4095) & ~(size_t)4095;
	char *all = map(NULL, whole + page(), PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	char *at = (char *)(((uintptr_t)all + page() - 1) & ~(uintptr_t)(page() - 1));

	if (all == MAP_FAILED)
		return all;
	if (at > all)
		munmap(all, (size_t)(at - all));
	if (at + whole < all + whole + page())
		munmap(at + whole, (size_t)(all + page() - at));
	return map(at, size, protection, flags | MAP_FIXED, fd, offset);
}

void *mmap(void *at, size_t size, int protection, int flags, int fd, off_t offset)
{
	if (offset % (off_t)page() || ((flags & MAP_FIXED) && (uintptr_t)at % page())) {
		errno = EINVAL;
		return MAP_FAILED;
	}
	if (!(flags & MAP_FIXED) && page() > 4096)
		return map_anywhere(size, protection, flags, fd, offset);
	return map(at, size, protection, flags, fd, offset);
}

void *mmap64(void *at, size_t size, int protection, int flags, int fd, off_t offset)
{
	return mmap(at, size, protection, flags, fd, offset);
}

void *shmat(int id, const void *at, int flags)
{
	if ((uintptr_t)at % page()) {
		errno = EINVAL;
		return (void *)-1;
	}
	return (void *)syscall(SYS_shmat, id, at, flags);
}

long sysconf(int name)
{
	extern long __sysconf(int);

	if (name == _SC_PAGESIZE && !getenv("LR_TEST_PAGES_UNTOLD"))
		return (long)page();
	return __sysconf(name);
}
