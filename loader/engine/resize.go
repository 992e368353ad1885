// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/tenon-build/tenon/loader/alloc"
	"github.com/tenon-build/tenon/loader/instance"
)

// resize gives the instance more CPUs, or takes some back. The instance keeps those
// that it has: they are taken before it gets them, and given back after it gave them up.
func (s *supervisor) resize(ctx context.Context, cpus int) error {
	s.holding.Lock()
	defer s.holding.Unlock()
	if s.is(returning) {
		return fmt.Errorf("instance %q: cannot resize: it has ended", s.name)
	}
	if !s.want.backend.Can().Resize {
		return fmt.Errorf("%w: %s cannot resize", ErrBackend, s.want.backend.Name())
	}
	request := s.want.request
	request.CPUs, request.CPUList, request.Keep = cpus, nil, s.plan
	if cpus < len(s.plan.CPUs) {
		return s.shrink(ctx, request)
	}
	return s.grow(ctx, request)
}

func (s *supervisor) shrink(ctx context.Context, request alloc.Request) error {
	p, err := s.planned(request, nil) // of its own, which nobody else can have
	if err == nil {
		err = s.use(ctx, p)
	}
	if err == nil {
		err = s.hold(ctx, p)
	}
	if err != nil {
		return err
	}
	return s.use(ctx, p)
}

func (s *supervisor) grow(ctx context.Context, request alloc.Request) error {
	taking, err := s.Host().Begin(ctx, s.name)
	if err != nil {
		return err
	}
	defer taking.Close()
	p, err := s.planned(request, taking.Others)
	if err != nil {
		return err
	}
	before := s.plan
	if err := s.commit(taking, p); err != nil {
		return err
	}
	if err := s.use(ctx, p); err != nil {
		return errors.Join(err, s.hold(context.WithoutCancel(ctx), before), s.use(ctx, before))
	}
	return nil
}

// use has the instance use the CPUs of a plan. Before Linux 6.2 a change of the group
// resets what threads are pinned to, so that the instance pins them after each.
func (s *supervisor) use(ctx context.Context, p *alloc.Plan) error {
	if err := s.instance.Resize(ctx, p); err != nil {
		return fmt.Errorf("instance %q: cannot resize: %w", s.name, err)
	}
	return nil
}

// hold holds what a plan of the instance's own says.
func (s *supervisor) hold(ctx context.Context, p *alloc.Plan) error {
	taking, err := s.Host().Begin(ctx, s.name)
	if err != nil {
		return err
	}
	return s.commit(taking, p)
}

// commit takes what a plan says, and notes it.
func (s *supervisor) commit(taking *alloc.Taking, p *alloc.Plan) error {
	report, err := taking.Commit(p)
	if err != nil {
		return err
	}
	s.plan, s.taken = p, report
	_, err = s.update(func(r *instance.Record) error { r.Held = heldOf(p); return nil })
	return err
}

// guardPatience is how long guard waits for others: it is called again.
const guardPatience = time.Second

// guard takes the CPUs again where somebody took the partition away: systemd does, when
// it thinks that nobody uses the cpuset controller.
func (s *supervisor) guard() error {
	s.holding.Lock()
	defer s.holding.Unlock()
	if s.is(returning) || s.Host().Intact(s.name, s.plan, s.taken) {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), guardPatience)
	defer cancel()
	taking, err := s.Host().Begin(ctx, s.name)
	if err != nil {
		return err
	}
	report, err := taking.Commit(s.plan)
	if err != nil { // it is tried again, and compared with what was taken first
		return err
	}
	s.taken = report
	s.Log.Warn("the instance's CPUs were taken again: somebody had changed their control group")
	if !s.want.backend.Can().Resize {
		return nil
	}
	return s.instance.Resize(context.Background(), s.plan) // it pins, too
}
