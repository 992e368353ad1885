// SPDX-License-Identifier: GPL-2.0-only
/* Instances: what can be done with one, and in which order. */
#include <linux/anon_inodes.h>
#include <linux/io.h>
#include <linux/module.h>
#include <linux/poll.h>
#include <linux/slab.h>
#include <linux/uaccess.h>

#include "internal.h"

/* How long a running guest may take for a CPU. */
#define MAX_TIMEOUT_MS	60000u

static const struct file_operations mort_instance_ops;

static void mort_free_instance(struct kref *refs)
{
	struct mortise *m = container_of(refs, struct mortise, refs);

	memzero_explicit(m->zone, AREA_SIZE); /* it was told secrets */
	free_pages((unsigned long)m->zone, AREA_ORDER);
	kfree(m);
}

void mortise_put(struct mortise *m)
{
	kref_put(&m->refs, mort_free_instance);
}

/* A guest that says that it has ended, is ended. */
static void mort_instance_work(struct work_struct *work)
{
	static const u32 ends[] = {
		[TENON_STATE_OFF] = MORTISE_END_OFF,
		[TENON_STATE_RESTART] = MORTISE_END_RESTART,
		[TENON_STATE_PANIC] = MORTISE_END_PANIC,
	};
	struct mortise *m = container_of(work, struct mortise, work);
	u32 state;

	mutex_lock(&m->lock);
	state = READ_ONCE(m->zone->state);
	if (state < ARRAY_SIZE(ends) && ends[state])
		mortise_stop(m, ends[state]);
	mutex_unlock(&m->lock);
	mortise_put(m);
}

/**
 * mortise_new() - makes an empty instance
 * @name: valid
 *
 * Return: the instance, with a reference of the caller's; -ENOSPC when no memory
 * below 1 MiB is left; -ENOMEM.
 */
struct mortise *mortise_new(const char *name)
{
	struct mortise *m = kzalloc(sizeof(*m), GFP_KERNEL);
	int i, ret = -ENOMEM;

	if (!m)
		return ERR_PTR(-ENOMEM);
	kref_init(&m->refs);
	INIT_LIST_HEAD(&m->link);
	mutex_init(&m->lock);
	init_waitqueue_head(&m->wait);
	INIT_WORK(&m->work, mort_instance_work);
	strscpy(m->name, name, sizeof(m->name));
	/* ACPI has 32 bits for some of it. */
	m->zone = (void *)__get_free_pages(GFP_KERNEL | GFP_DMA32 | __GFP_ZERO |
					   __GFP_RETRY_MAYFAIL | __GFP_NOWARN, AREA_ORDER);
	if (!m->zone)
		goto out_free;
	for (i = 0; i < TENON_RINGS; i++) {
		tenon_stream_init(&m->streams[i], m->zone, i);
		mutex_init(&m->stream_locks[i]);
	}
	ret = -ENOSPC;
	m->low = mortise_low_alloc();
	if (!m->low)
		goto out_pages;
	return m;

out_pages:
	free_pages((unsigned long)m->zone, AREA_ORDER);
out_free:
	kfree(m);
	return ERR_PTR(ret);
}

/**
 * mortise_stop() - ends a guest, if it runs
 * @m: the instance, locked
 * @end: MORTISE_END_*
 *
 * Twice, as a CPU that is not stopped yet may start one that is.
 */
void mortise_stop(struct mortise *m, u32 end)
{
	u32 i, round;

	if (m->state != MORTISE_RUNNING)
		return;
	for (round = 0; round < 2; round++)
		for (i = 0; i < m->cpu_count; i++)
			mortise_cpu_reset(m->cpus[i]);
	m->end = end;
	smp_store_release(&m->state, MORTISE_ENDED); /* how is said, and the rings are still */
	wake_up_all(&m->wait);
}

/* Whoever waits for the guest, with the lock, gives up, until mort_hurried(). */
static void mort_hurry(struct mortise *m)
{
	atomic_inc(&m->stopping);
	wake_up_all(&m->wait);
}

