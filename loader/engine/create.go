// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/tenon-build/tenon/builder/bundle/manifest"
	"github.com/tenon-build/tenon/loader"
	"github.com/tenon-build/tenon/loader/alloc"
	"github.com/tenon-build/tenon/loader/instance"
	"github.com/tenon-build/tenon/loader/limit"
)

// Create records an instance of a bundle, which was read from ref. It holds nothing
// until it is run. What this host could never give is refused; what others hold now is
// not.
func (e *Engine) Create(ctx context.Context, name, ref string, v *loader.Verified, r instance.Request) (*instance.Record, error) {
	m := v.Manifest()
	if err := instance.CheckName(name); err != nil {
		return nil, err
	}
	if err := e.CheckPossible(name, m, &r); err != nil {
		return nil, err
	}
	l, _, err := e.lock(ctx, name)
	if err != nil {
		return nil, err
	}
	defer l.Unlock()
	record := &instance.Record{
		Name: name, Backend: m.Target, Request: r,
		Bundle: instance.Bundle{Reference: ref, Digest: v.Digest().String(), Name: m.Name, Version: m.BundleVersion, Identity: v.Identity()},
	}
	return record, l.Create(record, time.Now())
}

// CheckPossible refuses what this host could never give. What others hold now is not refused.
func (e *Engine) CheckPossible(name string, m *manifest.Manifest, r *instance.Request) error {
	if err := checkSize(r); err != nil {
		return err
	}
	if _, err := e.Plan(name, m, r); err != nil && !errors.Is(err, alloc.ErrTaken) {
		return err
	}
	return nil
}

func checkSize(r *instance.Request) error {
	data, err := json.Marshal(r)
	if err == nil && len(data) > limit.Request {
		err = fmt.Errorf("what is asked for takes %d bytes to note, at most %d: the values of parameters are too long", len(data), limit.Request)
	}
	return err
}

// RemoveOwn removes the instance that a record is of, unless another one has its name by
// now.
func (e *Engine) RemoveOwn(ctx context.Context, r *instance.Record) error {
	return e.remove(ctx, r.Name, func(l *instance.Lock, own error) error {
		now, err := e.Store().Get(r.Name)
		if errors.Is(err, instance.ErrNotFound) || err == nil && now.ID != r.ID {
			return nil
		}
		return removeOne(ctx, l, r.Name, own)
	})
}

// Remove removes an instance that does not run. With force, it is killed before, and
// one whose record cannot be used is removed, too; and a stray, by its ID. It needs no room on
// the disk.
func (e *Engine) Remove(ctx context.Context, name string, force bool) error {
	var killed error
	if force {
		killed = e.Kill(ctx, name)
		if errors.As(killed, new(*instance.TransitionError)) || errors.Is(killed, instance.ErrRecord) || errors.Is(killed, instance.ErrNotFound) {
			killed = nil
		}
	}
	err := e.remove(ctx, name, func(l *instance.Lock, own error) error {
		err := removeOne(ctx, l, name, own)
		if force && errors.Is(err, instance.ErrRecord) {
			return e.discard(ctx, l, name)
		}
		if force && errors.Is(err, instance.ErrNotFound) {
			return e.discardStray(ctx, name, err)
		}
		return err
	})
	if err != nil && killed != nil {
		return killed
	}
	return err
}

// remove calls do under the directory's lock. What was not noted of other instances on a full
// disk is noted then: there is room.
func (e *Engine) remove(ctx context.Context, name string, do func(l *instance.Lock, own error) error) error {
	l, own, err := e.lock(ctx, name)
	if err != nil {
		return err
	}
	defer l.Unlock()
	if err := do(l, own); err != nil || !errors.Is(own, instance.ErrUnnoted) {
		return err
	}
	_, err = e.recover(ctx)
	return err
}

func removeOne(ctx context.Context, l *instance.Lock, name string, own error) error {
	if errors.Is(own, instance.ErrUnnoted) {
		return l.RemoveUnnoted(name)
	}
	return l.Remove(ctx, name)
}
