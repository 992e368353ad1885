// SPDX-License-Identifier: GPL-2.0-only
/* The doorbell, at which guests ring: an interrupt of the host's. */
#include <linux/interrupt.h>
#include <linux/irq.h>
#include <linux/irqdomain.h>
#include <asm/hw_irq.h>
#include <asm/irqdomain.h>

#include "internal.h"

static int mt_doorbell;	/* its IRQ */
static u32 mt_doorbell_vector;

static irqreturn_t mt_doorbell_irq(int irq, void *unused)
{
	mortise_look_at_all();
	return IRQ_HANDLED;
}

/*
 * The doorbell is a vector of the boot CPU, which is never lent. No device sends
 * it: guests do, by their local APICs. It must not move, so nobody may balance it.
 */
int __init mortise_doorbell_init(void)
{
	struct irq_alloc_info info = { .mask = cpumask_of(0) };
	int ret;

	mt_doorbell = irq_domain_alloc_irqs(x86_vector_domain, 1, NUMA_NO_NODE, &info);
	if (mt_doorbell < 0)
		return mt_doorbell;
	irq_set_handler(mt_doorbell, handle_edge_irq);
	ret = request_irq(mt_doorbell, mt_doorbell_irq, IRQF_NOBALANCING | IRQF_NO_THREAD,
			  "mortise", &mt_doorbell);
	if (ret) {
		irq_dispose_mapping(mt_doorbell);
		return ret;
	}
	mt_doorbell_vector = irqd_cfg(irq_get_irq_data(mt_doorbell))->vector;
	return 0;
}

void mortise_doorbell_exit(void)
{
	free_irq(mt_doorbell, &mt_doorbell);
	irq_dispose_mapping(mt_doorbell);
}

u32 mortise_doorbell_apicid(void)
{
	return mortise_cpu_apicid(0);
}

u32 mortise_doorbell_vector(void)
{
	return mt_doorbell_vector;
}
