/*
 * fuzz_spool.c - a link on a spool's files, appended to or renamed into place.
 *
 * Invariant: as in fuzz_stream.c; and what is in a folder beside the files of a spool, or
 * in place of one, ends that link and is neither followed nor waited for.
 */
#include "bytes.h"

#include <fcntl.h>
#include <ftw.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define SPOOL "/fuzz-spool"

static char base[64], spool[128];
static bool batches, our_batches;
static uint64_t write_number, write_at, read_number, read_at;

static int open_in(const char *lane, const char *name, int how)
{
	char path[256];

	struct stat st;
	int fd;

	snprintf(path, sizeof path, "%s/%s/%s", spool, lane, name);
	fd = open(path, how | O_NONBLOCK | O_NOFOLLOW | O_CLOEXEC, 0600);
	/* The fuzzer may have put something there that cannot be written to. */
	if (fd < 0 || (fstat(fd, &st) == 0 && S_ISREG(st.st_mode)))
		return fd;
	close(fd);
	return -1;
}

/* A file outside the spool, as the target of symbolic links. It must stay empty. */
static const char *outside(void)
{
	static char path[256];
	struct stat st;
	int fd;

	snprintf(path, sizeof path, "%s/outside", base);
	fd = open(path, O_CREAT | O_RDONLY | O_NOFOLLOW | O_CLOEXEC, 0600);
	CHECK(fd >= 0 && fstat(fd, &st) == 0 && st.st_size == 0);
	close(fd);
	return path;
}

static const char *numbered(uint64_t number)
{
	static char name[24];

	snprintf(name, sizeof name, "%llu", (unsigned long long)number);
	return name;
}

/* The far end is the client: it writes up/ and reads down/. */
static size_t feed(const uint8_t *data, size_t size)
{
	size_t most = batches ? LR_SPOOL_BATCH : LR_SPOOL_SEGMENT - write_at;
	size_t n = size < most ? size : most;
	char from[256], to[256];
	int fd;

	if (!n || write_number > 40)
		return 0;
	fd = open_in("up", batches ? "new" : numbered(write_number), O_CREAT | O_WRONLY | O_APPEND);
	if (fd < 0)
		return 0;
	CHECK(write(fd, data, n) == (ssize_t)n);
	close(fd);
	write_at += n;
	if (batches) {
		snprintf(from, sizeof from, "%s/up/new", spool);
		snprintf(to, sizeof to, "%s/up/%s", spool, numbered(write_number));
		if (rename(from, to) < 0) /* something odd is in its place */
			return 0;
	}
	if (batches || write_at == LR_SPOOL_SEGMENT) {
		write_number++;
		write_at = 0;
	}
	return n;
}

static ssize_t drain(uint8_t *data, size_t size)
{
	int fd = open_in("down", numbered(read_number), O_RDONLY);
	ssize_t n;

	if (fd < 0)
		return 0;
	n = pread(fd, data, size, (off_t)read_at);
	close(fd);
	read_at += n > 0 ? (uint64_t)n : 0;
	if (n == 0 || read_at == LR_SPOOL_SEGMENT) {
		char path[256];

		if (n == 0 && !our_batches)
			return 0;
		snprintf(path, sizeof path, "%s/down/%s", spool, numbered(read_number));
		unlink(path);
		read_number++;
		read_at = 0;
	}
	return n > 0 ? n : 0;
}

static void end(void)
{
	char from[256], to[256];

	snprintf(from, sizeof from, "%s/client", spool);
	snprintf(to, sizeof to, "%s/up/end", spool);
	rename(from, to);
}

static int remove_one(const char *path, const struct stat *st, int kind, struct FTW *ftw)
{
	(void)st;
	(void)kind;
	(void)ftw;
	return remove(path) < 0 && errno != ENOENT ? -1 : 0;
}

