/*
 * fuzz_stream.c - a link on a Unix socket, a TCP connection's like, or two pipes.
 *
 * Invariant: any bytes, cut anywhere, give the frames that they are, or LR_PROTOCOL at
 * the first header that cannot be, or LR_CLOSED at the end, and nothing else; and every
 * frame that the link has taken arrives whole.
 */
#include "bytes.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

static int far_in = -1, far_out = -1; /* what the far end reads, writes */

static bool far_writes;

/* A SIGPIPE of the fuzzer's writes is allowed, one of the link's is not. */
static void on_pipe(int signo)
{
	(void)signo;
	CHECK(far_writes);
}

static size_t feed(const uint8_t *data, size_t size)
{
	ssize_t n;

	far_writes = true;
	n = write(far_out, data, size);
	far_writes = false;
	return n < 0 ? 0 : (size_t)n;
}

static ssize_t drain(uint8_t *data, size_t size)
{
	ssize_t n = read(far_in, data, size);
	return n > 0 ? n : n < 0 ? 0 : -1;
}

static void end(void)
{
	if (far_in == far_out)
		shutdown(far_out, SHUT_WR);
	else if (far_out >= 0)
		close(far_out);
	if (far_in != far_out)
		far_out = -1;
}

static bool misbehave(uint8_t which)
{
	if (which % 4)
		return false;
	if (far_in == far_out)
		shutdown(far_in, SHUT_RDWR);
	else
		end();
	return true;
}

static const struct far far = {feed, drain, end, misbehave};

static struct lr_link *on_socket(void)
{
	int size = 4096, pair[2];
	char error[100];

	CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) == 0);
	if (in_byte() & 1) {
		setsockopt(pair[0], SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
		setsockopt(pair[1], SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
	}
	far_in = far_out = pair[1];
	return lr_stream_open(pair[0], -1, -1, error, sizeof error);
}

static struct lr_link *on_pipes(void)
{
	int up[2], down[2];
	char error[100];

	CHECK(pipe2(up, O_CLOEXEC | O_NONBLOCK) == 0 && pipe2(down, O_CLOEXEC | O_NONBLOCK) == 0);
	if (in_byte() & 1) {
		fcntl(up[1], F_SETPIPE_SZ, 4096);
		fcntl(down[1], F_SETPIPE_SZ, 4096);
	}
	far_in = up[0];
	far_out = down[1];
	return lr_pipe_open(down[0], up[1], dup(up[0]), -1, -1, error, sizeof error);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct lr_link *link;

	world_begin(data, size);
	signal(SIGPIPE, on_pipe);
	link = in_byte() & 1 ? on_pipes() : on_socket();
	CHECK(link);
	bytes_run(&far, link);
	if (far_out >= 0 && far_out != far_in)
		close(far_out);
	close(far_in);
	world_finish();
	return 0;
}
