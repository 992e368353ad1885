// SPDX-License-Identifier: Apache-2.0

package instance

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// Reconcile finds instances that nobody looks after: the supervisor is gone, or the
// host was rebooted. Those that had not ended become failed, but for running ones of
// which lives says that they go on: they are Unattended.
//
// What has ended, has nobody, and holds something, is given to free, all at once, before
// anything of it is noted; free may be nil. It returns the errors by name of what is still
// held. What is not, is noted as given back. Whoever gives free has the directory's lock.
//
// left are those that still hold something: every Reconcile finds them again. An instance that cannot
// be judged, or noted, is in sick, by name, and hides no other. Where the disk is too full to
// note what has ended and holds nothing, that error wraps ErrUnnoted.
func (s *Store) Reconcile(ctx context.Context, now time.Time, lives func(*Record) bool, free func([]*Record) map[string]error) (left []*Record, sick map[string]error, err error) {
	boot, err := bootID()
	if err != nil {
		return nil, nil, err
	}
	names, err := s.Names()
	if err != nil {
		return nil, nil, err
	}
	sick = map[string]error{}
	var ended, holding []*Record
	for _, name := range names {
		r, err := s.Get(name)
		orphan := false
		if err == nil {
			orphan, err = s.judge(ctx, r, boot, lives)
		}
		if err != nil && !errors.Is(err, ErrNotFound) { // somebody removed it meanwhile
			sick[name] = err
		}
		if !orphan {
			continue
		}
		ended = append(ended, r)
		if !r.Held.Empty() {
			holding = append(holding, r)
		}
	}
	kept := map[string]error{}
	if free != nil && len(holding) > 0 {
		kept = free(holding)
	}
	for _, r := range ended {
		freed := r.Held.Empty() || free != nil && kept[r.Name] == nil
		if err := s.noteEnd(ctx, r, boot, now, freed); err != nil {
			sick[r.Name] = err
		} else if !freed {
			left = append(left, r)
		}
	}
	return left, sick, nil
}

// judge says whether an instance has ended and has nobody. It updates r.
func (s *Store) judge(ctx context.Context, r *Record, boot string, lives func(*Record) bool) (orphan bool, err error) {
	reason, err := r.abandoned(boot)
	if err != nil || reason == "" || r.ended() {
		return reason != "", err
	}
	if r.State != Running || reason == rebooted || !lives(r) {
		return true, nil
	}
	if r.Unattended() {
		return false, nil
	}
	changed, err := s.Update(ctx, r.Name, func(r *Record) error {
		reason, err := r.abandoned(boot) // somebody may have been faster
		if err == nil && reason != "" && !r.ended() {
			r.Supervisor, r.BootID = nil, boot
		}
		return err
	})
	if err == nil {
		*r = *changed
	}
	return false, err
}

// ErrUnnoted says that an instance has ended and holds nothing, and that its record, on a
// full disk, does not say so.
var ErrUnnoted = errors.New("which cannot be noted")

// noteEnd notes that an instance has ended, and, if freed, that it holds nothing. It updates r.
func (s *Store) noteEnd(ctx context.Context, r *Record, boot string, now time.Time, freed bool) error {
	if r.ended() && (r.Held.Empty() || !freed) {
		return nil
	}
	var reason string
	changed, err := s.Update(ctx, r.Name, func(r *Record) (err error) {
		if reason, err = r.abandoned(boot); err != nil || reason == "" { // somebody was faster
			return err
		}
		if !r.ended() {
			err = r.Fail(reason, now)
		}
		if freed {
			r.Held, r.Supervisor = Held{}, nil
		}
		return err
	})
	switch {
	case errors.Is(err, ErrNotFound):
		return nil
	case freed && (errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT)):
		return fmt.Errorf("instance %q: %s, %w: %w", r.Name, reason, ErrUnnoted, reasonOf(err))
	case err == nil:
		*r = *changed
	}
	return err
}

// reasonOf takes off what an error of Update says of its instance and files.
func reasonOf(err error) error {
	var errno unix.Errno
	if errors.As(err, &errno) {
		return errno
	}
	return err
}

const rebooted = "the host was rebooted"

func (r *Record) ended() bool { return r.State == Stopped || r.State == Failed }

// abandoned says why nobody looks after an instance; empty when somebody does, or
// nobody has to.
func (r *Record) abandoned(boot string) (reason string, err error) {
	switch {
	case r.Supervisor == nil && r.State == Created:
		if r.BootID != boot && !r.Held.Empty() {
			reason = rebooted
		}
	case r.Unattended() && r.BootID != boot:
		reason = rebooted
	case r.Unattended():
		reason = "it ended while nobody attended to it"
	case r.Supervisor == nil:
		reason = "it has no supervisor"
	case r.Supervisor.BootID != boot:
		reason = rebooted
	default:
		alive, err := r.Supervisor.Alive()
		if err != nil {
			return "", named(r.Name, err)
		}
		if !alive {
			reason = fmt.Sprintf("its supervisor, process %d, is gone", r.Supervisor.PID)
		}
	}
	return reason, nil
}
