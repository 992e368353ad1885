// SPDX-License-Identifier: GPL-2.0-only
/*
 * mortise: runs a second kernel beside this one, on CPUs and memory that this
 * one does not use meanwhile. See docs/cokernel.md.
 */
#include <linux/cc_platform.h>
#include <linux/ctype.h>
#include <linux/interrupt.h>
#include <linux/irq.h>
#include <linux/irqdomain.h>
#include <linux/list.h>
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/msi.h>
#include <linux/pci.h>
#include <linux/reboot.h>
#include <linux/security.h>
#include <linux/slab.h>
#include <linux/suspend.h>
#include <linux/timer.h>
#include <linux/uaccess.h>
#include <asm/apic.h>
#include <asm/hw_irq.h>
#include <asm/i8259.h>
#include <asm/irqdomain.h>
#include <asm/tsc.h>

#include "internal.h"

static bool allow_unsigned;
module_param(allow_unsigned, bool, 0400);
MODULE_PARM_DESC(allow_unsigned, "run images without a signature, where the kernel is not locked down (default: no)");

static LIST_HEAD(instances);
static DEFINE_SPINLOCK(instances_lock);
static u32 count;
static bool host_down, host_asleep;	/* or soon; under the lock, too */
static struct workqueue_struct *looking;
static u32 refusals;	/* MORTISE_NO_*, but for what can change */
static int doorbell;	/* its IRQ */
static u32 doorbell_vector;

bool mortise_unsigned_allowed(void)
{
	return allow_unsigned;
}

/* ---- what this host is ---- */

/*
 * With interrupt remapping, there is a domain between the vectors and those of MSIs
 * and of I/O APICs. The latter have the legacy interrupts, which exist for good.
 */
static bool has_remapping(void)
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

static u32 __init find_refusals(void)
{
	u32 r = 0;

	if (x2apic_enabled())
		r |= MORTISE_NO_X2APIC;
	if (has_remapping())
		r |= MORTISE_NO_REMAPPING;
	if (cc_platform_has(CC_ATTR_MEM_ENCRYPT))
		r |= MORTISE_NO_ENCRYPTION;
	if (!tsc_khz)
		r |= MORTISE_NO_TSC;
	if (mortise_low_init())
		r |= MORTISE_NO_LOW;
	return r;
}

static u32 refusals_now(void)
{
	return refusals | (check_tsc_unstable() ? MORTISE_NO_TSC : 0);
}

/* ---- guests that have something to say ---- */

static void look_at_all(void)
{
	struct mortise *m;
	unsigned long flags;

	spin_lock_irqsave(&instances_lock, flags);
	list_for_each_entry(m, &instances, link) {
		if (smp_load_acquire(&m->state) != MORTISE_RUNNING) /* its zone is made */
			continue;
		wake_up_all(&m->wait);
		if (READ_ONCE(m->zone->state) <= TENON_STATE_ALIVE)
			continue;
		kref_get(&m->refs);
		if (!queue_work(looking, &m->work))
			mortise_put(m);	/* not the last one: the list has one */
	}
	spin_unlock_irqrestore(&instances_lock, flags);
}

static irqreturn_t ring(int irq, void *unused)
{
	look_at_all();
	return IRQ_HANDLED;
}

/* A guest that lost its doorbell, or never had one, is noticed by this; see enlist(). */
#define WATCH_INTERVAL (HZ / 10)

static void watch(struct timer_list *t)
{
	look_at_all();
	if (READ_ONCE(count))
		mod_timer(t, jiffies + WATCH_INTERVAL);
}

static DEFINE_TIMER(watch_timer, watch);

/*
 * The doorbell is a vector of the boot CPU, which is never lent. No device sends
 * it: guests do, by their local APICs. It must not move, so nobody may balance it.
 */
static int __init make_doorbell(void)
{
	struct irq_alloc_info info = { .mask = cpumask_of(0) };
	int ret;

	doorbell = irq_domain_alloc_irqs(x86_vector_domain, 1, NUMA_NO_NODE, &info);
	if (doorbell < 0)
		return doorbell;
	irq_set_handler(doorbell, handle_edge_irq);
	ret = request_irq(doorbell, ring, IRQF_NOBALANCING | IRQF_NO_THREAD, "mortise", &instances);
	if (ret) {
		irq_dispose_mapping(doorbell);
		return ret;
	}
	doorbell_vector = irqd_cfg(irq_get_irq_data(doorbell))->vector;
	return 0;
}