static void mort_hurried(struct mortise *m)
{
	atomic_dec(&m->stopping);
}

/**
 * mortise_down() - ends a guest for good, as the host goes down
 * @m: the instance
 *
 * It cannot be started, nor used otherwise, any more. Nobody waits for files that are
 * read at that moment: whose they are may be gone.
 */
void mortise_down(struct mortise *m)
{
	mort_hurry(m);
	mutex_lock(&m->lock);
	m->gone = true;
	mortise_stop(m, MORTISE_END_STOPPED);
	mutex_unlock(&m->lock);
	mort_hurried(m);
}

/* Whether a guest listens. There is one vector: others may mean something to the host. */
static bool mort_guest_listens(struct mortise *m)
{
	return READ_ONCE(m->zone->guest_vector) == GUEST_VECTOR &&
	       READ_ONCE(m->state) == MORTISE_RUNNING;
}

/**
 * mortise_ring() - tells a guest that something in its zone has changed
 * @m: the instance, locked or not
 *
 * Should it end meanwhile, its CPU waits for a SIPI.
 */
void mortise_ring(struct mortise *m)
{
	if (mort_guest_listens(m))
		mortise_cpu_ring(m->boot_cpu, m);
}

/* An error of the guest's, unless it would mean something to our system calls. */
static int mort_guest_error(int status)
{
	if (!status)
		return 0;
	return status < 0 && status > -ERESTARTSYS && status != -EINTR ? status : -EIO;
}

/* Asks a running guest about a CPU, and waits for what it says. */
static int mort_ask_guest(struct mortise *m, u32 op, u32 cpu, u32 timeout_ms)
{
	struct tenon_zone *z = m->zone;
	u32 number = READ_ONCE(z->cpu_request) + 1;
	long left;

	if (!mort_guest_listens(m))
		return -EAGAIN;	/* it would find later, by itself, what nobody waits for */
	WRITE_ONCE(z->cpu_op, op);
	WRITE_ONCE(z->cpu_apicid, mortise_cpu_apicid(cpu));
	smp_store_release(&z->cpu_request, number); /* what is asked for is there */
	mortise_ring(m);
	left = wait_event_timeout(m->wait, READ_ONCE(z->cpu_answer) == number ||
				  READ_ONCE(z->state) > TENON_STATE_ALIVE || atomic_read(&m->stopping),
				  msecs_to_jiffies(min(timeout_ms, MAX_TIMEOUT_MS)));
	if (smp_load_acquire(&z->cpu_answer) == number) /* and its status is there */
		return mort_guest_error(READ_ONCE(z->cpu_status));
	return left ? -EPIPE : -ETIMEDOUT;
}

static int mort_take_cpu(struct mortise *m, const struct mortise_cpu *c)
{
	bool idle = c->flags & MORTISE_CPU_IDLE;
	int ret;

	if (c->flags & ~MORTISE_CPU_IDLE || m->state == MORTISE_ENDED)
		return -EINVAL;
	if (m->cpu_count == MORTISE_CPUS)
		return -ENOSPC;
	if (m->state == MORTISE_RUNNING && !idle &&
	    m->cpu_count - bitmap_weight(m->idle, m->cpu_count) >= m->possible)
		return -ENOSPC;
	ret = mortise_cpu_take(c->cpu, m);
	if (ret)
		return ret;
	m->cpus[m->cpu_count] = c->cpu;
	__assign_bit(m->cpu_count, m->idle, idle);
	m->cpu_count++;
	if (m->state != MORTISE_RUNNING || idle)
		return 0;
	ret = mort_ask_guest(m, TENON_CPU_ADD, c->cpu, c->timeout_ms);
	if (ret == -EEXIST)	/* it read this request as it came late to the one before */
		ret = 0;
	/*
	 * A guest that has not answered may start it at any time, whosever it is by
	 * then: it stays the guest's until that gives it up, or is stopped.
	 */
	if (ret && ret != -ETIMEDOUT && ret != -EPIPE) {
		m->cpu_count--;
		mortise_cpu_give(c->cpu);
	}
	return ret;
}

