/*
 * engine.h - one engine for every transport: reading, waiting and waking.
 *
 * One mutex guards everything here except the members marked _Atomic. There is no
 * reader thread: a thread that waits for something becomes the leader and reads the links
 * itself; other threads park, each on a futex word of its own. The leader unlocks the mutex
 * while it spins, yields the CPU to its peer or sleeps. Only the leader peeks, consumes,
 * arms, waits and changes the list of polled connections. Any thread sends, with the mutex
 * held; a peer that sleeps is rung after the mutex is unlocked.
 *
 * When a server's leader leaves to run a handler, its connections stay armed. The next
 * frame then rings the service thread (lr_service), which waits a moment for the leader
 * and wakes a parked thread to lead if it does not come back.
 */
#ifndef LR_ENGINE_H
#define LR_ENGINE_H

#include "../links/link.h"

/* The kind of an event of the epoll sets; the rest of its data is the connection's id. */
enum { EVENT_ROOM, EVENT_BELL, EVENT_SOCKET, EVENT_PIDFD, EVENT_KICK, EVENT_ALARM };
/* Where the leader sleeps, which decides how a kick wakes it. */
enum { AWAKE, ON_EPOLL, ON_FUTEXES, IN_LINK };

#define LR_POLLED 64 /* connections that the leader reads without epoll */
#define LR_BURST 256 /* frames of one connection, then the next has its turn */
#define LR_BURST_BYTES (256u << 10) /* or this many bytes */
#define LR_WAKES 32 /* threads to wake after unlocking the mutex */
#define LR_USELESS_WAKES 8 /* this many in a row, and the service thread waits longer */
#define LR_EVENTS 32 /* taken from epoll at once */
#define LR_MAX_TIMEOUT (300000000000 * LR_MS) /* ten years: a longer timeout counts as none */
/* a peer that leaves this many bytes of answers unread is throttled */
#define LR_MAX_POSTED (1u << 20)
#define LR_UNLOCKED_COPY 16384 /* bytes from which a copy is made without the mutex */

/* ---- calls (table.c) ---- */

/* Something that the call's owner has not taken yet. */
struct lr_item {
	struct lr_item *next;
	uint32_t kind;
	uint32_t count; /* K_RESET: the status code; K_CALL: bytes of metadata */
	uint64_t size;  /* bytes of data; K_BIG: of the message */
	/* K_BIG only, which has no data: where the bytes go, and how many have come. */
	uint8_t *mem;
	uint64_t got;
	bool lent; /* mem belongs to the thread inside lr_fill */
	bool busy; /* the leader copies into mem, without the mutex */
	uint8_t data[];
};

/*
 * The state of a call; state.c has the tables. `life`: live, or how it ended; `in`: what the
 * peer has sent; `out`: what this side has sent; `place`: which list or owner has the call.
 * 0 means none, in each.
 */
enum {
	LIVE = 1,
	FINISHING,  /* a server's: its STATUS has begun, or waits for the end of a message */
	FINISHED,   /* a server's: its STATUS is sent */
	ANSWERED,   /* a client's: STATUS came */
	RESET_CAME,
	DEAD,       /* the link died before the peer ended it */
	CANCELLED,  /* ended here */
	EXPIRED,    /* its deadline passed before any of these */
	LR_LIVES
};
enum { IN_START = 1, IN_OPEN, IN_BIG, IN_BIG_END, IN_BIG_STATUS, IN_HALF, LR_INS };
enum { OUT_START = 1, OUT_OPEN, OUT_BIG, OUT_BIG_END, OUT_HALF, LR_OUTS };
enum { OWNED = 1, QUEUED, DEFERRED, RELEASED, LR_PLACES };

/* The events of a call. WHOLE: the last byte of a large message. BIG_END: a large message that
 * is the last; STATUS_BIG: a status that takes effect after its large message. STATUS_WITH: a
 * status with a message. STATUS_AFTER: a status that waits for the end of a large message. */
