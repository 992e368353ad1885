/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What mortise.ko and the kernel that it starts share: one physically
 * contiguous zone, of which the first page is the header. All numbers are
 * little endian, as both sides are x86-64.
 *
 * Neither side trusts what the other writes: each keeps offsets and sizes of
 * its own, and takes from the zone what can differ at run time alone.
 */
#ifndef TENON_ZONE_H
#define TENON_ZONE_H

#include <linux/types.h>

#define TENON_ZONE_MAGIC	0x454e4f5a4e4e4554ULL	/* "TENNZONE" */
#define TENON_ZONE_VERSION	1

/* The setup_data record by which a kernel learns where the zone is. */
#define TENON_SETUP_TYPE	0x6e6e6574		/* "tenn" */

/**
 * struct tenon_setup - payload of the setup_data record
 * @magic: TENON_ZONE_MAGIC
 * @version: TENON_ZONE_VERSION
 * @size: of this struct in bytes
 * @zone: physical address of struct tenon_zone, page aligned
 * @tsc_khz: frequency of the time stamp counter in kHz
 * @reserved: 0
 */
struct tenon_setup {
	__u64 magic;
	__u32 version;
	__u32 size;
	__u64 zone;
	__u32 tsc_khz;
	__u32 reserved;
};

/* What tenon_zone.state says. Only the guest writes it, from ALIVE on. */
#define TENON_STATE_NONE	0	/* nothing was heard yet */
#define TENON_STATE_ALIVE	1	/* the guest has found the zone */
#define TENON_STATE_OFF		2	/* it was switched off, or halted */
#define TENON_STATE_RESTART	3	/* it wants to restart */
#define TENON_STATE_PANIC	4	/* it restarts because it panicked */

/* What tenon_zone.cpu_op asks for. */
#define TENON_CPU_ADD		1
#define TENON_CPU_REMOVE	2

/**
 * struct tenon_ring - a stream of bytes with one writer and one reader
 * @head: bytes ever written, modulo 2^32; the writer's
 * @tail: bytes ever read, modulo 2^32; the reader's
 *
 * head - tail bytes wait, at most the ring's size, which is a power of two.
 */
struct tenon_ring {
	__u32 head;
	__u32 pad0[15];
	__u32 tail;
	__u32 pad1[15];
};

enum tenon_ring_id {
	TENON_RING_CONSOLE_OUT,		/* guest to host */
	TENON_RING_CONSOLE_IN,		/* host to guest */
	TENON_RING_CONTROL_OUT,		/* guest to host */
	TENON_RING_CONTROL_IN,		/* host to guest */
	TENON_RINGS
};

/**
 * struct tenon_zone - the zone's first page
 * @magic: TENON_ZONE_MAGIC
 * @version: TENON_ZONE_VERSION
 * @state: TENON_STATE_*, the guest's
 * @host_apicid: where the guest's doorbell goes to
 * @host_vector: and by which vector; 0: the host looks by itself
 * @guest_vector: by which vector the host's doorbell comes to the guest's first
 *	CPU, the guest's; 0: it does not listen yet
 * @cpu_request: counts what the host asked for about CPUs
 * @cpu_op: TENON_CPU_*, what it asked for last
 * @cpu_apicid: and of which CPU
 * @cpu_answer: the request that the guest answered last, the guest's
 * @cpu_status: 0, or a negative errno: its answer
 * @reserved0: 0
 * @reserved: 0
 * @rings: by enum tenon_ring_id
 *
 * Fields are the host's where nothing else is said.
 */
struct tenon_zone {
	__u64 magic;
	__u32 version;
	__u32 state;
	__u32 host_apicid;
	__u32 host_vector;
	__u32 reserved0;
	__u32 guest_vector;
	__u32 cpu_request;
	__u32 cpu_op;
	__u32 cpu_apicid;
	__u32 cpu_answer;
	__s32 cpu_status;
	__u32 reserved[3];
	struct tenon_ring rings[TENON_RINGS];
};

/* Where the rings' bytes are, in bytes from the header. */
#define TENON_CONSOLE_OUT_OFFSET	0x01000u
#define TENON_CONSOLE_OUT_SIZE		0x40000u
#define TENON_CONSOLE_IN_OFFSET		0x41000u
#define TENON_CONSOLE_IN_SIZE		0x01000u
#define TENON_CONTROL_OUT_OFFSET	0x42000u
#define TENON_CONTROL_OUT_SIZE		0x20000u
#define TENON_CONTROL_IN_OFFSET		0x62000u
#define TENON_CONTROL_IN_SIZE		0x20000u
#define TENON_ZONE_SIZE			0x82000u

#endif /* TENON_ZONE_H */