static void mort_forget_cpu(struct mortise *m, u32 i)
{
	for (m->cpu_count--; i < m->cpu_count; i++) {
		m->cpus[i] = m->cpus[i + 1];
		__assign_bit(i, m->idle, test_bit(i + 1, m->idle));
	}
}

static int mort_give_cpu(struct mortise *m, const struct mortise_cpu *c)
{
	u32 i;
	int ret;

	if (c->flags)
		return -EINVAL;
	for (i = 0; i < m->cpu_count && m->cpus[i] != c->cpu; i++)
		;
	if (i == m->cpu_count)
		return -EINVAL;
	if (m->state == MORTISE_RUNNING && !test_bit(i, m->idle)) {
		if (c->cpu == m->boot_cpu)
			return -EBUSY;
		ret = mort_ask_guest(m, TENON_CPU_REMOVE, c->cpu, c->timeout_ms);
		if (ret && ret != -ENODEV)	/* it has given it up by itself */
			return ret;
	}
	mort_forget_cpu(m, i);
	mortise_cpu_give(c->cpu);
	return 0;
}

/*
 * Files may take as long as they like, and user space may not answer page faults: they
 * are read without the lock.
 */
static int mort_load_image(struct mortise *m, const struct mortise_load *l)
{
	int ret;

	if (m->state != MORTISE_EMPTY && m->state != MORTISE_LOADED)
		return -EBUSY;
	m->state = MORTISE_EMPTY;
	m->loading = true;
	mutex_unlock(&m->lock);
	ret = mortise_load(m, l);
	mutex_lock(&m->lock);
	m->loading = false;
	if (m->gone)
		return -ENODEV;
	if (!ret)
		m->state = MORTISE_LOADED;
	return ret;
}

static int mort_reserve_memory(struct mortise *m, const struct mortise_memory *memory)
{
	if (m->state != MORTISE_EMPTY && m->state != MORTISE_LOADED)
		return -EBUSY;
	return mortise_reserve(m, memory->node, memory->bytes);
}

static int mort_destroy(struct mortise *m)
{
	if (m->state == MORTISE_RUNNING)
		return -EBUSY;
	while (m->cpu_count)
		mortise_cpu_give(m->cpus[--m->cpu_count]);
	mortise_release(m);
	mortise_low_free(m->low);
	m->gone = true;
	m->state = MORTISE_ENDED;
	mortise_unlist(m);
	wake_up_all(&m->wait);
	return 0;
}

static int mort_status(struct mortise *m, struct mortise_status *s)
{
	BUILD_BUG_ON(MORTISE_CPUS > BITS_PER_LONG);
	*s = (struct mortise_status){
		.version = MORTISE_VERSION,
		.state = m->state,
		.end = m->end,
		.alive = m->started && READ_ONCE(m->zone->state) != TENON_STATE_NONE,
		.told = m->started && READ_ONCE(m->zone->rings[TENON_RING_CONTROL_IN].head),
		.cpu_count = m->cpu_count,
		.range_count = m->range_count,
		.low = m->low,
		.zone = virt_to_phys(m->zone),
		.zone_bytes = TENON_ZONE_SIZE,
		.started_ns = m->started,
		.idle = m->idle[0],
	};
	memcpy(s->cpus, m->cpus, sizeof(s->cpus));
	memcpy(s->ranges, m->ranges, sizeof(s->ranges));
	return 0;
}

