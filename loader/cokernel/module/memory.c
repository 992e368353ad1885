// SPDX-License-Identifier: GPL-2.0-only
/* Memory of instances: ranges of whole pageblocks, and pieces below 1 MiB. */
#include <linux/gfp.h>
#include <linux/ioport.h>
#include <linux/mm.h>
#include <linux/mmzone.h>
#include <linux/sched/signal.h>
#include <asm/realmode.h>

#include "internal.h"

/*
 * Below 1 MiB
 *
 * The kernel reserves all of it, as firmware may write there when it should
 * not, and uses no more than its own real-mode code. What firmware calls usable,
 * from 64 KiB on, is therefore free but for that.
 */
#define LOW_START	0x10000
#define LOW_END		0xa0000

#define REALMODE_END_SIGNATURE	0x65a22c82	/* arch/x86/realmode/rm/realmode.h */

static DEFINE_MUTEX(mort_low_lock);
static phys_addr_t mort_low_pieces[LOW_END / LOW_SIZE];
static u32 mort_low_count;

/* A header of arch/x86/realmode/rm/header.S, of which this is the page? */
static bool mort_is_realmode(phys_addr_t at, phys_addr_t end)
{
	const struct real_mode_header *h = phys_to_virt(at);

	return h->text_start > at && h->text_start < end && PAGE_ALIGNED(h->text_start) &&
	       h->ro_end > h->text_start && h->ro_end < end &&
	       h->trampoline_start >= h->text_start && h->trampoline_start < h->ro_end &&
	       h->trampoline_header > at && h->trampoline_header < end;
}

/*
 * Finds the host's real-mode code, whose address is not exported: it ends with a
 * signature and begins with a header of addresses.
 */
static int mort_find_realmode(phys_addr_t *start, phys_addr_t *end)
{
	phys_addr_t at, page;

	for (at = LOW_START; at < LOW_END; at += sizeof(u32)) {
		if (PAGE_ALIGNED(at) && !page_is_ram(PHYS_PFN(at))) {
			at += PAGE_SIZE - sizeof(u32);
			continue;
		}
		if (*(u32 *)phys_to_virt(at) != REALMODE_END_SIGNATURE)
			continue;
		for (page = at & PAGE_MASK; page >= LOW_START; page -= PAGE_SIZE) {
			if (page_is_ram(PHYS_PFN(page)) && mort_is_realmode(page, at)) {
				*start = page;
				*end = PAGE_ALIGN(at + sizeof(u32));
				return 0;
			}
		}
	}
	return -ENODEV;
}

/* Finds the pieces. The last one is taken first: firmware rather uses low addresses. */
int __init mortise_low_init(void)
{
	phys_addr_t at, page, start, end;
	int ret;

	ret = mort_find_realmode(&start, &end);
	if (ret)
		return ret;
	for (at = page = LOW_START; page < LOW_END; page += PAGE_SIZE) {
		if (!page_is_ram(PHYS_PFN(page)) || (page >= start && page < end)) {
			at = page + PAGE_SIZE;
		} else if (page + PAGE_SIZE - at == LOW_SIZE) {
			mort_low_pieces[mort_low_count++] = at;
			at = page + PAGE_SIZE;
		}
	}
	return 0;
}

u32 mortise_low_pieces(void)
{
	return READ_ONCE(mort_low_count);
}

/* Returns 0 when there is none. */
phys_addr_t mortise_low_alloc(void)
{
	phys_addr_t low = 0;

	mutex_lock(&mort_low_lock);
	if (mort_low_count)
		low = mort_low_pieces[--mort_low_count];
	mutex_unlock(&mort_low_lock);
	if (low)	/* another instance's, or firmware's, was there */
		memset(phys_to_virt(low), 0, LOW_SIZE);
	return low;
}

void mortise_low_free(phys_addr_t low)
{
	mutex_lock(&mort_low_lock);
	mort_low_pieces[mort_low_count++] = low;
	mutex_unlock(&mort_low_lock);
}

/*
 * Claims pages from start on, at most pages of them, and returns how many: it
 * ends where something cannot be moved away. Both are of whole pageblocks.
 */
static unsigned long mort_claim_piece(unsigned long start, unsigned long pages)
{
	unsigned long half, got;

	if (signal_pending(current))
		return 0;
	if (!alloc_contig_range(start, start + pages, MIGRATE_MOVABLE, GFP_KERNEL))
		return pages;
	if (pages <= pageblock_nr_pages)
		return 0;
	half = round_up(pages / 2, pageblock_nr_pages);
	got = mort_claim_piece(start, half);
	if (got == half)
		got += mort_claim_piece(start + half, pages - half);
	return got;
}

/* Nobody learns from memory whose it was: the kernel clears what it gives, or not. */
static void mort_zero(unsigned long start, unsigned long pages)
{
	unsigned long n;

	if (want_init_on_alloc(GFP_KERNEL))
		return;
	for (n = 0; n < pages; n += pageblock_nr_pages) {
		memset(phys_to_virt(PFN_PHYS(start + n)), 0, pageblock_nr_pages * PAGE_SIZE);
		cond_resched();
	}
}

