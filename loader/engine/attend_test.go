// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tenon-build/tenon/builder/bundle/manifest"
	"github.com/tenon-build/tenon/loader"
	"github.com/tenon-build/tenon/loader/alloc"
	"github.com/tenon-build/tenon/loader/control"
	"github.com/tenon-build/tenon/loader/instance"
	"github.com/tenon-build/tenon/loader/loadertest"
)

func forCokernel(m *manifest.Manifest) { m.Target = "cokernel" }

// newSurvivor is a host whose instances outlive their supervisor, on CPUs that are
// offline to it.
func newSurvivor(t *testing.T) (*host, *loadertest.Survivor) {
	t.Helper()
	h := newHost(t, small)
	b := &loadertest.Survivor{Backend: loadertest.Backend{Target: "cokernel"}, Host: h.kernel}
	h.backend, h.Backends = &b.Backend, []loader.Backend{b}
	return h, b
}

// forsake starts an instance as far as a state, or up to where all is taken for it, and
// leaves it as a supervisor that is killed there does.
func (h *host) forsake(t *testing.T, name string, loaded bool, state instance.State) (box *loadertest.Instance) {
	t.Helper()
	h.backend.Started = func(i *loadertest.Instance) { box = i }
	v := verified(t, forCokernel)
	h.create(t, name, v, instance.Request{})
	s := h.supervisor(name)
	err := s.take(t.Context(), v)
	if err == nil {
		s.console, err = newConsole(h.Store().Path(name), false)
	}
	switch {
	case err == nil && state == instance.Running:
		if err = s.boot(t.Context(), v, s.config(Options{})); err == nil {
			err = s.noteRunning(nil)
		}
	case err == nil && loaded:
		_, err = s.want.backend.Load(t.Context(), v, s.config(Options{}))
	}
	if err == nil {
		_, err = s.update(func(r *instance.Record) error { r.Supervisor = gone(t); return nil })
	}
	if err != nil {
		t.Fatal(err)
	}
	return box
}

// attend attends to an instance and returns when it does; ended gives how it ended.
func (h *host) attend(t *testing.T, name string) (ended func() (*instance.Record, error)) {
	t.Helper()
	type result struct {
		r   *instance.Record
		err error
	}
	started, done := make(chan bool), make(chan result, 1)
	go func() {
		r, err := h.Attend(t.Context(), name, Options{Started: func() error { close(started); return nil }})
		done <- result{r, err}
	}()
	select {
	case <-started:
	case r := <-done:
		t.Fatalf("%q is not attended to: %v", name, r.err)
	}
	return func() (*instance.Record, error) {
		r := <-done
		return r.r, r.err
	}
}

