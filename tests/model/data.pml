/*
 * data.pml - frames one way: the sender rings, the reader sleeps (ring.c, enter.c, lead.c).
 *
 * The writing process has two threads. Each puts frames into the ring under the
 * mutex (ring_send) and rings afterwards without it (lr_unlock, ring_now). With STALL
 * one may stop forever at any step; with KILL the process is killed at any
 * step, and its end is seen.
 *
 * The reading process is a server: two workers take turns to lead, a handler
 * may never come back, and the service thread promotes a parked worker or leads
 * itself (lr_wait, lr_sleep, lr_lead_arm, promote). The bell is an edge in two
 * epoll sets, the leader's first; with SIGNAL it is a signal to the thread that
 * armed. That lr_service_ring and lr_kick_leader lose nothing is taken for
 * granted here: kick.pml has them.
 *
 * Must hold: rung is the epoch, odd, only after a ring in that epoch. When
 * nothing can move, every frame of a thread that has rung for it is taken, and
 * of a dead process every frame, before its connection was closed.
 *
 * A step is as much as one access to what the two processes share.
 */
#ifndef FRAMES
#define FRAMES 2
#endif
#ifndef THREADS
#define THREADS 2
#endif

#define TAIL    0
#define EPOCH   1
#define SLEEPER 2
#define WORDS   3
#define WRITER  0
#define READER  1
#define writes(word) (word == TAIL -> WRITER : READER)
#include "memory.pml"

#define NO_THREAD  0
#define SERVICE 3 /* the workers are 1 and 2 */

/* The writing process. */
bool writing; /* its mutex */
byte tail, rung, ring_due, due[2], sent;
bool stalled, killed;
byte must; /* the last frame of those that were rung for, or need not be */

/* The reading process. */
bool reading; /* its mutex */
byte cursor, epoch, said, rang; /* rang: in which epoch a ring was completed last */
bool bell1, bell2, eof1, eof2; /* edges in the two epoll sets */
bool asleep1;                  /* a thread sleeps in the first */
bool pending[4];               /* the signal, by thread */
bool work, kick, check_epoll, eof_seen, closed, changed;
byte leader, queue, first;
bool parked[3], woken[3];

#ifdef PROGRESS_ONLY
#define check_rung() skip
#else
#define check_rung() assert(!(epoch & 1) || rung != epoch || rang == epoch)
#endif

/* An exclusive wake-up ends at the first set in which a thread sleeps. */
inline edge(one, two)
{
	one = true;
	if
	:: asleep1 -> asleep1 = false
	:: else ->
#ifndef CLIENT
		two = true
#endif
	fi
}

/* ---- writing ---- */

proctype Ringer(byte me)
{
	byte seen, mine;
	{
		do
		:: atomic { !writing && sent < FRAMES -> writing = true; flush(WRITER) };
			do
			:: atomic {
				sent < FRAMES ->
				sent++;
				tail++;
				mine = tail;
				store(TAIL, tail)
			};
				atomic {
					seen = load(EPOCH);
#ifdef CLEAR_THEN_RING
					/* The usual way: one flag, taken by the ringer. */
					if
					:: seen & 1 -> ring_due = seen; mem[EPOCH] = 0
					:: else
					fi;
#else
					if
					:: (seen & 1) && seen != rung -> ring_due = seen
#ifdef MARK_BEFORE_RING
						; rung = seen; check_rung()
#endif
					:: else
					fi;
#endif
					seen = 0
				}
			:: atomic { due[me] = ring_due; ring_due = 0; writing = false };
				break
			od;
			if
			:: due[me] ->
				atomic { flush(WRITER); seen = load(SLEEPER) };
				atomic {
					if
					:: seen != NO_THREAD -> pending[seen] = true
					:: else -> edge(bell1, bell2)
					fi;
					seen = 0;
					rang = epoch
				};
				atomic {
					!writing -> flush(WRITER);
#if !defined(MARK_BEFORE_RING) && !defined(CLEAR_THEN_RING)
					rung = due[me];
					check_rung();
#endif
					due[me] = 0
				}
			:: else
			fi;
			atomic { must = (mine > must -> mine : must); mine = 0 }
		:: atomic { sent == FRAMES -> break }
		od
	} unless { (me == 0 && stalled) || killed }
}

/* Once, at any moment, or never. */
proctype Fate()
{
#ifdef KILL
	killed = true;
	atomic { !waiting -> edge(eof1, eof2) }
#else
	stalled = true
#endif
}

/* ---- reading ---- */

/*
 * Only two numbers, so that few states are many sleeps: 0 for the even epoch
 * there is, 1 for the odd one. A thread that remembers an odd one that is over remembers OLD.
 */
#define OLD 3
#define outdated(which) which = (which & 1 -> OLD : which)

inline store_epoch()
{
	epoch = 1 - epoch;
	if
	:: epoch -> outdated(rung); outdated(rang); outdated(ring_due); outdated(due[0]); outdated(due[1])
	:: else
	fi;
	store(EPOCH, epoch)
}

