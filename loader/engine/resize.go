// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"context"
	"errors"
	"fmt"

	"github.com/tenon-build/tenon/loader/alloc"
	"github.com/tenon-build/tenon/loader/instance"
)

// resize gives the instance more CPUs, or takes some back. The instance keeps those
// that it has: they are taken before it gets them, and given back after it gave them up.
func (s *supervisor) resize(ctx context.Context, cpus int) error {
	s.holding.Lock()
	defer s.holding.Unlock()
	if s.over {
		return fmt.Errorf("instance %q: cannot resize: it has ended", s.name)
	}
	if !s.want.backend.Can().Resize {
		return fmt.Errorf("%w: %s cannot resize", ErrBackend, s.want.backend.Name())
	}
	request, before := s.want.request, s.plan
	request.CPUs, request.CPUList, request.Keep = cpus, nil, before
	planned := func(others []alloc.Holding) (*alloc.Plan, error) { return s.planned(request, others) }
	apply := func(plan func([]alloc.Holding) (*alloc.Plan, error)) error {
		report, err := s.Host().Apply(s.name, func(others []alloc.Holding, _ *alloc.Plan) (p *alloc.Plan, err error) {
			if p, err = plan(others); err == nil {
				s.plan = p
			}
			return p, err
		})
		if err != nil {
			s.plan = before
			return unwrapPlan(err)
		}
		s.taken = report
		_, err = s.update(func(r *instance.Record) error { r.Held = heldOf(s.plan); return nil })
		return err
	}
	// Before Linux 6.2 a change of the group resets what threads are pinned to, so that
	// the instance pins them after each.
	use := func(p *alloc.Plan) error {
		if err := s.instance.Resize(ctx, p); err != nil {
			return fmt.Errorf("instance %q: cannot resize: %w", s.name, err)
		}
		return nil
	}
	if cpus < len(before.CPUs) {
		p, err := planned(nil) // of its own, which nobody else can have
		if err == nil {
			err = use(p)
		}
		if err == nil {
			err = apply(func([]alloc.Holding) (*alloc.Plan, error) { return p, nil })
		}
		if err != nil {
			return err
		}
		return use(p)
	}
	if err := apply(planned); err != nil {
		return err
	}
	err := use(s.plan)
	if err != nil {
		err = errors.Join(err, apply(func([]alloc.Holding) (*alloc.Plan, error) { return before, nil }), use(before))
	}
	return err
}

// guard takes the CPUs again where somebody took the partition away: systemd does, when
// it thinks that nobody uses the cpuset controller.
func (s *supervisor) guard() error {
	s.holding.Lock()
	defer s.holding.Unlock()
	if s.over || s.Host().Intact(s.name, s.plan, s.taken) {
		return nil
	}
	_, err := s.Host().Apply(s.name, func([]alloc.Holding, *alloc.Plan) (*alloc.Plan, error) { return s.plan, nil })
	if err != nil {
		return err
	}
	s.Log.Warn("the instance's CPUs were taken again: somebody had changed their control group")
	if !s.want.backend.Can().Resize {
		return nil
	}
	return s.instance.Resize(context.Background(), s.plan) // it pins, too
}