// Whatever becomes of its supervisor, it runs on, holds what it holds, and can be
// attended to again.
func TestUnattended(t *testing.T) {
	h, _ := newSurvivor(t)
	box := h.forsake(t, "web", true, instance.Running)
	for range 2 {
		if err := h.Recover(t.Context(), ""); err != nil {
			t.Fatal(err)
		}
		if r := h.record(t, "web"); !r.Unattended() || r.Held.CPUs != "1,5" || r.Starts != 1 {
			t.Fatalf("%+v", r)
		}
	}
	v := verified(t, forCokernel)
	_, start := h.Run(t.Context(), "web", v, Options{})
	_, console := h.Attach(t.Context(), "web", true, false)
	for verb, err := range map[string]error{"start": start, "remove": h.Remove(t.Context(), "web", false)} {
		if e := new(instance.TransitionError); !errors.As(err, &e) || e.Verb != verb || e.State != instance.Running {
			t.Errorf("%s: %v", verb, err)
		}
	}
	for verb, err := range map[string]error{"attach to": console, "resize": h.Resize(t.Context(), "web", 4), "signal": h.Signal(t.Context(), "web", 1)} {
		if err == nil || err.Error() != `instance "web": cannot `+verb+`: nobody attends to it` || !errors.Is(err, instance.ErrUnattended) {
			t.Errorf("%s: %v", verb, err)
		}
	}
	_, err := h.Plan("next", v.Manifest(), &instance.Request{CPUList: alloc.NewCPUSet(1, 5)})
	if err == nil || err.Error() != `planning "next": CPUs 1,5 are held by "web"` {
		t.Error(err)
	}
	ended := h.attend(t, "web")
	if r := h.record(t, "web"); r.State != instance.Running || r.Supervisor.PID != os.Getpid() || r.Starts != 1 {
		t.Errorf("%+v", r)
	}
	if _, err := h.Attend(t.Context(), "web", Options{}); !errors.Is(err, instance.ErrAttended) || !strings.HasPrefix(err.Error(), `instance "web": it is attended to already, by process `) {
		t.Error(err)
	}
	if err := h.Resize(t.Context(), "web", 4); err != nil || box.CPUs().String() != "1-2,5-6" {
		t.Errorf("%v, %s", err, box.CPUs())
	}
	if now, err := alloc.Read(h.kernel); err != nil || len(now.CPUs) != 4 {
		t.Errorf("%v, %+v", err, now)
	}
	if err := h.Resize(t.Context(), "web", 2); err != nil || box.CPUs().String() != "1,5" {
		t.Errorf("%v, %s", err, box.CPUs())
	}
	if err := h.Stop(t.Context(), "web", 0, time.Minute); err != nil {
		t.Error(err)
	}
	if r, err := ended(); err != nil || r.State != instance.Stopped || *r.Exit != (control.Exit{}) || !r.Held.Empty() || r.Supervisor != nil {
		t.Errorf("%+v, %v", r, err)
	}
	var log strings.Builder
	if err := h.Logs("web", &log); err != nil || log.String() != "booted\nsignal 15\n" {
		t.Errorf("%q, %v", log.String(), err)
	}
	h.untouched(t)
}

// Each verb that ends an instance ends one that nobody attends to, known to be so or not.
func TestEndUnattended(t *testing.T) {
	for name, test := range map[string]struct {
		end    func(*host) error
		signal int    // that it ended by
		log    string // since it booted
	}{
		"stop":         {func(h *host) error { return h.Stop(t.Context(), "web", 0, time.Minute) }, 0, "signal 15\n"},
		"stop in vain": {func(h *host) error { return h.Stop(t.Context(), "web", int(unix.SIGHUP), time.Millisecond) }, 9, "signal 1\n"},
		"kill":         {func(h *host) error { return h.Kill(t.Context(), "web") }, 9, ""},
		"remove":       {func(h *host) error { return h.Remove(t.Context(), "web", true) }, -1, ""},
	} {
		for _, known := range []bool{false, true} {
			h, b := newSurvivor(t)
			h.forsake(t, "web", true, instance.Running)
			if known {
				if err := h.Recover(t.Context(), ""); err != nil {
					t.Fatal(err)
				}
			}
			if err := test.end(h); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			if names, _ := b.List(); len(names) > 0 {
				t.Errorf("%s: %q", name, names)
			}
			h.untouched(t)
			if test.signal < 0 {
				if _, err := h.Store().Get("web"); !errors.Is(err, instance.ErrNotFound) {
					t.Errorf("%s: %v", name, err)
				}
				continue
			}
			if r := h.record(t, "web"); r.State != instance.Stopped || r.Exit == nil || *r.Exit != (control.Exit{Signal: test.signal}) || !r.Held.Empty() || r.Supervisor != nil {
				t.Errorf("%s: %+v", name, r)
			}
			var log strings.Builder
			if err := h.Logs("web", &log); err != nil || log.String() != "booted\n"+test.log {
				t.Errorf("%s: %q, %v", name, log.String(), err)
			}
		}
	}
}

