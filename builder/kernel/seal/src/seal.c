// SPDX-License-Identifier: GPL-2.0-only
/*
 * The seal: this kernel unpacks one initramfs, and none other. The image holds its
 * size and the SHA-256 over the SHA-256s of its 1 MiB chunks, so that all CPUs hash.
 *
 * The size that the boot loader passed counts, as boot_params have it:
 * setup_boot_config() has cut a trailer off initrd_end by now, which the boot loader may
 * have appended. The check is made when all CPUs are up, and before populate_rootfs(),
 * a rootfs_initcall, unpacks anything.
 *
 * One option of the boot loader's command line counts although the built-in one
 * replaces it: early_cpu_init() reads clearcpuid= before that, and taints the kernel.
 */
#include <linux/atomic.h>
#include <linux/cpu.h>
#include <linux/init.h>
#include <linux/initrd.h>
#include <linux/ktime.h>
#include <linux/minmax.h>
#include <linux/panic.h>
#include <linux/printk.h>
#include <linux/sizes.h>
#include <linux/slab.h>
#include <linux/string.h>
#include <linux/workqueue.h>
#include <asm/setup.h>
#include <crypto/sha2.h>

struct tenon_slot {
	u8 magic[16];
	u64 size;	/* bytes */
	u8 digest[SHA256_DIGEST_SIZE];
} __packed;

/* The compiler must not know what slot.S says. */
extern const volatile struct tenon_slot tenon_slot;

#define CHUNK SZ_1M

static struct {
	const u8 *data;
	u64 size;
	u32 chunks;
	u8 *sums;
	atomic_t next;
} seal __initdata;

/* Runs on each CPU, until no chunk is left. */
static void __init tenon_seal_hash(struct work_struct *unused)
{
	u32 i;

	while ((i = atomic_inc_return(&seal.next) - 1) < seal.chunks) {
		u64 at = (u64)i * CHUNK;

		sha256(seal.data + at, min_t(u64, CHUNK, seal.size - at),
		       seal.sums + (size_t)i * SHA256_DIGEST_SIZE);
		cond_resched();
	}
}

static int __init tenon_seal_check(void)
{
	u64 passed = boot_params.hdr.ramdisk_size | (u64)boot_params.ext_ramdisk_size << 32;
	u64 place = boot_params.hdr.ramdisk_image | (u64)boot_params.ext_ramdisk_image << 32;
	u8 digest[SHA256_DIGEST_SIZE];
	ktime_t began = ktime_get();
	int i, differs = 0;

	if (test_taint(TAINT_CPU_OUT_OF_SPEC))
		panic("tenon: the boot loader takes features from the CPU (clearcpuid), and this kernel is sealed");
	seal.size = tenon_slot.size;
	if (!initrd_start || !passed || !place) /* without a place, nothing was reserved early */
		panic("tenon: there is no initramfs, and this kernel is sealed to one of %llu bytes", seal.size);
	if (passed != seal.size || initrd_end - initrd_start != seal.size)
		panic("tenon: the initramfs has %llu bytes, and this kernel is sealed to one of %llu", passed, seal.size);
	seal.data = (const u8 *)initrd_start;
	seal.chunks = DIV_ROUND_UP_ULL(seal.size, CHUNK);
	seal.sums = kvmalloc_array(seal.chunks, SHA256_DIGEST_SIZE, GFP_KERNEL);
	if (!seal.sums || schedule_on_each_cpu(tenon_seal_hash))
		panic("tenon: no memory to check the initramfs");
	sha256(seal.sums, seal.chunks * SHA256_DIGEST_SIZE, digest);
	for (i = 0; i < SHA256_DIGEST_SIZE; i++)
		differs |= digest[i] ^ tenon_slot.digest[i];
	if (differs)
		panic("tenon: the initramfs is not the one that this kernel is sealed to");
	kvfree(seal.sums);
	pr_info("tenon: this kernel is sealed to the initramfs that is here: %llu bytes, checked in %lld us\n",
		seal.size, ktime_us_delta(ktime_get(), began));
	return 0;
}
fs_initcall_sync(tenon_seal_check);
