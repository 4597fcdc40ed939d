/* credit.c - a call's windows: asking the peer for credit, and granting it. */
#include "engine.h"

/* Our side took messages: grant their bytes, half a window at a time. */
void lr_call_took(struct lr_engine *e, struct lr_call *call, uint64_t charge)
{
	struct iovec iov = {&call->taken, sizeof call->taken};

	call->taken += charge;
	if (call->taken == 0 || call->life != LIVE || call->in == IN_HALF)
		return;
	if (call->taken < e->window / 2 && !(call->state & CALL_CREDIT_WANTED))
		return;
	call->state &= ~(uint32_t)CALL_CREDIT_WANTED;
	if (lr_call_post(call, LR_T_CREDIT, 0, &iov, 1) == 0) {
		call->ungranted -= call->taken;
		call->taken = 0;
	}
}

/* Tell the peer that we wait for credit, so that it grants less than half a window, too. */
void lr_ask_credit(struct lr_call *call)
{
	uint64_t nothing = 0;
	struct iovec iov = {&nothing, sizeof nothing};

	if (call->state & CALL_ASKED_CREDIT)
		return;
	call->state |= CALL_ASKED_CREDIT;
	lr_call_post(call, LR_T_CREDIT, 0, &iov, 1);
}
