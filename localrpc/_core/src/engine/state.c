/*
 * state.c - the state of a call, and the effect of each event.
 *
 * Every change of a call's state goes through lr_call_step(): frames of the peer, the end of
 * the link, functions of api.h, the deadline. A call has four state words: whether it is live
 * or how it ended (life), what the peer has sent (in), what this side has sent (out), and
 * which owner or list has it (place). Each event is looked up in the table of `life`, and most
 * in the table of one other word; the first entry that is not a state decides.
 * tests/native/states.c tries every pair with real frames and calls.
 */
#include "engine.h"

/* An entry of 0 refuses its event: the peer has broken the protocol, or the caller gets an
 * error. LATE: the event has no effect, and is not an error. Otherwise the next state. */
#define LATE LR_LATE

const uint8_t lr_life[LR_LIVES][LR_CALL_EVENTS] = {
	[LIVE] = {
		[GOT_HEADERS ... GOT_END] = LIVE,
		[GOT_STATUS] = ANSWERED, [GOT_STATUS_BIG] = LIVE, [GOT_CREDIT] = LIVE,
		[GOT_RESET] = RESET_CAME, [LINK_DIED] = DEAD, [CANCEL] = CANCELLED, [EXPIRE] = EXPIRED,
		[PUT_HEADERS ... PUT_END] = LIVE,
		[PUT_STATUS] = FINISHED, [PUT_STATUS_WITH] = FINISHED, [PUT_STATUS_BIG] = FINISHING,
		[PUT_STATUS_AFTER] = FINISHING, [PUT_STATUS_WITH_AFTER] = FINISHING,
		[QUEUE] = LIVE, [DEFER] = LIVE, [TAKE] = LIVE,
		/* RELEASE is refused: the peer would wait forever for the end of the call. */
	},
	/* The status, or the reply that precedes it, is being sent. */
	[FINISHING] = {
		[GOT_HEADERS ... GOT_CREDIT] = LATE,
		[GOT_RESET] = RESET_CAME, [LINK_DIED] = DEAD, [CANCEL] = CANCELLED, [EXPIRE] = EXPIRED,
		[PUT_DATA] = FINISHING, [PUT_WHOLE] = FINISHED,
		[QUEUE] = LATE, [DEFER] = LATE, [TAKE] = FINISHING, [RELEASE] = FINISHING,
	},
	[FINISHED] = {
		[GOT_HEADERS ... GOT_CREDIT] = LATE,
		[GOT_RESET] = RESET_CAME, [LINK_DIED] = DEAD, [CANCEL] = LATE, [EXPIRE] = LATE,
		[QUEUE] = LATE, [DEFER] = LATE, [TAKE] = FINISHED, [RELEASE] = FINISHED,
	},
	[ANSWERED] = {
		[GOT_HEADERS ... LINK_DIED] = LATE, [CANCEL] = CANCELLED, [EXPIRE] = EXPIRED,
		[QUEUE] = LATE, [DEFER] = LATE, [TAKE] = ANSWERED, [RELEASE] = ANSWERED,
	},
	[RESET_CAME] = {
		[GOT_HEADERS ... LINK_DIED] = LATE, [CANCEL] = CANCELLED, [EXPIRE] = EXPIRED,
		[QUEUE] = LATE, [DEFER] = LATE, [TAKE] = RESET_CAME, [RELEASE] = RESET_CAME,
	},
	[DEAD] = {
		[GOT_HEADERS ... LINK_DIED] = LATE, [CANCEL] = CANCELLED, [EXPIRE] = EXPIRED,
		[QUEUE] = LATE, [DEFER] = LATE, [TAKE] = DEAD, [RELEASE] = DEAD,
	},
	[CANCELLED] = {
		[GOT_HEADERS ... EXPIRE] = LATE, [QUEUE] = LATE, [DEFER] = LATE, [TAKE] = CANCELLED, [RELEASE] = CANCELLED,
	},
	[EXPIRED] = {
		[GOT_HEADERS ... EXPIRE] = LATE, [QUEUE] = LATE, [DEFER] = LATE, [TAKE] = EXPIRED, [RELEASE] = EXPIRED,
	},
};

