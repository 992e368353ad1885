// SPDX-License-Identifier: Apache-2.0

package instance

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Reconcile finds instances that nobody looks after: the supervisor is gone, or the
// host was rebooted. Those that had not ended become failed, but for running ones of
// which lives says that they go on: they are Unattended. It returns the records of
// all that have ended, hold something, and have nobody who would give it back. Whoever
// does that, under the directory's lock, then clears Held and Supervisor by Update.
// Until then, every Reconcile returns the same. Instances that cannot be judged do not
// hide the others: the error joins one error for each.
func (s *Store) Reconcile(ctx context.Context, now time.Time, lives func(*Record) bool) ([]*Record, error) {
	boot, err := bootID()
	if err != nil {
		return nil, err
	}
	records, err := s.List()
	errs := []error{err}
	var out []*Record
	for _, r := range records {
		orphan, err := s.reconcile(ctx, r, boot, now, lives)
		if err == nil && orphan && !r.Held.Empty() {
			out = append(out, r)
		}
		errs = append(errs, err)
	}
	return out, errors.Join(errs...)
}

// reconcile says whether an instance has ended and has nobody. It updates r.
func (s *Store) reconcile(ctx context.Context, r *Record, boot string, now time.Time, lives func(*Record) bool) (orphan bool, err error) {
	reason, err := r.abandoned(boot)
	if err != nil || reason == "" || r.ended() {
		return reason != "", err
	}
	alive := r.State == Running && reason != rebooted && lives(r)
	if alive && r.Unattended() {
		return false, nil
	}
	changed, err := s.Update(ctx, r.Name, func(r *Record) error {
		reason, err = r.abandoned(boot) // somebody may have been faster
		if err != nil || reason == "" || r.ended() {
			return err
		}
		if alive {
			r.Supervisor, r.BootID = nil, boot
			return nil
		}
		return r.Fail(reason, now)
	})
	if errors.Is(err, ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	*r = *changed
	return reason != "" && !alive, nil
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