/* ring_arm; the caller goes on with a look at the tail. */
inline arm(who)
{
	if
	:: atomic {
		said != who ->
		said = who;
		store(SLEEPER, who);
		epoch = 0 /* armed in another way: a new epoch makes it heard */
	};
		atomic { store_epoch(); check_rung() }
	:: atomic { said == who && !epoch -> store_epoch(); check_rung() }
	:: atomic { said == who && epoch -> skip }
	fi
}
#define quiet (load(TAIL) == cursor)

inline disarm()
{
	if
	:: epoch -> store_epoch()
	:: else
	fi
}

inline take_lead(me) { leader = me; changed = true; disarm() }

inline leave_lead() { leader = NO_THREAD; changed = true }

inline wake_first()
{
	if
	:: first -> woken[first] = true
	:: else
	fi
}

inline leave() { flush(READER); reading = false }

/* pass_on, and out of the mutex. */
inline pass_on()
{
#ifdef CLIENT
	atomic { wake_first(); leave() }
#else
#ifndef LEAD_OUT_UNARMED
	arm(NO_THREAD); /* lr_lead_arm */
#endif
	atomic {
		if
		:: !quiet || queue || check_epoll || eof_seen -> work = true
		:: else
		fi;
		leave()
	}
#endif
}

#ifdef SIGNAL
#define SLEEPS_AS(me) me
#else
#define SLEEPS_AS(me) NO_THREAD
#endif

/* The leader's wait, from out of the mutex: look, or sleep; and into it again. */
inline wait(me)
{
	if
	:: atomic { check_epoll -> check_epoll = false; bell1 = false }
	:: atomic { !check_epoll && !reading -> reading = true; pending[me] = false };
		if
		:: kick -> reading = false
		:: atomic { !kick -> skip };
			arm(SLEEPS_AS(me));
			if
			:: atomic { !quiet -> leave() }
			:: quiet ->
				atomic { leave() };
				asleep1 = !(bell1 || eof1 || kick || pending[me]);
				atomic {
					(!asleep1 && (bell1 || eof1 || kick)) || pending[me] ->
					asleep1 = false;
					pending[me] = false;
					bell1 = false
				}
			fi
		fi
	fi;
	atomic {
		!reading -> reading = true;
		kick = false;
		eof_seen = eof_seen || eof1;
		eof1 = false;
		disarm()
	}
}

#ifdef CLOSE_AT_ONCE
#define drained true /* the end is accepted with frames still in the ring */
#else
#define drained quiet
#endif

proctype Worker(byte me)
{
next:
	atomic { !reading -> reading = true };
again:
	if
	:: atomic { queue -> queue-- };
		if
		:: leader == NO_THREAD -> pass_on()
		:: else -> leave()
		fi
	:: atomic { !queue && leader == NO_THREAD -> take_lead(me) };
		do
		:: atomic { eof_seen && drained -> closed = true }; goto over
		:: atomic {
			!quiet && !(eof_seen && drained) ->
			cursor++;
			leave_lead()
		}; break
		:: atomic { quiet && !eof_seen -> leave() };
			wait(me)
		od;
		pass_on()
	:: atomic {
		!queue && leader != NO_THREAD ->
		parked[me] = true;
		first = (first -> first : me);
		if
		:: leader == SERVICE -> kick = true; asleep1 = false
		:: else
		fi;
		leave()
	};
		atomic {
			woken[me] && !reading -> reading = true;
			woken[me] = false;
			parked[me] = false;
			first = (parked[3 - me] -> 3 - me : NO_THREAD)
		};
		goto again
	fi;
#ifndef CLIENT
	if /* the handler */
	:: goto next
	:: me == 1 -> skip /* waits for what never comes */
	fi;
#else
	goto next;
#endif
over:
	skip
}

/* serve_service and promote. */
proctype Service()
{
next:
	atomic {
		(bell2 || eof2 || work) && !reading ->
		bell2 = false;
		eof2 = false;
		work = false;
		check_epoll = true;
		if
		:: leader != NO_THREAD -> goto next
		:: else -> changed = false
		fi
	};
	/* Here is the moment's grace. */
	if
	:: atomic { !reading && changed -> goto next }
	:: atomic { !reading && !changed && first -> wake_first(); changed = true; goto next }
	:: atomic { !reading && !changed && !first -> reading = true; take_lead(SERVICE) }
	fi;
	do
	:: atomic { first -> leave_lead(); wake_first(); leave(); goto next }
	:: atomic { !first && eof_seen && drained -> closed = true }; goto over
	:: atomic { !first && !quiet && !(eof_seen && drained) -> cursor++; queue++ }
	:: atomic { !first && quiet && !eof_seen -> leave() };
		wait(SERVICE)
	od;
over:
	skip
}

active proctype Watch()
{
	timeout;
	assert(closed || cursor >= must);
#ifdef KILL
	assert(closed && cursor == load(TAIL))
#endif
}

init
{
	atomic {
		run Ringer(0);
#if THREADS > 1
		run Ringer(1);
#endif
#if defined(STALL) || defined(KILL)
		run Fate();
#endif
#ifndef CLIENT
		run Service();
#endif
		run Worker(1);
		run Worker(2)
	}
}