enum lr_event {
	GOT_HEADERS, GOT_MESSAGE, GOT_BIG, GOT_BIG_END, GOT_DATA, GOT_WHOLE, GOT_END,
	GOT_STATUS, GOT_STATUS_BIG, GOT_CREDIT,
	GOT_RESET, LINK_DIED, CANCEL, EXPIRE,
	PUT_HEADERS, PUT_MESSAGE, PUT_BIG, PUT_BIG_END, PUT_DATA, PUT_WHOLE, PUT_END,
	PUT_STATUS, PUT_STATUS_WITH, PUT_STATUS_BIG, PUT_STATUS_AFTER, PUT_STATUS_WITH_AFTER,
	QUEUE, DEFER, TAKE, RELEASE,
	LR_CALL_EVENTS
};

/* Flags of a call that the tables do not need. */
enum {
	CALL_UNARY = 1 << 0,      /* lr_unary waits: the answer goes straight into its io */
	CALL_WATCHED = 1 << 1,
	CALL_REPORTED = 1 << 2,  /* K_ENDED was given, or is queued */
	CALL_CREDIT_WANTED = 1 << 3,
	CALL_ASKED_CREDIT = 1 << 4,
	CALL_UNSEEN = 1 << 5,
	CALL_TOO_LARGE = 1 << 6,
	CALL_LEFT_OPEN = 1 << 7,  /* its handler has returned, and answers later: in e->open */
	/* of an engine that an event loop drives */
	CALL_WANTS_CREDIT = 1 << 8, /* lr_send has returned LR_AGAIN for want of credit */
	CALL_HAS_CREDIT = 1 << 9,   /* it came, and lr_drain has not reported it */
	CALL_PAUSED = 1 << 10,      /* its messages stay in the core */
	CALL_BIG_TOLD = 1 << 11,    /* lr_drain has reported that a large message is whole */
	CALL_END_TOLD = 1 << 12,    /* and that nothing will follow */
	CALL_STREAMS = 1 << 13, /* in counts->streams */
	CALL_LOADS = 1 << 14,   /* in load->calls, or with CALL_STREAMS in load->streams */
};

struct lr_call {
	uint32_t index, generation;
	union {
		struct { uint8_t life, in, out, place; };
		uint8_t words[4];
	};
	uint32_t state; /* CALL_ */
	uint64_t wire; /* its id on the wire */
	struct lr_conn *conn;

	struct lr_item *first, **last;
	struct lr_item *big;    /* the message that DATA frames bring now */
	uint64_t skip;          /* DATA bytes to discard: their message was too large */
	struct lr_item *status; /* came with a large message: delivered after it */

	uint64_t outstanding; /* charged to the peer's window, not granted back */
	uint64_t ungranted;   /* charged to our window, not granted back */
	uint64_t taken;       /* of `ungranted`: taken by our side */
	uint64_t sent;        /* bytes of the large message being sent that are sent */
	bool busy;            /* a thread is sending them */
	struct lr_out *after; /* the STATUS that follows them */
	uint64_t mark;        /* link position after OPEN */
	uint64_t ordinal;     /* its OPEN was the first, second, ... of its connection */

	struct lr_waiter *receiver, *sender;
	uint32_t inside; /* threads that wait for something of this call */
	struct lr_call *next; /* free or queued */
	struct lr_call *next_ended, **at_ended; /* in e->ended; the call may be queued as well */
	struct lr_call *next_news, **at_news;   /* in e->news */
	uint64_t wanted; /* CALL_WANTS_CREDIT: the charge */
	struct lr_item *opened; /* while queued: metadata and message */
	int32_t method;
	/* 0: its OPEN named the method; `name` has that name, if it is not interned */
	uint32_t number;
	struct lr_item *name;
	uint32_t open_flags;
	int64_t deadline; /* a server's: computed when OPEN came */
	uint32_t watched_at; /* its index in e->watched, if CALL_WATCHED */
	uint64_t refused_size;
	int64_t began; /* when it was counted, or 0 */
	uint32_t code; /* its status, once it has ended */
};

/* ---- connections (conn.c) ---- */

struct lr_out {
	struct lr_out *next;
	struct lr_header header;
	uint8_t data[];
};

/* The user of some connections of a server: limits are counted per user. */
struct lr_user {
	struct lr_user *next;
	int64_t uid;
	int64_t calls;   /* not yet released */
	int64_t waiting; /* of these, queued for a worker and not held */
	uint64_t kept;   /* bytes queued and posted, and names, of all its connections */
};

