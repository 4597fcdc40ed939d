/*
 * room.pml - a full ring: the writer waits for room, the reader for frames (ring.c).
 *
 * Records are of one or two units, the ring holds SIZE. A writer without room asks
 * for at least as much as its record needs (ring_arm_room); while it waits it may
 * be told to ask for more. The reader rings when its head has come to room_at
 * (ring_consume). Each side has one bell, sticky, and what rings it without
 * need (a frame the other way, a kick) is the interrupt.
 *
 * Must hold: room_rung is the room epoch, odd, only after a ring in that epoch,
 * and likewise for rung; and when nothing can move, everything has been sent and
 * taken. With STALL the writer may stop forever at any step: what it has rung
 * for has then been taken.
 */
#ifndef FRAMES
#define FRAMES 3
#endif
#define SIZE 2

#define TAIL       0
#define ROOM_AT    1
#define ROOM_EPOCH 2
#define HEAD       3
#define EPOCH      4
#define WORDS      5
#define WRITER     0
#define READER     1
#define writes(word) (word <= ROOM_EPOCH -> WRITER : READER)
#include "memory.pml"

chan records = [SIZE] of { byte }; /* how long they are: in the ring itself */
bool bell[2], stalled;

/* The writer's. */
byte tail, head_seen, rung, due, room_epoch, sent, must;
byte room_rang; /* in which room epoch a ring was completed last */

/* The reader's. */
byte cursor, epoch, room_seen, room_rung, rang, taken;

/*
 * Epochs count to two, those of room to four, and begin again, so that few states
 * are many sleeps. A thread that remembers a number that is used again remembers OLD, an
 * odd one, instead. (A re-armed room goes from odd to odd: two values would not be enough.)
 */
#define OLD 5
#define outdated(which, now) which = (which == now -> OLD : which)

inline new_epoch()
{
	epoch = 1 - epoch;
	if
	:: epoch -> outdated(rung, 1); outdated(rang, 1); outdated(due, 1)
	:: else
	fi;
	store(EPOCH, epoch);
	check()
}

inline new_room_epoch(to)
{
	room_epoch = to % 4;
	if
	:: room_epoch & 1 ->
		outdated(room_rung, room_epoch);
		outdated(room_rang, room_epoch);
		outdated(room_seen, room_epoch)
	:: else
	fi;
	store(ROOM_EPOCH, room_epoch);
	check()
}

/* Positions count from SIZE on, so that none is negative. */
#define has_room(need) (tail + need <= head_seen + SIZE)

inline sleep(side) { atomic { bell[side] -> flush(side); bell[side] = false } }

inline check()
{
	assert(!(epoch & 1) || rung != epoch || rang == epoch);
	assert(!(room_epoch & 1) || room_rung != room_epoch || room_rang == room_epoch)
}

inline arm_room(need)
{
	atomic { store(ROOM_AT, tail + need - SIZE) };
	atomic {
		if
		:: room_epoch & 1 ->
#ifdef SAME_EPOCH
			skip
#else
			new_room_epoch(room_epoch + 2)
#endif
		:: else -> new_room_epoch(room_epoch + 1)
		fi
	};
	head_seen = load(HEAD)
}

inline disarm_room()
{
	atomic {
		if
		:: room_epoch & 1 -> new_room_epoch(room_epoch + 1)
		:: else
		fi
	}
}

inline ring_now()
{
	if
	:: due ->
		atomic { flush(WRITER); bell[READER] = true; rang = epoch };
		atomic { rung = due; due = 0; check() }
	:: else
	fi;
#ifdef STALL
	must = sent
#endif
}

active proctype Writer()
{
	byte record, need, seen;
	{
		do
		:: atomic { sent < FRAMES -> select (record : 1 .. 2) };
			do
			:: has_room(record) -> break
			:: else ->
				head_seen = load(HEAD);
				if
				:: has_room(record) -> break
				:: else -> select (need : record .. SIZE)
				fi;
				arm_room(need);
				do
				:: has_room(need) -> break
				:: else ->
					sleep(WRITER);
					if /* mostly it is disarmed first; a wish that grows may come armed */
					:: disarm_room()
					:: need = SIZE
					fi;
					arm_room(need)
				od;
				disarm_room()
			od;
			atomic {
				records ! record;
				sent++;
				tail = tail + record;
				store(TAIL, tail)
			};
			atomic {
				seen = load(EPOCH);
				if
				:: (seen & 1) && seen != rung -> due = seen
				:: else
				fi;
				seen = 0;
				need = 0
			};
#ifndef RING_LATE
			ring_now()
#endif
		:: atomic { sent == FRAMES -> break }
		od;
		ring_now()
	} unless { stalled }
}

active proctype Reader()
{
	byte record;

	do
	:: atomic { load(TAIL) != cursor ->
			records ? record;
			taken++;
			cursor = cursor + record;
			record = 0;
			store(HEAD, cursor)
		};
		room_seen = load(ROOM_EPOCH);
		if
		:: (room_seen & 1) && room_seen != room_rung && cursor >= load(ROOM_AT) ->
#ifdef MARK_BEFORE_RING
			atomic { room_rung = room_seen; check() };
#endif
			atomic { flush(READER); bell[WRITER] = true; room_rang = room_epoch };
			atomic { room_rung = room_seen; check() }
		:: else
		fi;
		room_seen = 0
	:: atomic { load(TAIL) == cursor -> new_epoch() };
		if
		:: load(TAIL) == cursor -> sleep(READER)
		:: else
		fi;
		atomic { new_epoch() }
	od
}

#ifdef INTERRUPT
active proctype Nudge()
{
	bell[WRITER] = true
}
#endif

#ifdef STALL
active proctype Fate()
{
	stalled = true
}
#endif

active proctype Watch()
{
	timeout;
	assert(stalled || (sent == FRAMES && taken == sent));
	assert(taken >= must)
}
