/* util.c - time, the current CPU, futexes, forks, threads, the end of other processes. */
#include "util.h"

#include <linux/futex.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static int64_t clock_ns(clockid_t clock)
{
	struct timespec t;
	clock_gettime(clock, &t);
	return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

int64_t lr_now(void)
{
	return clock_ns(CLOCK_MONOTONIC);
}

int64_t lr_now_coarse(void)
{
	return clock_ns(CLOCK_MONOTONIC_COARSE);
}

uint16_t lr_cpu(void)
{
	/* glibc reads the rseq area: no system call. */
	int cpu = sched_getcpu();
	return cpu < 0 || cpu >= 65535 ? 0 : (uint16_t)(cpu + 1);
}

static _Atomic uint32_t fork_generation;
static pthread_once_t fork_once = PTHREAD_ONCE_INIT;

static void in_child(void)
{
	atomic_fetch_add(&fork_generation, 1);
}

static void watch_forks(void)
{
	pthread_atfork(NULL, NULL, in_child);
}

uint32_t lr_fork_generation(void)
{
	pthread_once(&fork_once, watch_forks);
	return atomic_load_explicit(&fork_generation, memory_order_relaxed);
}

/* A fork changes a thread's id: look it up again in the child. */
static _Thread_local uint32_t cached_tid, cached_generation;
static _Thread_local bool cached_main;

uint32_t lr_tid(void)
{
	uint32_t generation = lr_fork_generation();
	if (!cached_tid || cached_generation != generation) {
		cached_tid = (uint32_t)syscall(SYS_gettid);
		cached_main = cached_tid == (uint32_t)getpid();
		cached_generation = generation;
	}
	return cached_tid;
}

bool lr_is_main_thread(void)
{
	lr_tid();
	return cached_main;
}

int lr_futex_wait(_Atomic uint32_t *word, uint32_t value, int64_t deadline)
{
	struct timespec until, *at = NULL;
	if (deadline) {
		until.tv_sec = deadline / 1000000000;
		until.tv_nsec = deadline % 1000000000;
		at = &until;
	}
	if (syscall(SYS_futex, word, FUTEX_WAIT_BITSET | FUTEX_PRIVATE_FLAG, value, at, NULL,
		    FUTEX_BITSET_MATCH_ANY) == 0)
		return 0;
	switch (errno) {
	case ETIMEDOUT:
		return LR_TIMEOUT;
	case EINTR:
		return LR_AGAIN;
	default:
		return 0; /* EAGAIN: the word has changed */
	}
}

void lr_futex_wake(_Atomic uint32_t *word)
{
	syscall(SYS_futex, word, FUTEX_WAKE | FUTEX_PRIVATE_FLAG, 1, NULL, NULL, 0);
}

void lr_futex_wake_shared(_Atomic uint32_t *word)
{
	syscall(SYS_futex, word, FUTEX_WAKE, 1, NULL, NULL, 0);
}

int lr_start_thread(pthread_t *thread, void *(*run)(void *), void *argument, size_t stack)
{
	sigset_t all, before;
	pthread_attr_t attr;
	int r;

	/* Signals are for threads that can run the program's handlers: block all in this one. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	pthread_attr_init(&attr);
	if (stack)
		pthread_attr_setstacksize(&attr, stack);
	r = pthread_create(thread, &attr, run, argument);
	pthread_attr_destroy(&attr);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return r;
}

bool lr_exited(int pidfd)
{
	struct pollfd p = {.fd = pidfd, .events = POLLIN};
	return pidfd >= 0 && poll(&p, 1, 0) > 0;
}

void lr_close_if(int fd)
{
	if (fd >= 0)
		close(fd);
}

void lr_fill_error(char *error, int size, const char *format, ...)
{
	va_list args;
	if (!error || size <= 0)
		return;
	va_start(args, format);
	vsnprintf(error, (size_t)size, format, args);
	va_end(args);
}

/*
 * glibc returns a large block to the system as soon as it is freed, and the next message costs
 * a page fault for each 4 KiB: most of the time of a 1 MiB call. It stops doing so for sizes
 * that have been allocated and freed before (mallopt(3), the dynamic threshold), so allocate
 * such a block before the messages come: twice their size for each of the copies that protobuf
 * makes. The block is never touched. LOCALRPC_KEEP_MEMORY=0 leaves the allocator alone.
 */
#define HUGE_PAGE (2ull << 20)
#define EXPECT_MAX (31ull << 20) /* glibc learns up to 32 MiB */

/*
 * Memory of this size is usually new, and the first touch of each page costs more than the
 * copy into it: ask the kernel for huge pages (MADV_HUGEPAGE).
 */
void lr_expect_touch(void *at, uint64_t size)
{
	uintptr_t begin = ((uintptr_t)at + HUGE_PAGE - 1) & ~(uintptr_t)(HUGE_PAGE - 1);
	uintptr_t end = ((uintptr_t)at + size) & ~(uintptr_t)(HUGE_PAGE - 1);

	if (size >= 2 * HUGE_PAGE && begin < end)
		madvise((void *)begin, end - begin, MADV_HUGEPAGE);
}

void *lr_big_alloc(uint64_t size)
{
	void *memory = malloc(size);

	if (memory)
		lr_expect_touch(memory, size);
	return memory;
}

void lr_expect_size(uint64_t size)
{
	static _Atomic uint64_t learnt;
	static _Atomic int off = -1;
	uint64_t wanted = size * 8 < EXPECT_MAX ? size * 8 : EXPECT_MAX;
	const char *keep;

	if (wanted <= atomic_load_explicit(&learnt, memory_order_relaxed))
		return;
	if (atomic_load_explicit(&off, memory_order_relaxed) < 0) {
		keep = getenv("LOCALRPC_KEEP_MEMORY");
		atomic_store(&off, keep && !strcmp(keep, "0"));
	}
	atomic_store(&learnt, wanted);
	if (!atomic_load(&off)) {
		void *volatile block = malloc(wanted);
		free(block);
	}
}

/* ---- signals that wake sleepers ---- */

static _Thread_local volatile sig_atomic_t rang;

static void on_signal(int signo)
{
	(void)signo;
	rang = 1;
}

bool lr_signal_rang(void)
{
	bool r = rang;
	rang = 0;
	return r;
}

bool lr_signal_allowed(int signo)
{
	return signo == SIGURG || signo == SIGUSR1 || signo == SIGUSR2 ||
	       (signo >= SIGRTMIN && signo <= SIGRTMAX);
}

int lr_signal_claim(int signo)
{
	struct sigaction now, ours = {.sa_handler = on_signal};

	if (!lr_signal_allowed(signo))
		return LR_INVALID;
	if (sigaction(signo, NULL, &now) < 0)
		return LR_INVALID;
	if (now.sa_handler == on_signal)
		return 0;
	if ((now.sa_flags & SA_SIGINFO) ||
	    (now.sa_handler != SIG_DFL && now.sa_handler != SIG_IGN))
		return LR_INVALID;
	/* Without SA_RESTART: the signal has to interrupt a wait. */
	return sigaction(signo, &ours, NULL) < 0 ? LR_INVALID : 0;
}