struct lr_conn {
	struct lr_engine *engine;
	struct lr_user *user; /* NULL: not counted */
	struct lr_link *link;
	uint32_t id, slot;
	uint32_t refs; /* one for the table, one for the polled list, one per call */
	bool dead, eof_seen;
	bool send_failed; /* nothing can be sent; frames from the peer are still read */
	bool polled, ready; /* polled.c; neither: idle */
	int why; /* dead: LR_CLOSED or LR_PROTOCOL */
	char reason[160];
	bool faulty; /* `reason` is a failure of this system, not the peer's end */
	uint64_t peer_window;
	int64_t last_frame_at; /* coarse time of the last frame */
	uint32_t idle_sleeps;
	/* Bytes of memory kept for this connection: lr_cost(). */
	uint64_t queued;    /* items that its calls have not taken */
	uint64_t named;     /* names of its methods */
	uint64_t opens;     /* OPEN frames, sent or received */
	uint64_t begun;     /* how many of these the server has accepted */
	uint64_t given;     /* a server's: how many of these it has given to handlers */
	bool last_goaway_came; /* a client's: `begun` is from the server's last GOAWAY */
	struct lr_out *out, **out_last;
	uint64_t posted; /* of the list `out` */
	struct lr_call *held, **held_last; /* queued calls while throttled: no worker takes them */
	uint32_t nheld;
	_Atomic bool throttled; /* it does not read its answers: we do not read its frames */
	uint32_t room_waiters, room_need;
	bool room_armed;
	/* An event loop waits for room, counted in room_waiters; it came, and is not reported. */
	bool loop_waits, room_told;
	bool ring_queued; /* in e->rings */
	struct lr_conn *next_ring;
	struct lr_call **by_slot; /* server: the peer's slot -> call */
	uint32_t by_slot_size;
	struct lr_name { char *text; uint32_t len; int32_t id; } *names; /* server: by number */
	uint32_t names_size, name_bytes;
	struct lr_conn *next_ready, *next_unreported, *next_dead;
};

/* ---- waiting (want.c, lead.c) ---- */

enum lr_wants {
	WANT_ITEM, WANT_BIG, WANT_CREDIT, WANT_ROOM, WANT_CALL, WANT_SERVICE, WANT_FLUSH, WANT_NEWS
};

struct lr_waiter {
	struct lr_waiter *next, *prev;
	_Atomic uint32_t word; /* 0 parked, 1 woken */
	bool parked, counted;
	bool ignores_signals; /* EINTR does not end this wait */
	bool came_late; /* after its call's deadline: takes only what had arrived by then */
	enum lr_wants wants;
	struct lr_call *call;
	struct lr_conn *conn;
	struct lr_io *io;
	uint64_t amount; /* WANT_CREDIT: charge; WANT_ROOM: payload bytes; WANT_BIG: 1, whole */
};

struct lr_engine {
	int role;
	uint64_t window;
	int64_t max_receive, max_calls;
	uint32_t fork_generation;

	pthread_mutex_t lock;
	/* threads that wait for the mutex; counts each that got it */
	_Atomic uint32_t entering, entered;
	bool closed, stopping, refusing, goaway_came;
	/* it waits until everything is sent: then tell the service thread */
	bool drained_reported, draining;
	bool recheck_deadlines; /* the service thread has to compute its deadline again */
	uint32_t yields, service_yields;
	bool service_watches; /* a server's: the service thread waits for events, or is about to */

	struct lr_call **calls;
	uint32_t ncalls;
	struct lr_call *free_calls;
	int64_t live;
	int64_t open; /* of these, without a running handler */
	struct lr_user *users; /* every user that ever connected: never freed before the engine */
	int64_t user_calls, user_waiting; /* the most for each user, -1: any number */
	uint64_t user_bytes;

	struct lr_conn **conns;
	uint32_t nconns;
	struct lr_conn *unreported; /* dead, and not yet reported by lr_service */
	struct lr_conn *polled[LR_POLLED];
	uint32_t npolled;
	struct lr_conn *ready, **ready_last;
	uint32_t nready;
	uint32_t turn, ready_turns; /* next to be read: polled[turn], then this many ready ones */
	uint32_t oldest_polled; /* polled[oldest_polled] is the next candidate for removal */
	uint32_t frames_since_epoll; /* frames read since the leader checked epoll */
	uint32_t conn_generation;
	struct lr_conn *dead_conns; /* dead, and the table still has its reference */
	bool no_more_waits; /* no thread will start to sleep any more */

