/* SPDX-License-Identifier: GPL-2.0-only WITH Linux-syscall-note */
/*
 * The interface of /dev/mortise. Sizes and addresses are in bytes; structs
 * have the same layout everywhere, and begin with the version of this
 * interface. Nothing that user space hands in is mapped, and nothing but
 * numbers, names and what is signed is taken.
 *
 * An instance is an object of the module, not of a process: it outlives the
 * descriptors by which it is used. It is made empty; memory and CPUs are added;
 * an image is loaded; it is started once. After its end it is destroyed, which
 * gives all that it had back to the host.
 */
#ifndef MORTISE_H
#define MORTISE_H

#include <linux/ioctl.h>
#include <linux/types.h>

#define MORTISE_VERSION		2
#define MORTISE_NAME		64	/* bytes of a name, with a NUL */
#define MORTISE_INSTANCES	32	/* at once */
#define MORTISE_CPUS		64	/* of an instance */
#define MORTISE_RANGES		16	/* of memory of an instance */
#define MORTISE_STATEMENT	65535	/* bytes of a signed statement */
#define MORTISE_CMDLINE		2047	/* bytes of a command line */

/* Reasons why this host cannot run instances. */
#define MORTISE_NO_X2APIC	(1u << 0)	/* the host uses x2APIC */
#define MORTISE_NO_REMAPPING	(1u << 1)	/* or interrupt remapping */
#define MORTISE_NO_ENCRYPTION	(1u << 2)	/* or encrypts memory, as confidential guests do */
#define MORTISE_NO_LOW		(1u << 3)	/* what it keeps below 1 MiB was not understood */
#define MORTISE_NO_TSC		(1u << 4)	/* its clock, the TSC, is not stable, or unknown */

/**
 * struct mortise_info - what the module says about the host
 * @version: of the interface: in and out
 * @refusals: MORTISE_NO_*; 0: instances can be made
 * @unsigned_allowed: 1 when images without a signature are taken
 * @locked: 1 when the host's kernel is locked down
 * @pieces: how many more instances the memory below 1 MiB is enough for
 * @instances: how many there are
 * @reserved: 0
 */
struct mortise_info {
	__u32 version;
	__u32 refusals;
	__u32 unsigned_allowed;
	__u32 locked;
	__u32 pieces;
	__u32 instances;
	__u32 reserved[2];
};

/**
 * struct mortise_name - an instance by its name
 * @version: of the interface
 * @reserved: 0
 * @name: 1 to 63 characters of a-z, A-Z, 0-9, '.', '_' and '-', then NULs
 */
struct mortise_name {
	__u32 version;
	__u32 reserved;
	char name[MORTISE_NAME];
};

/**
 * struct mortise_list - instances by the order of their making
 * @version: of the interface
 * @count: out: how many there are
 * @names: out
 */
struct mortise_list {
	__u32 version;
	__u32 count;
	char names[MORTISE_INSTANCES][MORTISE_NAME];
};

/**
 * struct mortise_memory - memory to reserve
 * @version: of the interface
 * @node: NUMA node
 * @bytes: a multiple of 2 MiB
 */
struct mortise_memory {
	__u32 version;
	__s32 node;
	__u64 bytes;
};

/**
 * struct mortise_cpu - a CPU to take or give
 * @version: of the interface
 * @cpu: its number on the host
 * @flags: MORTISE_CPU_*, when it is taken; else 0
 * @timeout_ms: how long a running guest may take to agree
 */
struct mortise_cpu {
	__u32 version;
	__u32 cpu;
	__u32 flags;
	__u32 timeout_ms;
};

#define MORTISE_CPU_IDLE	(1u << 0)	/* nobody uses it: it shares the core of one in use */

#define MORTISE_LOAD_DETACHED	(1u << 0)	/* it takes any initramfs and command line */

/**
 * struct mortise_load - the image to load
 * @version: of the interface
 * @flags: MORTISE_LOAD_*
 * @image_fd: the bzImage without signatures; read from its beginning
 * @initrd_fd: the initramfs, which a sealed image checks; -1: none
 * @statement: address of the PKCS#7 signature over the statement in DER
 * @statement_size: 0: there is none
 * @possible_cpus: how many CPUs it can get to, at least those that it has
 * @cmdline: of a detached one: address of the command line
 * @cmdline_size: in bytes, without a NUL
 * @reserved: 0
 */
