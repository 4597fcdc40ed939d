/*
 * spool.c - a byte channel: files in a directory, which one side writes and the other
 * reads and removes.
 *
 * A connection is a folder: the client writes up/, the server writes down/. The files in them
 * are numbered from 0 and have one writer each. If they are appended to, a file is a segment of
 * LR_SPOOL_SEGMENT bytes; otherwise it is a batch that is written under another name, renamed
 * into place and never changed. The reader removes the files that it has read: there is no
 * other acknowledgement, and the writer keeps at most LR_SPOOL_SEGMENTS or LR_SPOOL_BATCHES.
 *
 * A file's size shows what has been published: append and rename are in order for every
 * process of one machine. The bytes are not trusted, and only regular files are opened.
 *
 * Each side has a record, `client` or `server` beside the two folders, locked with flock(2)
 * while the side lives. A side hangs up by renaming its record to `end` in the folder that it
 * writes, which works on a full disk. The side that closes last, or finds the other dead,
 * removes the folder (folder.c, which also has the bell).
 *
 * inotify drops an event that equals the last unread one, so a thread that is about to sleep
 * reads all events, and then checks the files.
 */
#include "heartbeat.h"
#include "stream.h"

#include <fcntl.h>
#include <limits.h>
#include <sys/stat.h>
#include <unistd.h>

#define END "end"
#define UNPUBLISHED "new" /* a batch that is being written */
#define NAME 24

struct lr_spool {
	struct lr_byte_channel channel;
	char *path;
	uint32_t role, flags;
	int record_fd;
	int pidfd; /* the link's */
	bool linked;
	uint32_t fork_generation;
	struct lr_heartbeat heartbeat;
	char fault[120];

	/* The reader's. */
	int in_dir, in_fd;
	uint64_t in_number, in_at;
	bool ended;

	/* The writer's. */
	_Alignas(64) int out_dir;
	int out_fd;
	uint64_t out_number, out_at;
	uint64_t oldest; /* the first of our files that may be unread */
	bool hung_up;
};

static void name_of(char *name, uint64_t number)
{
	snprintf(name, NAME, "%llu", (unsigned long long)number);
}

static bool exists(int dir, const char *name)
{
	struct stat st;
	return fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) == 0;
}

static bool exists_number(int dir, uint64_t number)
{
	char name[NAME];
	name_of(name, number);
	return exists(dir, name);
}

/* Either side of the link may find a failure: the first one stays. */
static ssize_t fail(struct lr_spool *s, const char *what, int number)
{
	if (!atomic_load(&s->channel.fault)) {
		snprintf(s->fault, sizeof s->fault, "the spool %s: %s", what, strerror(number));
		atomic_store(&s->channel.fault, s->fault);
	}
	return LR_CLOSED;
}

/* ---- reading ---- */

static bool in_batches(const struct lr_spool *s)
{
	return s->flags & LR_SPOOL_THEIR_BATCHES;
}

