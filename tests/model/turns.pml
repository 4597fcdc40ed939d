/*
 * turns.pml - a connection with unread frames is read soon, whatever others send (polled.c,
 * read.c).
 *
 * polled.pml shows that nothing is lost where there are more connections than PLACES. Here the
 * leader's round is told in full: the polled ones, then those that were in the queue when it
 * began (next_in_turn); it is left where the leader has what it wants, and goes on there.
 *
 * Must hold: a connection that is polled or in the queue is read within ROUNDS of these; and
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

#define IDLE  0
#define READY 1
#define POLLED   2

byte sent, unread[CONNS], place[CONNS];
bool armed[CONNS], rung[CONNS]; /* rung: in this epoch */
byte waited[CONNS]; /* rounds, with frames unread */
byte events;        /* edges of epoll's, one bit for each connection */

byte polled[PLACES], npolled, asked;
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

inline make_idle(c)
{
	arm(c);
	atomic {
		if
		:: unread[c] == 0 -> place[c] = IDLE
		:: else -> disarm(c)
		fi
	}
}

/* lr_polled_leave: the last takes its place. */
inline leave(at)
{
	make_idle(polled[at]);
	atomic {
		if
		:: place[polled[at]] == IDLE -> npolled--; polled[at] = polled[npolled]; polled[npolled] = 0
		:: else
		fi
	}
}

/* lr_polled_fill */
inline fill()
{
	if
	:: len(ready) > 0 && npolled == PLACES ->
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
		:: len(ready) > 0 && npolled < PLACES ->
			ready ? c;
			polled[npolled] = c;
			npolled++;
			place[c] = POLLED;
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
		waited[i] = (unread[i] && place[i] != IDLE -> waited[i] + 1 : 0);
		assert(waited[i] <= ROUNDS);
		i++
	:: else -> break
	od;
	i = 0
}

/* lr_read_conns; it ends early where the leader has what it wants */
inline drain()
{
	left = npolled + len(ready) + 1;
	do
	:: atomic { left == 0 || got -> got = false; left = 0; c = 0; break }
	:: atomic {
		left > 0 && !got && turn < npolled ->
		c = polled[turn];
		turn++;
		left--;
		read(c);
		got = (got && served)
	}
#ifndef ONLY_PLACES
	:: atomic {
		left > 0 && !got && turn >= npolled && ready_turns && len(ready) > 0 ->
		ready ? c;
		ready_turns--;
		left--;
		disarm(c);
		read(c);
		got = (got && served)
	};
		make_idle(c);
		atomic {
			if
			:: place[c] != IDLE -> ready ! c
			:: else
			fi
		}
	:: atomic {
		left > 0 && !got && turn >= npolled && (!ready_turns || len(ready) == 0) ->
		left--;
		next_round()
	}
#else
	:: atomic { left > 0 && !got && turn >= npolled -> left--; next_round() }
#endif
	od
}

/* lr_take_events */
inline hear()
{
	do
	:: i < CONNS ->
		if
		:: events & (1 << i) && place[i] == IDLE -> place[i] = READY; ready ! i
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
	:: quiet && i < npolled ->
		if
		:: atomic { c = polled[i] }; /* it has been idle for some sleeps */
			leave(i);
			atomic {
				quiet = (place[c] == IDLE);
				i = (quiet -> i : i + 1);
				c = 0
			}
		:: arm(polled[i]);
			atomic { quiet = (unread[polled[i]] == 0); i++ }
		fi
	:: else -> i = 0; break
	od;
	if
	:: quiet -> atomic { events -> hear() }
	:: else
	fi;
	/* lr_disarm_polled */
	atomic {
		do
		:: i < npolled -> disarm(polled[i]); i++
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
