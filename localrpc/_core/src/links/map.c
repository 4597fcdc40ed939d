/* map.c - a ring's memory, of each kind: checking it, and mapping it. */
#include "ring.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/shm.h>
#include <sys/stat.h>
#include <unistd.h>

uint32_t lr_page(void)
{
	static _Atomic uint32_t page;

	if (!atomic_load_explicit(&page, memory_order_relaxed))
		atomic_store_explicit(&page, (uint32_t)sysconf(_SC_PAGESIZE), memory_order_relaxed);
	return atomic_load_explicit(&page, memory_order_relaxed);
}

/* False with errno, or with *why. Memory without seals may be resized later: processes of one
 * user are trusted not to do that to each other. */
static bool check_memory(int memory, int fd, uint64_t size, const char **why)
{
	const int wanted = F_SEAL_SHRINK | F_SEAL_GROW;
	bool ours = true;
	uint64_t there;

	*why = NULL;
	if (memory == LR_MEMORY_SYSV) {
		struct shmid_ds segment;

		if (shmctl(fd, IPC_STAT, &segment) < 0)
			return false;
		ours = (segment.shm_perm.mode & 0777) == 0600 &&
		       segment.shm_perm.uid == geteuid() && segment.shm_perm.cuid == geteuid();
		there = segment.shm_segsz;
	} else {
		struct stat st;
		int seals = memory == LR_MEMORY_SEALED ? fcntl(fd, F_GET_SEALS) : wanted;

		if (seals < 0 || (seals & wanted) != wanted) {
			*why = "the memory is not sealed against shrinking and growing";
			return false;
		}
		if (fstat(fd, &st) < 0)
			return false;
		if (memory == LR_MEMORY_NAMED)
			ours = (st.st_mode & 0777) == 0600 && st.st_uid == geteuid();
		there = (uint64_t)st.st_size;
	}
	if (!ours)
		*why = "other users have access to the memory";
	else if (there != lr_page() + size)
		*why = "the memory does not have the announced size";
	return !*why;
}

/*
 * A segment can be attached only whole. The second copy is attached first, one ring's length
 * further on, then the first copy over its beginning: the first copy's ring hides the control
 * page of the second, and is followed by the second's ring.
 */
static bool attach_twice(int id, uint8_t *base, uint64_t size, int protection)
{
	int how = SHM_REMAP | (protection & PROT_WRITE ? 0 : SHM_RDONLY);

	return shmat(id, base + size, how) != (void *)-1 && shmat(id, base, how) != (void *)-1;
}

static bool map_twice(int fd, uint8_t *base, uint64_t size, int protection)
{
	const uint64_t whole = lr_page() + size;

	return mmap(base, whole, protection, MAP_SHARED | MAP_FIXED, fd, 0) != MAP_FAILED &&
	       mmap(base + whole, size, protection, MAP_SHARED | MAP_FIXED, fd, lr_page()) !=
		       MAP_FAILED;
}

void *lr_map_ring(int memory, int fd, uint64_t size, int protection, const char **why)
{
	uint8_t *base;

	if (!check_memory(memory, fd, size, why))
		return NULL;
	base = mmap(NULL, lr_page() + 2 * size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
		-1, 0);
	if (base == MAP_FAILED)
		return NULL;
	if (!(memory == LR_MEMORY_SYSV ? attach_twice : map_twice)(fd, base, size, protection)) {
		int saved = errno;
		munmap(base, lr_page() + 2 * size);
		errno = saved;
		return NULL;
	}
	return base;
}

void lr_unmap_ring(const void *ring, uint64_t size)
{
	if (ring)
		munmap((void *)(uintptr_t)ring, lr_page() + 2 * size);
}

/* ---- System V memory for Python, which has no module for it ---- */

int lr_sysv_create(int key, uint64_t size)
{
	int id = shmget(key, size, IPC_CREAT | IPC_EXCL | 0600);
	return id < 0 ? -errno : id;
}

int lr_sysv_find(int key)
{
	int id = shmget(key, 0, 0);
	return id < 0 ? -errno : id;
}

int lr_sysv_remove(int id)
{
	return shmctl(id, IPC_RMID, NULL) < 0 ? -errno : 0;
}