/* 1: in_fd is file in_number; 0: it does not exist yet; LR_CLOSED. */
static int open_next(struct lr_spool *s)
{
	char name[NAME];
	struct stat st;

	name_of(name, s->in_number);
	s->in_fd = openat(s->in_dir, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	if (s->in_fd < 0)
		return errno == ENOENT ? 0 : (int)fail(s, "cannot be read", errno);
	if (fstat(s->in_fd, &st) < 0 || !S_ISREG(st.st_mode))
		return (int)fail(s, "holds something that is not one of its files", EINVAL);
	return 1;
}

/* It has been read: remove it, which acknowledges it. */
static int remove_read_file(struct lr_spool *s)
{
	char name[NAME];

	name_of(name, s->in_number++);
	close(s->in_fd);
	s->in_fd = -1;
	s->in_at = 0;
	if (unlinkat(s->in_dir, name, 0) < 0 && errno != ENOENT)
		return (int)fail(s, "cannot be cleared", errno);
	return 0;
}

static ssize_t spool_read(struct lr_byte_channel *ch, uint8_t *at, size_t room, bool *emptied)
{
	struct lr_spool *s = (struct lr_spool *)ch;

	*emptied = true; /* spool_arm() checks again */
	for (;;) {
		size_t left = LR_SPOOL_SEGMENT - s->in_at;
		ssize_t got;
		int r;

		if (s->in_fd < 0 && (r = open_next(s)) <= 0)
			return r < 0 || s->ended || atomic_load(&ch->fault) ? LR_CLOSED : 0;
		got = pread(s->in_fd, at, room < left ? room : left, (off_t)s->in_at);
		if (got < 0)
			return fail(s, "cannot be read", errno);
		s->in_at += (uint64_t)got;
		if ((in_batches(s) && (size_t)got < room) || s->in_at == LR_SPOOL_SEGMENT) {
			if (remove_read_file(s) < 0)
				return LR_CLOSED;
			if (got == 0)
				continue; /* the next batch */
		}
		if (got)
			return got;
		return s->ended || atomic_load(&ch->fault) ? LR_CLOSED : 0;
	}
}

static bool has_come(struct lr_spool *s)
{
	struct stat st;

	if (s->in_fd < 0)
		return exists_number(s->in_dir, s->in_number);
	return in_batches(s) || (fstat(s->in_fd, &st) == 0 && (uint64_t)st.st_size > s->in_at);
}

static void clear_bell(int bell)
{
	char events[4096];

	while (read(bell, events, sizeof events) > 0)
		;
}

static bool has_ended(int dir)
{
	struct stat st;
	return exists(dir, END) || (fstat(dir, &st) == 0 && st.st_nlink == 0);
}

static bool spool_arm(struct lr_byte_channel *ch)
{
	struct lr_spool *s = (struct lr_spool *)ch;

	/* Clear the bell first: later events ring it again. */
	clear_bell(ch->bell_fd);
	/* The end is renamed after the last byte, so check for it before checking for bytes. */
	if (has_ended(s->in_dir))
		s->ended = true;
	return !s->ended && !has_come(s) && !atomic_load(&ch->fault);
}

static bool spool_peer_closed(struct lr_byte_channel *ch)
{
	return has_ended(((struct lr_spool *)ch)->in_dir);
}

/* A spool takes bytes that no process will read, so check before a call opens. */
static bool spool_gone(struct lr_byte_channel *ch)
{
	return spool_peer_closed(ch) || lr_exited(((struct lr_spool *)ch)->pidfd);
}

/* ---- writing ---- */

/* May there be one more file of ours? */
static bool may_begin(struct lr_spool *s, uint64_t next, uint64_t most)
{
	while (next - s->oldest >= most && !exists_number(s->out_dir, s->oldest))
		s->oldest++;
	return next - s->oldest < most;
}

/* Open the file that takes the next bytes: 1, 0 no room for a new file, LR_CLOSED. */
static int open_out(struct lr_spool *s)
{
	bool batches = s->flags & LR_SPOOL_OUR_BATCHES;
	char name[NAME] = UNPUBLISHED;

	if (s->out_fd >= 0 && s->out_at == LR_SPOOL_SEGMENT) {
		close(s->out_fd);
		s->out_fd = -1;
		s->out_number++;
	}
	if (s->out_fd >= 0)
		return 1;
	if (!may_begin(s, s->out_number, batches ? LR_SPOOL_BATCHES : LR_SPOOL_SEGMENTS))
		return 0;
	if (!batches)
		name_of(name, s->out_number);
	s->out_fd = openat(s->out_dir, name,
		O_WRONLY | O_APPEND | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	s->out_at = 0;
	if (s->out_fd >= 0)
		return 1;
	return errno == ENOENT ? LR_CLOSED : (int)fail(s, "cannot be written", errno);
}

/* A batch is whole: rename it into place. */
static int publish(struct lr_spool *s)
{
	char name[NAME];

	name_of(name, s->out_number++);
	close(s->out_fd);
	s->out_fd = -1;
	if (renameat(s->out_dir, UNPUBLISHED, s->out_dir, name) == 0)
		return 0;
	return errno == ENOENT ? LR_CLOSED : (int)fail(s, "cannot be written", errno);
}

static ssize_t spool_write(struct lr_byte_channel *ch, const struct iovec *iov, int count)
{
	struct lr_spool *s = (struct lr_spool *)ch;
	bool batches = s->flags & LR_SPOOL_OUR_BATCHES;
	size_t most = batches ? LR_SPOOL_BATCH : LR_SPOOL_SEGMENT;
	struct lr_iov_rest left = lr_iov_rest_of(iov, count);
	size_t done = 0;
	struct iovec part[LR_MAX_IOV + 1];

	if (s->hung_up || atomic_load(&ch->fault))
		return LR_CLOSED;
	while (left.count) {
		ssize_t n;
		int r;

		if ((r = open_out(s)) <= 0)
			return done ? (ssize_t)done : r;
		n = writev(s->out_fd, part, lr_iov_rest_cut(&left, part, most - s->out_at));
		if (n < 0) {
			if (errno == EINTR)
				continue;
			fail(s, "cannot be written", errno);
			return done && !batches ? (ssize_t)done : LR_CLOSED;
		}
		s->out_at += (uint64_t)n;
		done += (size_t)n;
		lr_iov_rest_skip(&left, (size_t)n);
		if (batches && (left.count == 0 || s->out_at == most) && publish(s) < 0)
			return LR_CLOSED;
	}
	return (ssize_t)done;
}

static bool spool_writable(struct lr_byte_channel *ch)
{
	struct lr_spool *s = (struct lr_spool *)ch;

	if (s->hung_up || atomic_load(&ch->fault) || has_ended(s->out_dir))
		return true; /* the write that follows reports it */
	if (s->flags & LR_SPOOL_OUR_BATCHES)
		return may_begin(s, s->out_number, LR_SPOOL_BATCHES);
	if (s->out_fd >= 0 && s->out_at < LR_SPOOL_SEGMENT)
		return true;
	return may_begin(s, s->out_number + (s->out_fd >= 0), LR_SPOOL_SEGMENTS);
}

/* ---- the end ---- */

static const char *our_record(const struct lr_spool *s)
{
	return s->role == LR_CLIENT ? "client" : "server";
}

static const char *their_record(const struct lr_spool *s)
{
	return s->role == LR_CLIENT ? "server" : "client";
}

static void spool_hang_up(struct lr_byte_channel *ch)
{
	struct lr_spool *s = (struct lr_spool *)ch;
	char record[PATH_MAX];

	if (s->hung_up || s->fork_generation != lr_fork_generation())
		return;
	s->hung_up = true;
	snprintf(record, sizeof record, "%s/%s", s->path, our_record(s));
	/* If it fails, the folder has been removed. */
	renameat(AT_FDCWD, record, s->out_dir, END);
}

/* True if the other side will not remove the folder after us. */
static bool is_last(const struct lr_spool *s)
{
	char record[PATH_MAX];
	int fd;
	bool last;

	if (has_ended(s->in_dir) || lr_exited(s->pidfd))
		return true;
	snprintf(record, sizeof record, "%s/%s", s->path, their_record(s));
	fd = open(record, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return true; /* no record: a server never opened the spool, or the end has just come */
	last = (s->flags & LR_SPOOL_NEAR) && lr_record_is_free(fd);
	close(fd);
	return last;
}

static void spool_close(struct lr_byte_channel *ch)
{
	struct lr_spool *s = (struct lr_spool *)ch;

	lr_heartbeat_end(&s->heartbeat);
	spool_hang_up(ch);
	if (s->fork_generation == lr_fork_generation() && is_last(s))
		lr_spool_remove(s->path);
	lr_close_if(s->heartbeat.theirs);
	lr_close_if(s->in_fd);
	lr_close_if(s->out_fd);
	lr_close_if(s->in_dir);
	lr_close_if(s->out_dir);
	lr_close_if(s->record_fd);
	lr_close_if(ch->bell_fd);
	free(s->path);
	free(s);
}

static const struct lr_byte_channel_ops spool_ops = {
	.read = spool_read,
	.write = spool_write,
	.writable = spool_writable,
	.gone = spool_gone,
	.peer_closed = spool_peer_closed,
	.arm = spool_arm,
	.hang_up = spool_hang_up,
	.close = spool_close,
};

/* ---- the beginning ---- */

static int open_dir(const char *path, const char *name)
{
	char full[PATH_MAX];

	snprintf(full, sizeof full, "%s/%s", path, name);
	return open(full, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
}

struct lr_spool *lr_spool_open(const char *path, int role, uint32_t flags, int record_fd,
	int bell_fd, char *error, int error_size)
{
	struct lr_spool *s = aligned_alloc(64, (sizeof *s + 63) & ~(size_t)63);
	bool client = role == LR_CLIENT;

	if (s) {
		memset(s, 0, sizeof *s);
		s->path = strdup(path);
		s->in_dir = open_dir(path, client ? "down" : "up");
		s->out_dir = open_dir(path, client ? "up" : "down");
	}
	if (!s || !s->path || s->in_dir < 0 || s->out_dir < 0) {
		int saved = s && s->path ? errno : ENOMEM;

		lr_fill_error(error, error_size, "%s", strerror(saved));
		if (s) {
			lr_close_if(s->in_dir);
			lr_close_if(s->out_dir);
			free(s->path);
		}
		free(s);
		close(record_fd);
		close(bell_fd);
		errno = saved;
		return NULL;
	}
	s->channel = (struct lr_byte_channel){.ops = &spool_ops, .bell_fd = bell_fd, .room_fd = -1,
		/* Only a few batches are allowed: gather frames while there is no room. */
		.min_read = flags & LR_SPOOL_OUR_BATCHES ? 4096 : 1};
	s->role = (uint32_t)role;
	s->flags = flags;
	s->record_fd = record_fd;
	s->pidfd = s->heartbeat.theirs = s->in_fd = s->out_fd = -1;
	s->fork_generation = lr_fork_generation();
	return s;
}

int lr_spool_read(struct lr_spool *s, char *data, uint32_t room)
{
	bool emptied;
	ssize_t got;

	while ((got = spool_read(&s->channel, (uint8_t *)data, room, &emptied)) == 0)
		if (spool_arm(&s->channel))
			return -EAGAIN;
	if (got > 0)
		return (int)got;
	return atomic_load(&s->channel.fault) ? -EIO : 0;
}

int lr_spool_write(struct lr_spool *s, const char *data, uint32_t size)
{
	struct iovec iov = {(void *)(uintptr_t)data, size};
	ssize_t n;

	errno = EPIPE;
	n = spool_write(&s->channel, &iov, 1);
	return n < 0 ? -errno : (int)n;
}

void lr_spool_close(struct lr_spool *s)
{
	spool_close(&s->channel);
}

struct lr_link *lr_spool_link(struct lr_spool *s, int pidfd,
	const struct lr_spool_heartbeat *heartbeat, int64_t spin_us, char *error, int error_size)
{
	if (heartbeat) {
		char record[PATH_MAX];

		/* If it has just been renamed to `end`, the end will be seen. */
		snprintf(record, sizeof record, "%s/%s", s->path, their_record(s));
		s->heartbeat.theirs = open(record, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
		s->heartbeat.ours = s->record_fd;
		s->heartbeat.near = s->flags & LR_SPOOL_NEAR;
		if (s->heartbeat.theirs >= 0 &&
		    (pidfd = lr_heartbeat_begin(&s->heartbeat, heartbeat)) < 0) {
			int saved = errno;
			lr_fill_error(error, error_size, "%s", strerror(saved));
			spool_close(&s->channel);
			errno = saved;
			return NULL;
		}
	}
	s->pidfd = pidfd;
	return lr_stream_new(&s->channel, pidfd, spin_us, error, error_size);
}
