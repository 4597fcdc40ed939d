/* futex.c - waiting for any of several words to change: futex_waitv, Linux 5.16. */
#include "util.h"

#include <linux/futex.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#ifndef SYS_futex_waitv
#define SYS_futex_waitv 449
#endif
#define U32 2 /* FUTEX_32: the word's size */

_Static_assert(sizeof(struct lr_futex) == 24, "struct futex_waitv");

struct lr_futex lr_futex_of(const _Atomic uint32_t *word, uint32_t value, bool shared)
{
	return (struct lr_futex){value, (uintptr_t)word, shared ? U32 : U32 | FUTEX_PRIVATE_FLAG, 0};
}

/* 0: a word has changed; LR_TIMEOUT; LR_AGAIN; LR_INVALID: the system cannot do it. */
int lr_futex_wait_any(const struct lr_futex *words, uint32_t count, int64_t deadline)
{
	/* Not the C library's timespec: the call takes 64 bits everywhere. */
	int64_t until[2] = {deadline / 1000000000, deadline % 1000000000};

	if (syscall(SYS_futex_waitv, words, count, 0, deadline ? until : NULL, CLOCK_MONOTONIC) >= 0)
		return 0;
	switch (errno) {
	case EAGAIN: /* it had changed before the call */
		return 0;
	case ETIMEDOUT:
		return LR_TIMEOUT;
	case EINTR:
		return LR_AGAIN;
	default:
		return LR_INVALID;
	}
}

/* Try it: the kernel may be too old, or a sandbox may refuse. */
int lr_futexes_work(void)
{
	static _Atomic int known = -1;
	_Atomic uint32_t word = 1;
	struct lr_futex one;

	if (atomic_load_explicit(&known, memory_order_relaxed) < 0) {
		one = lr_futex_of(&word, 0, true);
		atomic_store(&known, lr_futex_wait_any(&one, 1, 0) == 0);
	}
	return atomic_load(&known);
}
