// SPDX-License-Identifier: GPL-2.0-only
/*
 * Loading an image: into the guest's memory, once, where it is hashed and where
 * it will run from. What of it the host believes is checked here.
 */
#include <linux/file.h>
#include <linux/io.h>
#include <linux/kernel_read_file.h>
#include <linux/mm.h>
#include <linux/pgtable.h>
#include <linux/uaccess.h>
#include <asm/bootparam.h>
#include <asm/e820/types.h>
#include <asm/setup.h>

#include "internal.h"

/* What is read of an image before it is known how large its setup is. */
#define PEEK	sizeof(struct setup_header)
#define SETUP	offsetof(struct boot_params, hdr)

/* Bytes of the real-mode part, which the rest follows. */
static size_t mort_setup_size(const struct setup_header *h)
{
	return ((h->setup_sects ?: 4) + 1) * 512;
}

static int mort_peek_header(struct file *file, struct setup_header *h)
{
	loff_t pos = SETUP;
	ssize_t n = kernel_read(file, h, PEEK, &pos);

	if (n < 0)
		return n;
	return n == PEEK ? 0 : -ENOEXEC;
}

/* Where the header ends: there its jump leads to. */
static size_t mort_header_end(const struct setup_header *h)
{
	return 0x202 + (h->jump >> 8);
}

/* Documentation/x86/boot.rst, "The Real-Mode Kernel Header". */
static int mort_check_header(const struct setup_header *h, size_t size)
{
	if (h->boot_flag != 0xaa55 || h->header != 0x53726448 || h->version < 0x20c)
		return -ENOEXEC;
	if (mort_header_end(h) < SETUP + offsetofend(struct setup_header, init_size))
		return -ENOEXEC;
	if (!(h->loadflags & LOADED_HIGH) || !h->relocatable_kernel ||
	    !(h->xloadflags & XLF_KERNEL_64))
		return -ENOEXEC;
	if (!is_power_of_2(h->kernel_alignment) || h->kernel_alignment > SZ_1G)
		return -ENOEXEC;
	if (size <= mort_setup_size(h) + KERNEL_ENTRY || h->init_size < size - mort_setup_size(h))
		return -ENOEXEC;
	return 0;
}

/*
 * Where in a range the kernel can be: aligned, with the setup before it, and with
 * room for what it unpacks. Or 0.
 */
static phys_addr_t mort_find_place(const struct mortise_range *r, const struct setup_header *h)
{
	u64 end = r->start + r->bytes;
	u64 at = ALIGN(max(r->start + mort_setup_size(h), h->pref_address), h->kernel_alignment);

	return h->pref_address < end && at + h->init_size <= end ? at : 0;
}

/* Where an initrd can be: at the end of a range, behind the kernel if that is in it. Or 0. */
static phys_addr_t mort_find_room(struct mortise *m, size_t size, phys_addr_t kernel_end)
{
	u32 i;

	for (i = m->range_count; i-- > 0;) {
		const struct mortise_range *r = &m->ranges[i];
		phys_addr_t start = r->start, end = r->start + r->bytes;

		if (kernel_end > start && kernel_end <= end)
			start = PAGE_ALIGN(kernel_end);
		if (start < end && end - start >= PAGE_ALIGN(size))
			return end - PAGE_ALIGN(size);
	}
	return 0;
}

/* Where both can be: the kernel in the first range that leaves room for the initrd. */
static int mort_find_places(struct mortise *m, const struct setup_header *h, size_t initrd_size,
			    phys_addr_t *at, phys_addr_t *initrd_at)
{
	u32 i;

	for (i = 0; i < m->range_count; i++) {
		*at = mort_find_place(&m->ranges[i], h);
		if (!*at)
			continue;
		*initrd_at = mort_find_room(m, initrd_size, *at + h->init_size);
		if (*initrd_at || !initrd_size)
			return 0;
	}
	return -ENOSPC;
}

/* There is room for that many bytes: the file may be larger by now. */
static int mort_read_initrd(struct boot_params *bp, phys_addr_t at, size_t room, struct file *file)
{
	void *to = phys_to_virt(at);
	ssize_t n = kernel_read_file(file, 0, &to, room, NULL, READING_KEXEC_INITRAMFS);

	if (n < 0)
		return n;
	bp->hdr.ramdisk_image = lower_32_bits(at);
	bp->ext_ramdisk_image = upper_32_bits(at);
	bp->hdr.ramdisk_size = lower_32_bits(n);
	bp->ext_ramdisk_size = upper_32_bits((u64)n);
	return 0;
}

