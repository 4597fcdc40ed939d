/* actor.h - an engine and its users: what Python's threads might do to the core. */
#ifndef LR_FUZZ_ACTOR_H
#define LR_FUZZ_ACTOR_H

#include "memlink.h"

/* What an owner knows of a call. */
struct deed {
	uint64_t handle;   /* 0: none */
	uint64_t sending;  /* the size of a message that lr_send has not taken whole, plus 1 */
	bool in_send;      /* a thread is inside lr_send: grpc has one that sends for a call */
	bool headers, spoken, half;
	uint64_t big;      /* lr_recv said LR_K_BIG of so many bytes, lr_fill is due */
};

struct actor {
	struct lr_engine *e;
	int role;
	uint64_t window;
	bool checks;       /* the peer is honest: messages are pattern() */
	struct deed deeds[12];
	uint64_t stale[4]; /* handles that are not live any more */
	struct memlink *links[72]; /* in the order of connections, also ended ones */
	uint32_t nlinks;
	uint32_t methods, name_bytes; /* a client's: named so far */
	bool serving;      /* a thread is in lr_service */
	bool closed;
	const char *waits_for; /* what cannot last longer than the connection; or NULL */
};

/* One thing that the input says; false if the engine has been closed. */
void actor_act(struct actor *a);
/* Let go of all calls, then of the connections; live and queued must be 0 at the end. */
void actor_finale(struct actor *a);
void actor_let_out(struct actor *a, int level); /* for world.end() */
bool actor_locked(struct actor *a);  /* is its engine's mutex held? */
uint64_t actor_some_call(struct actor *a); /* a handle, live as a rule, or 0 */

/* ---- for the acts, which are in calling.c and serving.c ---- */

#define PATIENCE 6 /* times that a wait goes on after LR_AGAIN */

struct lr_io *my_io(void); /* of this thread, which is how deep calls are nested */
int64_t some_deadline(void);
struct deed *deed_of(struct actor *a, uint64_t handle);
struct deed *some_deed(struct actor *a);
void deed_add(struct actor *a, uint64_t handle, bool half);
void deed_forget(struct actor *a, uint64_t handle);
void deed_release(struct actor *a, uint64_t handle);
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
void act_let_go(struct actor *a);
void act_look(struct actor *a);
void act_names(struct actor *a);
void act_next(struct actor *a);
void act_open_call(struct actor *a);
void act_receive(struct actor *a);
void act_reply_next(struct actor *a);
void act_send(struct actor *a);
void act_service(struct actor *a);
void act_shut(struct actor *a);
void act_time_passes(struct actor *a);
void act_watch(struct actor *a);
void act_yield(struct actor *a);
void act_flood(struct actor *a);
void act_leave_open(struct actor *a);

#endif
