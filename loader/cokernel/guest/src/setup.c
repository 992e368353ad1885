// SPDX-License-Identifier: GPL-2.0-only
/*
 * Finds the host's record, and keeps this kernel from all that is the host's:
 * as arch/x86/kernel/jailhouse.c does for a cell that is not the root one.
 */
#define pr_fmt(fmt) "tenon: " fmt

#include <linux/align.h>
#include <linux/console.h>
#include <linux/cpu.h>
#include <linux/init.h>
#include <linux/io.h>
#include <linux/jiffies.h>
#include <linux/notifier.h>
#include <linux/panic.h>
#include <linux/panic_notifier.h>
#include <linux/printk.h>
#include <linux/time64.h>

#include <asm/cpufeature.h>
#include <asm/i8259.h>
#include <asm/reboot.h>
#include <asm/setup.h>
#include <asm/x86_init.h>

#include "cokernel.h"

/* What a plausible machine has. */
#define MIN_TSC_KHZ	100000
#define MAX_TSC_KHZ	20000000

static unsigned int tsc_khz_of_host __ro_after_init;

static unsigned long get_tsc_khz(void)
{
	return tsc_khz_of_host;
}

/* The host's user space sends the time over the control channel. */
static void get_wallclock(struct timespec64 *now)
{
	*now = (struct timespec64){};
}

static int set_wallclock(const struct timespec64 *now)
{
	return -ENODEV;
}

/* Port 0x61 is the host's, and so is what it tells of. */
static unsigned char get_nmi_reason(void)
{
	return 0;
}

static void power_off(void)
{
	tenon_stop(TENON_STATE_OFF);
}

static void emergency_restart(void)
{
	tenon_stop(TENON_STATE_RESTART);
}

static void restart(char *command)
{
	emergency_restart();
}

/* Whatever kernel.panic says: the host decides what comes then. */
static int panicked(struct notifier_block *nb, unsigned long unused, void *message)
{
	console_flush_on_panic(CONSOLE_FLUSH_PENDING);
	tenon_stop(TENON_STATE_PANIC);
	return NOTIFY_DONE;
}

/* Last, as it is the end. */
static struct notifier_block panic_notifier = { .notifier_call = panicked, .priority = INT_MIN };

/*
 * The ways by which a machine is switched off and restarted would do that to
 * the host. Nothing here falls back to one of them.
 */
static void __init own_machine_ops(void)
{
	machine_ops.power_off = power_off;
	machine_ops.halt = power_off;
	machine_ops.restart = restart;
	machine_ops.emergency_restart = emergency_restart;
	atomic_notifier_chain_register(&panic_notifier_list, &panic_notifier);
}

/*
 * Interrupt controllers, timers and clocks that the kernel would set up, measure
 * or read through ports; the CMOS RAM and the BIOS data area that it would write
 * before a SIPI.
 */
static void __init own_platform(unsigned int tsc_khz)
{
	x86_init.irqs.pre_vector_init = x86_init_noop;
	x86_init.timers.timer_init = x86_init_noop;
	legacy_pic = &null_legacy_pic;

	tsc_khz_of_host = tsc_khz;
	preset_lpj = tsc_khz * 1000UL / HZ; /* or each CPU that comes measures it */
	x86_platform.calibrate_cpu = get_tsc_khz;
	x86_platform.calibrate_tsc = get_tsc_khz;
	setup_force_cpu_cap(X86_FEATURE_TSC_KNOWN_FREQ);

	x86_platform.get_wallclock = get_wallclock;
	x86_platform.set_wallclock = set_wallclock;
	x86_platform.get_nmi_reason = get_nmi_reason;
	x86_platform.legacy.rtc = 0;
	x86_platform.legacy.warm_reset = 0;
	x86_platform.legacy.i8042 = X86_LEGACY_I8042_PLATFORM_ABSENT;

	setup_clear_cpu_cap(X86_FEATURE_VMX); /* in VMX operation, no INIT would stop a CPU */
}

static void __init early_write(struct console *con, const char *s, unsigned int n)
{
	tenon_write_early(s, n);
}

/* What is printed before hvc0 can be there. */
static struct console early_console_out __initdata = {
	.name = "tenon",
	.write = early_write,
	.flags = CON_PRINTBUFFER | CON_BOOT,
	.index = 0,
};

/* Returns the physical address of the record's payload, or 0. */
static u64 __init find_record(u32 *len)
{
	u64 at = boot_params.hdr.setup_data;

	while (at) {
		struct setup_data *mapped = early_memremap(at, sizeof(*mapped));
		struct setup_data header = *mapped;

		early_memunmap(mapped, sizeof(*mapped));
		if (header.type == TENON_SETUP_TYPE) {
			*len = header.len;
			return at + sizeof(header);
		}
		at = header.next;
	}
	return 0;
}

static bool __init is_valid(const struct tenon_setup *s)
{
	return s->magic == TENON_ZONE_MAGIC && s->version == TENON_ZONE_VERSION &&
	       s->size == sizeof(*s) && s->zone && IS_ALIGNED(s->zone, PAGE_SIZE) &&
	       s->tsc_khz >= MIN_TSC_KHZ && s->tsc_khz <= MAX_TSC_KHZ;
}

static int __init tenon_setup(char *unused)
{
	struct tenon_setup setup = {};
	void *mapped;
	u32 len;
	u64 at;

	at = find_record(&len);
	if (!at) {
		pr_info("no record of a host: this kernel has the machine for itself\n");
		return 0;
	}
	own_machine_ops(); /* first, so that what fails from here on harms nobody */
	if (len >= sizeof(setup)) {
		mapped = early_memremap(at, sizeof(setup));
		memcpy(&setup, mapped, sizeof(setup));
		early_memunmap(mapped, sizeof(setup));
	}
	if (!is_valid(&setup))
		panic("tenon: the host's record is none of version %d\n", TENON_ZONE_VERSION);

	own_platform(setup.tsc_khz);
	tenon_find_zone(setup.zone);
	register_console(&early_console_out);
	return 0;
}
early_param("tenon.cokernel", tenon_setup);
