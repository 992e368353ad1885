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

static LIST_HEAD(mt_instances);
static DEFINE_SPINLOCK(mt_instances_lock);
static u32 mt_count;
static bool mt_host_down, mt_host_asleep;	/* or soon; under the lock, too */
static struct workqueue_struct *mt_queue;
static u32 mt_refusals;	/* MORTISE_NO_*, but for what can change */
static int mt_doorbell;	/* its IRQ */
static u32 mt_doorbell_vector;

bool mortise_unsigned_allowed(void)
{
	return allow_unsigned;
}

/* ---- what this host is ---- */

/*
 * With interrupt remapping, there is a domain between the vectors and those of MSIs
 * and of I/O APICs. The latter have the legacy interrupts, which exist for good.
 */
static bool mt_has_remapping(void)
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

static u32 __init mt_find_refusals(void)
{
	u32 r = 0;

	if (x2apic_enabled())
		r |= MORTISE_NO_X2APIC;
	if (mt_has_remapping())
		r |= MORTISE_NO_REMAPPING;
	if (cc_platform_has(CC_ATTR_MEM_ENCRYPT))
		r |= MORTISE_NO_ENCRYPTION;
	if (!tsc_khz)
		r |= MORTISE_NO_TSC;
	if (mortise_low_init())
		r |= MORTISE_NO_LOW;
	return r;
}

static u32 mt_refusals_now(void)
{
	return mt_refusals | (check_tsc_unstable() ? MORTISE_NO_TSC : 0);
}

/* ---- guests that have something to say ---- */

static void mt_look_at_all(void)
{
	struct mortise *m;
	unsigned long flags;

	spin_lock_irqsave(&mt_instances_lock, flags);
	list_for_each_entry(m, &mt_instances, link) {
		if (smp_load_acquire(&m->state) != MORTISE_RUNNING) /* its zone is made */
			continue;
		wake_up_all(&m->wait);
		if (READ_ONCE(m->zone->state) <= TENON_STATE_ALIVE)
			continue;
		kref_get(&m->refs);
		if (!queue_work(mt_queue, &m->work))
			mortise_put(m);	/* not the last one: the list has one */
	}
	spin_unlock_irqrestore(&mt_instances_lock, flags);
}

static irqreturn_t mt_doorbell_irq(int irq, void *unused)
{
	mt_look_at_all();
	return IRQ_HANDLED;
}

/* A guest that lost its doorbell, or never had one, is noticed by this; see mt_enlist(). */
#define WATCH_INTERVAL (HZ / 10)

static void mt_watch(struct timer_list *t)
{
	mt_look_at_all();
	if (READ_ONCE(mt_count))
		mod_timer(t, jiffies + WATCH_INTERVAL);
}

static DEFINE_TIMER(mt_watch_timer, mt_watch);

/*
 * The doorbell is a vector of the boot CPU, which is never lent. No device sends
 * it: guests do, by their local APICs. It must not move, so nobody may balance it.
 */
static int __init mt_make_doorbell(void)
{
	struct irq_alloc_info info = { .mask = cpumask_of(0) };
	int ret;

	mt_doorbell = irq_domain_alloc_irqs(x86_vector_domain, 1, NUMA_NO_NODE, &info);
	if (mt_doorbell < 0)
		return mt_doorbell;
	irq_set_handler(mt_doorbell, handle_edge_irq);
	ret = request_irq(mt_doorbell, mt_doorbell_irq, IRQF_NOBALANCING | IRQF_NO_THREAD,
			  "mortise", &mt_instances);
	if (ret) {
		irq_dispose_mapping(mt_doorbell);
		return ret;
	}
	mt_doorbell_vector = irqd_cfg(irq_get_irq_data(mt_doorbell))->vector;
	return 0;
}

static void mt_free_doorbell(void)
{
	free_irq(mt_doorbell, &mt_instances);
	irq_dispose_mapping(mt_doorbell);
}

u32 mortise_doorbell_apicid(void)
{
	return mortise_cpu_apicid(0);
}

u32 mortise_doorbell_vector(void)
{
	return mt_doorbell_vector;
}

/* ---- the list ---- */

