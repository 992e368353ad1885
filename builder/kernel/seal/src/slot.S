/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The slot that the build fills in, after the kernel is linked and compressed:
 * magic, size and digest of the initramfs. It lies in .head.text, so within the
 * first pages of the kernel's text, which the build does not compress. It is not
 * empty, so that it does not end up in .bss.
 */
#include <linux/linkage.h>

	.section ".head.text", "ax"
	.balign 64
SYM_DATA_START(tenon_slot)
	.ascii "TENONSEAL slot 1"
	.quad -1
	.fill 32, 1, 0xff
SYM_DATA_END(tenon_slot)