	char reason[160]; /* of the connection that died last, or could not be added */
	char frame_error[120]; /* what is wrong with a frame: frames.c */
	bool faulty; /* that was a failure of its link, not the peer's end */

	struct lr_waiter *leader, *first, *last;
	uint32_t workers; /* inside lr_next, leading or parked */
	struct lr_waiter *wakes[LR_WAKES];
	uint32_t nwakes;
	struct lr_conn *to_ring; /* ring its peer after the mutex is unlocked */

	struct lr_call *queue, **queue_last; /* no worker has taken them yet */
	struct lr_call *ended, **ended_last; /* for lr_service to report */
	struct lr_watched { int64_t deadline; struct lr_call *call; } *watched; /* deadlines.c */
	uint32_t nwatched, watched_size;

	struct lr_intern { char *text; uint32_t len; int32_t id; } *interned;
	uint32_t ninterned;

	int epoll_fd, kick_fd;       /* the leader sleeps here */
	int service_epoll, service_kick; /* the server's service thread sleeps here */
	int service_alarm; /* a timer, for handlers on links that are not armed meanwhile */
	bool alarm_set;
	uint32_t useless_wakes; /* wake-ups in a row with nothing to do */
	_Atomic int signo; /* the leader reads it without the mutex */
	uint32_t spin_misses;
	uint32_t yield_misses, yield_pause, yield_skip, short_yields;
	int64_t last_epoll_check; /* when the leader last checked, if it always spins */
	_Atomic uint32_t kicked, sleeping, check_epoll;
	struct lr_link *slept_in;    /* the link that the leader sleeps in, if IN_LINK */
	/* a client's thread that waits for events for its leader: watch.c */
	int watch_epoll, watch_kick;
	pthread_t watcher;
	bool watched_by_thread, no_watcher, watch_over, no_futexes;
	int64_t wake_leader_at; /* when the watcher kicks the leader, 0: never */
	int64_t watch_until;    /* when the watcher checks that again, 0: never */
	/* something may wait for room: the last thread to leave arranges for it */
	bool unsent_left;
	pthread_t flusher;
	bool flushes, flush_over;
	_Atomic uint32_t flush_wanted;
	_Atomic uint32_t service_work, service_sleeping;
	uint32_t lead_count; /* grows each time the lead is taken or left */

	/* An event loop drives the engine, and no thread waits in it: loop.c. */
	bool looped;
	int loop_timer;    /* fires at loop_timer_at, the earliest deadline; 0: not set */
	int64_t loop_timer_at;
	bool room_came;    /* to a connection with room_told */
	struct lr_call *news, **news_last; /* calls for lr_drain to report */
	/* In a turn of the loop one peer is woken at once, the others by lr_flush, or by late.c. */
	bool turn_rang;
	struct lr_conn *rings;
	/* late.c */
	_Atomic int64_t held_since; /* when `rings` got its first connection; 0: it has none */
	_Atomic bool lacks_room;    /* for something that is unsent; the thread looks at room_due */
	_Atomic int64_t room_due;
	int64_t room_pause;
	uint32_t late_count; /* lead_count when the thread looked last */
	void (*send_late)(struct lr_engine *e); /* with the mutex, which it unlocks */
	struct lr_engine *next_looped;
	/* The loop spins before it sleeps: spin.c. Unarmed: lr_drain has left that to lr_loop_spin. */
	bool loop_spins, unarmed;
	int64_t last_swept;

	struct lr_stats stats;
	struct lr_entry *entry;   /* of the process's page, from lr_publish on */
	struct lr_counts *counts; /* that entry's, or own_counts */
	struct lr_counts own_counts;
	struct lr_load *load; /* a server's, or NULL */
	int load_fd;
	int64_t completed_at; /* when the last call of `load` was completed */
};

