/* iov.c - an iovec that is sent in messages, or in parts as there is room. */
#include "util.h"

/* The kernel takes longer for three short parts than it takes to copy them into one. */
size_t lr_in_one_piece(const struct iovec *iov, int count, uint8_t *to)
{
	size_t size = 0;

	for (int i = 0; i < count; i++) {
		if (iov[i].iov_len > LR_SMALL - size)
			return 0;
		if (iov[i].iov_len) /* an empty part may have no address */
			memcpy(to + size, iov[i].iov_base, iov[i].iov_len);
		size += iov[i].iov_len;
	}
	return size;
}

/* Skip parts of which nothing is left. */
static void skip_done_parts(struct lr_iov_rest *left)
{
	for (; left->count && left->at >= left->iov->iov_len; left->count--)
		left->at -= left->iov++->iov_len;
}

struct lr_iov_rest lr_iov_rest_of(const struct iovec *iov, int count)
{
	struct lr_iov_rest left = {.iov = iov, .count = count};

	skip_done_parts(&left);
	return left;
}

int lr_iov_rest_cut(const struct lr_iov_rest *left, struct iovec *out, size_t most)
{
	size_t skip = left->at;
	int n = 0;

	for (int i = 0; i < left->count && most; i++, skip = 0) {
		size_t size = left->iov[i].iov_len - skip;

		if (!size) /* an empty part may have no address */
			continue;
		out[n].iov_base = (uint8_t *)left->iov[i].iov_base + skip;
		out[n].iov_len = size < most ? size : most;
		most -= out[n++].iov_len;
	}
	return n;
}

size_t lr_iov_rest_copy(const struct lr_iov_rest *left, uint8_t *to, size_t most)
{
	size_t skip = left->at, done = 0;

	for (int i = 0; i < left->count && done < most; i++, skip = 0) {
		size_t size = left->iov[i].iov_len - skip;

		if (size > most - done)
			size = most - done;
		if (size) /* an empty part may have no address */
			memcpy(to + done, (uint8_t *)left->iov[i].iov_base + skip, size);
		done += size;
	}
	return done;
}

void lr_iov_rest_skip(struct lr_iov_rest *left, size_t size)
{
	left->at += size;
	skip_done_parts(left);
}