const uint8_t lr_words[4][LR_MOST_STATES][LR_CALL_EVENTS] = {
	/* What the peer sends. Inside a large message only its DATA, CREDIT and RESET are allowed. */
	[WORD_IN] = {
		[IN_START] = {
			[GOT_HEADERS] = IN_OPEN, [GOT_MESSAGE] = IN_OPEN, [GOT_BIG] = IN_BIG,
			[GOT_BIG_END] = IN_BIG_END, [GOT_END] = IN_HALF, [GOT_STATUS] = IN_HALF,
			[GOT_STATUS_BIG] = IN_BIG_STATUS, [GOT_CREDIT] = IN_START,
		},
		[IN_OPEN] = {
			[GOT_MESSAGE] = IN_OPEN, [GOT_BIG] = IN_BIG, [GOT_BIG_END] = IN_BIG_END,
			[GOT_END] = IN_HALF, [GOT_STATUS] = IN_HALF, [GOT_STATUS_BIG] = IN_BIG_STATUS,
			[GOT_CREDIT] = IN_OPEN,
		},
		[IN_BIG] = {
			[GOT_DATA] = IN_BIG, [GOT_WHOLE] = IN_OPEN, [GOT_CREDIT] = IN_BIG,
		},
		[IN_BIG_END] = {
			[GOT_DATA] = IN_BIG_END, [GOT_WHOLE] = IN_HALF, [GOT_CREDIT] = IN_BIG_END,
		},
		[IN_BIG_STATUS] = {
			[GOT_DATA] = IN_BIG_STATUS, [GOT_WHOLE] = IN_HALF, [GOT_CREDIT] = IN_BIG_STATUS,
		},
		[IN_HALF] = {
			[GOT_STATUS] = IN_HALF, [GOT_CREDIT] = IN_HALF,
		},
	},
	/* What this side sends: nothing that the peer's WORD_IN refuses. After END, or after a
	 * large message that is the last, a status has no message. */
	[WORD_OUT] = {
		[OUT_START] = {
			[PUT_HEADERS] = OUT_OPEN, [PUT_MESSAGE] = OUT_OPEN, [PUT_BIG] = OUT_BIG,
			[PUT_BIG_END] = OUT_BIG_END, [PUT_END] = OUT_HALF, [PUT_STATUS] = OUT_HALF,
			[PUT_STATUS_WITH] = OUT_HALF, [PUT_STATUS_BIG] = OUT_BIG_END,
		},
		[OUT_OPEN] = {
			[PUT_MESSAGE] = OUT_OPEN, [PUT_BIG] = OUT_BIG, [PUT_BIG_END] = OUT_BIG_END,
			[PUT_END] = OUT_HALF, [PUT_STATUS] = OUT_HALF, [PUT_STATUS_WITH] = OUT_HALF,
			[PUT_STATUS_BIG] = OUT_BIG_END,
		},
		[OUT_BIG] = {
			[PUT_DATA] = OUT_BIG, [PUT_WHOLE] = OUT_OPEN, [PUT_STATUS_AFTER] = OUT_BIG,
			[PUT_STATUS_WITH_AFTER] = OUT_BIG,
		},
		[OUT_BIG_END] = {
			[PUT_DATA] = OUT_BIG_END, [PUT_WHOLE] = OUT_HALF, [PUT_END] = LATE,
			[PUT_STATUS_AFTER] = OUT_BIG_END,
		},
		[OUT_HALF] = {
			[PUT_END] = LATE, [PUT_STATUS] = OUT_HALF,
		},
	},
	/* The owner or list of a server's call; a client's is OWNED until RELEASED. A call that
	 * ends while it is QUEUED is freed by the thread that takes it from the queue, one that is
	 * DEFERRED at once, and one that is RELEASED by the last thread that waits inside. */
	[WORD_PLACE] = {
		[OWNED] = {[QUEUE] = QUEUED, [DEFER] = DEFERRED, [RELEASE] = RELEASED},
		[QUEUED] = {[TAKE] = OWNED, [RELEASE] = LATE},
		[DEFERRED] = {[QUEUE] = QUEUED, [RELEASE] = RELEASED},
		[RELEASED] = {[RELEASE] = LATE},
	},
};

/* Why nothing more can be sent or received on this side; 0 if it can. */
int lr_call_why(const struct lr_call *call)
{
	switch (call->life) {
	case LIVE:
		return 0;
	case DEAD:
		return LR_CLOSED;
	case CANCELLED:
		return LR_CANCELLED;
	case EXPIRED:
		return LR_TIMEOUT;
	default:
		return LR_ENDED;
	}
}

int lr_call_refuses(const struct lr_call *call, enum lr_event event, uint8_t life, uint8_t next)
{
	if (life == LATE || (life && next == LATE))
		return 0;
	if (event < LINK_DIED)
		return LR_PROTOCOL;
	return lr_call_why(call) ? lr_call_why(call) : LR_INVALID;
}