// What did not run yet, or does not any more, is given back, with what the back end has.
func TestRecoverSurvivor(t *testing.T) {
	for name, test := range map[string]struct {
		loaded bool
		state  instance.State
		after  func(*host, *loadertest.Instance) error
		reason string
	}{
		"taken":  {false, instance.Loaded, nil, "its supervisor, process "},
		"loaded": {true, instance.Loaded, nil, "its supervisor, process "},
		"ended":  {true, instance.Running, func(_ *host, i *loadertest.Instance) error { i.End(&control.Exit{}, nil); return nil }, "its supervisor, process "},
		"ended later": {true, instance.Running, func(h *host, i *loadertest.Instance) error {
			err := h.Recover(t.Context(), "")
			i.End(nil, nil)
			return err
		}, "it ended while nobody attended to it"},
		"record gone":   {true, instance.Running, func(h *host, _ *loadertest.Instance) error { return os.RemoveAll(h.Store().Path("web")) }, ""},
		"record broken": {true, instance.Running, func(h *host, _ *loadertest.Instance) error { return h.damage("web") }, ""},
	} {
		h, b := newSurvivor(t)
		box := h.forsake(t, "web", test.loaded, test.state)
		if test.after != nil {
			if err := test.after(h, box); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := h.GC(t.Context()); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if names, _ := b.List(); len(names) > 0 {
			t.Errorf("%s: %q", name, names)
		}
		h.untouched(t)
		if test.reason == "" {
			continue
		}
		if r := h.record(t, "web"); r.State != instance.Failed || !strings.HasPrefix(r.Reason, test.reason) || !r.Held.Empty() {
			t.Errorf("%s: %+v", name, r)
		}
		if _, err := h.Attend(t.Context(), "web", Options{}); err == nil || err.Error() != `instance "web": cannot attend to: it is failed, not running` {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func (h *host) damage(name string) error {
	return os.WriteFile(filepath.Join(h.Store().Path(name), "record.json"), []byte("{"), 0o600)
}

// Of those who come at once, one attends to it, and the others hear who does.
func TestAttendAtOnce(t *testing.T) {
	h, _ := newSurvivor(t)
	h.forsake(t, "web", true, instance.Running)
	var refused []error
	var mu sync.Mutex
	var all sync.WaitGroup
	started := make(chan bool, 1)
	for range 4 {
		all.Go(func() {
			r, err := h.Attend(t.Context(), "web", Options{Started: func() error { started <- true; return nil }})
			if err == nil && r.State == instance.Stopped {
				return
			}
			mu.Lock()
			defer mu.Unlock()
			if refused = append(refused, err); len(refused) == 3 {
				all.Go(func() {
					<-started
					if err := h.Stop(t.Context(), "web", 0, time.Minute); err != nil {
						t.Error(err)
					}
				})
			}
		})
	}
	all.Wait()
	for _, err := range refused {
		if !errors.Is(err, instance.ErrAttended) {
			t.Error(err)
		}
	}
	if len(refused) != 3 {
		t.Errorf("%d are refused", len(refused))
	}
	h.untouched(t)
}

// Where attending to it fails, it goes on as before.
func TestLeave(t *testing.T) {
	failed := errors.New("nobody is there")
	for name, test := range map[string]struct {
		prepare func(*host, *loadertest.Survivor) error
		started error
		want    string
	}{
		"started": {nil, failed, `instance "web": attending to it: nobody is there`},
		"attach":  {func(_ *host, b *loadertest.Survivor) error { b.Blind = failed; return nil }, nil, `instance "web": attending to it: nobody is there`},
		"broken":  {func(_ *host, b *loadertest.Survivor) error { b.Slow = true; return nil }, nil, `instance "web": attending to it: context canceled`},
		"manifest": {func(h *host, _ *loadertest.Survivor) error {
			return os.Remove(filepath.Join(h.Store().Path("web"), manifestFile))
		}, nil, `instance "web": what it runs: open `},
		"journal": {func(h *host, _ *loadertest.Survivor) error {
			return os.Remove(filepath.Join(h.Host().State, "alloc.json"))
		}, nil, `taking CPUs for "web": nothing is held for it`},
	} {
		h, b := newSurvivor(t)
		box := h.forsake(t, "web", true, instance.Running)
		if test.prepare != nil {
			if err := test.prepare(h, b); err != nil {
				t.Fatal(err)
			}
		}
		ctx, cancel := context.WithCancel(t.Context())
		if name == "broken" {
			time.AfterFunc(20*time.Millisecond, cancel)
		}
		_, err := h.Attend(ctx, "web", Options{Started: func() error { return test.started }})
		if err == nil || !strings.HasPrefix(err.Error(), test.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v", name, err)
		}
		cancel()
		b.Blind, b.Slow = nil, false
		if r := h.record(t, "web"); !r.Unattended() || r.Held.CPUs != "1,5" || box.CPUs().String() != "1,5" {
			t.Errorf("%s: %+v", name, r)
		}
		if err := h.Kill(t.Context(), "web"); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if name != "journal" { // in which the interrupts were
			h.untouched(t)
		}
	}
}

// What the directory does not know of is reported, and ended by its ID; what it knows of is
// not, as its name is for that.
func TestStrays(t *testing.T) {
	h, b := newSurvivor(t)
	h.forsake(t, "web", true, instance.Running)
	ids, err := b.List()
	if err != nil || len(ids) != 1 {
		t.Fatalf("%q, %v", ids, err)
	}
	gc := func() string {
		t.Helper()
		var log strings.Builder
		h.Log = slog.New(slog.NewTextHandler(&log, nil))
		if removed, err := h.GC(t.Context()); err != nil || len(removed) > 0 {
			t.Errorf("%q, %v", removed, err)
		}
		return log.String()
	}
	if log := gc(); log != "" {
		t.Error(log)
	}
	if err := h.Remove(t.Context(), ids[0], true); !errors.Is(err, instance.ErrNotFound) {
		t.Error(err)
	}
	if err := os.RemoveAll(h.Dir); err != nil {
		t.Fatal(err)
	}
	if log := gc(); strings.Count(log, ids[0]) != 1 {
		t.Error(log)
	}
	for _, id := range []string{"web", ids[0][1:]} {
		if err := h.Remove(t.Context(), id, true); !errors.Is(err, instance.ErrNotFound) {
			t.Errorf("%s: %v", id, err)
		}
	}
	if err := h.Remove(t.Context(), ids[0], false); !errors.Is(err, instance.ErrNotFound) {
		t.Error(err)
	}
	b.Stuck = unix.EBUSY
	if err := h.Remove(t.Context(), ids[0], true); !errors.Is(err, unix.EBUSY) {
		t.Error(err)
	}
	b.Stuck = nil
	if err := h.Remove(t.Context(), ids[0], true); err != nil {
		t.Error(err)
	}
	if ids, err := b.List(); err != nil || len(ids) > 0 {
		t.Errorf("%q, %v", ids, err)
	}
	if log := gc(); log != "" {
		t.Error(log)
	}
}

// It ends while somebody begins to attend to it.
func TestEndsAttending(t *testing.T) {
	h, _ := newSurvivor(t)
	box := h.forsake(t, "web", true, instance.Running)
	s := h.supervisor("web")
	if err := s.adopt(t.Context()); err != nil {
		t.Fatal(err)
	}
	box.End(&control.Exit{}, nil)
	end := s.run(t.Context(), Options{}, func(ctx context.Context, c loader.Config) error { return s.find(ctx, c, nil) })
	if !errors.Is(end.failure, fs.ErrNotExist) || !s.is(attaching) {
		t.Fatal(end)
	}
	if err := s.leave(t.Context(), end.failure); err == nil || err.Error() != `instance "web": cannot attend to: it is failed, not running` {
		t.Error(err)
	}
	s.goodbye()
	h.untouched(t)
}

// While it is not known whether an instance runs, it holds what it holds, and keeps
// nobody from work.
func TestBlind(t *testing.T) {
	h, b := newSurvivor(t)
	b.Blind = errors.New("no such file")
	h.forsake(t, "web", true, instance.Running)
	if err := h.Recover(t.Context(), ""); err != nil {
		t.Fatal(err)
	}
	if r := h.record(t, "web"); !r.Unattended() || r.Held.CPUs != "1,5" {
		t.Errorf("%+v", r)
	}
	h.create(t, "next", verified(t, forCokernel), instance.Request{})
}

// What the back end does not give back is nobody else's, until it does.
func TestStuck(t *testing.T) {
	h, b := newSurvivor(t)
	v := verified(t, forCokernel)
	h.create(t, "web", v, instance.Request{})
	ended := h.run(t, t.Context(), "web", v)
	b.Stuck = errors.New("CPU 5 does not come online")
	if err := h.Stop(t.Context(), "web", 0, time.Minute); err == nil || err.Error() != `instance "web": the back end did not give all back: CPU 5 does not come online` {
		t.Error(err)
	}
	if r, err := ended(); err == nil || r.State != instance.Stopped || r.Held.CPUs != "1,5" {
		t.Errorf("%+v, %v", r, err)
	}
	if _, err := h.Store().Update(t.Context(), "web", func(r *instance.Record) error { r.Supervisor = gone(t); return nil }); err != nil {
		t.Fatal(err)
	}
	h.create(t, "next", verified(t, forCokernel), instance.Request{}) // which recovers
	if held, err := h.Host().Held(); err != nil || len(held) != 1 {
		t.Errorf("%v, %v", held, err)
	}
	b.Stuck = nil
	if err := h.Recover(t.Context(), ""); err != nil {
		t.Error(err)
	}
	h.untouched(t)
	if r := h.record(t, "web"); r.State != instance.Stopped || !r.Held.Empty() {
		t.Errorf("%+v", r)
	}
}

// A kill that does not succeed says why, and can be tried again.
func TestStuckKill(t *testing.T) {
	h, b := newSurvivor(t)
	h.forsake(t, "web", true, instance.Running)
	b.Stuck = errors.New("CPU 5 does not come online")
	if err := h.Kill(t.Context(), "web"); err == nil || err.Error() != `instance "web": the back end does not give it back: cokernel: CPU 5 does not come online` {
		t.Error(err)
	}
	b.Stuck = nil
	if err := h.Kill(t.Context(), "web"); err != nil {
		t.Error(err)
	}
	h.untouched(t)
}

// A supervisor that attends to it again sees it hang, as the first one would have.
func TestHangsAttended(t *testing.T) {
	h, _ := newSurvivor(t)
	h.forsake(t, "web", true, instance.Running)
	if _, err := h.Store().Update(t.Context(), "web", func(r *instance.Record) error { r.Request.HangTimeout = time.Second; return nil }); err != nil {
		t.Fatal(err)
	}
	if r, err := h.attend(t, "web")(); err != nil || r.State != instance.Failed || r.Reason != "nothing was heard of it for 1s: it hung, and was ended" {
		t.Errorf("%+v, %v", r, err)
	}
	h.untouched(t)
}

// Its supervisor was killed while it grew: it gets what it holds.
func TestKilledResizing(t *testing.T) {
	h, _ := newSurvivor(t)
	box := h.forsake(t, "web", true, instance.Running)
	m := verified(t, forCokernel).Manifest()
	taking, err := h.Host().Begin(context.Background(), "web")
	if err != nil {
		t.Fatal(err)
	}
	w, err := h.want(m, &instance.Request{})
	if err != nil {
		t.Fatal(err)
	}
	w.request.CPUs, w.request.Keep, w.request.ID = 4, taking.Has, taking.Has.ID
	p, err := w.topology.Plan(w.request, h.held(taking.Others))
	if err == nil {
		_, err = taking.Commit(p)
	}
	if err != nil {
		t.Fatal(err)
	}
	ended := h.attend(t, "web")
	if r := h.record(t, "web"); r.Held.CPUs != "1-2,5-6" || !slices.Equal(box.CPUs(), alloc.CPUSet{1, 2, 5, 6}) {
		t.Errorf("%+v, %s", r, box.CPUs())
	}
	h.stop(t, "web", ended)
	h.untouched(t)
}