/* state.c. An entry of 0 refuses; LR_LATE: no effect; otherwise the next state. */
enum { WORD_LIFE, WORD_IN, WORD_OUT, WORD_PLACE };
#define LR_LATE 255
#define LR_MOST_STATES 7
extern const uint8_t lr_life[LR_LIVES][LR_CALL_EVENTS];
extern const uint8_t lr_words[4][LR_MOST_STATES][LR_CALL_EVENTS];
int lr_call_refuses(const struct lr_call *call, enum lr_event event, uint8_t life, uint8_t next);
int lr_call_why(const struct lr_call *call); /* LR_: why nothing more can be sent; 0: it can */

static inline int lr_word_of(enum lr_event event)
{
	return event <= GOT_CREDIT ? WORD_IN : event >= QUEUE ? WORD_PLACE :
	       event >= PUT_HEADERS ? WORD_OUT : WORD_LIFE;
}

/* Is the event allowed? 1; 0: it has no effect any more; otherwise why it is refused:
 * LR_PROTOCOL is the peer's fault. */
static inline int lr_call_may(const struct lr_call *call, enum lr_event event)
{
	int word = lr_word_of(event);
	uint8_t life = lr_life[call->life][event];
	uint8_t next = word ? lr_words[word][call->words[word]][event] : life;

	if (life - 1u < LR_LATE - 1u && next - 1u < LR_LATE - 1u)
		return 1;
	return lr_call_refuses(call, event, life, next);
}

/* The same, and apply the event if it is allowed. */
static inline int lr_call_step(struct lr_call *call, enum lr_event event)
{
	int word = lr_word_of(event), r = lr_call_may(call, event);

	if (r == 1) {
		uint8_t life = lr_life[call->life][event];
		if (word)
			call->words[word] = lr_words[word][call->words[word]][event];
		call->life = life;
	}
	return r;
}

/*
 * The files, lowest first: each calls only functions declared above its own part
 * (tests/native/test_graph.py). Work for a file further down is returned, or left in the
 * engine for lr_leave(). The caller holds the mutex, unless the comment says otherwise.
 */

/* count.c */
void lr_count_begin(struct lr_engine *e, struct lr_call *call, int64_t now);
void lr_count_end(struct lr_engine *e, struct lr_call *call);
void lr_count_stream(struct lr_call *call); /* it is more than a request and an answer */
/* The call takes no more of a worker's time: before its client can see that. */
void lr_count_done(struct lr_call *call);
void lr_count_code(struct lr_call *call, const void *trailer, uint32_t len);
void lr_count_in(struct lr_engine *e, struct lr_counts *counts);
void lr_count_out(struct lr_engine *e);

/* wake.c */
void lr_wake(struct lr_engine *e, struct lr_waiter *w);
void lr_wake_worker(struct lr_engine *e);
void lr_wake_all(struct lr_engine *e);
void lr_kick_leader(struct lr_engine *e);
void lr_request_read(struct lr_engine *e); /* wake one thread, to read the connections */
void lr_service_ring(struct lr_engine *e);
void lr_service_alarm(struct lr_engine *e); /* ring it later, unless a leader is back by then */
void lr_service_again(struct lr_engine *e); /* lr_service looks for events again */
/* Something came for the call: wake the thread that waits for it, or tell the event loop. */
void lr_wake_receiver(struct lr_engine *e, struct lr_call *call);
void lr_wake_sender(struct lr_engine *e, struct lr_call *call);
void lr_news_push(struct lr_engine *e, struct lr_call *call);
void lr_news_drop(struct lr_engine *e, struct lr_call *call);
void lr_loop_kick(struct lr_engine *e); /* have the event loop call lr_drain */

/* deadlines.c */
int lr_call_watch(struct lr_engine *e, struct lr_call *call, int64_t deadline); /* 0: never */
void lr_call_unwatch(struct lr_engine *e, struct lr_call *call); /* it is CALL_WATCHED */
int64_t lr_next_deadline(const struct lr_engine *e); /* 0: none */
void lr_loop_set_timer(struct lr_engine *e); /* for the earliest deadline, if it is set too late */
/* a call whose deadline has passed, or NULL */
struct lr_call *lr_overdue(const struct lr_engine *e);

/* audit.c */
/* bytes kept and not charged, or charged and not kept */
uint64_t lr_audit(const struct lr_engine *e);

