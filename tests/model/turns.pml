/*
 * turns.pml - a connection with unread frames is read soon, whatever others send (hot.c, read.c).
 *
 * hot.pml shows that nothing is lost where there are more connections than PLACES. Here the
 * leader's round is told in full: the hot ones, then those that were in the queue when it
 * began (next_in_turn); it is left where the leader has what it wants, and goes on there.
 *
 * Must hold: a connection that is hot or in the queue is read within ROUNDS of these; and
 * when nothing can move, every frame has been read.
 */
#ifndef ROUNDS
#define ROUNDS 2
#endif
#ifndef CONNS
#define CONNS 3
#endif
#ifndef PLACES
#define PLACES 1
#endif
#ifndef FRAMES
#define FRAMES 3 /* of all */
#endif

#define COLD  0
#define READY 1
#define HOT   2

byte sent, unread[CONNS], place[CONNS];
bool armed[CONNS], rung[CONNS]; /* rung: in this epoch */
byte waited[CONNS]; /* rounds, with frames unread */
byte events;        /* edges of epoll's, one bit for each connection */

byte hot[PLACES], nhot, asked;
byte turn, ready_turns;
chan ready = [CONNS] of { byte };

proctype Peer(byte c)
{
	do
	:: atomic { sent < FRAMES -> sent++; unread[c]++ };
		atomic {
			if
			:: armed[c] && !rung[c] -> rung[c] = true; events = events | (1 << c)
			:: else
			fi
		}
	:: atomic { sent == FRAMES -> break }
	od
}

/* ---- the leader ---- */

inline arm(c)
{
	atomic {
		if
		:: !armed[c] -> armed[c] = true; rung[c] = false /* a new epoch */
		:: else
		fi
	}
}

#define disarm(c) armed[c] = false

inline cool(c)
{
	arm(c);
	atomic {
		if
		:: unread[c] == 0 -> place[c] = COLD
		:: else -> disarm(c)
		fi
	}
}

/* lr_hot_leave: the last takes its place. */
inline leave(at)
{
	cool(hot[at]);
	atomic {
		if
		:: place[hot[at]] == COLD -> nhot--; hot[at] = hot[nhot]; hot[nhot] = 0
		:: else
		fi
	}
}

/* lr_hot_fill */
inline fill()
{
	if
	:: len(ready) > 0 && nhot == PLACES ->
		atomic { at = asked; asked = (asked + 1) % PLACES };
		if
		:: leave(at) /* it has been silent */
		:: skip
		fi
	:: else
	fi;
	atomic {
		at = 0;
		do
		:: len(ready) > 0 && nhot < PLACES ->
			ready ? c;
			hot[nhot] = c;
			nhot++;
			place[c] = HOT;
			disarm(c)
		:: else -> break
		od;
		c = 0
	}
}

/* A burst: one frame at least, if there is any. */
inline read(c)
{
	got = unread[c] > 0;
	if
	:: got ->
		unread[c]--;
		waited[c] = 0;
		do
		:: unread[c] > 0 -> unread[c]--
		:: break
		od
	:: else
	fi
}

/* Everything that was there has had its turn. */
inline next_round()
{
	turn = 0;
	ready_turns = len(ready);
	do
	:: i < CONNS ->
		waited[i] = (unread[i] && place[i] != COLD -> waited[i] + 1 : 0);
		assert(waited[i] <= ROUNDS);
		i++
	:: else -> break
	od;
	i = 0
}

/* lr_drain; it ends early where the leader has what it wants */
inline drain()
{
	left = nhot + len(ready) + 1;
	do
	:: atomic { left == 0 || got -> got = false; left = 0; c = 0; break }
	:: atomic {
		left > 0 && !got && turn < nhot ->
		c = hot[turn];
		turn++;
		left--;
		read(c);
		got = (got && served)
	}
#ifndef ONLY_PLACES
	:: atomic {
		left > 0 && !got && turn >= nhot && ready_turns && len(ready) > 0 ->
		ready ? c;
		ready_turns--;
		left--;
		disarm(c);
		read(c);
		got = (got && served)
	};
		cool(c);
		atomic {
			if
			:: place[c] != COLD -> ready ! c
			:: else
			fi
		}
	:: atomic {
		left > 0 && !got && turn >= nhot && (!ready_turns || len(ready) == 0) ->
		left--;
		next_round()
	}
#else
	:: atomic { left > 0 && !got && turn >= nhot -> left--; next_round() }
#endif
	od
}

/* lr_hear */
inline hear()
{
	do
	:: i < CONNS ->
		if
		:: events & (1 << i) && place[i] == COLD -> place[i] = READY; ready ! i
		:: else
		fi;
		i++
	:: else -> break
	od;
	i = 0;
	events = 0
}

/* lr_sleep */
inline sleep()
{
	quiet = (len(ready) == 0);
	do
	:: quiet && i < nhot ->
		if
		:: atomic { c = hot[i] }; /* it has been idle for some sleeps */
			leave(i);
			atomic {
				quiet = (place[c] == COLD);
				i = (quiet -> i : i + 1);
				c = 0
			}
		:: arm(hot[i]);
			atomic { quiet = (unread[hot[i]] == 0); i++ }
		fi
	:: else -> i = 0; break
	od;
	if
	:: quiet -> atomic { events -> hear() }
	:: else
	fi;
	/* lr_awake */
	atomic {
		do
		:: i < nhot -> disarm(hot[i]); i++
		:: else -> i = 0; break
		od;
		quiet = false
	}
}

proctype Leader()
{
	byte c, i, at, left;
	bool got, quiet, served;

	do
	:: atomic {
		if
		:: events -> hear() /* a busy leader asks epoll now and then */
		:: true
		fi;
		if
		:: served = false
		:: served = true /* and has what it wants with the first frame */
		fi
	};
		fill();
		drain();
		if
		:: !served -> sleep()
		:: else
		fi
	od
}

active proctype Watch()
{
	byte i;

	timeout;
	do
	:: i < CONNS -> assert(unread[i] == 0); i++
	:: else -> break
	od
}

init
{
	byte i;

	atomic {
		do
		:: i < CONNS -> place[i] = READY; ready ! i; run Peer(i); i++ /* as each that is added */
		:: else -> break
		od;
		run Leader()
	}
}
