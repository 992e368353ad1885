/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What the files of this driver have in common. All of it is the boot CPU's
 * until secondary CPUs start, and needs no lock after that.
 */
#ifndef TENON_COKERNEL_H
#define TENON_COKERNEL_H

#include "zone.h"

/* Physical address of the zone; 0: there is no host. */
extern phys_addr_t tenon_zone_address;

/* The zone; NULL until console_init(). */
extern struct tenon_zone *tenon_zone;

/*
 * tenon_map_zone - maps the zone for good, and says that we are alive
 *
 * Panics when it is not what the record promised: nothing would work.
 */
void tenon_map_zone(void);

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