static long mort_locked_ioctl(struct mortise *m, unsigned int cmd, void *arg)
{
	int ret;

	if (cmd == MORTISE_STOP)
		mort_hurry(m);
	if (mutex_lock_interruptible(&m->lock)) {
		ret = -EINTR;
		goto out;
	}
	if (m->gone) {
		ret = -ENODEV;
		goto out_unlock;
	}
	if (m->loading && cmd != MORTISE_STATUS && cmd != MORTISE_STOP) {
		ret = -EBUSY;
		goto out_unlock;
	}
	switch (cmd) {
	case MORTISE_RESERVE:
		ret = mort_reserve_memory(m, arg);
		break;
	case MORTISE_TAKE:
		ret = mort_take_cpu(m, arg);
		break;
	case MORTISE_GIVE:
		ret = mort_give_cpu(m, arg);
		break;
	case MORTISE_LOAD:
		ret = mort_load_image(m, arg);
		break;
	case MORTISE_START:
		ret = m->state == MORTISE_LOADED ? mortise_boot(m) : -EBUSY;
		break;
	case MORTISE_STOP:
		ret = m->state >= MORTISE_RUNNING ? 0 : -EINVAL;
		mortise_stop(m, MORTISE_END_STOPPED);
		break;
	case MORTISE_DESTROY:
		ret = mort_destroy(m);
		break;
	case MORTISE_STATUS:
		ret = mort_status(m, arg);
		break;
	default:
		ret = -ENOTTY;
	}
out_unlock:
	mutex_unlock(&m->lock);
out:
	if (cmd == MORTISE_STOP)
		mort_hurried(m);
	return ret;
}

static long mort_instance_ioctl(struct file *file, unsigned int cmd, unsigned long user)
{
	union {
		u32 version;
		struct mortise_memory memory;
		struct mortise_cpu cpu;
		struct mortise_load load;
		struct mortise_status status;
	} *arg = NULL;
	size_t size = _IOC_SIZE(cmd);
	long ret;

	if (cmd == MORTISE_CHANNEL)
		return mortise_channel(file->private_data, user);
	if (_IOC_TYPE(cmd) != 'm' || size > sizeof(*arg) || (size && size < sizeof(u32)))
		return -ENOTTY;
	if (size) {
		arg = memdup_user((void __user *)user, size);
		if (IS_ERR(arg))
			return PTR_ERR(arg);
		if (arg->version != MORTISE_VERSION) {
			kfree(arg);
			return -EPROTO;
		}
	}
	ret = mort_locked_ioctl(file->private_data, cmd, arg);
	if (!ret && (_IOC_DIR(cmd) & _IOC_READ) && copy_to_user((void __user *)user, arg, size))
		ret = -EFAULT;
	kfree(arg);
	return ret;
}

static bool mort_instance_ended(struct mortise *m)
{
	return smp_load_acquire(&m->state) == MORTISE_ENDED; /* how is said */
}

static ssize_t mort_instance_read(struct file *file, char __user *to, size_t n, loff_t *pos)
{
	struct mortise *m = file->private_data;

	if (!mort_instance_ended(m) && file->f_flags & O_NONBLOCK)
		return -EAGAIN;
	return wait_event_interruptible(m->wait, mort_instance_ended(m));
}

static __poll_t mort_instance_poll(struct file *file, poll_table *table)
{
	struct mortise *m = file->private_data;

	poll_wait(file, &m->wait, table);
	return mort_instance_ended(m) ? EPOLLIN | EPOLLRDNORM | EPOLLHUP : 0;
}

static int mort_instance_release(struct inode *inode, struct file *file)
{
	mortise_put(file->private_data);
	return 0;
}

static const struct file_operations mort_instance_ops = {
	.owner = THIS_MODULE,
	.unlocked_ioctl = mort_instance_ioctl,
	.read = mort_instance_read,
	.poll = mort_instance_poll,
	.release = mort_instance_release,
	.llseek = noop_llseek,
};

/* Returns a descriptor; it takes over the caller's reference, also on failure. */
int mortise_fd(struct mortise *m)
{
	int fd = anon_inode_getfd("[mortise]", &mort_instance_ops, m, O_RDWR | O_CLOEXEC);

	if (fd < 0)
		mortise_put(m);
	return fd;
}
