// SPDX-License-Identifier: GPL-2.0-only
/*
 * Descriptors of a guest's console, a stream of bytes, and of its control channel,
 * of which one frame is read at a time.
 */
#include <linux/anon_inodes.h>
#include <linux/poll.h>
#include <linux/sizes.h>
#include <linux/slab.h>
#include <linux/uaccess.h>

#include "internal.h"

static const struct file_operations mort_console_ops, mort_control_ops;

/* A frame of the control channel: 4 bytes of length, big endian, and that many. */
#define FRAME_HEAD	4
#define MAX_FRAME	(FRAME_HEAD + SZ_64K)

static bool mort_is_control(struct file *file)
{
	return file->f_op == &mort_control_ops;
}

static struct tenon_stream *mort_from_guest(struct file *file)
{
	struct mortise *m = file->private_data;

	return &m->streams[mort_is_control(file) ? TENON_RING_CONTROL_OUT : TENON_RING_CONSOLE_OUT];
}

static struct tenon_stream *mort_to_guest(struct file *file)
{
	struct mortise *m = file->private_data;

	return &m->streams[mort_is_control(file) ? TENON_RING_CONTROL_IN : TENON_RING_CONSOLE_IN];
}

static bool mort_ended(struct mortise *m)
{
	return smp_load_acquire(&m->state) == MORTISE_ENDED; /* the rings do not change */
}

/*
 * How much can be read at once: of the control channel one whole frame, so that a
 * reader that dies leaves no half of one to the next.
 */
static ssize_t mort_readable(struct file *file)
{
	struct tenon_stream *s = mort_from_guest(file);
	u32 used = tenon_stream_used(s), frame;
	__be32 head;

	if (!mort_is_control(file))
		return used;
	if (tenon_stream_peek(s, &head, FRAME_HEAD) < FRAME_HEAD)
		return 0;
	frame = be32_to_cpu(head);
	if (frame > MAX_FRAME - FRAME_HEAD)
		return -EPROTO;
	frame += FRAME_HEAD;
	return used < frame ? 0 : frame;
}

/* Whether n bytes can be written at once: of the control channel all of them. */
static bool mort_writable(struct file *file, size_t n)
{
	u32 room = tenon_stream_room(mort_to_guest(file));

	return mort_is_control(file) ? room >= n : room;
}

static ssize_t mort_read_once(struct file *file, char __user *to, size_t n)
{
	struct mortise *m = file->private_data;
	struct tenon_stream *s = mort_from_guest(file);
	struct mutex *lock = &m->stream_locks[s - m->streams];
	bool full = false;
	ssize_t got;
	void *buffer;

	n = min_t(size_t, n, MAX_FRAME);
	buffer = kvmalloc(n, GFP_KERNEL);
	if (!buffer)
		return -ENOMEM;
	mutex_lock(lock);
	got = mort_readable(file);
	if (got > 0 && mort_is_control(file) && got > n)
		got = -EMSGSIZE;
	if (got > 0) {
		got = tenon_stream_read(s, buffer, min_t(size_t, got, n));
		smp_mb();	/* a guest that does not see this room yet, is seen to be full */
		full = tenon_stream_room(s) < s->size / 2 + got;
	}
	mutex_unlock(lock);
	if (full)
		mortise_ring(m);	/* it may wait for room */
	if (got > 0 && copy_to_user(to, buffer, got))
		got = -EFAULT;
	kvfree(buffer);
	return got;
}

static ssize_t mort_channel_read(struct file *file, char __user *to, size_t n, loff_t *pos)
{
	struct mortise *m = file->private_data;
	int ret;

	if (!n)
		return 0;
	for (;;) {
		bool last = mort_ended(m);
		ssize_t got = mort_read_once(file, to, n);

		if (got || last)
			return got;
		if (file->f_flags & O_NONBLOCK)
			return -EAGAIN;
		ret = wait_event_interruptible(m->wait, mort_readable(file) || mort_ended(m));
		if (ret)
			return ret;
	}
}

