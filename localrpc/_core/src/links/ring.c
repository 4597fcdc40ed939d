/*
 * ring.c - the shared-memory link: a ring of frames in each direction.
 *
 * Each direction is one sealed memfd: a control page, then the ring, mapped
 * twice in a row (map.c) so that a frame is always contiguous. The side that writes a
 * ring also writes its control page, and the other maps both read-only, so
 * every shared word has one writer:
 *
 *	tail, room_epoch, cpu, room_at, bell   of the ring in the same memfd
 *	head, begun, epoch, sleeper            of the ring in the other memfd
 *
 * head and tail count bytes and only grow. A record is a frame, padded to 8 bytes. An odd
 * epoch: the reader sleeps, and has to be rung. An odd room_epoch: the writer waits until
 * head has reached room_at.
 *
 * The peer may be hostile or half dead: every value it wrote is read once into a local,
 * checked, then used. The double mapping aliases behind the compiler's back; no side reads
 * what it wrote itself, and reads what the other side wrote after a seq_cst load of its tail.
 */
#include "ring.h"

#include <poll.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

struct side {
	_Alignas(64) _Atomic uint64_t tail;
	_Atomic uint64_t room_epoch;
	_Atomic uint32_t cpu;
	_Atomic uint64_t room_at;
	_Atomic uint32_t bell; /* a futex: incremented each time this side rings */
	_Alignas(64) _Atomic uint64_t head;
	_Atomic uint64_t begun; /* a server's: link->begun; not beside tail, where its client spins */
	_Alignas(64) _Atomic uint64_t epoch;
	/* signo << 24 | tid; LR_WAKE_FUTEX << 24: the bell word; 0: the eventfd */
	_Atomic uint32_t sleeper;
};
_Static_assert(offsetof(struct side, tail) == 0, "layout");
_Static_assert(offsetof(struct side, room_epoch) == 8, "layout");
_Static_assert(offsetof(struct side, cpu) == 16, "layout");
_Static_assert(offsetof(struct side, room_at) == 24, "layout");
_Static_assert(offsetof(struct side, bell) == 32, "layout");
_Static_assert(offsetof(struct side, head) == 64, "layout");
_Static_assert(offsetof(struct side, begun) == 72, "layout");
_Static_assert(offsetof(struct side, epoch) == 128, "layout");
_Static_assert(offsetof(struct side, sleeper) == 136, "layout");
_Static_assert(sizeof(struct side) <= 4096, "layout: the smallest page");

struct ring {
	struct lr_link link;
	uint64_t size;
	int peer_bell_fd;
	int peer_pid;

	/* The reader's. */
	_Alignas(64) uint64_t cursor; /* our head */
	uint64_t record;              /* bytes of the frame peeked at */
	uint64_t epoch;
	uint64_t room_rung;
	const struct side *theirs;
	const uint8_t *rx;

	/* The writer's. */
	_Alignas(64) uint64_t tail;
	uint64_t head_seen;
	uint64_t rung;
	uint64_t room_epoch;
	uint32_t cpu_stored;
	struct side *mine;
	uint8_t *tx;
};

#define RING(l) ((struct ring *)(l))

/*
 * The peer chooses the signal and its thread. tgkill with the pid that the kernel reported
 * reaches no other process, and only signals of a fixed list are sent. All of them but SIGURG
 * end a process without a handler: do not send them after the peer's death, when another
 * process may have its pid.
 */
static bool send_signal(struct ring *r, int signo, uint32_t tid)
{
	struct pollfd end = {.fd = r->link.pidfd, .events = POLLIN};

	if (r->peer_pid <= 0 || !lr_signal_allowed(signo))
		return false;
	if (signo != SIGURG && r->link.pidfd >= 0 && poll(&end, 1, 0) != 0)
		return false;
	/* EAGAIN (RLIMIT_SIGPENDING), EPERM, ESRCH: not sent, so ring the bell. */
	return syscall(SYS_tgkill, r->peer_pid, tid, signo) == 0;
}

/* A ring is not lost before the sleeper sleeps: it stays in the eventfd's count, in the changed
 * word, or as a pending signal. */
