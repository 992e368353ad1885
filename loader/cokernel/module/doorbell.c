// SPDX-License-Identifier: GPL-2.0-only
/* The doorbell, at which guests ring: an interrupt of the host's. */
#include <linux/interrupt.h>
#include <linux/irq.h>
#include <linux/irqdomain.h>
#include <asm/hw_irq.h>
#include <asm/irqdomain.h>

#include "internal.h"

static int mort_doorbell;	/* its IRQ */
static u32 mort_doorbell_vector;

static irqreturn_t mort_doorbell_irq(int irq, void *unused)
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

	mort_doorbell = irq_domain_alloc_irqs(x86_vector_domain, 1, NUMA_NO_NODE, &info);
	if (mort_doorbell < 0)
		return mort_doorbell;
	irq_set_handler(mort_doorbell, handle_edge_irq);
	ret = request_irq(mort_doorbell, mort_doorbell_irq, IRQF_NOBALANCING | IRQF_NO_THREAD,
			  "mortise", &mort_doorbell);
	if (ret) {
		irq_dispose_mapping(mort_doorbell);
		return ret;
	}
	mort_doorbell_vector = irqd_cfg(irq_get_irq_data(mort_doorbell))->vector;
	return 0;
}

void mortise_doorbell_exit(void)
{
	free_irq(mort_doorbell, &mort_doorbell);
	irq_dispose_mapping(mort_doorbell);
}

u32 mortise_doorbell_apicid(void)
{
	return mortise_cpu_apicid(0);
}

u32 mortise_doorbell_vector(void)
{
	return mort_doorbell_vector;
}
