// SPDX-License-Identifier: Apache-2.0

package instance

import (
	"errors"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"
)

// none lives without its supervisor.
func none(*Record) bool { return false }

func TestReconcile(t *testing.T) {
	s := newStore(t)
	self := identify(t, os.Getpid())
	cmd := asleep(t)
	dead := identify(t, cmd.Process.Pid)
	cmd.Process.Kill() //nolint:errcheck // what follows would see it
	cmd.Wait()         //nolint:errcheck
	reused := &Process{self.PID, self.Start + 1, self.BootID}
	before := &Process{self.PID, self.Start, "another boot"}
	const gone = "its supervisor, process "

	holding := Held{CPUs: "2-3"}
	tests := map[string]struct {
		state      State
		supervisor *Process
		boot       string // of creation; empty is this one
		held       Held
		want       State
		reason     string // its beginning; empty: as it was
		release    bool
	}{
		"alive.created":  {Created, self, "", holding, Created, "", false},
		"alive.loaded":   {Loaded, self, "", holding, Loaded, "", false},
		"alive.running":  {Running, self, "", holding, Running, "", false},
		"alive.stopped":  {Stopped, self, "", holding, Stopped, "", false},
		"alive.failed":   {Failed, self, "", holding, Failed, "", false},
		"dead.created":   {Created, dead, "", holding, Failed, gone, true}, // half-created
		"dead.loaded":    {Loaded, dead, "", holding, Failed, gone, true},
		"dead.running":   {Running, dead, "", holding, Failed, gone, true},
		"dead.stopped":   {Stopped, dead, "", holding, Stopped, "", true}, // before it gave back
		"dead.failed":    {Failed, dead, "", holding, Failed, "", true},
		"dead.nothing":   {Running, dead, "", Held{}, Failed, gone, false},
		"reused.running": {Running, reused, "", holding, Failed, gone, true},
		"reboot.created": {Created, before, "another boot", holding, Failed, rebooted, true},
		"reboot.running": {Running, before, "another boot", holding, Failed, rebooted, true},
		"reboot.stopped": {Stopped, before, "another boot", holding, Stopped, "", true},
		"reboot.waiting": {Created, nil, "another boot", holding, Failed, rebooted, true},
		"reboot.nothing": {Created, nil, "another boot", Held{}, Created, "", false},
		"reboot.again":   {Running, self, "another boot", holding, Running, "", false}, // started after the reboot
		"waiting":        {Created, nil, "", holding, Created, "", false},
		"nobody.stopped": {Stopped, nil, "", holding, Stopped, "", true},
		"done.stopped":   {Stopped, nil, "", Held{}, Stopped, "", false},

		// Those whose name begins with "lives" run on without a supervisor.
		"lives.running":    {Running, dead, "another boot", holding, Running, "", false},
		"lives.loaded":     {Loaded, dead, "", holding, Failed, gone, true},
		"lives.stopped":    {Stopped, dead, "", holding, Stopped, "", true},
		"lives.unattended": {Running, nil, "", holding, Running, "", false},
		"lives.rebooted":   {Running, before, "", holding, Failed, rebooted, true},
		"lives.forgotten":  {Running, nil, "another boot", holding, Failed, rebooted, true},
		"unattended":       {Running, nil, "", holding, Failed, "it ended while nobody attended to it", true},
	}
	lives := func(r *Record) bool { return strings.HasPrefix(r.Name, "lives") }
	for name, test := range tests {
		create(t, s, name)
		update(t, s, name, func(r *Record) {
			was := in(test.state)
			r.State, r.Started, r.Ended, r.Reason = was.State, was.Started, was.Ended, was.Reason
			r.Supervisor, r.Held = test.supervisor, test.held
			if test.boot != "" {
				r.BootID = test.boot
			}
		})
	}
	broken := s.Path("broken")
	if err := os.Mkdir(broken, 0o700); err != nil {
		t.Fatal(err)
	}

	later := day.Add(time.Hour)
	var last []*Record
	for round := range 3 { // the first changes, the others find the same
		release, sick, err := s.Reconcile(t.Context(), later.Add(time.Duration(round)*time.Hour), lives, nil)
		if err != nil || len(sick) != 1 {
			t.Error(sick, err)
		}
		if err := sick["broken"]; err == nil || !strings.HasPrefix(err.Error(), `instance "broken": bad record: `) || strings.Contains(err.Error(), "\n") {
			t.Errorf("broken: %v", err)
		}
		if round > 0 && !reflect.DeepEqual(release, last) {
			t.Errorf("round %d: got %v, want %v", round, release, last)
		}
		last = release
		returned := map[string]bool{}
		for _, r := range release {
			returned[r.Name] = true
		}
		for name, test := range tests {
			r, err := s.Get(name)
			if err != nil {
				t.Error(err)
				continue
			}
			if r.State != test.want || returned[name] != test.release || r.Held.CPUs != test.held.CPUs {
				t.Errorf("%s: %s, returned is %v, holds %v", name, r.State, returned[name], r.Held)
			}
			if test.reason != "" && (!strings.HasPrefix(r.Reason, test.reason) || !r.Ended.Equal(later)) {
				t.Errorf("%s: %q at %s", name, r.Reason, r.Ended)
			}
			if test.reason == "" && test.want == Failed && (r.Reason != full().Reason || !r.Ended.Equal(day)) {
				t.Errorf("%s: %q at %s", name, r.Reason, r.Ended)
			}
		}
	}

	if r, err := s.Get("lives.running"); err != nil || !r.Unattended() || r.BootID != self.BootID {
		t.Errorf("%+v, %v", r, err)
	}

	// What is given back is noted; what is not is found again.
	free := func(records []*Record) map[string]error {
		if !reflect.DeepEqual(records, last) {
			t.Errorf("to be freed are %v, want %v", records, last)
		}
		return map[string]error{"dead.running": errors.New("it does not end")}
	}
	release, _, _ := s.Reconcile(t.Context(), later, lives, free)
	if len(release) != 1 || release[0].Name != "dead.running" {
		t.Errorf("left %v", release)
	}
	for _, r := range last {
		now, err := s.Get(r.Name)
		if freed := r.Name != "dead.running"; err != nil || now.Held.Empty() != freed || freed && now.Supervisor != nil {
			t.Errorf("%+v, %v", now, err)
		}
	}
}

