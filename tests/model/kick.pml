/*
 * kick.pml - within one process: the two threads that sleep in epoll are told of
 * work that no frame announces (lr_kick_leader with lr_sleep, lr_service_ring
 * with serve_service).
 *
 * The notifying thread has the mutex. The leader arms under it; the service thread does
 * not. Either wait may also end by its deadline or a signal (`cut`), a few times.
 * IN_LINK: the leader sleeps in its link, and the kick is a message there, which it
 * may read before it sleeps, as it reads all that comes.
 *
 * Must hold: when nothing can move, there is no work that was told of.
 */
#ifndef TIMES
#define TIMES 3 /* told */
#endif
#ifndef CUTS
#define CUTS 2
#endif

#define KICKED   0 /* service_work, for the service thread */
#define SLEEPING 1
#define WORDS    2
#define TELLER   0
#define SLEEPER  1
#define writes(word) (word == KICKED -> TELLER : SLEEPER)
#include "memory.pml"

bool locked, work, kick_fd;
byte told, cuts;

proctype Teller()
{
	bool sleeping;

	do
	:: atomic { told < TIMES && !locked -> told++; locked = true; work = true };
		atomic { store(KICKED, 1) };
		sleeping = load(SLEEPING);
		if
		:: sleeping -> atomic { flush(TELLER); kick_fd = true }
		:: else
		fi;
		atomic { flush(TELLER); locked = false; sleeping = false }
	:: atomic { told == TIMES -> break }
	od
}

/* The kick's descriptor is level-triggered: it is read where an event told of it. */
inline wait_events(event)
{
	if
	:: kick_fd -> event = true
	:: atomic { cuts < CUTS -> cuts++ }
	fi
}

proctype Leader()
{
	bool event, quiet;

	do
#ifdef IN_LINK
	:: atomic { kick_fd -> kick_fd = false }
#endif
	:: atomic { !locked -> locked = true; store(SLEEPING, 1) };
#ifndef NO_LOOK
		quiet = !load(KICKED);
#else
		quiet = true;
#endif
		atomic { flush(SLEEPER); locked = false };
		if
		:: quiet -> wait_events(event)
		:: else
		fi;
		atomic { store(SLEEPING, 0) };
		atomic { !locked -> mem[KICKED] = 0; work = false };
		if
		:: event -> kick_fd = false
		:: else
		fi;
		atomic { event = false; quiet = false }
	od
}

proctype Service()
{
	bool event, rung;

	do
	:: atomic { store(SLEEPING, 1) };
		atomic { flush(SLEEPER); rung = mem[KICKED]; mem[KICKED] = 0 };
		if
		:: !rung -> wait_events(event)
		:: else
		fi;
		atomic { store(SLEEPING, 0) };
#ifdef FORGETS
		mem[KICKED] = 0;
#else
		atomic { flush(SLEEPER); rung = rung || mem[KICKED]; mem[KICKED] = 0 };
#endif
		if
		:: event -> kick_fd = false
		:: else
		fi;
		if
		:: rung || event -> atomic { !locked -> work = false }
		:: else
		fi;
		atomic { event = false; rung = false }
	od
}

active proctype Watch()
{
	timeout;
	assert(!work)
}

init
{
	atomic {
		run Teller();
#ifdef LEADER
		run Leader()
#else
		run Service()
#endif
	}
}