struct mortise_load {
	__u32 version;
	__u32 flags;
	__s32 image_fd;
	__s32 initrd_fd;
	__u64 statement;
	__u32 statement_size;
	__u32 possible_cpus;
	__u64 cmdline;
	__u32 cmdline_size;
	__u32 reserved;
};

/* States of an instance. */
#define MORTISE_EMPTY		0	/* it may have memory and CPUs */
#define MORTISE_LOADED		1	/* it has an image */
#define MORTISE_RUNNING		2
#define MORTISE_ENDED		3	/* its CPUs do nothing */

/* How an instance ended. */
#define MORTISE_END_NONE	0	/* it has not */
#define MORTISE_END_OFF		1	/* it switched itself off, or halted */
#define MORTISE_END_RESTART	2	/* it wanted to restart */
#define MORTISE_END_PANIC	3
#define MORTISE_END_STOPPED	4	/* MORTISE_STOP, or the host goes down */

/**
 * struct mortise_range - memory of an instance
 * @start: physical address
 * @bytes: its size
 * @node: NUMA node
 * @reserved: 0
 */
struct mortise_range {
	__u64 start;
	__u64 bytes;
	__s32 node;
	__u32 reserved;
};

/**
 * struct mortise_status - an instance
 * @version: of the interface: in and out
 * @state: MORTISE_*
 * @end: MORTISE_END_*
 * @alive: 1 once its kernel was heard of
 * @told: 1 once anything was written to its control channel
 * @cpu_count: of @cpus
 * @range_count: of @ranges
 * @reserved: 0
 * @low: physical address of its piece below 1 MiB
 * @zone: physical address of what it shares with the host
 * @zone_bytes: the size of that
 * @started_ns: CLOCK_BOOTTIME at its start, 0 before
 * @idle: bit n is set when nobody uses @cpus[n]
 * @cpus: numbers on the host; the first that is not idle boots
 * @ranges: of memory
 */
struct mortise_status {
	__u32 version;
	__u32 state;
	__u32 end;
	__u32 alive;
	__u32 told;
	__u32 cpu_count;
	__u32 range_count;
	__u32 reserved;
	__u64 low;
	__u64 zone;
	__u64 zone_bytes;
	__u64 started_ns;
	__u64 idle;
	__u32 cpus[MORTISE_CPUS];
	struct mortise_range ranges[MORTISE_RANGES];
};

/* Streams of MORTISE_CHANNEL. */
#define MORTISE_CONSOLE		0
#define MORTISE_CONTROL		1

/*
 * On /dev/mortise. CREATE and OPEN return a descriptor of the instance, on
 * which the others are called. Reading from it blocks until the instance has
 * ended, and then returns 0. CHANNEL returns a descriptor of the console, a
 * stream of bytes, or of the control channel, where each read and each write is
 * one frame of package loader/control.
 */
#define MORTISE_INFO	_IOWR('m', 0x80, struct mortise_info)
#define MORTISE_LIST	_IOWR('m', 0x81, struct mortise_list)
#define MORTISE_CREATE	_IOW('m', 0x82, struct mortise_name)
#define MORTISE_OPEN	_IOW('m', 0x83, struct mortise_name)
#define MORTISE_RESERVE	_IOW('m', 0x84, struct mortise_memory)
#define MORTISE_TAKE	_IOW('m', 0x85, struct mortise_cpu)
#define MORTISE_GIVE	_IOW('m', 0x86, struct mortise_cpu)
#define MORTISE_LOAD	_IOW('m', 0x87, struct mortise_load)
#define MORTISE_START	_IO('m', 0x88)
#define MORTISE_STOP	_IO('m', 0x89)
#define MORTISE_DESTROY	_IO('m', 0x8a)
#define MORTISE_STATUS	_IOWR('m', 0x8b, struct mortise_status)
#define MORTISE_CHANNEL	_IO('m', 0x8c)	/* the argument is the stream */

#endif /* MORTISE_H */