static void ring_bell(struct ring *r)
{
	uint32_t sleeper = atomic_load(&r->theirs->sleeper);

	atomic_fetch_add_explicit(&r->link.bells, 1, memory_order_relaxed);
	if (sleeper >> 24 == LR_WAKE_FUTEX) {
		/* SYNC no-lost-bell: we have loaded the epoch and now add; the sleeper, in
		 * lr_sleep(), loads the bell and then stores the epoch. */
		atomic_fetch_add(&r->mine->bell, 1);
		lr_futex_wake_shared(&r->mine->bell);
		return;
	}
	if (sleeper && send_signal(r, (int)(sleeper >> 24), sleeper & 0xffffff))
		return;
	if (!lr_bell_ring(r->peer_bell_fd)) {
		atomic_store(&r->link.fault, "the peer has taken O_NONBLOCK from its bell");
		shutdown(r->link.sock_fd, SHUT_RDWR); /* our reader sees that, too */
	}
}

static bool read_tail(struct ring *r, uint64_t *avail)
{
	uint64_t tail = atomic_load(&r->theirs->tail);
	*avail = tail - r->cursor;
	return *avail <= r->size && (tail & 7) == 0;
}

static int ring_peek(struct lr_link *link, struct lr_frame *frame)
{
	struct ring *r = RING(link);
	const uint8_t *at = r->rx + (r->cursor & (r->size - 1));
	uint64_t avail;
	uint32_t cpu;

	if (!read_tail(r, &avail))
		return LR_PROTOCOL;
	if (avail == 0)
		return 0;
	if (avail < LR_HEADER_SIZE)
		return LR_PROTOCOL;
	memcpy(&frame->h, at, LR_HEADER_SIZE);
	if (frame->h.length > LR_MAX_FRAME - LR_HEADER_SIZE)
		return LR_PROTOCOL;
	r->record = LR_HEADER_SIZE + lr_pad8(frame->h.length);
	if (r->record > avail)
		return LR_PROTOCOL;
	frame->payload = at + LR_HEADER_SIZE;
	cpu = atomic_load_explicit(&r->theirs->cpu, memory_order_relaxed);
	atomic_store_explicit(&link->peer_cpu, (uint16_t)cpu, memory_order_relaxed);
	return 1;
}

static void ring_consume(struct lr_link *link)
{
	struct ring *r = RING(link);
	uint64_t epoch;

	r->cursor += r->record;
	r->record = 0;
	/*
	 * SYNC no-lost-room: we store head, then load room_epoch; the writer,
	 * in ring_arm_room(), stores room_epoch, then loads head. All four are
	 * seq_cst, so at least one side sees the other.
	 */
	atomic_store(&r->mine->head, r->cursor);
	epoch = atomic_load(&r->theirs->room_epoch);
	if ((epoch & 1) && epoch != r->room_rung &&
	    (int64_t)(r->cursor - atomic_load(&r->theirs->room_at)) >= 0) {
		ring_bell(r);
		r->room_rung = epoch; /* after the ring, never before */
	}
}

static bool ring_poll(struct lr_link *link)
{
	struct ring *r = RING(link);
	return atomic_load_explicit(&r->theirs->tail, memory_order_acquire) != r->cursor;
}

static void store_cpu(struct ring *r)
{
	uint32_t cpu = lr_cpu();
	if (cpu != r->cpu_stored) {
		r->cpu_stored = cpu;
		atomic_store_explicit(&r->mine->cpu, cpu, memory_order_relaxed);
	}
}

static bool ring_arm(struct lr_link *link, uint32_t sleeper)
{
	struct ring *r = RING(link);

	if (!(r->epoch & 1)) {
		if (atomic_load_explicit(&r->mine->sleeper, memory_order_relaxed) != sleeper)
			atomic_store(&r->mine->sleeper, sleeper);
		atomic_store(&r->mine->epoch, ++r->epoch);
	} else if (atomic_load_explicit(&r->mine->sleeper, memory_order_relaxed) != sleeper) {
		/* Armed with another way to be woken: the peer reads it with a new epoch. */
		atomic_store(&r->mine->sleeper, sleeper);
		r->epoch += 2;
		atomic_store(&r->mine->epoch, r->epoch);
	}
	/*
	 * SYNC no-lost-wakeup: we store epoch, then load tail; the writer, in
	 * ring_send(), stores tail, then loads epoch. All four are seq_cst.
	 */
	return atomic_load(&r->theirs->tail) == r->cursor;
}