/* Returns an instance with a reference for the caller, or NULL. */
static struct mortise *mt_find_instance(const char *name)
{
	struct mortise *m, *found = NULL;

	spin_lock_irq(&mt_instances_lock);
	list_for_each_entry(m, &mt_instances, link) {
		if (!strcmp(m->name, name)) {
			kref_get(&m->refs);
			found = m;
			break;
		}
	}
	spin_unlock_irq(&mt_instances_lock);
	return found;
}

/* As long as an instance is in the list, the module stays. */
static int mt_enlist(struct mortise *m)
{
	struct mortise *other;
	int ret = 0;

	spin_lock_irq(&mt_instances_lock);
	list_for_each_entry(other, &mt_instances, link) {
		if (!strcmp(other->name, m->name))
			ret = -EEXIST;
	}
	if (!ret && (mt_host_down || mt_host_asleep))
		ret = -ESHUTDOWN;
	if (!ret && mt_count == MORTISE_INSTANCES)
		ret = -ENOSPC;
	if (!ret) {
		kref_get(&m->refs);
		list_add_tail(&m->link, &mt_instances);
		mt_count++;
		__module_get(THIS_MODULE);
		mod_timer(&mt_watch_timer, jiffies + WATCH_INTERVAL);
	}
	spin_unlock_irq(&mt_instances_lock);
	return ret;
}

/* The caller has a reference of its own, and one of the module. */
void mortise_unlist(struct mortise *m)
{
	spin_lock_irq(&mt_instances_lock);
	list_del_init(&m->link);
	mt_count--;
	spin_unlock_irq(&mt_instances_lock);
	mortise_put(m);
	module_put(THIS_MODULE);
}

/* ---- /dev/mortise ---- */

static bool mt_valid_name(const char *name)
{
	size_t n = strnlen(name, MORTISE_NAME), i;

	if (!n || n == MORTISE_NAME)
		return false;
	for (i = 0; i < n; i++)
		if (!isascii(name[i]) || (!isalnum(name[i]) && !strchr("._-", name[i])))
			return false;
	return true;
}

static int mt_create(const char *name)
{
	struct mortise *m;
	int ret;

	if (mt_refusals_now())
		return -EOPNOTSUPP;
	m = mortise_new(name);
	if (IS_ERR(m))
		return PTR_ERR(m);
	ret = mt_enlist(m);
	if (ret) {
		mortise_low_free(m->low);
		mortise_put(m);
		return ret;
	}
	/* Without a descriptor it goes on to exist: somebody may open it. */
	return mortise_fd(m);
}

static int mt_open_or_create(unsigned int cmd, unsigned long user)
{
	struct mortise_name arg;
	struct mortise *m;

	if (copy_from_user(&arg, (void __user *)user, sizeof(arg)))
		return -EFAULT;
	if (arg.version != MORTISE_VERSION)
		return -EPROTO;
	if (arg.reserved || !mt_valid_name(arg.name))
		return -EINVAL;
	if (cmd == MORTISE_CREATE)
		return mt_create(arg.name);
	m = mt_find_instance(arg.name);
	return m ? mortise_fd(m) : -ENOENT;
}

static int mt_info(unsigned long user)
{
	struct mortise_info info;

	if (copy_from_user(&info, (void __user *)user, sizeof(info)))
		return -EFAULT;
	if (info.version != MORTISE_VERSION)
		return -EPROTO;
	info = (struct mortise_info){
		.version = MORTISE_VERSION,
		.refusals = mt_refusals_now(),
		.unsigned_allowed = allow_unsigned,
		.locked = !!security_locked_down(LOCKDOWN_KEXEC),
		.pieces = mortise_low_pieces(),
		.instances = READ_ONCE(mt_count),
	};
	return copy_to_user((void __user *)user, &info, sizeof(info)) ? -EFAULT : 0;
}

static int mt_list(unsigned long user)
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
	spin_lock_irq(&mt_instances_lock);
	list_for_each_entry(m, &mt_instances, link)
		strscpy(l->names[l->count++], m->name, MORTISE_NAME);
	spin_unlock_irq(&mt_instances_lock);
	if (copy_to_user((void __user *)user, l, sizeof(*l)))
		ret = -EFAULT;
out:
	kfree(l);
	return ret;
}

