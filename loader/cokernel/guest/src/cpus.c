// SPDX-License-Identifier: GPL-2.0-only
/*
 * CPUs that the host gives and takes while we run.
 */
#define pr_fmt(fmt) "tenon: " fmt

#include <linux/cpu.h>
#include <linux/cpumask.h>
#include <linux/device.h>
#include <linux/percpu.h>
#include <linux/printk.h>
#include <linux/workqueue.h>

#include <asm/apic.h>
#include <asm/cpu.h>
#include <asm/mpspec.h>
#include <asm/smp.h>

#include "cokernel.h"

/* Returns the CPU of an APIC id, or -1. */
static int find_cpu(u32 apicid)
{
	int cpu;

	for_each_present_cpu(cpu)
		if (per_cpu(x86_cpu_to_apicid, cpu) == apicid)
			return cpu;
	return -1;
}

/* Returns a number that no CPU has, or -ENOSPC. */
static int free_number(void)
{
	int cpu;

	for_each_possible_cpu(cpu)
		if (!cpu_present(cpu))
			return cpu;
	return -ENOSPC;
}

/*
 * As generic_processor_info() does, but for its numbers: there, each APIC id that
 * ever came keeps one of its own, until none is left.
 */
static void map_cpu(int cpu, u32 apicid)
{
	per_cpu(x86_cpu_to_apicid, cpu) = apicid;
	per_cpu(x86_bios_cpu_apicid, cpu) = apicid;
	physid_set(apicid, phys_cpu_present_map);
	set_cpu_present(cpu, true);
	num_processors++;
}

/* As acpi_unmap_cpu() does. */
static void unmap_cpu(int cpu)
{
	per_cpu(x86_cpu_to_apicid, cpu) = BAD_APICID;
	set_cpu_present(cpu, false);
	num_processors--;
}

/* Forgets a CPU that is offline. */
static void forget_cpu(int cpu)
{
	cpu_maps_update_begin();
	cpus_write_lock();
	arch_unregister_cpu(cpu);
	unmap_cpu(cpu);
	cpus_write_unlock();
	cpu_maps_update_done();
}

/* Makes a CPU known that waits for its SIPI, and returns its number or -errno. */
static int meet_cpu(u32 apicid)
{
	int cpu, err;

	cpu_maps_update_begin();
	cpus_write_lock();
	cpu = free_number();
	if (cpu >= 0) {
		map_cpu(cpu, apicid);
		err = arch_register_cpu(cpu);
		if (err) {
			unmap_cpu(cpu);
			cpu = err;
		}
	}
	cpus_write_unlock();
	cpu_maps_update_done();
	return cpu;
}

static int add(u32 apicid)
{
	int cpu, err;

	if (apicid >= MAX_LOCAL_APIC)
		return -EINVAL;
	if (find_cpu(apicid) >= 0)
		return -EEXIST;
	cpu = meet_cpu(apicid);
	if (cpu < 0)
		return cpu;
	err = device_online(get_cpu_device(cpu));
	if (err)
		forget_cpu(cpu);
	return err;
}

static int remove(u32 apicid)
{
	int cpu = find_cpu(apicid), err;

	if (cpu < 0)
		return -ENODEV;
	if (!cpu)
		return -EBUSY;	/* it is the one that is rung at, and that restarts */
	err = device_offline(get_cpu_device(cpu));
	if (err < 0)	/* 1: user space has done it */
		return err;
	forget_cpu(cpu);
	return 0;
}

static int answer(u32 op, u32 apicid)
{
	switch (op) {
	case TENON_CPU_ADD:
		return add(apicid);
	case TENON_CPU_REMOVE:
		return remove(apicid);
	default:
		return -EOPNOTSUPP;
	}
}

static void serve(struct work_struct *work)
{
	u32 request, op, apicid;
	int err;

	/* The host writes what it asks for first. */
	request = smp_load_acquire(&tenon_zone->cpu_request);
	if (request == tenon_zone->cpu_answer)
		return;
	op = READ_ONCE(tenon_zone->cpu_op);
	apicid = READ_ONCE(tenon_zone->cpu_apicid);
	lock_device_hotplug();	/* user space sees no CPU that comes or goes by halves */
	err = answer(op, apicid);
	unlock_device_hotplug();
	if (err)
		pr_warn("CPU request %u (operation %u, APIC id %#x): error %d\n", request, op,
			apicid, err);
	WRITE_ONCE(tenon_zone->cpu_status, err);
	/* Not before the status, nor before a CPU that is taken is at rest. */
	smp_store_release(&tenon_zone->cpu_answer, request);
	tenon_ring_host();
}

static DECLARE_WORK(serving, serve);

void tenon_cpus_wake(void)
{
	if (READ_ONCE(tenon_zone->cpu_request) != READ_ONCE(tenon_zone->cpu_answer))
		schedule_work(&serving);
}