static void remove_all(const char *path)
{
	nftw(path, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

static bool misbehave(uint8_t which)
{
	char path[256];
	int fd;

	/* The file that comes next; in batches the one that is there may be replaced. */
	snprintf(path, sizeof path, "%s/up/%s", spool, numbered(write_number + (which >> 6)));
	switch (which % 12) {
	case 0:
		CHECK(mkdir(path, 0700) <= 0);
		return true;
	case 1:
		CHECK(symlink(outside(), path) <= 0);
		return true;
	case 2:
		CHECK(mkfifo(path, 0600) <= 0);
		return true;
	case 3: /* longer than it may be */
		if ((fd = open_in("up", numbered(write_number), O_CREAT | O_WRONLY)) >= 0) {
			CHECK(ftruncate(fd, LR_SPOOL_SEGMENT + 5000) == 0);
			close(fd);
		}
		return true;
	case 4: /* shorter than it was */
		if ((fd = open_in("up", numbered(write_number), O_WRONLY | O_TRUNC)) >= 0)
			close(fd);
		return true;
	case 5:
		unlink(path);
		return true;
	case 6:
		snprintf(path, sizeof path, "%s/up", spool);
		remove_all(path);
		return true;
	case 7:
		remove_all(spool);
		return true;
	case 8: /* nothing of it is the link's */
		snprintf(path, sizeof path, "%s/up/x%s", spool, numbered(which));
		if ((fd = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600)) >= 0)
			close(fd);
		return false;
	case 9:
		snprintf(path, sizeof path, "%s/down/%s", spool, numbered(which & 3));
		if ((fd = open(path, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0600)) >= 0)
			close(fd);
		return true;
	case 10:
		snprintf(path, sizeof path, "%s/down", spool);
		remove_all(path);
		return true;
	}
	return false;
}

static const struct far far = {feed, drain, end, misbehave};

static int record(const char *name)
{
	char path[256];
	int fd;

	snprintf(path, sizeof path, "%s/%s", spool, name);
	fd = open(path, O_CREAT | O_RDWR | O_CLOEXEC, 0600);
	CHECK(fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) == 0);
	return fd;
}

static struct lr_link *on_files(int *client)
{
	static const char *const lanes[] = {"up", "down"};
	char up[256], down[256], error[100];
	struct lr_spool *s;
	int mine, bell;

	if (!*base) {
		snprintf(base, sizeof base, "/dev/shm/localrpc-fuzz-%d", getpid());
		CHECK(mkdir(base, 0700) == 0);
		snprintf(spool, sizeof spool, "%s" SPOOL, base);
	}
	CHECK(mkdir(spool, 0700) == 0);
	for (int i = 0; i < 2; i++) {
		snprintf(up, sizeof up, "%s/%s", spool, lanes[i]);
		CHECK(mkdir(up, 0700) == 0);
	}
	snprintf(up, sizeof up, "%s/up", spool);
	snprintf(down, sizeof down, "%s/down", spool);
	*client = record("client");
	mine = record("server");
	/* Seldom inotify: the kernel takes some 20 ms to close it. */
	bell = lr_spool_bell(up, batches, down, in_byte() >= 250 ? 0 : 1000);
	CHECK(bell >= 0);
	s = lr_spool_open(spool, LR_SERVER,
		(our_batches ? LR_SPOOL_OUR_BATCHES : 0) | (batches ? LR_SPOOL_THEIR_BATCHES : 0) |
			LR_SPOOL_NEAR,
		mine, bell, error, sizeof error);
	CHECK(s);
	return lr_spool_link(s, -1, NULL, -1, error, sizeof error);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct lr_link *link;
	int client;
	uint8_t how;

	world_begin(data, size);
	how = in_byte();
	batches = how & 1;
	our_batches = how & 2;
	write_number = write_at = read_number = read_at = 0;
	link = on_files(&client);
	CHECK(link);
	bytes_run(&far, link);
	close(client);
	remove_all(spool);
	remove(outside());
	CHECK(remove(base) == 0);
	*base = 0;
	world_finish();
	return 0;
}
