/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What the files of this driver have in common. All of it is the boot CPU's
 * until secondary CPUs start, and needs no lock after that.
 */
#ifndef TENON_COKERNEL_H
#define TENON_COKERNEL_H

#include "zone.h"

/* The zone's first page, and from console_init() on all of it; NULL: there is no host. */
extern struct tenon_zone *tenon_zone;

/*
 * tenon_find_zone - maps the first page of the zone, and says that we are alive
 *
 * Panics when it is not what the record promised: nothing would work.
 */
void tenon_find_zone(phys_addr_t at);

/* tenon_map_zone - maps all of the zone for good, or panics */
void tenon_map_zone(void);

/* tenon_write_early - writes to the console's ring before tenon_map_zone() */
void tenon_write_early(const char *s, unsigned int n);

/* tenon_ring_host - sends the host's doorbell, from any context */
void tenon_ring_host(void);

/* tenon_stop - tells the host a TENON_STATE_*, and never returns */
void tenon_stop(u32 state);

/* What runs on the host's doorbell, with interrupts off. */
void tenon_console_wake(void);
void tenon_control_wake(void);
void tenon_cpus_wake(void);

/* These start before the first doorbell can come, and return 0 or -errno. */
int tenon_console_start(void);
int tenon_control_start(void);

#endif /* TENON_COKERNEL_H */
