/*
 * polled.pml - more connections than the leader has places for (polled.c, ready.c, read.c, lead.c).
 *
 * Each peer sends FRAMES frames. On the first POSTS connections a handler sends one, too:
 * it is posted if there is no room, which the peer makes once. The leader looks at PLACES
 * connections (polled), has a queue of those with something to read or send (ready), and gets
 * events of the others (idle).
 *
 * data.pml and room.pml show that one connection's arming and ringing lose nothing, and
 * data.pml that threads may take turns to lead: here one leads, and memory is sequentially
 * consistent.
 *
 * Must hold: when nothing can move, every frame is taken, and all that was posted is sent.
 */
#ifndef FRAMES
#define FRAMES 2
#endif
#ifndef POSTS
#define POSTS 0
#endif
#ifndef CONNS
#define CONNS 2
#endif
#ifndef PLACES
#define PLACES 1
#endif

#define IDLE  0
#define READY 1
#define POLLED   2

/* The peers'. */
byte tail[CONNS];
bool room[CONNS];

/* The leader's process. Armed: for an epoch; rung: in that epoch, and only once. */
bool locked, kick;
byte cursor[CONNS], place[CONNS];
bool armed[CONNS], rung[CONNS], room_armed[CONNS], room_rung[CONNS];
bool posted[CONNS], event[CONNS];
chan polled = [PLACES] of { byte };
chan ready = [CONNS] of { byte };

proctype Peer(byte c)
{
	do
	:: atomic { tail[c] < FRAMES -> tail[c]++ };
		atomic {
			if
			:: armed[c] && !rung[c] -> rung[c] = true; event[c] = true
			:: else
			fi
		}
	:: atomic { c < POSTS && !room[c] -> room[c] = true };
		atomic {
			if
			:: room_armed[c] && !room_rung[c] -> room_rung[c] = true; event[c] = true
			:: else
			fi
		}
	:: atomic { tail[c] == FRAMES && (room[c] || c >= POSTS) -> break }
	od
}

/* lr_conn_ready */
inline make_ready(c)
{
	if
	:: place[c] == IDLE -> place[c] = READY; ready ! c
	:: else
	fi
}

/* lr_conn_put and lr_conn_post of a handler's thread. */
proctype Handler(byte c)
{
	atomic {
		!locked ->
		if
		:: room[c]
		:: !room[c] ->
			posted[c] = true;
#ifndef POST_QUIETLY
			make_ready(c);
			kick = true
#endif
		fi
	}
}

#define disarm(c) armed[c] = false; room_armed[c] = false

/*
 * Arm it for all that could happen to it; idle and still(c) say whether nothing has. To arm
 * and to look are two steps; all else that the leader does is one for its peers.
 */
inline arm_all(c)
{
	atomic {
		if
		:: posted[c] -> room_armed[c] = true; room_rung[c] = false
		:: else
		fi
	};
	atomic {
		idle = !posted[c] || !room[c];
		if
		:: idle && !armed[c] -> armed[c] = true; rung[c] = false
		:: else
		fi
	}
}
#define still(c) (idle && tail[c] == cursor[c])

/* make_idle: it becomes idle, or stays where it was */
inline make_idle(c)
{
	arm_all(c);
	atomic {
		idle = still(c);
#ifdef LEAVE_BUSY
		idle = true; /* another connection wants its place */
#endif
#ifdef LEAVE_UNARMED
		armed[c] = false;
#endif
#ifdef LEAVE_STUCK
		room_armed[c] = false;
#endif
		if
		:: idle -> place[c] = IDLE
		:: !idle && place[c] == POLLED -> disarm(c); polled ! c
		:: !idle && place[c] == READY -> disarm(c); ready ! c
		fi;
		idle = false
	}
}

/* read_conn, with a burst of one frame, and lr_conn_flush. */
inline look_at(c)
{
	if
	:: tail[c] > cursor[c] -> cursor[c]++; got = true
	:: else
	fi;
	if
	:: posted[c] && room[c] -> posted[c] = false; got = true
	:: else
	fi
}

/* lr_take_events: a connection without a place is looked at in the queue. */
inline hear()
{
	for (one : 0 .. CONNS - 1) {
		if
#ifdef FORGET_NEWCOMERS
		:: event[one] && len(polled) < PLACES -> event[one] = false; make_ready(one)
		:: event[one] && len(polled) == PLACES -> event[one] = false
#else
		:: event[one] -> event[one] = false; make_ready(one)
#endif
		:: else
		fi
	}
}

#define each_polled(act)                                   \
	n = len(polled);                                   \
	do                                              \
	:: n > 0 -> polled ? one; act(one); polled ! one; n-- \
	:: n == 0 -> break                              \
	od

inline arm_to_sleep(c)
{
	arm_all(c);
	quiet = quiet && still(c)
}

active proctype Leader()
{
	byte one, n;
	bool got, idle, quiet;

	do
	:: atomic {
		!locked -> locked = true;
		if /* ask_epoll */
		:: hear()
		:: true
		fi;
		one = 0
	};
		/* lr_polled_fill: one is asked to leave, if it has been silent for long */
		if
		:: atomic { nempty(ready) && full(polled) -> polled ? one }; make_idle(one)
		:: true
		fi;
		atomic {
			do
			:: nempty(ready) && nfull(polled) -> ready ? one; polled ! one; place[one] = POLLED; disarm(one)
			:: empty(ready) || full(polled) -> break
			od;
			each_polled(look_at);
			one = 0
		};
		/* lr_read_conns: and a turn of the queue's */
		if
		:: atomic {
			ready ? one;
#ifndef SAME_EPOCH
			disarm(one);
#endif
			look_at(one)
		};
			make_idle(one)
		:: empty(ready)
		fi;
		one = 0;
		if
		:: atomic { got || nempty(ready) -> locked = false; got = false } /* lr_yield_mutex */
		:: atomic { !got && empty(ready) -> locked = false };
			atomic { !locked -> locked = true; quiet = !kick };
			each_polled(arm_to_sleep);
			atomic { locked = false; one = 0; idle = false };
			if
			:: atomic { quiet && (kick || event[0] || event[CONNS / 2] || event[CONNS - 1]) -> skip }
			:: !quiet
			fi;
			atomic {
				!locked -> kick = false;
				hear();
				each_polled(disarm);
				one = 0;
				quiet = false
			}
		fi
	od
}

active proctype Watch()
{
	byte c;

	timeout;
	for (c : 0 .. CONNS - 1) {
		assert(cursor[c] == FRAMES && !posted[c])
	}
}

init
{
	byte c;

	atomic {
		for (c : 0 .. CONNS - 1) {
			armed[c] = true;
			run Peer(c);
			if
			:: c < POSTS -> run Handler(c)
			:: else
			fi
		}
		c = 0
	}
}
