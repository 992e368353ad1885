/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What the first CPU of a guest runs: from real mode, where a SIPI leaves it at
 * the beginning of this page, to the 64-bit entry of a bzImage
 * (Documentation/x86/boot.rst, "64-bit Boot Protocol"). It is copied below
 * 1 MiB; boot.c fills in struct trampoline at mortise_trampoline_data.
 */
#include <linux/linkage.h>
#include <asm/msr-index.h>
#include <asm/processor-flags.h>

#define AT(symbol) ((symbol) - mortise_trampoline)

	.section .rodata, "a"
	.balign 16
	.globl mortise_trampoline
mortise_trampoline:
	.code16
	cli
	cld
	movw	%cs, %ax
	movw	%ax, %ds
	xorl	%ebx, %ebx
	movw	%cs, %bx
	shll	$4, %ebx		/* the page's address */
	lgdtl	AT(gdt_pointer)
	movl	$(X86_CR0_PE | X86_CR0_ET), %eax /* caches are on */
	movl	%eax, %cr0
	ljmpl	*AT(jump32)

	.code32
start32:
	movl	$0x18, %eax
	movl	%eax, %ds
	movl	%eax, %es
	movl	%eax, %ss
	movl	$X86_CR4_PAE, %eax
	movl	%eax, %cr4
	movl	AT(pml4)(%ebx), %eax
	movl	%eax, %cr3
	movl	$MSR_EFER, %ecx
	xorl	%edx, %edx
	movl	$(1 << 8), %eax		/* EFER.LME */
	wrmsr
	movl	$(X86_CR0_PG | X86_CR0_WP | X86_CR0_NE | X86_CR0_ET | X86_CR0_PE), %eax
	movl	%eax, %cr0
	ljmpl	*AT(jump64)(%ebx)

	.code64
start64:
	movl	%ebx, %ebx
	movl	$1, AT(started)(%rbx)
	movq	AT(params)(%rbx), %rsi
	movq	AT(entry)(%rbx), %rax
	xorl	%ebp, %ebp
	xorl	%edi, %edi
	jmp	*%rax

	/* struct trampoline */
	.balign 8
	.globl mortise_trampoline_data
mortise_trampoline_data:
gdt:	.quad	0
	.quad	0x00cf9b000000ffff	/* 0x08: code, 32 bits */
	.quad	0x00af9b000000ffff	/* 0x10: code, 64 bits */
	.quad	0x00cf93000000ffff	/* 0x18: data */
entry:	.quad	0
params:	.quad	0
pml4:	.long	0
started:
	.long	0
gdt_pointer:
	.word	31
	.long	AT(gdt)			/* the page's address is added to these three */
jump32:	.long	AT(start32)
	.word	0x08
jump64:	.long	AT(start64)
	.word	0x10
	.globl mortise_trampoline_end
mortise_trampoline_end:
