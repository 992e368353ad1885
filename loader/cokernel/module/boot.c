// SPDX-License-Identifier: GPL-2.0-only
/* Starting a guest: what its kernel finds, and its first CPU. */
#include <linux/cacheflush.h>
#include <linux/delay.h>
#include <linux/io.h>
#include <linux/mm.h>
#include <linux/pgtable.h>
#include <linux/random.h>
#include <linux/timekeeping.h>
#include <asm/bootparam.h>
#include <asm/cacheflush.h>
#include <asm/e820/types.h>
#include <asm/setup.h>
#include <asm/tsc.h>

#include "internal.h"

/* The end of trampoline.S. */
struct trampoline {
	u64 gdt[4];
	u64 entry;
	u64 params;
	u32 pml4;
	u32 started;
	u16 gdt_limit;
	u32 gdt_base;
	u32 jump32;
	u16 jump32_segment;
	u32 jump64;
	u16 jump64_segment;
} __packed;

static phys_addr_t mort_area_phys(struct mortise *m, size_t offset)
{
	return virt_to_phys(m->zone) + offset;
}

static void mort_add_e820(struct boot_params *bp, u64 addr, u64 size, u32 type)
{
	bp->e820_table[bp->e820_entries++] = (struct boot_e820_entry){ addr, size, type };
}

/*
 * All that the guest is told of the machine's memory. Where a new kernel looks
 * for room it begins at the end, so that low memory comes first.
 */
static void mort_fill_e820(struct mortise *m, struct boot_params *bp)
{
	u32 i;

	bp->e820_entries = 0;
	mort_add_e820(bp, m->low, LOW_RAM, E820_TYPE_RESERVED);
	mort_add_e820(bp, m->low + LOW_RAM, LOW_SIZE - LOW_RAM, E820_TYPE_RAM);
	mort_add_e820(bp, mort_area_phys(m, 0), AREA_ACPI, E820_TYPE_RESERVED);
	mort_add_e820(bp, mort_area_phys(m, AREA_ACPI), AREA_END - AREA_ACPI, E820_TYPE_ACPI);
	for (i = 0; i < m->range_count; i++)
		mort_add_e820(bp, m->ranges[i].start, m->ranges[i].bytes, E820_TYPE_RAM);
}

/* setup_data: where the zone is, and a seed for the guest's random numbers. */
static void mort_fill_setup(struct mortise *m, struct boot_params *bp)
{
	struct {
		struct setup_data head;
		struct tenon_setup data;
	} *zone = (void *)m->zone + AREA_SETUP;
	struct {
		struct setup_data head;
		u8 data[32];
	} *seed = (void *)(zone + 1);

	zone->head.next = mort_area_phys(m, (void *)seed - (void *)m->zone);
	zone->head.type = TENON_SETUP_TYPE;
	zone->head.len = sizeof(zone->data);
	zone->data = (struct tenon_setup){
		.magic = TENON_ZONE_MAGIC,
		.version = TENON_ZONE_VERSION,
		.size = sizeof(zone->data),
		.zone = mort_area_phys(m, 0),
		.tsc_khz = tsc_khz,
	};
	seed->head.next = 0;
	seed->head.type = SETUP_RNG_SEED;
	seed->head.len = sizeof(seed->data);
	get_random_bytes(seed->data, sizeof(seed->data));
	bp->hdr.setup_data = mort_area_phys(m, AREA_SETUP);
}

/* Page tables: those of the area, taken one after the other. */
struct tables {
	struct mortise *m;
	u64 *pml4;
	size_t used;
	bool full;
};

#define PML4_SHIFT 39
#define ENTRY (_PAGE_PRESENT | _PAGE_RW | _PAGE_ACCESSED)

static u64 *mort_next_table(struct tables *t, u64 *entry)
{
	size_t at = AREA_TABLES + t->used;

	if (!*entry) {
		if (at >= AREA_END) {
			t->full = true;
			return t->pml4;	/* where it harms nobody: nothing is started */
		}
		t->used += PAGE_SIZE;
		*entry = mort_area_phys(t->m, at) | ENTRY;
	}
	return phys_to_virt(*entry & PTE_PFN_MASK);
}