/* ref.c */
struct lr_conn *lr_conn_get(struct lr_engine *e, uint32_t id);
void lr_conn_unref(struct lr_conn *conn);
void lr_conn_unwatch(struct lr_conn *conn); /* remove it from the epoll sets */
bool lr_conn_may_queue(const struct lr_conn *conn, uint64_t size); /* an item of `size` bytes */
void lr_conn_charge(struct lr_conn *conn, uint64_t *which, uint64_t cost);
void lr_conn_refund(struct lr_conn *conn, uint64_t *which, uint64_t cost);
/* What malloc(size) takes, with its header and rounding. */
static inline uint64_t lr_cost(uint64_t size)
{
	return size + 16;
}

/*
 * Is the peer leaving its answers unread? Then we do not read its frames until it has read
 * some answers. Its end is still seen.
 */
static inline bool lr_conn_throttled(const struct lr_conn *conn)
{
	return atomic_load_explicit(&conn->throttled, memory_order_relaxed) && !conn->eof_seen;
}

/* Are there frames or parts of frames to send? On a client leave.c sends them at the latest. */
static inline bool lr_conn_unsent(const struct lr_conn *conn)
{
	return !conn->dead && (conn->out || conn->link->unfinished);
}

/* Is there something that waits for room on the link? */
static inline bool lr_conn_wants_room(const struct lr_conn *conn)
{
	return conn->room_waiters || lr_conn_unsent(conn);
}

/* late.c */
/* Without the mutex, an engine that a loop drives: */
void lr_late_add(struct lr_engine *e, void (*send_late)(struct lr_engine *));
void lr_late_remove(struct lr_engine *e);
/* With it: */
void lr_late_turn(struct lr_engine *e);   /* this turn keeps something */
void lr_late_room(struct lr_engine *e);   /* something waits for room */

/* enter.c */
int lr_enter(struct lr_engine *e); /* 0 and locked, or LR_FORKED and not */
/* Unlock, then wake the threads and the peer that are due; leaving the engine is lr_leave(). */
void lr_unlock(struct lr_engine *e);
/* lr_unlock() and lock again, if a thread or a peer is to be woken or a thread waits to enter. */
void lr_yield_mutex(struct lr_engine *e);
void lr_ring_delayed(struct lr_engine *e); /* now, without a turn of a loop beginning */
void lr_ring_later(struct lr_conn *conn); /* after a send: wake the peer, if that is due */

/* ready.c */
void lr_conn_ready(struct lr_conn *conn); /* have the leader read it; any thread may */
/* Only for the leader: */
struct lr_conn *lr_ready_pop(struct lr_engine *e); /* the caller gets its reference; NULL: none */
void lr_ready_remove_dead(struct lr_engine *e);

/* want.c */
int lr_ready(struct lr_engine *e, struct lr_waiter *w);
void lr_want_room(struct lr_waiter *w, bool wants);

/* A message may begin when nothing is outstanding, or when it fits. */
static inline bool lr_has_credit(const struct lr_call *call, uint64_t charge)
{
	return call->outstanding == 0 || call->outstanding + charge <= call->conn->peer_window;
}

/* Has a unary call got nothing but its initial metadata? */
static inline bool lr_only_headers(const struct lr_call *call)
{
	return (call->state & CALL_UNARY) && call->first->kind == LR_K_HEADERS &&
	       !call->first->next;
}

/* table.c */
struct lr_call *lr_call_new(struct lr_engine *e, struct lr_conn *conn);
struct lr_call *lr_call_get(struct lr_engine *e, uint64_t handle);
uint64_t lr_call_handle(const struct lr_call *call);
void lr_call_free(struct lr_engine *e, struct lr_call *call);
void lr_table_free(struct lr_engine *e); /* free the memory of all calls, none of which is live */
/* An item is charged to its connection from lr_item_new() to lr_item_free(), and so is the
 * memory for a large message, as long as the item owns it. */
struct lr_item *lr_item_new(struct lr_conn *conn, uint32_t kind, const void *data, uint64_t size);
void lr_item_free(struct lr_conn *conn, struct lr_item *item);
bool lr_item_hold(struct lr_conn *conn, struct lr_item *item); /* allocate that memory */
void lr_item_append(struct lr_call *call, struct lr_item *item);
struct lr_item *lr_item_pop(struct lr_call *call);
void lr_item_drop_last(struct lr_call *call);
void lr_queue_push(struct lr_engine *e, struct lr_call *call);
void lr_queue_hold(struct lr_engine *e, struct lr_conn *conn);
void lr_queue_resume(struct lr_engine *e, struct lr_conn *conn);
struct lr_call *lr_queue_pop(struct lr_engine *e);
void lr_ended_push(struct lr_engine *e, struct lr_call *call);
void lr_ended_drop(struct lr_engine *e, struct lr_call *call);

