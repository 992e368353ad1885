// SPDX-License-Identifier: GPL-2.0-only
/*
 * The zone that we share with the host: its state, and the doorbells.
 */
#define pr_fmt(fmt) "tenon: " fmt

#include <linux/init.h>
#include <linux/io.h>
#include <linux/irqflags.h>
#include <linux/panic.h>
#include <linux/smp.h>

#include <asm/apic.h>
#include <asm/irq.h>
#include <asm/irq_vectors.h>
#include <asm/smp.h>

#include "cokernel.h"
#include "ring.h"

struct tenon_zone *tenon_zone;

static phys_addr_t zone_at __initdata;
static bool mapped; /* all of it */

void __init tenon_find_zone(phys_addr_t at)
{
	struct tenon_zone *zone = early_memremap(at, PAGE_SIZE);

	if (!zone || zone->magic != TENON_ZONE_MAGIC || zone->version != TENON_ZONE_VERSION)
		panic("tenon: no zone of version %d at %pa\n", TENON_ZONE_VERSION, &at);
	WRITE_ONCE(zone->state, TENON_STATE_ALIVE);
	tenon_zone = zone;
	zone_at = at;
}

void __init tenon_map_zone(void)
{
	struct tenon_zone *zone = memremap(zone_at, TENON_ZONE_SIZE, MEMREMAP_WB);

	if (!zone)
		panic("tenon: mapping the zone at %pa failed\n", &zone_at);
	early_memunmap(tenon_zone, PAGE_SIZE);
	tenon_zone = zone;
	mapped = true;
}

void __init tenon_write_early(const char *s, unsigned int n)
{
	struct tenon_stream out = {
		.ring = &tenon_zone->rings[TENON_RING_CONSOLE_OUT],
		.data = early_memremap(zone_at + TENON_CONSOLE_OUT_OFFSET, TENON_CONSOLE_OUT_SIZE),
		.size = TENON_CONSOLE_OUT_SIZE,
	};

	if (!out.data)
		return;
	tenon_stream_write(&out, s, n);
	early_memunmap(out.data, out.size);
}

void tenon_ring_host(void)
{
	u32 vector = READ_ONCE(tenon_zone->host_vector);
	unsigned long flags;

	if (vector < FIRST_EXTERNAL_VECTOR || vector >= SPURIOUS_APIC_VECTOR)
		return;
	mb();	/* what it is rung for is in memory before it rings, in x2APIC mode too */
	local_irq_save(flags);
	safe_apic_wait_icr_idle();
	apic_icr_write(APIC_DM_FIXED | vector, READ_ONCE(tenon_zone->host_apicid));
	local_irq_restore(flags);
}

void tenon_stop(u32 state)
{
	local_irq_disable();
	smp_send_stop();
	if (tenon_zone) {
		/* The rings have all that was said before. */
		smp_store_release(&tenon_zone->state, state);
	}
	/* Else there may be no APIC to ring with: the host looks by itself. */
	if (mapped)
		tenon_ring_host();
	for (;;)
		halt();
}

/* Runs when the host rings. */
static void doorbell(void)
{
	tenon_console_wake();
	tenon_control_wake();
	tenon_cpus_wake();
}

static int __init tenon_start(void)
{
	unsigned long flags;
	int err;

	if (!tenon_zone)
		return 0;
	err = tenon_console_start();
	if (!err)
		err = tenon_control_start();
	if (err)
		return err;
	x86_platform_ipi_callback = doorbell;
	/* The host rings once this is there. */
	smp_store_release(&tenon_zone->guest_vector, X86_PLATFORM_IPI_VECTOR);
	smp_mb();	/* what the host did before it could ring is seen now */
	local_irq_save(flags);
	doorbell();
	local_irq_restore(flags);
	return 0;
}
device_initcall(tenon_start);
