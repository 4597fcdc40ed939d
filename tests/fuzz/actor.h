/* actor.h - an engine and its users: what Python's threads might do to the core. */
#ifndef LR_FUZZ_ACTOR_H
#define LR_FUZZ_ACTOR_H

#include "memlink.h"

/* What the owner of a call knows about it. */
struct owned_call {
	uint64_t handle;   /* 0: none */
	uint64_t sending;  /* the size of a message of which lr_send has sent a part, plus 1 */
	bool in_send;      /* a thread is inside lr_send: grpc has one that sends for a call */
	bool headers, spoken, half;
	uint64_t big;      /* lr_recv returned LR_K_BIG with this size: lr_fill has to follow */
};

struct actor {
	struct lr_engine *e;
	int role;
	uint64_t window;
	bool checks;       /* the peer keeps the protocol: messages are pattern() */
	struct owned_call owned[12];
	uint64_t stale[4]; /* handles that are not live any more */
	struct memlink *links[72]; /* by the number of the connection; ended ones, too */
	uint32_t nlinks;
	uint32_t methods, name_bytes; /* a client's: the names sent so far */
	bool serving;      /* a thread is in lr_service */
	bool closed;
	const char *waits_for; /* a wait that must not last longer than the connection; or NULL */
};

/* The action that the input chooses. */
void actor_act(struct actor *a);
/* Release all calls, then close the connections; live and queued must be 0 at the end. */
void actor_finish(struct actor *a);
void actor_end_waits(struct actor *a, int level); /* for world.end() */
bool actor_locked(struct actor *a);  /* is its engine's mutex held? */
uint64_t actor_some_call(struct actor *a); /* a handle, usually live, or 0 */

/* ---- for the actions, which are in calling.c and serving.c ---- */

#define PATIENCE 6 /* how often a wait is continued after LR_AGAIN */

struct lr_io *my_io(void); /* one for each depth of nested calls */
int64_t some_deadline(void);
struct owned_call *owned_find(struct actor *a, uint64_t handle);
struct owned_call *some_owned(struct actor *a);
void owned_add(struct actor *a, uint64_t handle, bool half);
void owned_forget(struct actor *a, uint64_t handle);
void owned_release(struct actor *a, uint64_t handle);
void drop(struct actor *a, struct lr_conn *conn); /* end this connection */
/* The actor that waits now, by name: returns the outer one's name, to be restored. */
const char *wait_begins(struct actor *a, const char *name);

void act_cancel(struct actor *a);
void act_cancel_all(struct actor *a);
void act_defer(struct actor *a);
void act_drop(struct actor *a);
void act_f(struct actor *a);
void act_finish(struct actor *a);
void act_flush(struct actor *a);
void act_goaway(struct actor *a);
void act_half_close(struct actor *a);
void act_headers(struct actor *a);
void act_intern(struct actor *a);
void act_release(struct actor *a);
void act_read_stats(struct actor *a);
void act_names(struct actor *a);
void act_next(struct actor *a);
void act_open_call(struct actor *a);
void act_receive(struct actor *a);
void act_reply_next(struct actor *a);
void act_send(struct actor *a);
void act_service(struct actor *a);
void act_close(struct actor *a);
void act_time_passes(struct actor *a);
void act_watch(struct actor *a);
void act_yield(struct actor *a);
void act_flood(struct actor *a);
void act_leave_open(struct actor *a);

#endif
