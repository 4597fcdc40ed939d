/*
 * page.c - the process's page: what its engines count, in memory that other processes can find
 * and read. It is a memfd named "localrpc", which /proc/PID/fd shows to the same user; it goes
 * with the process, however that ends, and shows a process that is stopped or busy all the same.
 */
#include "util.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define NOEXEC_SEAL 8u /* MFD_NOEXEC_SEAL */
#define SEAL_FUTURE_WRITE 16 /* F_SEAL_FUTURE_WRITE: from Linux 5.1 on */
#define PAGE_SIZE (LR_ENTRY_SIZE * (LR_ENTRIES + 1ull))

_Static_assert(sizeof(struct lr_page) <= LR_ENTRY_SIZE, "the header's place");
_Static_assert(sizeof(struct lr_entry) <= LR_ENTRY_SIZE, "an entry's place");

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static struct lr_page *page;
static int page_fd = -1;
static ino_t page_inode;
static uint64_t keys[LR_ENTRIES]; /* of each entry's role and name: 0, it has never been used */
static uint64_t left[LR_ENTRIES]; /* in which order engines have left those that are FORMER */
static uint64_t leaves;

/* The page is the parent's. Its descriptor is here, too, unless the program has closed them all and
 * another file has the number. */
static void in_child(void)
{
	struct stat st;

	pthread_mutex_init(&lock, NULL);
	if (page_fd >= 0 && fstat(page_fd, &st) == 0 && st.st_ino == page_inode)
		close(page_fd);
	page_fd = -1;
	page = NULL;
	memset(keys, 0, sizeof keys);
}

static void watch_forks(void)
{
	pthread_atfork(NULL, NULL, in_child);
}

static int memory_file(const char *name)
{
	const unsigned flags = MFD_CLOEXEC | MFD_ALLOW_SEALING;
	int fd = memfd_create(name, flags | NOEXEC_SEAL);

	return fd < 0 && errno == EINVAL ? memfd_create(name, flags) : fd; /* before Linux 6.3 */
}

/* Where there is no memfd, in some sandboxes, only the process itself sees its page. */
static struct lr_page *open_page(void)
{
	int fd = memory_file("localrpc");
	struct stat st;
	void *at;

	if (fd >= 0 && (ftruncate(fd, (off_t)PAGE_SIZE) < 0 || fstat(fd, &st) < 0)) {
		close(fd);
		fd = -1;
	}
	at = mmap(NULL, PAGE_SIZE, PROT_READ | PROT_WRITE,
		fd < 0 ? MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE : MAP_SHARED, fd, 0);
	if (at == MAP_FAILED) {
		lr_close_if(fd);
		return NULL;
	}
	if (fd >= 0) {
		fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL);
		page_inode = st.st_ino;
	}
	page_fd = fd;
	page = at;
	page->entry_size = LR_ENTRY_SIZE;
	page->entries = LR_ENTRIES;
	page->pid = (uint32_t)getpid();
	page->version = LR_PAGE_VERSION;
	memcpy(page->magic, "localrpc", sizeof page->magic); /* last: a reader looks at it first */
	return page;
}

/*
 * One page of zeros that this process alone can write, also after it has sent the descriptor; or
 * NULL. It cannot be made smaller under its readers.
 */
void *lr_shared_page(int *fd)
{
	const int seals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL | SEAL_FUTURE_WRITE;
	long size = sysconf(_SC_PAGESIZE);
	void *at = MAP_FAILED;

	*fd = memory_file("localrpc-load");
	if (*fd >= 0 && ftruncate(*fd, size) == 0)
		at = mmap(NULL, (size_t)size, PROT_READ | PROT_WRITE, MAP_SHARED, *fd, 0);
	if (at != MAP_FAILED && fcntl(*fd, F_ADD_SEALS, seals) == 0)
		return at;
	if (at != MAP_FAILED)
		munmap(at, (size_t)size);
	lr_close_if(*fd);
	*fd = -1;
	return NULL;
}

struct lr_load *lr_load_open(int fd)
{
	void *at = mmap(NULL, sizeof(struct lr_load), PROT_READ, MAP_SHARED, fd, 0);

	return at == MAP_FAILED ? NULL : at;
}

void lr_load_close(struct lr_load *load)
{
	munmap(load, sizeof *load);
}

void lr_drop_page(void *at, int fd)
{
	munmap(at, (size_t)sysconf(_SC_PAGESIZE));
	close(fd);
}

/* The page, with the lock; or NULL. */
static struct lr_page *lock_page(void)
{
	pthread_once(&once, watch_forks);
	pthread_mutex_lock(&lock);
	return page ? page : open_page();
}

static struct lr_entry *entry_at(uint32_t index)
{
	return (struct lr_entry *)((char *)page + (index + 1ull) * LR_ENTRY_SIZE);
}

/* FNV-1a; never 0. */
static uint64_t key_of(int role, const char *name)
{
	uint64_t key = 14695981039346656037u + (uint64_t)role;

	while (*name)
		key = (key ^ (uint8_t)*name++) * 1099511628211u;
	return key ? key : 1;
}

static void set_name(struct lr_entry *entry, const char *name)
{
	snprintf(entry->name, sizeof entry->name, "%s", name);
}

static uint32_t index_of(const struct lr_entry *entry)
{
	return (uint32_t)(((const char *)entry - (const char *)page) / LR_ENTRY_SIZE - 1);
}

/* An entry that an engine of that name had; otherwise a new one; otherwise the one that has been
 * free for the longest time. */
static struct lr_entry *find_free(uint64_t key)
{
	struct lr_entry *entry, *any = NULL;

	for (uint32_t i = 0; i < LR_ENTRIES && keys[i]; i++)
		if (entry_at(i)->state == LR_ENTRY_FORMER) {
			if (keys[i] == key)
				return entry_at(i);
			if (!any || left[i] < left[index_of(any)])
				any = entry_at(i);
		}
	if (page->used < LR_ENTRIES) {
		entry = entry_at(page->used);
		page->used++;
		return entry;
	}
	if (any)
		memset(&any->counts, 0, sizeof any->counts);
	return any;
}

struct lr_entry *lr_page_enter(int role, const char *name)
{
	struct lr_entry *entry = NULL;
	uint64_t key = key_of(role, name);

	if (lock_page() && (entry = find_free(key))) {
		entry->role = (uint32_t)role;
		entry->since = (uint64_t)lr_now();
		set_name(entry, name);
		keys[index_of(entry)] = key;
		entry->state = LR_ENTRY_LIVE;
	} else if (page) {
		page->left_out++;
	}
	pthread_mutex_unlock(&lock);
	return entry;
}

void lr_page_rename(struct lr_entry *entry, const char *name)
{
	if (lock_page()) {
		keys[index_of(entry)] = key_of((int)entry->role, name);
		set_name(entry, name);
	}
	pthread_mutex_unlock(&lock);
}

void lr_page_leave(struct lr_entry *entry, bool freed)
{
	if (lock_page()) {
		left[index_of(entry)] = ++leaves;
		entry->state = freed ? LR_ENTRY_FORMER : LR_ENTRY_CLOSED;
	}
	pthread_mutex_unlock(&lock);
}

const struct lr_page *lr_own_page(void)
{
	const struct lr_page *at;

	pthread_once(&once, watch_forks);
	pthread_mutex_lock(&lock);
	at = page;
	pthread_mutex_unlock(&lock);
	return at;
}

void lr_page_note(const char *note)
{
	if (lock_page())
		snprintf(page->note, sizeof page->note, "%s", note);
	pthread_mutex_unlock(&lock);
}