static long mt_device_ioctl(struct file *file, unsigned int cmd, unsigned long user)
{
	switch (cmd) {
	case MORTISE_INFO:
		return mt_info(user);
	case MORTISE_LIST:
		return mt_list(user);
	case MORTISE_CREATE:
	case MORTISE_OPEN:
		return mt_open_or_create(cmd, user);
	}
	return -ENOTTY;
}

/* As for kexec. */
static int mt_device_open(struct inode *inode, struct file *file)
{
	return capable(CAP_SYS_BOOT) ? 0 : -EPERM;
}

static const struct file_operations mt_device_ops = {
	.owner = THIS_MODULE,
	.open = mt_device_open,
	.unlocked_ioctl = mt_device_ioctl,
	.llseek = noop_llseek,
};

static struct miscdevice mt_device = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "mortise",
	.fops = &mt_device_ops,
	.mode = 0600,
};

/* ---- when the host goes down ---- */

/* A kernel that comes after this one would use the guests' memory. */
static int mt_reboot_notify(struct notifier_block *nb, unsigned long action, void *data)
{
	struct mortise *m;

	spin_lock_irq(&mt_instances_lock);
	mt_host_down = true;
	while (!list_empty(&mt_instances)) {
		m = list_first_entry(&mt_instances, struct mortise, link);
		kref_get(&m->refs);
		list_del_init(&m->link);
		spin_unlock_irq(&mt_instances_lock);
		mortise_down(m);
		mortise_put(m);
		spin_lock_irq(&mt_instances_lock);
	}
	spin_unlock_irq(&mt_instances_lock);
	return NOTIFY_DONE;
}

static struct notifier_block mt_reboot_notifier = { .notifier_call = mt_reboot_notify };

/* Nobody would save a guest. */
static int mt_pm_notify(struct notifier_block *nb, unsigned long action, void *data)
{
	bool prepares = action == PM_SUSPEND_PREPARE || action == PM_HIBERNATION_PREPARE ||
			action == PM_RESTORE_PREPARE;
	bool refused;

	spin_lock_irq(&mt_instances_lock);
	refused = prepares && mt_count;
	mt_host_asleep = prepares && !refused;
	spin_unlock_irq(&mt_instances_lock);
	if (!refused)
		return NOTIFY_DONE;
	pr_notice("refused to sleep, as there are instances\n");
	return notifier_from_errno(-EBUSY);
}

static struct notifier_block mt_pm_notifier = { .notifier_call = mt_pm_notify };

/* ---- module ---- */

static int __init mortise_init(void)
{
	int ret;

	mt_refusals = mt_find_refusals();
	ret = mortise_cpu_init();
	if (ret)
		return ret;
	ret = -ENOMEM;
	mt_queue = alloc_workqueue("mortise", 0, 0);
	if (!mt_queue)
		goto out_cpu;
	ret = mt_make_doorbell();
	if (ret)
		goto out_queue;
	ret = register_reboot_notifier(&mt_reboot_notifier);
	if (ret)
		goto out_doorbell;
	ret = register_pm_notifier(&mt_pm_notifier);
	if (ret)
		goto out_reboot;
	ret = misc_register(&mt_device);
	if (ret)
		goto out_sleep;
	return 0;

out_sleep:
	unregister_pm_notifier(&mt_pm_notifier);
out_reboot:
	unregister_reboot_notifier(&mt_reboot_notifier);
out_doorbell:
	mt_free_doorbell();
out_queue:
	destroy_workqueue(mt_queue);
out_cpu:
	mortise_cpu_exit();
	return ret;
}

/* Nobody has an instance: each keeps the module. */
static void __exit mortise_exit(void)
{
	misc_deregister(&mt_device);
	del_timer_sync(&mt_watch_timer);
	unregister_pm_notifier(&mt_pm_notifier);
	unregister_reboot_notifier(&mt_reboot_notifier);
	mt_free_doorbell();
	destroy_workqueue(mt_queue);	/* with work of instances that are gone */
	mortise_cpu_exit();
}

module_init(mortise_init);
module_exit(mortise_exit);
MODULE_DESCRIPTION("Runs a second kernel beside this one");
MODULE_LICENSE("GPL");
MODULE_VERSION("1");