static void ring_disarm(struct lr_link *link)
{
	struct ring *r = RING(link);
	if (r->epoch & 1)
		atomic_store(&r->mine->epoch, ++r->epoch);
}

/* Load the peer's head. False: it is impossible. */
static bool load_head(struct ring *r)
{
	uint64_t head = atomic_load(&r->theirs->head);
	if (head > r->tail || r->tail - head > r->size || head < r->head_seen)
		return false;
	r->head_seen = head;
	return true;
}

static bool ring_room(struct lr_link *link, uint32_t need)
{
	struct ring *r = RING(link);
	uint64_t record = LR_HEADER_SIZE + lr_pad8(need);

	if (r->tail + record - r->head_seen <= r->size)
		return true;
	/* An impossible head counts as room: the send that follows refuses it. */
	return !load_head(r) || r->tail + record - r->head_seen <= r->size;
}

static int ring_send(struct lr_link *link, struct lr_header *header, const struct iovec *iov,
	int count)
{
	struct ring *r = RING(link);
	uint64_t record = LR_HEADER_SIZE + lr_pad8(header->length);
	uint8_t *at = r->tx + (r->tail & (r->size - 1));
	uint64_t epoch;

	if (r->tail + record - r->head_seen > r->size) {
		if (!load_head(r))
			return LR_CLOSED;
		if (r->tail + record - r->head_seen > r->size)
			return 0;
	}
	memcpy(at, header, LR_HEADER_SIZE);
	at += LR_HEADER_SIZE;
	for (int i = 0; i < count; i++) {
		if (iov[i].iov_len) /* an empty part may be NULL */
			memcpy(at, iov[i].iov_base, iov[i].iov_len);
		at += iov[i].iov_len;
	}
	store_cpu(r);
	r->tail += record;
	/* SYNC no-lost-wakeup: partner of ring_arm(). */
	atomic_store(&r->mine->tail, r->tail);
	epoch = atomic_load(&r->theirs->epoch);
	if ((epoch & 1) && epoch != r->rung)
		link->ring_due = epoch;
	return 1;
}

static void ring_ring(struct lr_link *link)
{
	ring_bell(RING(link));
}

static void ring_rung(struct lr_link *link, uint64_t epoch)
{
	RING(link)->rung = epoch; /* after the ring, never before */
}

static bool ring_arm_room(struct lr_link *link, uint32_t need)
{
	struct ring *r = RING(link);

	/* Before the epoch: a reader that sees it odd also sees how far to read. */
	atomic_store(&r->mine->room_at, r->tail + LR_HEADER_SIZE + lr_pad8(need) - r->size);
	/* Armed already: the peer may have rung for less room than is needed now. */
	r->room_epoch += r->room_epoch & 1 ? 2 : 1;
	atomic_store(&r->mine->room_epoch, r->room_epoch);
	/* SYNC no-lost-room: partner of ring_consume(). */
	return !ring_room(link, need);
}

static void ring_disarm_room(struct lr_link *link)
{
	struct ring *r = RING(link);
	if (r->room_epoch & 1)
		atomic_store(&r->mine->room_epoch, ++r->room_epoch);
}

static uint64_t ring_sent(struct lr_link *link)
{
	return RING(link)->tail;
}

static bool ring_unseen(struct lr_link *link, uint64_t mark)
{
	return atomic_load(&RING(link)->theirs->head) < mark;
}

static void ring_hang_up(struct lr_link *link)
{
	shutdown(link->sock_fd, SHUT_RDWR);
}

static void ring_destroy(struct lr_link *link)
{
	struct ring *r = RING(link);

	lr_unmap_ring(r->mine, r->size);
	lr_unmap_ring(r->theirs, r->size);
	close(link->bell_fd);
	close(r->peer_bell_fd);
	close(link->sock_fd);
	lr_close_if(link->pidfd);
	free(r);
}

