// SPDX-License-Identifier: GPL-2.0-only
/*
 * The console hvc0, over two rings of the zone.
 */
#include <linux/err.h>
#include <linux/init.h>
#include <linux/printk.h>
#include <linux/spinlock.h>

#include "../tty/hvc/hvc_console.h"
#include "cokernel.h"
#include "ring.h"

#define VTERM	0
#define OUTBUF	4096	/* bytes that the tty hands over at once */

static struct tenon_stream console_in, console_out;

/* printk and the tty write at once, and neither knows of the other. */
static DEFINE_SPINLOCK(writing);

static int put_chars(u32 vterm, const char *s, int n)
{
	unsigned long flags;
	bool locked = true;

	/* A CPU that was stopped by a panic may hold the lock for good. */
	if (oops_in_progress)
		locked = spin_trylock_irqsave(&writing, flags);
	else
		spin_lock_irqsave(&writing, flags);
	n = tenon_stream_write(&console_out, s, n);
	if (locked)
		spin_unlock_irqrestore(&writing, flags);
	tenon_ring_host();
	return n;
}

static int get_chars(u32 vterm, char *s, int n)
{
	n = tenon_stream_read(&console_in, s, n);
	if (n)
		tenon_ring_host();	/* there is room again */
	return n;
}

/* The doorbell stands for an interrupt: nobody needs to poll. */
static int notifier_add(struct hvc_struct *hp, int unused)
{
	hp->irq_requested = 1;
	return 0;
}

static void notifier_del(struct hvc_struct *hp, int unused)
{
	hp->irq_requested = 0;
}

static const struct hv_ops console_ops = {
	.get_chars = get_chars,
	.put_chars = put_chars,
	.notifier_add = notifier_add,
	.notifier_del = notifier_del,
	.notifier_hangup = notifier_del,
};

void tenon_console_wake(void)
{
	hvc_kick();
}

int __init tenon_console_start(void)
{
	return PTR_ERR_OR_ZERO(hvc_alloc(VTERM, 0, &console_ops, OUTBUF));
}

static int __init tenon_console_init(void)
{
	if (!tenon_zone)
		return 0;
	tenon_map_zone();
	tenon_stream_init(&console_in, tenon_zone, TENON_RING_CONSOLE_IN);
	tenon_stream_init(&console_out, tenon_zone, TENON_RING_CONSOLE_OUT);
	return hvc_instantiate(VTERM, 0, &console_ops);
}
console_initcall(tenon_console_init);