static void mort_map(struct tables *t, phys_addr_t start, u64 size)
{
	phys_addr_t at;

	for (at = start & PMD_MASK; at < start + size && !t->full; at += PMD_SIZE) {
		u64 *p = mort_next_table(t, &t->pml4[(at >> PML4_SHIFT) & 511]);

		p = mort_next_table(t, &p[(at >> PUD_SHIFT) & 511]);
		if (!t->full)
			p[(at >> PMD_SHIFT) & 511] = at | ENTRY | _PAGE_DIRTY | _PAGE_PSE;
	}
}

/*
 * The 64-bit boot protocol wants the kernel, boot_params and the command line
 * mapped by their physical addresses. The kernel maps the rest when it needs it.
 */
static int mort_fill_tables(struct mortise *m, struct boot_params *bp)
{
	struct tables t = { .m = m, .pml4 = phys_to_virt(m->low + LOW_PML4) };

	memset(t.pml4, 0, PAGE_SIZE);
	memset((void *)m->zone + AREA_TABLES, 0, AREA_END - AREA_TABLES);
	mort_map(&t, 0, SZ_1M);
	mort_map(&t, mort_area_phys(m, 0), AREA_SIZE);
	mort_map(&t, m->entry - KERNEL_ENTRY, bp->hdr.init_size);
	return t.full ? -ENOSPC : 0;
}

static struct trampoline *mort_fill_trampoline(struct mortise *m)
{
	u8 *page = phys_to_virt(m->low + LOW_TRAMPOLINE);
	struct trampoline *t = (void *)(page + (mortise_trampoline_data - mortise_trampoline));

	memcpy(page, mortise_trampoline, mortise_trampoline_end - mortise_trampoline);
	t->entry = m->entry;
	t->params = mort_area_phys(m, AREA_PARAMS);
	t->pml4 = m->low + LOW_PML4;
	t->gdt_base += m->low;
	t->jump32 += m->low;
	t->jump64 += m->low;
	return t;
}

/**
 * mortise_boot() - starts a guest
 * @m: the instance, locked and loaded, with CPUs
 *
 * Return: 0; -EINVAL without a CPU, or with more than it was loaded for; -ENOSPC
 * when tables do not fit; -EIO when the CPU does not start.
 */
int mortise_boot(struct mortise *m)
{
	void *area = m->zone;
	struct boot_params *bp = area + AREA_PARAMS;
	struct trampoline *t;
	u32 first = find_first_zero_bit(m->idle, m->cpu_count);
	int ret;

	BUILD_BUG_ON(sizeof(struct trampoline) > PAGE_SIZE);
	if (first >= m->cpu_count ||
	    m->cpu_count - bitmap_weight(m->idle, m->cpu_count) > m->possible)
		return -EINVAL;

	memset(area, 0, AREA_ACPI);
	*m->zone = (struct tenon_zone){
		.magic = TENON_ZONE_MAGIC,
		.version = TENON_ZONE_VERSION,
		.host_apicid = mortise_doorbell_apicid(),
		.host_vector = mortise_doorbell_vector(),
	};
	memset(area + AREA_IOAPIC, 0, PAGE_SIZE);
	clflush_cache_range(area + AREA_IOAPIC, PAGE_SIZE);	/* the guest maps it uncached */
	mortise_acpi(m, area + AREA_ACPI, mort_area_phys(m, AREA_ACPI),
		     mort_area_phys(m, AREA_IOAPIC));
	bp->acpi_rsdp_addr = mort_area_phys(m, AREA_ACPI);
	bp->hdr.cmd_line_ptr = lower_32_bits(mort_area_phys(m, AREA_CMDLINE));
	bp->ext_cmd_line_ptr = upper_32_bits(mort_area_phys(m, AREA_CMDLINE));
	mort_fill_e820(m, bp);
	mort_fill_setup(m, bp);
	ret = mort_fill_tables(m, bp);
	if (ret)
		return ret;
	t = mort_fill_trampoline(m);

	m->boot_cpu = m->cpus[first];
	m->started = ktime_get_boottime_ns();
	smp_store_release(&m->state, MORTISE_RUNNING); /* its zone is made */
	ret = mortise_cpu_start(m->boot_cpu, m->low + LOW_TRAMPOLINE, &t->started);
	if (ret) {
		mortise_cpu_reset(m->boot_cpu);
		m->state = MORTISE_LOADED;
		m->started = 0;
	}
	return ret;
}