static const struct lr_link_ops ring_ops = {
	.peek = ring_peek,
	.consume = ring_consume,
	.poll = ring_poll,
	.arm = ring_arm,
	.disarm = ring_disarm,
	.send = ring_send,
	.ring = ring_ring,
	.rung = ring_rung,
	.room = ring_room,
	.arm_room = ring_arm_room,
	.disarm_room = ring_disarm_room,
	.sent = ring_sent,
	.unseen = ring_unseen,
	.hang_up = ring_hang_up,
	.destroy = ring_destroy,
};

struct lr_link *lr_ring_open(int memory, int tx_fd, int rx_fd, uint64_t ring_size, int bell_fd,
	int peer_bell_fd, int sock_fd, int pidfd, int peer_pid, int wake, int64_t spin_us,
	char *error, int error_size)
{
	struct ring *r = NULL;
	const char *why = NULL;
	int saved = EINVAL; /* EINVAL: the arguments are wrong; other values are from the system */
	bool fits = ring_size >= LR_RING_MIN && ring_size <= LR_RING_MAX &&
		    (ring_size & (ring_size - 1)) == 0;

	if (!fits)
		lr_fill_error(error, error_size,
			"a ring of %llu bytes: it must be a power of two from %d to %d",
			(unsigned long long)ring_size, LR_RING_MIN, LR_RING_MAX);
	else if (!(r = aligned_alloc(64, (sizeof *r + 63) & ~(size_t)63)))
		lr_fill_error(error, error_size, "%s", strerror(saved = ENOMEM));
	if (r && (why = lr_bell_fault(peer_bell_fd))) {
		lr_fill_error(error, error_size, "%s", why);
		free(r);
		r = NULL;
	}
	if (r) {
		memset(r, 0, sizeof *r);
		r->size = ring_size;
		r->mine = lr_map_ring(memory, tx_fd, ring_size, PROT_READ | PROT_WRITE, &why);
		if (r->mine)
			r->theirs = lr_map_ring(memory, rx_fd, ring_size, PROT_READ, &why);
		if (!r->theirs) {
			/* EINVAL of mmap(2) is about pages, here or in an emulation: it cannot be
			 * mapped, but the arguments are not wrong. */
			saved = why ? EINVAL : errno == EINVAL ? ENOMEM : errno;
			lr_fill_error(error, error_size, "%s%s", why ? "" : "it cannot be mapped: ",
				why ? why : strerror(errno));
			lr_unmap_ring(r->mine, ring_size);
			free(r);
			r = NULL;
		}
	}
	if (memory != LR_MEMORY_SYSV) {
		close(tx_fd);
		close(rx_fd);
	}
	if (!r) {
		close(bell_fd);
		close(peer_bell_fd);
		close(sock_fd);
		lr_close_if(pidfd);
		errno = saved;
		return NULL;
	}
	r->tx = (uint8_t *)r->mine + lr_page();
	r->rx = (const uint8_t *)r->theirs + lr_page();
	r->peer_bell_fd = peer_bell_fd;
	r->peer_pid = peer_pid;
	r->link.ops = &ring_ops;
	r->link.bell_fd = bell_fd;
	r->link.rung_by_read = true;
	r->link.sock_fd = sock_fd;
	r->link.pidfd = pidfd;
	r->link.room_fd = -1;
	r->link.signo = wake == LR_WAKE_FUTEX ? 0 : wake;
	r->link.futex = wake == LR_WAKE_FUTEX && lr_futexes_work() ? &r->theirs->bell : NULL;
	r->link.begun = &r->mine->begun;
	r->link.peer_begun = &r->theirs->begun;
	r->link.stride = (uint32_t)(ring_size / 4);
	/* A quarter of the ring: the reader copies one frame while the next is written. */
	r->link.piece = ring_size / 4 < LR_PIECE ? (uint32_t)(ring_size / 4) : LR_PIECE;
	r->link.spin = spin_us < 0 ? spin_us : spin_us * LR_US;
	return &r->link;
}
