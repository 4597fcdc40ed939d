/* links.h - both ends of a link of any kind, within one process. */
#include "../../localrpc/_core/src/links/link.h"
#include "check.h"
#include "queues.h"

#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#define RING LR_RING_MIN

static int memory(void)
{
	int fd = memfd_create("stress", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	CHECK(fd >= 0 && ftruncate(fd, lr_page() + RING) == 0);
	CHECK(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) == 0);
	return fd;
}

/* Two ends of one link of this kind. */
static void open_links(const char *kind, struct lr_link **to_server, struct lr_link **to_client)
{
	struct lr_link *a, *b;
	char error[200] = "";
	int s[2];

	CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, s) == 0);
	if (!strcmp(kind, "stream")) {
		a = lr_stream_open(s[0], -1, -1, error, sizeof error);
		b = lr_stream_open(s[1], -1, -1, error, sizeof error);
	} else if (!strcmp(kind, "pipe")) {
		int up[2], down[2];
		CHECK(pipe2(up, O_CLOEXEC) == 0 && pipe2(down, O_CLOEXEC) == 0);
		a = lr_pipe_open(dup(down[0]), up[1], dup(up[0]), -1, -1, error, sizeof error);
		b = lr_pipe_open(up[0], down[1], down[0], -1, -1, error, sizeof error);
	} else if (!strcmp(kind, "mq")) {
		pid_t us = getpid();
		a = lr_mqueue_open(open_mqueue(us, 1), open_mqueue(us, 0), -1, -1, error, sizeof error);
		b = lr_mqueue_open(open_mqueue(us, 0), open_mqueue(us, 1), -1, -1, error, sizeof error);
		unlink_mqueues(us);
	} else if (!strcmp(kind, "sysvmq")) {
		int up = lr_msgget(0, 1), down = lr_msgget(0, 1);
		a = lr_sysv_open(down, up, 8192, -1, -1, NULL, -1, error, sizeof error);
		b = lr_sysv_open(up, down, 8192, -1, -1, NULL, -1, error, sizeof error);
	} else {
		int m1 = memory(), m2 = memory();
		int e1 = lr_make_bell();
		int e2 = lr_make_bell();
		int wake = !strcmp(kind, "signal") ? SIGRTMIN + 1 :
			   !strcmp(kind, "futex") ? LR_WAKE_FUTEX : 0;
		int64_t spin = strcmp(kind, "spin") ? -1 : LR_SPIN_ALWAYS;
		CHECK(wake != SIGRTMIN + 1 || lr_signal_claim(wake) == 0);
		a = lr_ring_open(LR_MEMORY_SEALED, dup(m1), dup(m2), RING, dup(e1), dup(e2), s[0], -1, getpid(),
			wake, spin, error, sizeof error);
		b = lr_ring_open(LR_MEMORY_SEALED, m2, m1, RING, e2, e1, s[1], -1, getpid(), wake, spin, error,
			sizeof error);
	}
	if (!a || !b)
		fprintf(stderr, "%s\n", error);
	CHECK(a && b);
	*to_server = a;
	*to_client = b;
}
