/* post.c - frames whose sender does not wait: sent at once, or queued until there is room. */
#include "engine.h"

struct lr_out *lr_out_new(int type, int flags, uint64_t call, const struct iovec *iov, int count)
{
	struct lr_out *out;
	uint32_t length = 0;
	uint8_t *at;

	for (int i = 0; i < count; i++)
		length += (uint32_t)iov[i].iov_len;
	if (!(out = malloc(sizeof *out + length)))
		return NULL;
	out->next = NULL;
	out->header = (struct lr_header){length, (uint8_t)type, (uint8_t)flags, 0, call};
	at = out->data;
	for (int i = 0; i < count; i++) {
		if (iov[i].iov_len)
			memcpy(at, iov[i].iov_base, iov[i].iov_len);
		at += iov[i].iov_len;
	}
	return out;
}

static void append(struct lr_conn *conn, struct lr_out *out)
{
	*conn->out_last = out;
	conn->out_last = &out->next;
	lr_conn_count_posted(conn, out, true);
	conn->engine->unsent_left = true;
	lr_conn_ready(conn);
	lr_request_read(conn->engine);
}

/* Without another kind of frame its call ends (lr_call_post()); without one of these the
 * connection has to end. */
static int fail_post(struct lr_conn *conn, int type)
{
	if (type == LR_T_RESET || type == LR_T_METHOD) {
		conn->engine->faulty = conn->faulty = true;
		lr_conn_die(conn, LR_CLOSED, "this process has no memory for a frame to the peer");
	}
	return LR_NOMEM;
}

int lr_conn_post(struct lr_conn *conn, int type, int flags, uint64_t call, const struct iovec *iov,
	int count)
{
	int r = lr_conn_put(conn, type, flags, call, iov, count);
	struct lr_out *out;

	if (r != 0)
		return r < 0 ? r : 0;
	if (!(out = lr_out_new(type, flags, call, iov, count)))
		return fail_post(conn, type);
	append(conn, out);
	return 0;
}

void lr_conn_post_made(struct lr_conn *conn, struct lr_out *out)
{
	struct iovec iov = {out->data, out->header.length};

	if (lr_conn_put(conn, out->header.type, out->header.flags, out->header.call, &iov, 1) == 0)
		append(conn, out);
	else
		free(out);
}
