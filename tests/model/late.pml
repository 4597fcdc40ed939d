/*
 * late.pml - what a loop has kept leaves, though its turn never ends (late.c).
 *
 * LOOPS engines, one thread for them. A loop keeps frames for its turn, or lacks room; then its
 * turn ends, or it computes for good, or its engine is freed. The clock may pass any due time at
 * any moment: LATE is never long enough to count on.
 *
 * Must hold: the thread uses no engine that is freed; and when nothing can move, no engine that
 * is left keeps anything.
 */
#ifndef LOOPS
#define LOOPS 2
#endif
#ifndef TIMES
#define TIMES 2 /* that each loop keeps something */
#endif
#define NONE LOOPS

#define AWAKE 0
#define HELD  1 /* or lacks room: of all loops, one bit each is in kept[] */
#define WORDS 2
#define THREAD 0
#define LOOP   1
#define writes(word) (word == AWAKE -> THREAD : LOOP)
#include "memory.pml"

bool kept[LOOPS]; /* held_since; with one loop the word HELD, which may be buffered */
bool lacks[LOOPS], has_room[LOOPS];
bool listed[LOOPS], freed[LOOPS], locked[LOOPS];
bool registry, started;
byte inside = NONE, cursor = NONE;

inline take(mutex) { atomic { !mutex -> mutex = true } }

#if LOOPS == 1
#define keeps(i) load(HELD)
#define keep(i, value) atomic { store(HELD, value) }
#else
#define keeps(i) kept[i]
#define keep(i, value) kept[i] = value
#endif

inline next_listed(at)
{
	at++;
	do
	:: at < LOOPS && !listed[at] -> at++
	:: else -> break
	od
}

/* ---- the loops ---- */

inline wake()
{
	if
	:: load(AWAKE)
	:: else ->
		atomic {
			flush(LOOP); /* an exchange */
			if
			:: load(AWAKE)
			:: else -> mem[AWAKE] = 1; starts = !started; started = true
			fi
		}
		if
		:: starts -> run Thread(); starts = false
		:: else
		fi
	fi
}

/* lr_late_remove */
inline remove(i)
{
	take(registry);
	atomic {
		listed[i] = false;
#ifndef FORGETS_CURSOR
		if
		:: cursor == i -> next_listed(cursor)
		:: else
		fi
#endif
	};
#ifndef FREES_AT_ONCE
	do
	:: atomic { inside == i -> registry = false }; (inside != i); take(registry)
	:: atomic { inside != i -> break }
	od;
#endif
	registry = false;
	atomic { freed[i] = true; kept[i] = false; lacks[i] = false; flush(LOOP); mem[HELD] = 0 }
}

proctype Loop(byte i)
{
	byte times;
	bool starts;

	do
	:: times < TIMES ->
		take(locked[i]);
		times++;
		if
		:: !keeps(i) -> keep(i, true); wake()
		:: !lacks[i] && !has_room[i] -> lacks[i] = true; wake()
		:: else
		fi;
		atomic { flush(LOOP); locked[i] = false }
	:: times -> /* the turn ends */
		take(locked[i]);
		keep(i, false);
		if
		:: has_room[i] -> lacks[i] = false
		:: else
		fi;
		atomic { flush(LOOP); locked[i] = false };
		break
	:: times -> break /* it computes */
	:: times -> remove(i); break
	od
}

proctype Peer(byte i)
{
	has_room[i] = true
}

/* ---- the thread ---- */

#define check(i) assert(!freed[i])

inline look_at_all(sends)
{
	take(registry);
	atomic { any = false; next = false; cursor = 0; (true) };
	if
	:: !listed[0] -> atomic { next_listed(cursor) }
	:: else
	fi;
	do
	:: cursor < LOOPS ->
		atomic { e = cursor; check(e); next_listed(cursor) };
		any = any | keeps(e);
		if
		:: sends && (keeps(e) || lacks[e]) -> /* it is due */
			atomic { inside = e; registry = false };
			if
			:: atomic { !locked[e] -> locked[e] = true };
				check(e);
				keep(e, false);
				if
				:: has_room[e] -> lacks[e] = false
				:: else
				fi;
				locked[e] = false
			:: locked[e]
			fi;
			check(e);
			take(registry);
			inside = NONE
		:: true
		fi;
		atomic { check(e); next = next | keeps(e) | lacks[e] }
	:: else -> break
	od;
	registry = false
}

proctype Thread()
{
	bool any, next;
	byte e;

	do
	:: look_at_all(true);
		if
		:: any /* a tick, then again */
		:: true -> /* idle for long enough, whatever is kept */
#ifdef LOOKS_FIRST
			look_at_all(false);
			atomic { store(AWAKE, 0) };
#else
			atomic { store(AWAKE, 0) };
			look_at_all(false);
#endif
			atomic { load(AWAKE) || next };
			atomic { flush(THREAD); mem[AWAKE] = 1 }
		fi
	od
}

active proctype Watch()
{
	byte i;

	timeout;
	do
	:: i < LOOPS -> assert(freed[i] || (!keeps(i) && !lacks[i])); i++
	:: else -> break
	od
}

init
{
	byte i;

	atomic {
		do
		:: i < LOOPS -> listed[i] = true; run Loop(i); run Peer(i); i++
		:: else -> break
		od
	}
}
