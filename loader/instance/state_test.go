// SPDX-License-Identifier: Apache-2.0

package instance

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/tenon-build/tenon/loader/control"
)

var states = []State{Created, Loaded, Running, Stopped, Failed}

// in returns a record in a state.
func in(s State) *Record {
	r := full()
	r.State = s
	if !r.ended() {
		r.Ended, r.Exit = time.Time{}, nil
	}
	if s != Failed {
		r.Reason = ""
	}
	return r
}

// All pairs of states: empty is allowed, else the error.
func TestTransitions(t *testing.T) {
	table := map[State]map[State]string{
		Created: {
			Created: "cannot create: it is created",
			Loaded:  "",
			Running: "cannot start: it is created, not loaded",
			Stopped: "cannot stop: it is created, not running",
			Failed:  "",
		},
		Loaded: {
			Created: "cannot create: it is loaded",
			Loaded:  "cannot load: it is loaded, not created",
			Running: "",
			Stopped: "",
			Failed:  "",
		},
		Running: {
			Created: "cannot create: it is running",
			Loaded:  "cannot load: it is running, not created",
			Running: "cannot start: it is running, not loaded",
			Stopped: "",
			Failed:  "",
		},
		Stopped: {
			Created: "cannot create: it is stopped",
			Loaded:  "",
			Running: "cannot start: it is stopped, not loaded",
			Stopped: "cannot stop: it is stopped, not running",
			Failed:  "cannot fail: it is stopped, not running",
		},
		Failed: {
			Created: "cannot create: it is failed",
			Loaded:  "",
			Running: "cannot start: it is failed, not loaded",
			Stopped: "cannot stop: it is failed, not running",
			Failed:  "cannot fail: it is failed, not running",
		},
	}
	for _, from := range states {
		for _, to := range states {
			want, listed := table[from][to]
			if !listed {
				t.Errorf("%s to %s: not in the table", from, to)
			}
			r := in(from)
			if err := r.check(); err != nil {
				t.Fatal(from, err)
			}
			var err error
			if to == Failed {
				err = r.Fail("on\nfire", day)
			} else {
				err = r.Transition(to, day)
			}
			if want == "" {
				if err != nil || r.State != to {
					t.Errorf("%s to %s: %v, %s", from, to, err, r.State)
				}
				if err := r.check(); err != nil {
					t.Errorf("%s to %s: %v", from, to, err)
				}
				continue
			}
			var e *TransitionError
			if !errors.As(err, &e) || err.Error() != `instance "web": `+want || e.State != from || r.State != from {
				t.Errorf("%s to %s: %v, %s", from, to, err, r.State)
			}
		}
		if err := in(from).Transition("gone", day); err == nil || err.Error() != `instance "web": there is no state "gone"` {
			t.Errorf("%s: %v", from, err)
		}
	}
}

// What was kept of a run is cleared when the next one begins, and not before.
func TestStartedAgain(t *testing.T) {
	r := in(Failed)
	later := day.Add(time.Hour).In(time.FixedZone("", 3600))
	if err := r.Transition(Loaded, later); err != nil {
		t.Fatal(err)
	}
	if !r.Started.IsZero() || !r.Ended.IsZero() || r.Exit != nil || r.Reason != "" || r.Health != nil || r.Held.CPUs != "2-3,8" {
		t.Errorf("%+v", r)
	}
	if err := r.Transition(Running, later); err != nil || r.Started.String() != "2026-03-01 13:00:00 +0000 UTC" {
		t.Errorf("%v, %s", err, r.Started)
	}
	r.Exit, r.Health = &control.Exit{Code: 3}, &control.Health{Status: "healthy"}
	if err := r.Transition(Stopped, later.Add(time.Second)); err != nil || r.Exit.Code != 3 || r.Health == nil || r.Ended.Sub(r.Started) != time.Second {
		t.Errorf("%v, %+v", err, r)
	}
	if err := r.check(); err != nil {
		t.Error(err)
	}
}

func TestFailKeepsOneLine(t *testing.T) {
	r := in(Running)
	if err := r.Fail("on\nfire\x1b[2J"+strings.Repeat("!", 1<<20), day); err != nil || !strings.HasPrefix(r.Reason, "on; fire?[2J!") || len(r.Reason) > 4096 {
		t.Errorf("%v, %.80s", err, r.Reason)
	}
	if err := r.check(); err != nil {
		t.Error(err)
	}
}

func TestRemovable(t *testing.T) {
	for state, want := range map[State]string{
		Created: "",
		Loaded:  `instance "web": cannot remove: it is loaded, not stopped`,
		Running: `instance "web": cannot remove: it is running, not stopped`,
		Stopped: "",
		Failed:  "",
	} {
		r := in(state)
		err := r.CheckRemovable()
		if want != "" {
			var e *TransitionError
			if !errors.As(err, &e) || err.Error() != want {
				t.Errorf("%s: %v", state, err)
			}
			continue
		}
		if !errors.Is(err, ErrHolding) || err.Error() != `instance "web": cannot remove: it still holds CPUs, memory or devices` {
			t.Errorf("%s: %v", state, err)
		}
		for _, held := range []Held{{CPUs: "1"}, {Memory: []Memory{{0, 1}}}, {Devices: []string{"0000:00:01.0"}}} {
			r.Held = held
			if err := r.CheckRemovable(); !errors.Is(err, ErrHolding) {
				t.Errorf("%s, %v: %v", state, held, err)
			}
		}
		r.Held = Held{}
		if err := r.CheckRemovable(); err != nil {
			t.Errorf("%s: %v", state, err)
		}
	}
}
