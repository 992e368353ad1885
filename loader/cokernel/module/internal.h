/* SPDX-License-Identifier: GPL-2.0-only */
/* What the files of mortise.ko share. */
#ifndef MORTISE_INTERNAL_H
#define MORTISE_INTERNAL_H

#include <linux/atomic.h>
#include <linux/cpumask.h>
#include <linux/fs.h>
#include <linux/kref.h>
#include <linux/mutex.h>
#include <linux/wait.h>
#include <linux/workqueue.h>
#include <asm/irq_vectors.h>

#include "mortise.h"
#include "ring.h"
#include "zone.h"

#undef pr_fmt
#define pr_fmt(fmt) "mortise: " fmt

/* Where a bzImage's 64-bit entry is behind its real-mode part. */
#define KERNEL_ENTRY	0x200

/* Below 1 MiB, each instance has a piece of this many pages. */
#define LOW_PAGES	16
#define LOW_SIZE	(LOW_PAGES * PAGE_SIZE)
#define LOW_TRAMPOLINE	0		/* where its first CPU starts */
#define LOW_PML4	PAGE_SIZE	/* the top of its page tables: CR3 is loaded in 32 bits */
#define LOW_RAM		(2 * PAGE_SIZE)	/* from here on it is the guest's */

/*
 * The area that an instance has of the host's kernel: first the zone, then
 * what the guest only reads.
 */
#define AREA_ORDER	8
#define AREA_SIZE	(PAGE_SIZE << AREA_ORDER)
#define AREA_ACPI	0x90000		/* tables, one page */
#define AREA_IOAPIC	0x91000		/* a page of zeroes */
#define AREA_PARAMS	0x92000		/* struct boot_params */
#define AREA_CMDLINE	0x93000
#define AREA_SETUP	0x94000		/* setup_data records */
#define AREA_TABLES	0x95000		/* page tables below the PML4 */
#define AREA_END	0xb0000

/*
 * The vector at which a guest is rung, which the guest's driver listens at. Should it come to a
 * CPU of the host's, this kernel counts it and no more.
 */
#define GUEST_VECTOR	X86_PLATFORM_IPI_VECTOR

/**
 * struct mortise - an instance
 * @refs: of the list, of each descriptor, and of work under way
 * @link: in the list, under the list's lock
 * @lock: of all that follows, but where something else is said
 * @name: does not change
 * @gone: it is not in the list any more
 * @state: MORTISE_EMPTY and so on; read without the lock, too
 * @end: MORTISE_END_*
 * @loading: an image is read, without the lock; nothing that this changes is used
 * @stopping: how many wait for @lock to end it; no lock
 * @wait: woken when anything about the guest changes
 * @work: looks what that was
 * @low: physical address of the piece below 1 MiB
 * @zone: the area; as long as there are descriptors
 * @streams: the zone's rings
 * @stream_locks: each is of the host's end of the ring of that number
 * @range_count: of @ranges
 * @ranges: of memory
 * @cpu_count: of @cpus
 * @cpus: numbers on the host
 * @idle: which of these nobody uses
 * @boot_cpu: of @cpus, the one that the guest's doorbell is at, and which it
 *	keeps; valid while it runs
 * @entry: physical address of the kernel's 64-bit entry
 * @possible: how many CPUs the guest can get to
 * @started: CLOCK_BOOTTIME in ns
 */
struct mortise {
	struct kref refs;
	struct list_head link;
	struct mutex lock;	/* see above */
	char name[MORTISE_NAME];
	bool gone;
	u32 state;
	u32 end;
	bool loading;
	atomic_t stopping;
	wait_queue_head_t wait;
	struct work_struct work;
	phys_addr_t low;
	struct tenon_zone *zone;
	struct tenon_stream streams[TENON_RINGS];
	struct mutex stream_locks[TENON_RINGS];	/* likewise */
	u32 range_count;
	struct mortise_range ranges[MORTISE_RANGES];
	u32 cpu_count;
	u32 cpus[MORTISE_CPUS];
	DECLARE_BITMAP(idle, MORTISE_CPUS);
	u32 boot_cpu;
	phys_addr_t entry;
	u32 possible;
	u64 started;
};

/* "locked": the caller has the instance's lock. */

/* main.c */
bool mortise_unsigned_allowed(void);

/* list.c; who has an instance's lock may take the list's, never the other way round */
int mortise_list_init(void);
void mortise_list_exit(void);
void mortise_look_at_all(void);	/* in any context */
struct mortise *mortise_find(const char *name);
int mortise_enlist(struct mortise *m);	/* a new one */
void mortise_unlist(struct mortise *m);	/* locked */
void mortise_list_names(struct mortise_list *l);
u32 mortise_count(void);

/* doorbell.c */
int mortise_doorbell_init(void);
void mortise_doorbell_exit(void);
u32 mortise_doorbell_apicid(void);
u32 mortise_doorbell_vector(void);

/* instance.c */
struct mortise *mortise_new(const char *name);
void mortise_put(struct mortise *m);
int mortise_fd(struct mortise *m);
void mortise_stop(struct mortise *m, u32 end);	/* locked */
void mortise_down(struct mortise *m);	/* not locked: it takes the lock */
void mortise_ring(struct mortise *m);	/* locked or not */

/* memory.c */
int mortise_low_init(void);
u32 mortise_low_pieces(void);
phys_addr_t mortise_low_alloc(void);
void mortise_low_free(phys_addr_t low);
int mortise_reserve(struct mortise *m, int node, u64 bytes);	/* locked */
void mortise_release(struct mortise *m);	/* locked */

/* cpu.c */
int mortise_cpu_init(void);
void mortise_cpu_exit(void);
int mortise_cpu_take(u32 cpu, const struct mortise *owner);
void mortise_cpu_give(u32 cpu);
u32 mortise_cpu_apicid(u32 cpu);
void mortise_cpu_reset(u32 cpu);
int mortise_cpu_start(u32 cpu, phys_addr_t page, const u32 *started);
void mortise_cpu_ring(u32 cpu, const struct mortise *owner);

/* verify.c */
int mortise_verify(const void *image, size_t size, bool sealed,
		   const void __user *statement, u32 statement_size);

/* load.c */
int mortise_load(struct mortise *m, const struct mortise_load *load);	/* not locked, but loading */

/* boot.c */
int mortise_boot(struct mortise *m);	/* locked */

/* trampoline.S */
extern const u8 mortise_trampoline[], mortise_trampoline_data[], mortise_trampoline_end[];

/* acpi.c; locked */
void mortise_acpi(struct mortise *m, void *page, phys_addr_t at, phys_addr_t ioapic);

/* channel.c */
int mortise_channel(struct mortise *m, unsigned long stream);

#endif /* MORTISE_INTERNAL_H */