/* ends.c. False: the call had no owner and was freed. */
bool lr_call_ended(struct lr_engine *e, struct lr_call *call);
/* The same, by a thread that is not the leader; the leader may wait for this call. */
bool lr_call_ended_here(struct lr_engine *e, struct lr_call *call);
/* a client's: did its deadline pass while a thread waited? */
bool lr_call_missed(const struct lr_call *call);
void lr_call_release(struct lr_engine *e, struct lr_call *call);
void lr_call_hold(struct lr_call *call);
bool lr_call_unhold(struct lr_engine *e, struct lr_call *call); /* false: the call was freed */
bool lr_call_unseen(const struct lr_call *call);

/* The coarse clock lags by up to a tick, and takes a fifth of the time. */
#define LR_COARSE_LAG (20 * LR_MS)

/* Has its deadline passed? */
static inline bool lr_call_late(const struct lr_call *call)
{
	return call->deadline && lr_now_coarse() + LR_COARSE_LAG >= call->deadline &&
	       lr_now() >= call->deadline;
}

/* conn.c */
int lr_conn_put(struct lr_conn *conn, int type, int flags, uint64_t call,
	const struct iovec *iov, int count); /* 1, 0 no room, LR_CLOSED */
/* Account for one posted frame more, or less. */
void lr_conn_count_posted(struct lr_conn *conn, const struct lr_out *out, bool more);
/* send posted frames, wake threads that wait for room */
void lr_conn_flush(struct lr_conn *conn);
void lr_conn_flush_held(struct lr_conn *conn); /* what the link has gathered in this turn */
bool lr_conn_check_end(struct lr_conn *conn);
bool lr_conn_arm_room(struct lr_conn *conn);
void lr_conn_disarm_room(struct lr_conn *conn);
void lr_conn_die(struct lr_conn *conn, int why, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
void lr_conn_end(struct lr_conn *conn); /* the same, when its link is closed */
/* Why a connection cannot be added: ENOSPC means fs.epoll.max_user_watches. */
#define LR_UNWATCHED "the kernel does not watch its descriptors: %s"

/* post.c */
int lr_conn_post(struct lr_conn *conn, int type, int flags, uint64_t call,
	const struct iovec *iov, int count); /* never waits: 0, LR_CLOSED, LR_NOMEM */
/* the same; takes ownership of `out` */
void lr_conn_post_made(struct lr_conn *conn, struct lr_out *out);
struct lr_out *lr_out_new(int type, int flags, uint64_t call, const struct iovec *iov, int count);

/* cancel.c. False: the call had no owner and was freed. */
bool lr_call_cancel(struct lr_engine *e, struct lr_call *call, uint32_t code, const char *text,
	uint32_t len);
/* has its deadline passed? Then end it */
bool lr_call_expired(struct lr_engine *e, struct lr_call *call);
/* Send or queue a frame of the call. Without memory for it the call ends on both sides and
 * LR_NOMEM is returned; a call without an owner is freed then. */
int lr_call_post(struct lr_call *call, int type, int flags, const struct iovec *iov, int count);

/* credit.c */
void lr_call_took(struct lr_engine *e, struct lr_call *call, uint64_t charge);
void lr_ask_credit(struct lr_call *call);

/* message.c: bring a message, or a part of one, to the call's owner. */
int lr_deliver(struct lr_engine *e, struct lr_call *call, uint32_t kind, const void *data,
	uint64_t size);
int lr_message(struct lr_engine *e, struct lr_call *call, const struct lr_frame *frame,
	uint32_t at, const char **why);
int lr_on_data(struct lr_engine *e, struct lr_call *call, const struct lr_frame *frame,
	const char **why);
int lr_too_large(struct lr_engine *e, struct lr_call *call, uint64_t size, bool big);

/* frames.c: 0, or LR_PROTOCOL with the reason in e->frame_error. */
int lr_check_frame(struct lr_engine *e, const struct lr_conn *conn, const struct lr_frame *f);
int lr_check_window(struct lr_engine *e, struct lr_call *call, const struct lr_frame *f);

/* accept.c: a server's. */
int lr_on_method(struct lr_engine *e, struct lr_conn *conn, const struct lr_frame *frame,
	const char **why);
int lr_on_open(struct lr_engine *e, struct lr_conn *conn, const struct lr_frame *frame,
	const char **why);
int lr_take_call(struct lr_engine *e, struct lr_io *io);
void lr_over_memory(const struct lr_conn *conn, char *text, size_t size);

/* dispatch.c: apply a frame. 0, or LR_PROTOCOL or LR_NOMEM with *why. */
int lr_dispatch(struct lr_engine *e, struct lr_conn *conn, const struct lr_frame *frame,
	const char **why);

/* polled.c: only for the leader. */
void lr_polled_fill(struct lr_engine *e); /* move ready ones to free places in the list */
bool lr_polled_leave(struct lr_engine *e, uint32_t at); /* true: polled[at] is idle now */
/* a ready one was read: it is idle now, or ready again */
void lr_conn_after_read(struct lr_conn *conn);
void lr_remove_dead(struct lr_engine *e); /* by the leader, or while no thread leads */

/* read.c: only for the leader. */
int lr_read_conns(struct lr_engine *e, struct lr_waiter *w); /* how many frames and ends were read */
bool lr_flush_polled(struct lr_engine *e); /* does anything still wait for room? */
void lr_take_events(struct lr_engine *e, const struct epoll_event *events, int n);
void lr_disarm_polled(struct lr_engine *e); /* the leader reads them now */

/* watch.c */
/* Only for the leader. */
bool lr_sleeps_on_futexes(struct lr_engine *e);
bool lr_sleeps_in_link(struct lr_engine *e, int64_t deadline); /* in its only polled one */
void lr_watch_end(struct lr_engine *e); /* without the mutex */

/* sleep.c: only for the leader, without the mutex. */
bool lr_shares_cpu(const struct lr_engine *e, uint16_t cpu);
int64_t lr_spin_budget(struct lr_engine *e, const struct lr_waiter *w);
bool lr_may_yield_cpu(struct lr_engine *e);
int lr_yield_cpu(struct lr_engine *e);
int lr_spin(struct lr_engine *e, int64_t budget, int64_t deadline, bool tx_wanted);
int lr_sleep(struct lr_engine *e, struct epoll_event *events, int64_t deadline, bool *slept);

/* lead.c: waiting unlocks the mutex meanwhile. */
extern _Thread_local bool lr_may_sleep; /* of lead.c; tests/fuzz sets it */
int lr_wait(struct lr_engine *e, struct lr_waiter *w, int64_t deadline);
void lr_lead_arm(struct lr_engine *e);
void lr_lead_take(struct lr_engine *e, struct lr_waiter *w);
void lr_lead_leave(struct lr_engine *e);
void lr_assume_frames(struct lr_engine *e); /* the links are not armed: only a read shows what came */

/* leave.c */
void lr_leave(struct lr_engine *e); /* unlock; the last thread inside also cleans up */
void lr_flush_end(struct lr_engine *e); /* without the mutex */
void lr_close_fds(struct lr_engine *e); /* close the engine's own descriptors */

/* calls.c, send.c: 0, or an error. */
int lr_wait_item(struct lr_engine *e, struct lr_call *call, struct lr_io *io, int64_t deadline);
int lr_wait_room(struct lr_engine *e, struct lr_call *call, uint32_t need, int64_t deadline,
	bool ignores_signals);
int lr_send_pieces(struct lr_engine *e, struct lr_call *call, const char *msg, uint64_t len,
	int64_t deadline, int64_t patience);
int lr_send_after(struct lr_call *call, const struct iovec *iov, int count, int flags);

/* service.c: the next event of the engine, or 0. */
int lr_service_event(struct lr_engine *e, struct lr_io *io);

/* loop.c. False: something has come meanwhile, drain again. */
bool lr_loop_arm(struct lr_engine *e);

/* client.c, server.c, spin.c and life.c have only the functions of api.h. */

#endif
