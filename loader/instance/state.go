// SPDX-License-Identifier: Apache-2.0

package instance

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/tenon-build/tenon/loader/control"
)

// State is where an instance is in its life.
//
//	created ──► loaded ──► running ──► stopped
//	            loaded ──────────────► stopped
//	created, loaded, running ────────► failed
//	stopped, failed ─────────────────► loaded
type State string

// The states.
const (
	Created State = "created" // it is recorded; what it needs may be held
	Loaded  State = "loaded"  // the back end has it; it has not started yet
	Running State = "running" // its kernel was started
	Stopped State = "stopped" // it ended and said how, or was stopped
	Failed  State = "failed"  // it ended otherwise; Record.Reason says how
)

// transitions says which states lead to one, and what that step is called. The first
// one is the usual, which errors name.
var transitions = map[State]struct {
	verb string
	from []State
}{
	Created: {"create", nil},
	Loaded:  {"load", []State{Created, Stopped, Failed}},
	Running: {"start", []State{Loaded}},
	Stopped: {"stop", []State{Running, Loaded}},
	Failed:  {"fail", []State{Running, Loaded, Created}},
}

// TransitionError says that the state of an instance does not allow what was asked
// for.
type TransitionError struct {
	Name  string
	Verb  string // what was asked for
	State State  // what it is
	Want  State  // what it should be; empty where no state allows it
}

// Error names the instance, its state, and the one that was needed.
func (e *TransitionError) Error() string {
	text := fmt.Sprintf("instance %q: cannot %s: it is %s", e.Name, e.Verb, e.State)
	if e.Want != "" {
		text += ", not " + string(e.Want)
	}
	return text
}

// CheckState returns a *TransitionError unless the instance is in one of the states. The
// error names the first.
func (r *Record) CheckState(verb string, states ...State) error {
	if slices.Contains(states, r.State) {
		return nil
	}
	e := &TransitionError{Name: r.Name, Verb: verb, State: r.State}
	if len(states) > 0 {
		e.Want = states[0]
	}
	return e
}

// Transition goes to another state and keeps when that was. The error is a
// *TransitionError. To fail, call Fail, which also takes the reason. Who loads an
// instance sets its Supervisor, too; what was kept of a run before is cleared.
func (r *Record) Transition(to State, at time.Time) error {
	step, known := transitions[to]
	if !known {
		return fmt.Errorf("instance %q: there is no state %q", r.Name, string(to))
	}
	if err := r.CheckState(step.verb, step.from...); err != nil {
		return err
	}
	r.State = to
	switch to {
	case Loaded:
		r.Started, r.Ended, r.Exit, r.Reason, r.Health = time.Time{}, time.Time{}, nil, "", nil
		r.Starts++
	case Running:
		r.Started = at.UTC()
	case Stopped, Failed:
		r.Ended = at.UTC()
	}
	return nil
}

// Fail goes to the state Failed. Of the reason, which must not be empty, one
// printable line is kept.
func (r *Record) Fail(reason string, at time.Time) error {
	if err := r.Transition(Failed, at); err != nil {
		return err
	}
	r.Reason = control.Line(reason)
	return nil
}

// ErrHolding says that an instance holds something that has to be given back first.
var ErrHolding = errors.New("still holds CPUs, memory or devices")

// ErrUnattended says that an instance runs, and nobody looks after it who could be asked.
var ErrUnattended = errors.New("nobody attends to it")

// ErrAttended says that an instance has a supervisor.
var ErrAttended = errors.New("it is attended to already")

// Unattended says whether the instance runs without a supervisor, which was killed.
func (r *Record) Unattended() bool { return r.State == Running && r.Supervisor == nil }

// CheckAttendable says why nobody can attend to an instance: it does not run, which is a
// *TransitionError, or it has a supervisor, which wraps ErrAttended.
func (r *Record) CheckAttendable() error {
	if err := r.CheckState("attend to", Running); err != nil {
		return err
	}
	if r.Supervisor != nil {
		return fmt.Errorf("instance %q: %w, by process %d", r.Name, ErrAttended, r.Supervisor.PID)
	}
	return nil
}

// CheckStartable says why an instance cannot be started: it is loaded or running, which is a
// *TransitionError, or is still being given back, which wraps ErrHolding.
func (r *Record) CheckStartable() error {
	if err := r.CheckState("start", Created, Stopped, Failed); err != nil {
		return err
	}
	if !r.Held.Empty() {
		return fmt.Errorf("instance %q: cannot start: it %w", r.Name, ErrHolding)
	}
	return nil
}

// CheckRemovable says why an instance must not be removed: it is loaded or running, which
// is a *TransitionError, or it holds something, which wraps ErrHolding.
func (r *Record) CheckRemovable() error {
	if err := r.CheckState("remove", Stopped, Failed, Created); err != nil {
		return err
	}
	if !r.Held.Empty() {
		return fmt.Errorf("instance %q: cannot remove: it %w", r.Name, ErrHolding)
	}
	return nil
}
