// SPDX-License-Identifier: GPL-2.0-only
/*
 * CPUs that are lent: offline and not present for the host; in truth they wait
 * for a SIPI, or run a guest's kernel.
 */
#include <linux/cpu.h>
#include <linux/cpuhotplug.h>
#include <linux/delay.h>
#include <linux/irqflags.h>
#include <asm/apic.h>
#include <asm/smp.h>

#include "internal.h"

static DEFINE_MUTEX(mort_lend_lock);
static struct cpumask mort_lent;	/* or about to be */
static int mort_hotplug_state;

/* Whose a CPU is. Under the lock, nobody's CPU is rung at. */
static DEFINE_RAW_SPINLOCK(mort_owner_lock);
static DEFINE_PER_CPU(const struct mortise *, mort_owner);

static void mort_set_owner(u32 cpu, const struct mortise *owner)
{
	unsigned long flags;

	raw_spin_lock_irqsave(&mort_owner_lock, flags);
	per_cpu(mort_owner, cpu) = owner;
	raw_spin_unlock_irqrestore(&mort_owner_lock, flags);
}

/*
 * While a CPU counts as present, the host may send interrupts to "all but
 * self", which reach it although it is offline. Whether it does is decided at
 * the end of every hotplug operation (apic_smt_update), so the bit has to go
 * before that: this is called in between.
 */
static int mort_cpu_dead(unsigned int cpu)
{
	if (cpumask_test_cpu(cpu, &mort_lent))
		set_cpu_present(cpu, false);
	return 0;
}

int __init mortise_cpu_init(void)
{
	int ret = cpuhp_setup_state_nocalls(CPUHP_BP_PREPARE_DYN, "mortise:lend", NULL,
					    mort_cpu_dead);

	if (ret < 0)
		return ret;
	mort_hotplug_state = ret;
	return 0;
}

void mortise_cpu_exit(void)
{
	cpuhp_remove_state_nocalls(mort_hotplug_state);
}

u32 mortise_cpu_apicid(u32 cpu)
{
	return per_cpu(x86_cpu_to_apicid, cpu);
}

/* Interrupts may not come between the two halves of the register. */
static void mort_icr_send(u32 low, u32 apicid)
{
	unsigned long flags;

	local_irq_save(flags);
	safe_apic_wait_icr_idle();
	apic_icr_write(low, apicid);
	safe_apic_wait_icr_idle();
	local_irq_restore(flags);
}

/**
 * mortise_cpu_reset() - makes a CPU do nothing
 * @cpu: one that is lent
 *
 * By an INIT, after which it waits for a SIPI.
 */
void mortise_cpu_reset(u32 cpu)
{
	u32 apicid = mortise_cpu_apicid(cpu);

	mort_icr_send(APIC_INT_LEVELTRIG | APIC_INT_ASSERT | APIC_DM_INIT, apicid);
	udelay(10);
	mort_icr_send(APIC_INT_LEVELTRIG | APIC_DM_INIT, apicid);
}

/**
 * mortise_cpu_start() - starts a CPU in real mode
 * @cpu: one that was reset
 * @page: physical address below 1 MiB where it starts
 * @started: what it sets there
 *
 * By the universal start-up algorithm of Intel's MultiProcessor Specification
 * 1.4, B.4. The CPU of a virtual machine may take long for its first step.
 *
 * Return: 0, -EIO when it does not start.
 */
int mortise_cpu_start(u32 cpu, phys_addr_t page, const u32 *started)
{
	unsigned long patience = jiffies + 5 * HZ;
	int i;

	mortise_cpu_reset(cpu);
	usleep_range(10000, 11000);
	for (i = 0; i < 2 && !READ_ONCE(*started); i++) {
		mort_icr_send(APIC_DM_STARTUP | (page >> PAGE_SHIFT), mortise_cpu_apicid(cpu));
		usleep_range(200, 300);
	}
	while (!READ_ONCE(*started)) {
		if (time_after(jiffies, patience))
			return -EIO;
		usleep_range(200, 300);
	}
	return 0;
}

/**
 * mortise_cpu_ring() - rings at a guest's CPU
 * @cpu: its number
 * @owner: whose it was: by now it may be the host's, or another guest's
 */
void mortise_cpu_ring(u32 cpu, const struct mortise *owner)
{
	unsigned long flags;

	raw_spin_lock_irqsave(&mort_owner_lock, flags);
	if (per_cpu(mort_owner, cpu) == owner)
		mort_icr_send(APIC_DM_FIXED | GUEST_VECTOR, mortise_cpu_apicid(cpu));
	raw_spin_unlock_irqrestore(&mort_owner_lock, flags);
}

/**
 * mortise_cpu_take() - takes a CPU from the host
 * @cpu: its number
 * @owner: whose it is then
 *
 * Return: 0, -EINVAL when it is not online, -EBUSY for the boot CPU, where the
 * doorbell is, or why the host does not give it.
 */
int mortise_cpu_take(u32 cpu, const struct mortise *owner)
{
	int ret;

	if (cpu >= nr_cpu_ids)
		return -EINVAL;
	if (!cpu)
		return -EBUSY;
	mutex_lock(&mort_lend_lock);
	if (!cpu_online(cpu) || cpumask_test_cpu(cpu, &mort_lent) ||
	    mortise_cpu_apicid(cpu) >= 0xff) {
		ret = -EINVAL;
		goto out;
	}
	cpumask_set_cpu(cpu, &mort_lent);
	ret = remove_cpu(cpu);
	if (ret) {
		cpumask_clear_cpu(cpu, &mort_lent);
		set_cpu_present(cpu, true);	/* somebody else may have taken it offline */
		ret = ret > 0 ? -EINVAL : ret;	/* 1: it was offline already */
		goto out;
	}
	mortise_cpu_reset(cpu);
	mort_set_owner(cpu, owner);
out:
	mutex_unlock(&mort_lend_lock);
	return ret;
}

/**
 * mortise_cpu_give() - gives a CPU back to the host
 * @cpu: one that is lent
 *
 * If the host cannot bring it online, it is the host's nevertheless: offline,
 * as any other.
 */
void mortise_cpu_give(u32 cpu)
{
	int ret;

	mutex_lock(&mort_lend_lock);
	mort_set_owner(cpu, NULL);
	mortise_cpu_reset(cpu);
	cpumask_clear_cpu(cpu, &mort_lent);
	set_cpu_present(cpu, true);
	ret = add_cpu(cpu);
	mutex_unlock(&mort_lend_lock);
	if (ret)
		pr_err("CPU %u is back, but cannot be brought online: %d\n", cpu, ret);
}