static ssize_t mort_write_once(struct file *file, const void *data, size_t n)
{
	struct mortise *m = file->private_data;
	struct tenon_stream *s = mort_to_guest(file);
	struct mutex *lock = &m->stream_locks[s - m->streams];
	ssize_t got = 0;

	mutex_lock(lock);
	if (READ_ONCE(m->state) < MORTISE_RUNNING)
		got = -ENOTCONN;	/* the start would clear the rings */
	else if (mort_ended(m))
		got = -EPIPE;
	else if (mort_writable(file, n))
		got = tenon_stream_write(s, data, n);
	mutex_unlock(lock);
	if (got > 0)
		mortise_ring(m);
	return got;
}

static ssize_t mort_channel_write(struct file *file, const char __user *from, size_t n, loff_t *pos)
{
	struct mortise *m = file->private_data;
	ssize_t got;
	void *data;

	if (mort_is_control(file) && n > MAX_FRAME)
		return -EMSGSIZE;
	n = min_t(size_t, n, MAX_FRAME);
	data = vmemdup_user(from, n);
	if (IS_ERR(data))
		return PTR_ERR(data);
	for (;;) {
		got = mort_write_once(file, data, n);
		if (got || !n)
			break;
		if (file->f_flags & O_NONBLOCK) {
			got = -EAGAIN;
			break;
		}
		got = wait_event_interruptible(m->wait, mort_writable(file, n) || mort_ended(m));
		if (got)
			break;
	}
	kvfree(data);
	return got;
}

static __poll_t mort_channel_poll(struct file *file, poll_table *table)
{
	struct mortise *m = file->private_data;
	__poll_t mask = 0;

	poll_wait(file, &m->wait, table);
	if (mort_ended(m))
		return EPOLLIN | EPOLLRDNORM | EPOLLOUT | EPOLLWRNORM | EPOLLHUP;
	if (mort_readable(file))
		mask |= EPOLLIN | EPOLLRDNORM;
	if (mort_writable(file, mort_is_control(file) ? MAX_FRAME : 1))
		mask |= EPOLLOUT | EPOLLWRNORM;
	return mask;
}

static int mort_channel_release(struct inode *inode, struct file *file)
{
	mortise_put(file->private_data);
	return 0;
}

#define CHANNEL_OPS {				\
	.owner = THIS_MODULE,			\
	.read = mort_channel_read,		\
	.write = mort_channel_write,		\
	.poll = mort_channel_poll,		\
	.release = mort_channel_release,		\
	.llseek = noop_llseek,			\
}

static const struct file_operations mort_console_ops = CHANNEL_OPS;
static const struct file_operations mort_control_ops = CHANNEL_OPS;

/**
 * mortise_channel() - makes a descriptor of a stream
 * @m: the instance
 * @stream: MORTISE_CONSOLE or MORTISE_CONTROL
 *
 * Read what the guest wrote; write what it will read, of the control channel one
 * whole frame with each call. After the guest's end, reading returns what is left
 * and then 0, and writing fails with -EPIPE; before its start, with -ENOTCONN.
 *
 * Return: the descriptor, -EINVAL for another stream, or as anon_inode_getfd().
 */
int mortise_channel(struct mortise *m, unsigned long stream)
{
	int fd;

	if (stream != MORTISE_CONSOLE && stream != MORTISE_CONTROL)
		return -EINVAL;
	kref_get(&m->refs);
	if (stream == MORTISE_CONSOLE)
		fd = anon_inode_getfd("[mortise-console]", &mort_console_ops, m,
				      O_RDWR | O_CLOEXEC);
	else
		fd = anon_inode_getfd("[mortise-control]", &mort_control_ops, m,
				      O_RDWR | O_CLOEXEC);
	if (fd < 0)
		mortise_put(m);
	return fd;
}
