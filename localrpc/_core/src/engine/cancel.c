/* cancel.c - end a call from this side, by its owner or its deadline, and tell the peer. */
#include "engine.h"

static bool end_here(struct lr_engine *e, struct lr_call *call, enum lr_event event, uint32_t code,
	const char *text, uint32_t len)
{
	struct iovec iov[2] = {{&code, sizeof code}, {(void *)(uintptr_t)text, len}};
	bool over = call->life != LIVE && call->life != FINISHING;

	if (lr_call_step(call, event) != 1)
		return true;
	if (!over)
		call->code = code;
	if (!over)
		lr_conn_post(call->conn, LR_T_RESET, 0, call->wire, iov, 2);
	return lr_call_ended_here(e, call);
}

bool lr_call_expired(struct lr_engine *e, struct lr_call *call)
{
	static const char text[] = "Deadline Exceeded";

	if (!lr_call_late(call))
		return false;
	end_here(e, call, EXPIRE, 4, text, sizeof text - 1);
	return true;
}

/* After a server's deadline the call ends with that status, whatever the handler asks for. */
bool lr_call_cancel(struct lr_engine *e, struct lr_call *call, uint32_t code, const char *text,
	uint32_t len)
{
	static const char late[] = "Deadline Exceeded";

	if (e->role == LR_SERVER && lr_call_late(call))
		return end_here(e, call, EXPIRE, 4, late, sizeof late - 1);
	return end_here(e, call, CANCEL, code, text, len);
}

int lr_call_post(struct lr_call *call, int type, int flags, const struct iovec *iov, int count)
{
	static const char text[] = "the peer ran out of memory for a frame of this call";
	int r = lr_conn_post(call->conn, type, flags, call->wire, iov, count);

	if (r == LR_NOMEM)
		lr_call_cancel(call->conn->engine, call, 8, text, sizeof text - 1);
	return r;
}