static void free_doorbell(void)
{
	free_irq(doorbell, &instances);
	irq_dispose_mapping(doorbell);
}

u32 mortise_doorbell_apicid(void)
{
	return mortise_cpu_apicid(0);
}

u32 mortise_doorbell_vector(void)
{
	return doorbell_vector;
}

/* ---- the list ---- */

/* Returns an instance with a reference for the caller, or NULL. */
static struct mortise *find(const char *name)
{
	struct mortise *m, *found = NULL;

	spin_lock_irq(&instances_lock);
	list_for_each_entry(m, &instances, link) {
		if (!strcmp(m->name, name)) {
			kref_get(&m->refs);
			found = m;
			break;
		}
	}
	spin_unlock_irq(&instances_lock);
	return found;
}

/* As long as an instance is in the list, the module stays. */
static int enlist(struct mortise *m)
{
	struct mortise *other;
	int ret = 0;

	spin_lock_irq(&instances_lock);
	list_for_each_entry(other, &instances, link) {
		if (!strcmp(other->name, m->name))
			ret = -EEXIST;
	}
	if (!ret && (host_down || host_asleep))
		ret = -ESHUTDOWN;
	if (!ret && count == MORTISE_INSTANCES)
		ret = -ENOSPC;
	if (!ret) {
		kref_get(&m->refs);
		list_add_tail(&m->link, &instances);
		count++;
		__module_get(THIS_MODULE);
		mod_timer(&watch_timer, jiffies + WATCH_INTERVAL);
	}
	spin_unlock_irq(&instances_lock);
	return ret;
}

/* The caller has a reference of its own, and one of the module. */
void mortise_unlist(struct mortise *m)
{
	spin_lock_irq(&instances_lock);
	list_del_init(&m->link);
	count--;
	spin_unlock_irq(&instances_lock);
	mortise_put(m);
	module_put(THIS_MODULE);
}

/* ---- /dev/mortise ---- */

static bool valid_name(const char *name)
{
	size_t n = strnlen(name, MORTISE_NAME), i;

	if (!n || n == MORTISE_NAME)
		return false;
	for (i = 0; i < n; i++)
		if (!isascii(name[i]) || (!isalnum(name[i]) && !strchr("._-", name[i])))
			return false;
	return true;
}

static int create(const char *name)
{
	struct mortise *m;
	int ret;

	if (refusals_now())
		return -EOPNOTSUPP;
	m = mortise_new(name);
	if (IS_ERR(m))
		return PTR_ERR(m);
	ret = enlist(m);
	if (ret) {
		mortise_low_free(m->low);
		mortise_put(m);
		return ret;
	}
	/* Without a descriptor it goes on to exist: somebody may open it. */
	return mortise_fd(m);
}

static int open_or_create(unsigned int cmd, unsigned long user)
{
	struct mortise_name arg;
	struct mortise *m;

	if (copy_from_user(&arg, (void __user *)user, sizeof(arg)))
		return -EFAULT;
	if (arg.version != MORTISE_VERSION)
		return -EPROTO;
	if (arg.reserved || !valid_name(arg.name))
		return -EINVAL;
	if (cmd == MORTISE_CREATE)
		return create(arg.name);
	m = find(arg.name);
	return m ? mortise_fd(m) : -ENOENT;
}

static int info(unsigned long user)
{
	struct mortise_info info;

	if (copy_from_user(&info, (void __user *)user, sizeof(info)))
		return -EFAULT;
	if (info.version != MORTISE_VERSION)
		return -EPROTO;
	info = (struct mortise_info){
		.version = MORTISE_VERSION,
		.refusals = refusals_now(),
		.unsigned_allowed = allow_unsigned,
		.locked = !!security_locked_down(LOCKDOWN_KEXEC),
		.pieces = mortise_low_pieces(),
		.instances = READ_ONCE(count),
	};
	return copy_to_user((void __user *)user, &info, sizeof(info)) ? -EFAULT : 0;
}

