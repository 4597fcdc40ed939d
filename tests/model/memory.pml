/*
 * memory.pml - words of shared memory, with the store buffers of x86 (TSO).
 *
 * A seq_cst store is there for all to see before its thread does anything else.
 * A run that leaves a fence out defines BUFFERED as the word whose store is then
 * a plain one: it waits in a buffer while its thread goes on, until the buffer
 * drains (Buffer) or its side does something locked or a seq_cst store (flush).
 * A word has one side that writes it and reads a copy of its own, `writes(word)`:
 * no other thread reads the buffer. A side's threads store under its mutex: one buffer.
 */
#ifndef BUFFERED
#define BUFFERED 255
#endif

byte mem[WORDS];
bool waiting;
byte waits;

#define load(word) mem[word]

/* First in, first out: what waited is there before what its side stores next. */
inline flush(side)
{
	if
	:: waiting && writes(BUFFERED) == side ->
		mem[BUFFERED] = waits;
		waiting = false;
		waits = 0
	:: else
	fi
}

inline store(word, value)
{
	if
	:: word == BUFFERED -> flush(writes(word)); waiting = true; waits = value
	:: else -> flush(writes(word)); mem[word] = value
	fi
}

active proctype Buffer()
{
	do
	:: atomic { waiting -> flush(writes(BUFFERED)) }
	od
}
