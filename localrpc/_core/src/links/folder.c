/*
 * folder.c - a spool's folder: the bell for its files, and its removal.
 *
 * The bell is an inotify descriptor, or a timer if the kernel does not see the other side's
 * writes.
 */
#include "../util/util.h"

#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <sys/timerfd.h>
#include <unistd.h>

int lr_spool_bell(const char *folder, int batches, const char *other, uint32_t interval_ms)
{
	int fd;

	if (interval_ms) {
		struct itimerspec when = {
			.it_interval = {interval_ms / 1000, interval_ms % 1000 * 1000000L}};

		when.it_value = when.it_interval;
		fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
		if (fd >= 0 && timerfd_settime(fd, 0, &when, NULL) == 0)
			return fd;
	} else {
		/* A segment is written under its own name; batches and ends are renamed there. */
		uint32_t mask = IN_ONLYDIR | IN_MOVED_TO | (batches ? 0 : IN_MODIFY);

		fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
		if (fd >= 0 && inotify_add_watch(fd, folder, mask) >= 0 &&
		    (!other || inotify_add_watch(fd, other, IN_ONLYDIR | IN_DELETE) >= 0)) {
			/* Earlier files cause no event: removing another watch causes one. */
			inotify_rm_watch(fd, inotify_add_watch(fd, "/", IN_DELETE_SELF));
			return fd;
		}
	}
	{
		int saved = errno;
		lr_close_if(fd);
		return -saved;
	}
}

static void empty(const char *path, const char *name)
{
	char full[PATH_MAX];
	struct dirent *entry;
	DIR *dir;
	int fd;

	snprintf(full, sizeof full, "%s/%s", path, name);
	fd = open(full, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	dir = fd < 0 ? NULL : fdopendir(fd);
	if (!dir) {
		lr_close_if(fd);
		return;
	}
	while ((entry = readdir(dir)))
		if (entry->d_name[0] != '.')
			unlinkat(fd, entry->d_name, 0);
	closedir(dir);
	rmdir(full);
}

void lr_spool_remove(const char *path)
{
	static const char *const files[] = {"%s/client", "%s/server", "%s/knock", "%s.knock"};
	char full[PATH_MAX];
	struct stat st;
	char *slash;

	empty(path, "up");
	empty(path, "down");
	for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
		snprintf(full, sizeof full, files[i], path);
		unlink(full);
	}
	rmdir(path);
	snprintf(full, sizeof full, "%s", path);
	if (!(slash = strrchr(full, '/')))
		return;
	*slash = 0;
	/* The sticky bit marks a folder that a server made. It stays while it is not empty. */
	if (lstat(full, &st) == 0 && st.st_mode & S_ISVTX)
		rmdir(full);
}