static int list(unsigned long user)
{
	struct mortise_list *l;
	struct mortise *m;
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
	spin_lock_irq(&instances_lock);
	list_for_each_entry(m, &instances, link)
		strscpy(l->names[l->count++], m->name, MORTISE_NAME);
	spin_unlock_irq(&instances_lock);
	if (copy_to_user((void __user *)user, l, sizeof(*l)))
		ret = -EFAULT;
out:
	kfree(l);
	return ret;
}

static long device_ioctl(struct file *file, unsigned int cmd, unsigned long user)
{
	switch (cmd) {
	case MORTISE_INFO:
		return info(user);
	case MORTISE_LIST:
		return list(user);
	case MORTISE_CREATE:
	case MORTISE_OPEN:
		return open_or_create(cmd, user);
	}
	return -ENOTTY;
}

/* As for kexec. */
static int device_open(struct inode *inode, struct file *file)
{
	return capable(CAP_SYS_BOOT) ? 0 : -EPERM;
}

static const struct file_operations device_ops = {
	.owner = THIS_MODULE,
	.open = device_open,
	.unlocked_ioctl = device_ioctl,
	.llseek = noop_llseek,
};

static struct miscdevice device = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "mortise",
	.fops = &device_ops,
	.mode = 0600,
};

/* ---- when the host goes down ---- */

/* A kernel that comes after this one would use the guests' memory. */
static int reboots(struct notifier_block *nb, unsigned long action, void *data)
{
	struct mortise *m;

	spin_lock_irq(&instances_lock);
	host_down = true;
	while (!list_empty(&instances)) {
		m = list_first_entry(&instances, struct mortise, link);
		kref_get(&m->refs);
		list_del_init(&m->link);
		spin_unlock_irq(&instances_lock);
		mortise_down(m);
		mortise_put(m);
		spin_lock_irq(&instances_lock);
	}
	spin_unlock_irq(&instances_lock);
	return NOTIFY_DONE;
}

static struct notifier_block reboot_notifier = { .notifier_call = reboots };

/* Nobody would save a guest. */
static int sleeps(struct notifier_block *nb, unsigned long action, void *data)
{
	bool prepares = action == PM_SUSPEND_PREPARE || action == PM_HIBERNATION_PREPARE ||
			action == PM_RESTORE_PREPARE;
	bool refused;

	spin_lock_irq(&instances_lock);
	refused = prepares && count;
	host_asleep = prepares && !refused;
	spin_unlock_irq(&instances_lock);
	if (!refused)
		return NOTIFY_DONE;
	pr_notice("refused to sleep, as there are instances\n");
	return notifier_from_errno(-EBUSY);
}

static struct notifier_block sleep_notifier = { .notifier_call = sleeps };

/* ---- module ---- */

static int __init mortise_init(void)
{
	int ret;

	refusals = find_refusals();
	ret = mortise_cpu_init();
	if (ret)
		return ret;
	ret = -ENOMEM;
	looking = alloc_workqueue("mortise", 0, 0);
	if (!looking)
		goto out_cpu;
	ret = make_doorbell();
	if (ret)
		goto out_queue;
	ret = register_reboot_notifier(&reboot_notifier);
	if (ret)
		goto out_doorbell;
	ret = register_pm_notifier(&sleep_notifier);
	if (ret)
		goto out_reboot;
	ret = misc_register(&device);
	if (ret)
		goto out_sleep;
	return 0;

out_sleep:
	unregister_pm_notifier(&sleep_notifier);
out_reboot:
	unregister_reboot_notifier(&reboot_notifier);
out_doorbell:
	free_doorbell();
out_queue:
	destroy_workqueue(looking);
out_cpu:
	mortise_cpu_exit();
	return ret;
}

/* Nobody has an instance: each keeps the module. */
static void __exit mortise_exit(void)
{
	misc_deregister(&device);
	del_timer_sync(&watch_timer);
	unregister_pm_notifier(&sleep_notifier);
	unregister_reboot_notifier(&reboot_notifier);
	free_doorbell();
	destroy_workqueue(looking);	/* with work of instances that are gone */
	mortise_cpu_exit();
}

module_init(mortise_init);
module_exit(mortise_exit);
MODULE_DESCRIPTION("Runs a second kernel beside this one");
MODULE_LICENSE("GPL");
MODULE_VERSION("1");