/* What is claimed at once: the kernel clears it without a pause. */
#define PIECE_PAGES	PHYS_PFN(SZ_1G)

/* As mort_claim_piece(), for any size, with pauses. */
static unsigned long mort_claim(unsigned long start, unsigned long pages)
{
	unsigned long got = 0, piece, n;

	while (got < pages) {
		piece = min(pages - got, PIECE_PAGES);
		n = mort_claim_piece(start + got, piece);
		mort_zero(start + got, n);
		got += n;
		if (n < piece)
			break;
		cond_resched();
	}
	return got;
}

/*
 * Returns how many of the pages from start on are the zone's, in whole pageblocks: there
 * may be holes in it, and others' memory, of which nothing may be asked for.
 */
static unsigned long mort_span(struct zone *zone, unsigned long start, unsigned long pages)
{
	unsigned long n;

	for (n = 0; n < pages; n += pageblock_nr_pages) {
		struct page *page = pfn_to_online_page(start + n);

		if (!page || page_zone(page) != zone)
			break;
	}
	return n;
}

static void mort_free(unsigned long start, unsigned long pages)
{
	unsigned long n;

	for (n = 0; n < pages; n += pageblock_nr_pages) {
		free_contig_range(start + n, pageblock_nr_pages);
		cond_resched();
	}
}

/* Adds ranges from a zone, none of fewer than least pages; returns how many pages. */
static unsigned long mort_claim_zone(struct mortise *m, struct zone *zone,
				     unsigned long pages, unsigned long least)
{
	unsigned long end = zone_end_pfn(zone), got, left = pages;
	unsigned long pfn = round_up(zone->zone_start_pfn, pageblock_nr_pages);

	while (left && m->range_count < MORTISE_RANGES && pfn + min(left, least) <= end) {
		if (signal_pending(current))
			break;
		got = mort_span(zone, pfn, min(left, round_down(end - pfn, pageblock_nr_pages)));
		if (got < min(left, least)) {
			pfn += got + pageblock_nr_pages;
			continue;
		}
		got = mort_claim(pfn, got);
		if (got >= min(left, least)) {
			m->ranges[m->range_count++] = (struct mortise_range){
				.start = PFN_PHYS(pfn),
				.bytes = PFN_PHYS(got),
				.node = zone_to_nid(zone),
			};
			left -= got;
		} else if (got) {
			mort_free(pfn, got);
		}
		pfn += got + pageblock_nr_pages;
		cond_resched();
	}
	return pages - left;
}

static void mort_release_from(struct mortise *m, u32 first)
{
	while (m->range_count > first) {
		struct mortise_range *r = &m->ranges[--m->range_count];

		mort_free(PHYS_PFN(r->start), PHYS_PFN(r->bytes));
	}
}

/* Adds one range, if there is one, or else few large ones. */
static int mort_claim_node(struct mortise *m, int node, unsigned long pages)
{
	static const enum zone_type zones[] = { ZONE_NORMAL, ZONE_DMA32 };
	unsigned long left = pages, least = left, few = max(least / 8, pageblock_nr_pages);
	u32 first = m->range_count;
	int i;

	for (;;) {
		for (i = 0; i < ARRAY_SIZE(zones); i++) {
			struct zone *zone = &NODE_DATA(node)->node_zones[zones[i]];

			if (zone->present_pages)
				left -= mort_claim_zone(m, zone, left, least);
			if (!left)
				return 0;
		}
		if (least == few || signal_pending(current))
			break;
		least = max(least / 2, few);
	}
	mort_release_from(m, first);
	return signal_pending(current) ? -EINTR : -ENOMEM;
}

/*
 * The host keeps 64 MiB at least: what is moved away has to go somewhere. Under the lock,
 * what is available is not promised twice.
 */
#define HOST_PAGES	PHYS_PFN(SZ_64M)
static DEFINE_MUTEX(mort_claim_lock);

/**
 * mortise_reserve() - adds memory of a node to an instance
 * @m: the instance, locked
 * @node: NUMA node
 * @bytes: a multiple of 2 MiB; more where the host's pageblocks are larger
 *
 * Return: 0, -EINVAL for a node or size that is none, -ENOMEM when there is not
 * enough that can be moved away, or too little would be left; -EINTR.
 */
int mortise_reserve(struct mortise *m, int node, u64 bytes)
{
	unsigned long pages = round_up(PHYS_PFN(bytes), pageblock_nr_pages);
	int ret = -ENOMEM;

	if (!bytes || bytes % SZ_2M || bytes > BIT_ULL(MAX_PHYSMEM_BITS) ||
	    node < 0 || node >= MAX_NUMNODES || !node_online(node))
		return -EINVAL;
	if (mutex_lock_interruptible(&mort_claim_lock))
		return -EINTR;
	if (si_mem_available() >= (long)(pages + HOST_PAGES))
		ret = mort_claim_node(m, node, pages);
	mutex_unlock(&mort_claim_lock);
	return ret;
}

void mortise_release(struct mortise *m)
{
	mort_release_from(m, 0);
}