static int mort_load_files(struct mortise *m, const struct mortise_load *load,
			   struct file *image, struct file *initrd)
{
	void *area = m->zone;
	struct boot_params *bp = area + AREA_PARAMS;
	struct setup_header h;
	size_t initrd_size = initrd ? i_size_read(file_inode(initrd)) : 0;
	phys_addr_t at, initrd_at;
	ssize_t size;
	void *to;
	int ret;

	ret = mort_peek_header(image, &h);
	if (ret)
		return ret;
	size = i_size_read(file_inode(image));
	ret = mort_check_header(&h, size);
	if (ret)
		return ret;
	ret = mort_find_places(m, &h, initrd_size, &at, &initrd_at);
	if (ret)
		return ret;
	to = phys_to_virt(at) - mort_setup_size(&h);
	size = kernel_read_file(image, 0, &to, mort_setup_size(&h) + h.init_size, NULL,
				READING_KEXEC_IMAGE);
	if (size < 0)
		return size;
	/* From here on, what is in memory counts: it does not change any more. */
	if (memcmp(to + SETUP, &h, PEEK))
		return -EAGAIN;
	ret = mort_check_header(&h, size);
	if (!ret)
		ret = mortise_verify(to, size, !(load->flags & MORTISE_LOAD_DETACHED),
				     u64_to_user_ptr(load->statement), load->statement_size);
	if (ret)
		return ret;

	memset(bp, 0, sizeof(*bp));
	memcpy(&bp->hdr, &h, min_t(size_t, sizeof(h), mort_header_end(&h) - SETUP));
	bp->hdr.type_of_loader = 0xff;	/* none of the assigned ones */
	bp->hdr.loadflags &= ~CAN_USE_HEAP;
	m->entry = at + KERNEL_ENTRY;
	if (initrd)
		return mort_read_initrd(bp, initrd_at, initrd_size, initrd);
	return 0;
}

/* Reading anything but a regular file may take forever. */
static int mort_check_file(struct file *file)
{
	if (!(file->f_mode & FMODE_READ))
		return -EBADF;
	return S_ISREG(file_inode(file)->i_mode) ? 0 : -EINVAL;
}

static int mort_copy_cmdline(struct mortise *m, const struct mortise_load *load)
{
	char *to = (void *)m->zone + AREA_CMDLINE;

	memset(to, 0, PAGE_SIZE);
	if (copy_from_user(to, u64_to_user_ptr(load->cmdline), load->cmdline_size))
		return -EFAULT;
	return 0;
}

/**
 * mortise_load() - loads an image
 * @m: the instance, with memory, and not started; loading, which nobody else does
 * @load: what user space asks for
 *
 * Return: 0; -EINVAL, -EBADF, -EFAULT for what user space says, -ENOEXEC for a
 * file that is no relocatable 64-bit bzImage, -ENOSPC when no range is large
 * enough, -EAGAIN when the file changed meanwhile, as kernel_read_file() (-EFBIG,
 * -EIO, -ETXTBSY), or as mortise_verify().
 */
int mortise_load(struct mortise *m, const struct mortise_load *load)
{
	bool detached = load->flags & MORTISE_LOAD_DETACHED;
	struct fd image = {}, initrd = {};
	int ret;

	if (load->flags & ~MORTISE_LOAD_DETACHED || load->reserved ||
	    load->cmdline_size > MORTISE_CMDLINE ||
	    (!detached && load->cmdline_size) ||
	    !load->possible_cpus || load->possible_cpus > MORTISE_CPUS)
		return -EINVAL;
	image = fdget(load->image_fd);
	if (!image.file)
		return -EBADF;
	if (load->initrd_fd != -1) {
		initrd = fdget(load->initrd_fd);
		if (!initrd.file) {
			ret = -EBADF;
			goto out;
		}
	}
	ret = mort_check_file(image.file);
	if (!ret && initrd.file)
		ret = mort_check_file(initrd.file);
	if (ret)
		goto out;
	ret = mort_copy_cmdline(m, load);
	if (!ret)
		ret = mort_load_files(m, load, image.file, initrd.file);
	if (!ret)
		m->possible = load->possible_cpus;
out:
	fdput(initrd);
	fdput(image);
	return ret;
}
