// SPDX-License-Identifier: GPL-2.0-only
/* The list of instances, and what looks at all of them: the watch, and the notifiers. */
#include <linux/list.h>
#include <linux/module.h>
#include <linux/reboot.h>
#include <linux/spinlock.h>
#include <linux/suspend.h>
#include <linux/timer.h>

#include "internal.h"

static LIST_HEAD(mort_instances);
static DEFINE_SPINLOCK(mort_instances_lock);
static u32 mort_count;
static bool mort_host_down, mort_host_asleep;	/* or soon; under the lock, too */
static struct workqueue_struct *mort_queue;

/* ---- guests that have something to say ---- */

void mortise_look_at_all(void)
{
	struct mortise *m;
	unsigned long flags;

	spin_lock_irqsave(&mort_instances_lock, flags);
	list_for_each_entry(m, &mort_instances, link) {
		if (smp_load_acquire(&m->state) != MORTISE_RUNNING) /* its zone is made */
			continue;
		wake_up_all(&m->wait);
		if (READ_ONCE(m->zone->state) <= TENON_STATE_ALIVE)
			continue;
		kref_get(&m->refs);
		if (!queue_work(mort_queue, &m->work))
			mortise_put(m);	/* not the last one: the list has one */
	}
	spin_unlock_irqrestore(&mort_instances_lock, flags);
}

/* A guest that lost its doorbell, or never had one, is noticed by this; see mortise_enlist(). */
#define WATCH_INTERVAL (HZ / 10)

static void mort_watch(struct timer_list *t)
{
	mortise_look_at_all();
	if (READ_ONCE(mort_count))
		mod_timer(t, jiffies + WATCH_INTERVAL);
}

static DEFINE_TIMER(mort_watch_timer, mort_watch);

/* ---- the list ---- */

/* Returns an instance with a reference for the caller, or NULL. */
struct mortise *mortise_find(const char *name)
{
	struct mortise *m, *found = NULL;

	spin_lock_irq(&mort_instances_lock);
	list_for_each_entry(m, &mort_instances, link) {
		if (!strcmp(m->name, name)) {
			kref_get(&m->refs);
			found = m;
			break;
		}
	}
	spin_unlock_irq(&mort_instances_lock);
	return found;
}

/* As long as an instance is in the list, the module stays. */
int mortise_enlist(struct mortise *m)
{
	struct mortise *other;
	int ret = 0;

	spin_lock_irq(&mort_instances_lock);
	list_for_each_entry(other, &mort_instances, link) {
		if (!strcmp(other->name, m->name))
			ret = -EEXIST;
	}
	if (!ret && (mort_host_down || mort_host_asleep))
		ret = -ESHUTDOWN;
	if (!ret && mort_count == MORTISE_INSTANCES)
		ret = -ENOSPC;
	if (!ret) {
		kref_get(&m->refs);
		list_add_tail(&m->link, &mort_instances);
		mort_count++;
		__module_get(THIS_MODULE);
		mod_timer(&mort_watch_timer, jiffies + WATCH_INTERVAL);
	}
	spin_unlock_irq(&mort_instances_lock);
	return ret;
}

/* The caller has a reference of its own, and one of the module. */
void mortise_unlist(struct mortise *m)
{
	spin_lock_irq(&mort_instances_lock);
	list_del_init(&m->link);
	mort_count--;
	spin_unlock_irq(&mort_instances_lock);
	mortise_put(m);
	module_put(THIS_MODULE);
}

/* Adds the names of all instances. */
void mortise_list_names(struct mortise_list *l)
{
	struct mortise *m;

	spin_lock_irq(&mort_instances_lock);
	list_for_each_entry(m, &mort_instances, link)
		strscpy(l->names[l->count++], m->name, MORTISE_NAME);
	spin_unlock_irq(&mort_instances_lock);
}

u32 mortise_count(void)
{
	return READ_ONCE(mort_count);
}

/* ---- when the host goes down ---- */

/* A kernel that comes after this one would use the guests' memory. */
static int mort_reboot_notify(struct notifier_block *nb, unsigned long action, void *data)
{
	struct mortise *m;

	spin_lock_irq(&mort_instances_lock);
	mort_host_down = true;
	while (!list_empty(&mort_instances)) {
		m = list_first_entry(&mort_instances, struct mortise, link);
		kref_get(&m->refs);
		list_del_init(&m->link);
		spin_unlock_irq(&mort_instances_lock);
		mortise_down(m);
		mortise_put(m);
		spin_lock_irq(&mort_instances_lock);
	}
	spin_unlock_irq(&mort_instances_lock);
	return NOTIFY_DONE;
}

static struct notifier_block mort_reboot_notifier = { .notifier_call = mort_reboot_notify };

/* Nobody would save a guest. */
static int mort_pm_notify(struct notifier_block *nb, unsigned long action, void *data)
{
	bool prepares = action == PM_SUSPEND_PREPARE || action == PM_HIBERNATION_PREPARE ||
			action == PM_RESTORE_PREPARE;
	bool refused;

	spin_lock_irq(&mort_instances_lock);
	refused = prepares && mort_count;
	mort_host_asleep = prepares && !refused;
	spin_unlock_irq(&mort_instances_lock);
	if (!refused)
		return NOTIFY_DONE;
	pr_notice("refused to sleep, as there are instances\n");
	return notifier_from_errno(-EBUSY);
}

static struct notifier_block mort_pm_notifier = { .notifier_call = mort_pm_notify };

int __init mortise_list_init(void)
{
	int ret;

	mort_queue = alloc_workqueue("mortise", 0, 0);
	if (!mort_queue)
		return -ENOMEM;
	ret = register_reboot_notifier(&mort_reboot_notifier);
	if (ret)
		goto out_queue;
	ret = register_pm_notifier(&mort_pm_notifier);
	if (ret)
		goto out_reboot;
	return 0;

out_reboot:
	unregister_reboot_notifier(&mort_reboot_notifier);
out_queue:
	destroy_workqueue(mort_queue);
	return ret;
}

/* The list is empty. */
void mortise_list_exit(void)
{
	del_timer_sync(&mort_watch_timer);
	unregister_pm_notifier(&mort_pm_notifier);
	unregister_reboot_notifier(&mort_reboot_notifier);
	destroy_workqueue(mort_queue);	/* with work of instances that are gone */
}
