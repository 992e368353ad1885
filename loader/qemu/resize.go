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
)

// resizeTimeout is how long QEMU and the guest may take, and again for going back.
const resizeTimeout = 10 * time.Second

// Resize adds vCPUs, or has the guest take the last ones offline, and pins all in the
// order of the plan. With as many CPUs as before it pins them again, which is wanted after
// each change of the control group: before Linux 6.2, that resets what threads are
// pinned to.
//
// A vCPU that is offline stays for the next time, confined to the instance's CPUs. It is
// not unplugged: under emulation, QEMU 7.2 never says that a CPU is gone, and aborts with
// a broken heap when it is added again.
func (i *instance) Resize(ctx context.Context, p *alloc.Plan) error {
	i.resizing.Lock()
	defer i.resizing.Unlock()
	if i.monitor == nil {
		return errors.New("an instance without a plan, or that was not started, cannot be resized")
	}
	if n := len(p.CPUs); n < 1 || n > i.config.MaxCPUs {
		return fmt.Errorf("an instance of at most %d CPUs cannot be resized to %d", i.config.MaxCPUs, n)
	}
	err := i.resize(ctx, p.CPUs)
	if err == nil {
		i.cpus = p.CPUs
		return nil
	}
	if back := i.resize(context.WithoutCancel(ctx), i.cpus); back != nil {
		return fmt.Errorf("%w, and going back to CPUs %s failed: %w", err, i.cpus, back)
	}
	return err
}

func (i *instance) resize(ctx context.Context, cpus alloc.CPUSet) error {
	ctx, cancel := context.WithTimeout(ctx, resizeTimeout)
	defer cancel()
	if err := i.plug(ctx, len(cpus)); err != nil {
		return err
	}
	if err := i.pin(ctx, cpus); err != nil {
		return err
	}
	return i.tell(ctx, len(cpus))
}

// slot is where a vCPU is or can be.
type slot struct {
	Type  string         `json:"type"`
	Path  string         `json:"qom-path"` // empty where none is
	Props map[string]int `json:"props"`
}

// number is that of the vCPU, here and in the guest: there is one socket of cores with
// one thread each.
func (s slot) number() int { return s.Props["core-id"] }

// plug adds what is missing of the first n vCPUs. The guest's kernel sees them, and does
// not use them yet.
func (i *instance) plug(ctx context.Context, n int) error {
	var slots []slot
	if err := i.monitor.execute(ctx, "query-hotpluggable-cpus", nil, &slots); err != nil {
		return err
	}
	slices.SortFunc(slots, func(a, b slot) int { return cmp.Compare(a.number(), b.number()) })
	for _, s := range slots {
		if s.Path != "" || s.number() >= n {
			continue
		}
		arguments := map[string]any{"driver": s.Type, "id": fmt.Sprintf("cpu%d", s.number())}
		for name, value := range s.Props {
			arguments[name] = value
		}
		if err := i.monitor.execute(ctx, "device_add", arguments, nil); err != nil {
			return err
		}
	}
	return nil
}

// tell has PID 1 use n CPUs, and returns why it does not.
func (i *instance) tell(ctx context.Context, n int) error {
	answers, err := i.Session.Resize(n)
	if err != nil {
		return fmt.Errorf("the guest cannot be asked: %w", err)
	}
	select {
	case r := <-answers:
		if r.Error != "" {
			return fmt.Errorf("the guest says: %s", r.Error)
		}
		return nil
	case <-i.Ended():
		return errors.New("the guest is gone")
	case <-ctx.Done():
		return fmt.Errorf("the guest does not answer: %w", context.Cause(ctx))
	}
}
