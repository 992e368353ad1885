// SPDX-License-Identifier: GPL-2.0-only
/*
 * mortise: runs a second kernel beside this one, on CPUs and memory that this
 * one does not use meanwhile. See docs/cokernel.md.
 */
#include <linux/cc_platform.h>
#include <linux/ctype.h>
#include <linux/irq.h>
#include <linux/irqdomain.h>
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/msi.h>
#include <linux/pci.h>
#include <linux/security.h>
#include <linux/slab.h>
#include <linux/uaccess.h>
#include <asm/apic.h>
#include <asm/i8259.h>
#include <asm/irqdomain.h>
#include <asm/tsc.h>

#include "internal.h"

static bool allow_unsigned;
module_param(allow_unsigned, bool, 0400);
MODULE_PARM_DESC(allow_unsigned, "run images without a signature, where the kernel is not locked down (default: no)");

static u32 mort_refusals;	/* MORTISE_NO_*, but for what can change */

bool mortise_unsigned_allowed(void)
{
	return allow_unsigned;
}

/* ---- what this host is ---- */

/*
 * With interrupt remapping, there is a domain between the vectors and those of MSIs
 * and of I/O APICs. The latter have the legacy interrupts, which exist for good.
 */
static bool mort_has_remapping(void)
{
	struct pci_dev *dev = NULL;
	bool found = false;
	int irq;

	for_each_pci_dev(dev) {
		struct irq_domain *d = dev_get_msi_domain(&dev->dev);

		found |= d && d != x86_vector_domain && d->parent != x86_vector_domain;
	}
	for (irq = 0; irq < nr_legacy_irqs(); irq++) {
		struct irq_data *data = irq_get_irq_data(irq);

		if (data && data->parent_data)
			found |= data->parent_data->domain != x86_vector_domain;
	}
	return found;
}

static u32 __init mort_find_refusals(void)
{
	u32 r = 0;

	if (x2apic_enabled())
		r |= MORTISE_NO_X2APIC;
	if (mort_has_remapping())
		r |= MORTISE_NO_REMAPPING;
	if (cc_platform_has(CC_ATTR_MEM_ENCRYPT))
		r |= MORTISE_NO_ENCRYPTION;
	if (!tsc_khz)
		r |= MORTISE_NO_TSC;
	if (mortise_low_init())
		r |= MORTISE_NO_LOW;
	return r;
}

static u32 mort_refusals_now(void)
{
	return mort_refusals | (check_tsc_unstable() ? MORTISE_NO_TSC : 0);
}

/* ---- /dev/mortise ---- */

static bool mort_valid_name(const char *name)
{
	size_t n = strnlen(name, MORTISE_NAME), i;

	if (!n || n == MORTISE_NAME)
		return false;
	for (i = 0; i < n; i++)
		if (!isascii(name[i]) || (!isalnum(name[i]) && !strchr("._-", name[i])))
			return false;
	return true;
}

static int mort_create(const char *name)
{
	struct mortise *m;
	int ret;

	if (mort_refusals_now())
		return -EOPNOTSUPP;
	m = mortise_new(name);
	if (IS_ERR(m))
		return PTR_ERR(m);
	ret = mortise_enlist(m);
	if (ret) {
		mortise_low_free(m->low);
		mortise_put(m);
		return ret;
	}
	/* Without a descriptor it goes on to exist: somebody may open it. */
	return mortise_fd(m);
}

static int mort_open_or_create(unsigned int cmd, unsigned long user)
{
	struct mortise_name arg;
	struct mortise *m;

	if (copy_from_user(&arg, (void __user *)user, sizeof(arg)))
		return -EFAULT;
	if (arg.version != MORTISE_VERSION)
		return -EPROTO;
	if (arg.reserved || !mort_valid_name(arg.name))
		return -EINVAL;
	if (cmd == MORTISE_CREATE)
		return mort_create(arg.name);
	m = mortise_find(arg.name);
	return m ? mortise_fd(m) : -ENOENT;
}

static int mort_info(unsigned long user)
{
	struct mortise_info info;

	if (copy_from_user(&info, (void __user *)user, sizeof(info)))
		return -EFAULT;
	if (info.version != MORTISE_VERSION)
		return -EPROTO;
	info = (struct mortise_info){
		.version = MORTISE_VERSION,
		.refusals = mort_refusals_now(),
		.unsigned_allowed = allow_unsigned,
		.locked = !!security_locked_down(LOCKDOWN_KEXEC),
		.pieces = mortise_low_pieces(),
		.instances = mortise_count(),
	};
	return copy_to_user((void __user *)user, &info, sizeof(info)) ? -EFAULT : 0;
}

static int mort_list(unsigned long user)
{
	struct mortise_list *l;
	int ret = 0;

	l = memdup_user((void __user *)user, sizeof(*l));
	if (IS_ERR(l))
		return PTR_ERR(l);
	if (l->version != MORTISE_VERSION) {
		ret = -EPROTO;
		goto out;
	}
	memset(l, 0, sizeof(*l));
	l->version = MORTISE_VERSION;
	mortise_list_names(l);
	if (copy_to_user((void __user *)user, l, sizeof(*l)))
		ret = -EFAULT;
out:
	kfree(l);
	return ret;
}

static long mort_device_ioctl(struct file *file, unsigned int cmd, unsigned long user)
{
	switch (cmd) {
	case MORTISE_INFO:
		return mort_info(user);
	case MORTISE_LIST:
		return mort_list(user);
	case MORTISE_CREATE:
	case MORTISE_OPEN:
		return mort_open_or_create(cmd, user);
	}
	return -ENOTTY;
}

/* As for kexec. */
static int mort_device_open(struct inode *inode, struct file *file)
{
	return capable(CAP_SYS_BOOT) ? 0 : -EPERM;
}

static const struct file_operations mort_device_ops = {
	.owner = THIS_MODULE,
	.open = mort_device_open,
	.unlocked_ioctl = mort_device_ioctl,
	.llseek = noop_llseek,
};

static struct miscdevice mort_device = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "mortise",
	.fops = &mort_device_ops,
	.mode = 0600,
};

/* ---- module ---- */

static int __init mortise_init(void)
{
	int ret;

	mort_refusals = mort_find_refusals();
	ret = mortise_cpu_init();
	if (ret)
		return ret;
	ret = mortise_list_init();
	if (ret)
		goto out_cpu;
	ret = mortise_doorbell_init();
	if (ret)
		goto out_list;
	ret = misc_register(&mort_device);
	if (ret)
		goto out_doorbell;
	return 0;

out_doorbell:
	mortise_doorbell_exit();
out_list:
	mortise_list_exit();
out_cpu:
	mortise_cpu_exit();
	return ret;
}

/* Nobody has an instance: each keeps the module. */
static void __exit mortise_exit(void)
{
	misc_deregister(&mort_device);
	mortise_doorbell_exit();
	mortise_list_exit();
	mortise_cpu_exit();
}

module_init(mortise_init);
module_exit(mortise_exit);
MODULE_DESCRIPTION("Runs a second kernel beside this one");
MODULE_LICENSE("GPL");
MODULE_VERSION("2");
