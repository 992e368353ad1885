// SPDX-License-Identifier: Apache-2.0

package qemu

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/tenon-build/tenon/loader/alloc"
	"github.com/tenon-build/tenon/loader/control"
)

// resizeTimeout is how long the guest may take, and again for going back.
const resizeTimeout = 10 * time.Second

// Resize adds or removes vCPUs, and pins all in the order of cpus. With as many CPUs as
// before it pins them and no more, which is wanted after each change of the control
// group: before Linux 6.2, that resets what its threads are pinned to.
func (i *instance) Resize(ctx context.Context, cpus alloc.CPUSet) error {
	i.resizing.Lock()
	defer i.resizing.Unlock()
	if i.monitor == nil {
		return errors.New("an instance without a plan, or that was not started, cannot be resized")
	}
	if n := len(cpus); n < 1 || n > i.config.MaxCPUs {
		return fmt.Errorf("an instance of at most %d CPUs cannot be resized to %d", i.config.MaxCPUs, n)
	}
	err := i.resize(ctx, cpus)
	if err == nil {
		i.cpus = cpus
		return nil
	}
	ctx = context.WithoutCancel(ctx)
	if back := i.resize(ctx, i.cpus); back != nil {
		_ = i.pin(ctx, i.cpus) // whatever vCPUs there are
		return fmt.Errorf("%w, and going back to CPUs %s failed: %w", err, i.cpus, back)
	}
	return err
}

// resize begins from whatever vCPUs there are.
func (i *instance) resize(ctx context.Context, cpus alloc.CPUSet) error {
	ctx, cancel := context.WithTimeout(ctx, resizeTimeout)
	defer cancel()
	slots, err := i.slots(ctx)
	if err != nil {
		return err
	}
	if len(slots) < len(cpus) {
		return fmt.Errorf("QEMU has %d slots for %d CPUs", len(slots), len(cpus))
	}
	for _, s := range slots[:len(cpus)] {
		if s.Path == "" {
			if err := i.plug(ctx, s); err != nil {
				return err
			}
		}
	}
	surplus := slices.DeleteFunc(slots[len(cpus):], func(s slot) bool { return s.Path == "" })
	if len(surplus) == 0 {
		if err := i.pin(ctx, cpus); err != nil {
			return err
		}
		return i.tell(ctx, len(cpus))
	}
	if err := i.tell(ctx, len(cpus)); err != nil {
		return err
	}
	for _, s := range slices.Backward(surplus) {
		if err := i.monitor.unplug(ctx, s.Path); err != nil {
			return err
		}
	}
	return i.pin(ctx, cpus)
}

// slot is where a vCPU is or can be. The core's number is also that of the vCPU, here
// and in the guest, as there is one socket of cores with one thread each.
type slot struct {
	Type  string         `json:"type"`
	Path  string         `json:"qom-path"` // empty where none is
	Props map[string]int `json:"props"`
}

func (s slot) core() int { return s.Props["core-id"] }

// slots returns all that the machine has, by number.
func (i *instance) slots(ctx context.Context) ([]slot, error) {
	var slots []slot
	err := i.monitor.execute(ctx, "query-hotpluggable-cpus", nil, &slots)
	slices.SortFunc(slots, func(a, b slot) int { return cmp.Compare(a.core(), b.core()) })
	return slots, err
}

// plug adds a vCPU. The guest's kernel sees it, and does not use it yet.
func (i *instance) plug(ctx context.Context, s slot) error {
	arguments := map[string]any{"driver": s.Type, "id": fmt.Sprintf("cpu%d", s.core())}
	for name, value := range s.Props {
		arguments[name] = value
	}
	return i.monitor.execute(ctx, "device_add", arguments, nil)
}

// tell has PID 1 use n CPUs, and returns why it does not.
func (i *instance) tell(ctx context.Context, n int) error {
	answers, err := i.ask(n)
	if err != nil {
		return fmt.Errorf("the guest cannot be asked: %w", err)
	}
	select {
	case r := <-answers:
		if r.Error != "" {
			return fmt.Errorf("the guest says: %s", r.Error)
		}
		return nil
	case <-i.exited:
		return errors.New("the guest is gone")
	case <-ctx.Done():
		return fmt.Errorf("the guest does not answer: %w", context.Cause(ctx))
	}
}

func (i *instance) ask(n int) (<-chan *control.Resized, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if !i.configured {
		return nil, errors.New("it is still booting")
	}
	i.asked, i.answers = n, make(chan *control.Resized, 1)
	return i.answers, i.send(&control.Message{Resize: &control.Resize{CPUs: n}})
}
