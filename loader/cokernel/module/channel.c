// SPDX-License-Identifier: GPL-2.0-only
/* Descriptors of a guest's console and control channel: streams of bytes. */
#include <linux/anon_inodes.h>
#include <linux/poll.h>
#include <linux/slab.h>
#include <linux/uaccess.h>

#include "internal.h"

static const struct file_operations console_ops, control_ops;

static struct tenon_stream *out_of(struct file *file)
{
	struct mortise *m = file->private_data;

	return &m->streams[file->f_op == &console_ops ?
			   TENON_RING_CONSOLE_OUT : TENON_RING_CONTROL_OUT];
}

static struct tenon_stream *in_to(struct file *file)
{
	struct mortise *m = file->private_data;

	return &m->streams[file->f_op == &console_ops ?
			   TENON_RING_CONSOLE_IN : TENON_RING_CONTROL_IN];
}

static bool ended(struct mortise *m)
{
	return smp_load_acquire(&m->state) == MORTISE_ENDED;
}

static struct mutex *lock_of(struct mortise *m, struct tenon_stream *s)
{
	return &m->stream_locks[s - m->streams];
}

/* One page at most is moved at a time. */
static ssize_t move(struct mortise *m, struct tenon_stream *s, char __user *to,
		    const char __user *from, size_t n)
{
	void *buffer = (void *)__get_free_page(GFP_KERNEL);
	ssize_t moved = 0;

	if (!buffer)
		return -ENOMEM;
	n = min_t(size_t, n, PAGE_SIZE);
	mutex_lock(lock_of(m, s));
	if (to) {
		moved = tenon_stream_read(s, buffer, n);
		if (copy_to_user(to, buffer, moved))
			moved = -EFAULT;
	} else if (copy_from_user(buffer, from, n)) {
		moved = -EFAULT;
	} else if (!ended(m)) {
		moved = tenon_stream_write(s, buffer, n);
	}
	mutex_unlock(lock_of(m, s));
	free_page((unsigned long)buffer);
	return moved;
}

/*
 * Tells the guest that a ring changed. Should it end meanwhile, its CPU waits for
 * a SIPI, or is the host's, which counts a spurious interrupt.
 */
static void ring_guest(struct mortise *m)
{
	u32 vector = READ_ONCE(m->zone->guest_vector);

	if (vector >= 0x20 && vector <= 0xff && smp_load_acquire(&m->state) == MORTISE_RUNNING)
		mortise_cpu_ring(mortise_cpu_apicid(m->boot_cpu), vector);
}

static ssize_t channel_read(struct file *file, char __user *to, size_t n, loff_t *pos)
{
	struct mortise *m = file->private_data;
	struct tenon_stream *s = out_of(file);
	bool full;
	ssize_t got;
	int ret;

	if (!n)
		return 0;
	for (;;) {
		bool last = ended(m);

		full = tenon_stream_used(s) > s->size / 2;
		got = move(m, s, to, NULL, n);
		if (got || last)
			break;
		if (file->f_flags & O_NONBLOCK)
			return -EAGAIN;
		ret = wait_event_interruptible(m->wait, tenon_stream_used(s) || ended(m));
		if (ret)
			return ret;
	}
	if (got > 0 && full)
		ring_guest(m);	/* it may wait for room */
	return got;
}

static ssize_t channel_write(struct file *file, const char __user *from, size_t n, loff_t *pos)
{
	struct mortise *m = file->private_data;
	struct tenon_stream *s = in_to(file);
	size_t done = 0;
	int ret;

	while (done < n) {
		ssize_t got = move(m, s, NULL, from + done, n - done);

		if (got > 0) {
			done += got;
			ring_guest(m);
			continue;
		}
		ret = got ?: ended(m) ? -EPIPE : file->f_flags & O_NONBLOCK ? -EAGAIN : 0;
		if (!ret)
			ret = wait_event_interruptible(m->wait, tenon_stream_room(s) || ended(m));
		if (ret)
			return done ?: ret;
	}
	return done;
}

static __poll_t channel_poll(struct file *file, poll_table *table)
{
	struct mortise *m = file->private_data;
	__poll_t mask = 0;

	poll_wait(file, &m->wait, table);
	if (ended(m))
		return EPOLLIN | EPOLLRDNORM | EPOLLOUT | EPOLLWRNORM | EPOLLHUP;
	if (tenon_stream_used(out_of(file)))
		mask |= EPOLLIN | EPOLLRDNORM;
	if (tenon_stream_room(in_to(file)))
		mask |= EPOLLOUT | EPOLLWRNORM;
	return mask;
}

static int channel_release(struct inode *inode, struct file *file)
{
	mortise_put(file->private_data);
	return 0;
}

#define CHANNEL_OPS {				\
	.owner = THIS_MODULE,			\
	.read = channel_read,			\
	.write = channel_write,			\
	.poll = channel_poll,			\
	.release = channel_release,		\
	.llseek = noop_llseek,			\
}
static const struct file_operations console_ops = CHANNEL_OPS;
static const struct file_operations control_ops = CHANNEL_OPS;

/**
 * mortise_channel() - makes a descriptor of a stream
 * @m: the instance
 * @stream: MORTISE_CONSOLE or MORTISE_CONTROL
 *
 * Read what the guest wrote; write what it will read. After the guest's end,
 * reading returns what is left and then 0, and writing fails with -EPIPE.
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
		fd = anon_inode_getfd("[mortise-console]", &console_ops, m, O_RDWR | O_CLOEXEC);
	else
		fd = anon_inode_getfd("[mortise-control]", &control_ops, m, O_RDWR | O_CLOEXEC);
	if (fd < 0)
		mortise_put(m);
	return fd;
}