// Somebody was faster: what was read first does not count.
func TestReconcileRaces(t *testing.T) {
	s := newStore(t)
	self := identify(t, os.Getpid())
	create(t, s, "web")
	stale := update(t, s, "web", func(r *Record) { r.Supervisor = &Process{self.PID, self.Start + 1, self.BootID} })
	alive := update(t, s, "web", func(r *Record) { r.Supervisor = self })
	if err := s.noteEnd(t.Context(), stale, self.BootID, day, true); err != nil || !reflect.DeepEqual(stale, alive) {
		t.Errorf("%v, %+v", err, stale)
	}
	stale.Supervisor = nil
	stale.State, stale.BootID, stale.Held.CPUs = Created, "another boot", "1"
	locked(t, s, func(l *Lock) {
		if err := l.Remove(t.Context(), "web"); err != nil {
			t.Error(err)
		}
	})
	if err := s.noteEnd(t.Context(), stale, self.BootID, day, true); err != nil {
		t.Errorf("removed: %v", err)
	}
}

// A store that is not there has nothing to reconcile, and is not made.
func TestReconcileNothing(t *testing.T) {
	s := &Store{Dir: t.TempDir() + "/mortise"}
	if release, _, err := s.Reconcile(t.Context(), day, none, nil); release != nil || err != nil {
		t.Errorf("%v, %v", release, err)
	}
	if _, err := os.Lstat(s.Dir); err == nil {
		t.Error("it was made")
	}
}
