// SPDX-License-Identifier: GPL-2.0-only
/*
 * The control channel /dev/tenon-control: a stream of bytes in each direction,
 * for one process at a time.
 */
#include <linux/fs.h>
#include <linux/init.h>
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/poll.h>
#include <linux/sizes.h>
#include <linux/slab.h>
#include <linux/uaccess.h>
#include <linux/wait.h>

#include "cokernel.h"
#include "ring.h"

/*
 * The most that one call moves. A write of no more than that is in the ring as a
 * whole or not at all, so that giving up on a host that is away breaks no frame.
 */
#define CHUNK	SZ_32K

static struct tenon_stream control_in, control_out;
static DEFINE_MUTEX(reading);
static DEFINE_MUTEX(writing);
static DECLARE_WAIT_QUEUE_HEAD(rung);
static unsigned long opened;

static int control_open(struct inode *inode, struct file *file)
{
	if (test_and_set_bit(0, &opened))
		return -EBUSY;
	return stream_open(inode, file);
}

static int control_release(struct inode *inode, struct file *file)
{
	clear_bit_unlock(0, &opened);
	return 0;
}

static u32 try_read(void *to, u32 n)
{
	mutex_lock(&reading);
	n = tenon_stream_read(&control_in, to, n);
	mutex_unlock(&reading);
	return n;
}

static ssize_t control_read(struct file *file, char __user *to, size_t n, loff_t *pos)
{
	ssize_t ret;
	void *data;

	if (!n)
		return 0;
	n = min_t(size_t, n, CHUNK);
	data = kmalloc(n, GFP_KERNEL);
	if (!data)
		return -ENOMEM;
	while (!(ret = try_read(data, n))) {
		if (file->f_flags & O_NONBLOCK)
			ret = -EAGAIN;
		else
			ret = wait_event_interruptible(rung, tenon_stream_used(&control_in));
		if (ret)
			goto free;
	}
	tenon_ring_host();	/* there is room again */
	if (copy_to_user(to, data, ret))
		ret = -EFAULT;
free:
	kfree(data);
	return ret;
}

static bool try_write(const void *from, u32 n)
{
	bool fits;

	mutex_lock(&writing);
	fits = tenon_stream_room(&control_out) >= n;
	if (fits)
		tenon_stream_write(&control_out, from, n);
	mutex_unlock(&writing);
	return fits;
}

static ssize_t control_write(struct file *file, const char __user *from, size_t n, loff_t *pos)
{
	ssize_t ret = 0;
	void *data;

	if (!n)
		return 0;
	n = min_t(size_t, n, CHUNK);
	data = memdup_user(from, n);
	if (IS_ERR(data))
		return PTR_ERR(data);
	while (!try_write(data, n)) {
		if (file->f_flags & O_NONBLOCK)
			ret = -EAGAIN;
		else
			ret = wait_event_interruptible(rung, tenon_stream_room(&control_out) >= n);
		if (ret)
			goto free;
	}
	tenon_ring_host();
	ret = n;
free:
	kfree(data);
	return ret;
}

static __poll_t control_poll(struct file *file, poll_table *table)
{
	__poll_t events = 0;

	poll_wait(file, &rung, table);
	if (tenon_stream_used(&control_in))
		events |= EPOLLIN | EPOLLRDNORM;
	if (tenon_stream_room(&control_out) >= CHUNK)
		events |= EPOLLOUT | EPOLLWRNORM;
	return events;
}

static const struct file_operations control_fops = {
	.owner = THIS_MODULE,
	.open = control_open,
	.release = control_release,
	.read = control_read,
	.write = control_write,
	.poll = control_poll,
	.llseek = no_llseek,
};

static struct miscdevice control_device = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "tenon-control",
	.fops = &control_fops,
	.mode = 0600,
};

void tenon_control_wake(void)
{
	wake_up_interruptible(&rung);
}

int __init tenon_control_start(void)
{
	tenon_stream_init(&control_in, tenon_zone, TENON_RING_CONTROL_IN);
	tenon_stream_init(&control_out, tenon_zone, TENON_RING_CONTROL_OUT);
	return misc_register(&control_device);
}
