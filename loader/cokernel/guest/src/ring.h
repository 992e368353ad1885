/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Reading and writing the rings of zone.h, from either side. Each side has at
 * most one reader and one writer of a ring at a time: callers hold a lock.
 */
#ifndef TENON_RING_H
#define TENON_RING_H

#include <linux/minmax.h>
#include <linux/string.h>
#include <asm/barrier.h>

#include "zone.h"

/**
 * struct tenon_stream - one side's view of a ring
 * @ring: its indices, which the other side may write anything to
 * @data: its bytes
 * @size: of @data, a power of two
 */
struct tenon_stream {
	struct tenon_ring *ring;
	u8 *data;
	u32 size;
};

static inline void tenon_stream_init(struct tenon_stream *s, struct tenon_zone *zone,
				     enum tenon_ring_id id)
{
	static const u32 at[TENON_RINGS][2] = {
		[TENON_RING_CONSOLE_OUT] = { TENON_CONSOLE_OUT_OFFSET, TENON_CONSOLE_OUT_SIZE },
		[TENON_RING_CONSOLE_IN] = { TENON_CONSOLE_IN_OFFSET, TENON_CONSOLE_IN_SIZE },
		[TENON_RING_CONTROL_OUT] = { TENON_CONTROL_OUT_OFFSET, TENON_CONTROL_OUT_SIZE },
		[TENON_RING_CONTROL_IN] = { TENON_CONTROL_IN_OFFSET, TENON_CONTROL_IN_SIZE },
	};

	s->ring = &zone->rings[id];
	s->data = (u8 *)zone + at[id][0];
	s->size = at[id][1];
}

/* How many bytes wait to be read. More than the size cannot be: then none do. */
static inline u32 tenon_stream_used(const struct tenon_stream *s)
{
	u32 used = READ_ONCE(s->ring->head) - READ_ONCE(s->ring->tail);

	return used <= s->size ? used : 0;
}

/* How many bytes can be written. */
static inline u32 tenon_stream_room(const struct tenon_stream *s)
{
	u32 used = READ_ONCE(s->ring->head) - READ_ONCE(s->ring->tail);

	return used <= s->size ? s->size - used : 0;
}

/* Copies up to n bytes in, and returns how many. */
static inline u32 tenon_stream_write(struct tenon_stream *s, const void *from, u32 n)
{
	u32 head = READ_ONCE(s->ring->head), at = head & (s->size - 1), first;

	n = min(n, tenon_stream_room(s));
	smp_mb();	/* the reader has read what is overwritten */
	first = min(n, s->size - at);
	memcpy(s->data + at, from, first);
	memcpy(s->data, from + first, n - first);
	/* The bytes come first. */
	smp_store_release(&s->ring->head, head + n);
	return n;
}

/* Copies up to n bytes out, and returns how many. */
static inline u32 tenon_stream_read(struct tenon_stream *s, void *to, u32 n)
{
	u32 tail = READ_ONCE(s->ring->tail), at = tail & (s->size - 1), first;

	n = min(n, tenon_stream_used(s));
	smp_rmb();	/* the bytes are those that head tells of */
	first = min(n, s->size - at);
	memcpy(to, s->data + at, first);
	memcpy(to + first, s->data, n - first);
	/* They are read before they may be overwritten. */
	smp_store_release(&s->ring->tail, tail + n);
	return n;
}

#endif /* TENON_RING_H */
