// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tenon-build/tenon/builder/bundle/manifest"
	"github.com/tenon-build/tenon/loader"
	"github.com/tenon-build/tenon/loader/alloc"
	"github.com/tenon-build/tenon/loader/control"
	"github.com/tenon-build/tenon/loader/instance"
)

// Options say how Run takes part in an instance.
type Options struct {
	Console io.Writer          // gets what the instance prints, beside the log; may be nil
	Event   func(loader.Event) // may be nil
	Started func() error       // called when the instance runs; may be nil; its error ends the instance
	Grace   time.Duration      // between the app's stop signal and the end of the machine, when ctx ends
}

// Run runs an instance that was created, from taking what it needs to giving that back,
// and looks after it meanwhile: this process is its supervisor. v must be the bundle
// that it was created with; it is closed when it is not needed any more. When ctx ends,
// the app is asked to stop.
//
// Run returns the record when the instance has ended, however it ended. An error says
// that it was not started, or that something is still held; what is short is a
// *alloc.PlanError, and then the record is as before. What the host's kernel refuses is a
// loader.ErrRefused.
func (e *Engine) Run(ctx context.Context, name string, v *loader.Verified, o Options) (*instance.Record, error) {
	s := e.supervisor(name)
	if err := s.take(ctx, v); err != nil {
		return nil, err
	}
	defer s.goodbye()
	// What was taken is given back, whatever becomes of ctx.
	end := s.run(ctx, o, func(ctx context.Context, c loader.Config) error { return s.boot(ctx, v, c) })
	r, err := s.finish(end)
	s.result = err
	if err == nil && errors.Is(end.failure, loader.ErrRefused) { // by the host's kernel, which is asked last
		err = fmt.Errorf("instance %q: %w", name, end.failure)
	}
	return r, err
}

func (e *Engine) supervisor(name string) *supervisor {
	return &supervisor{Engine: e, name: name, up: make(chan struct{}), ended: make(chan struct{}), done: make(chan struct{})}
}

// stage is how far a supervisor is with its instance.
type stage int32

const (
	starting  stage = iota // it takes what the instance needs, and boots it
	attaching              // the instance runs, and goes on if this supervisor gives up
	attending              // the instance runs, and ends with this supervisor, unless that is killed
	returning              // it has ended, and what it holds is given back: nobody takes more for it
)

// supervisor looks after one instance.
type supervisor struct {
	*Engine
	name  string
	id    string
	want  *want
	hang  time.Duration
	stop  int          // the app's signal
	stage atomic.Int32 // a stage

	holding sync.Mutex // what follows, and the step to returning
	plan    *alloc.Plan
	taken   *alloc.Report // how that is held

	instance loader.Instance
	console  *console
	heard    atomic.Bool                    // a sign of life, since watch looked
	silent   atomic.Bool                    // it was ended for want of one
	health   atomic.Pointer[control.Health] // the last one, which is not in the record yet
	abort    func()                         // ends it while it is started
	up       chan struct{}                  // closed when the instance was started
	ended    chan struct{}                  // closed when the instance has ended
	unnoted  bool                           // the record does not say how it ended: the disk is full

	listener net.Listener // nil before the socket is there
	calls    sync.WaitGroup
	done     chan struct{} // closed when all is given back, or the instance is left
	result   error         // of that; valid after done
}

func (s *supervisor) is(other stage) bool { return stage(s.stage.Load()) == other }
func (s *supervisor) enter(next stage)    { s.stage.Store(int32(next)) }

func (s *supervisor) update(change func(*instance.Record) error) (*instance.Record, error) {
	return s.Store().Update(context.Background(), s.name, func(r *instance.Record) error {
		if s.id != "" && r.ID != s.id {
			return fmt.Errorf("instance %q: it was removed and created again", s.name)
		}
		return change(r)
	})
}

// take takes what the instance needs.
func (s *supervisor) take(ctx context.Context, v *loader.Verified) error {
	l, own, err := s.lock(ctx, s.name)
	if err != nil {
		return err
	}
	defer l.Unlock()
	if own != nil {
		return own
	}
	if err := s.prepareStart(v); err != nil {
		return err
	}
	taking, err := s.Host().Begin(ctx, s.name)
	if err != nil {
		return err
	}
	defer taking.Close()
	if s.plan, err = s.planned(s.want.request, taking.Others); err != nil {
		return err
	}
	// Noted first, so that whoever finds it can give it back.
	if err := s.noteLoaded(); err != nil {
		return err
	}
	if s.taken, err = taking.Commit(s.plan); err != nil {
		_, failed := s.finish(ending{failure: err})
		return errors.Join(err, failed)
	}
	for _, u := range s.taken.Unmoved {
		s.Log.Warn("an interrupt still comes to the instance's CPUs", "IRQ", u.IRQ, "why", u.Reason)
	}
	return nil
}

// prepareStart refuses a bundle that is not the one of the record, and notes what both say.
func (s *supervisor) prepareStart(v *loader.Verified) error {
	r, err := s.Store().Get(s.name)
	if err == nil {
		err = r.CheckStartable()
	}
	if err != nil {
		return err
	}
	if digest := v.Digest().String(); digest != r.Bundle.Digest {
		return fmt.Errorf("instance %q: its bundle %q has changed: it was %s, and is %s", s.name, r.Bundle.Reference, r.Bundle.Digest, digest)
	}
	m := v.Manifest()
	if err := s.prepare(r, m); err != nil {
		return err
	}
	return s.keepManifest(m)
}

// noteLoaded notes who looks after the instance, and what it is going to hold.
func (s *supervisor) noteLoaded() error {
	self, err := instance.Identify(os.Getpid())
	if err != nil {
		return err
	}
	_, err = s.update(func(r *instance.Record) error {
		if err := r.Transition(instance.Loaded, time.Now()); err != nil {
			return err
		}
		r.Supervisor, r.Held = self, heldOf(s.plan)
		return nil
	})
	return err
}

// prepare notes what a record and a manifest say.
func (s *supervisor) prepare(r *instance.Record, m *manifest.Manifest) error {
	s.id, s.hang = r.ID, r.Request.HangTimeout
	stop, err := m.App.Signal()
	if err != nil {
		return err
	}
	s.stop = int(stop)
	if s.want, err = s.Engine.want(m, &r.Request); err != nil {
		return fmt.Errorf("instance %q: %w", s.name, err)
	}
	if _, survives := s.want.backend.(loader.Survivor); survives {
		s.want.request.ID = r.ID
	}
	return nil
}

// planned plans with the host as it is now: what others have taken offline, or given
// back, is in it.
func (s *supervisor) planned(r alloc.Request, others []alloc.Holding) (p *alloc.Plan, err error) {
	t, err := alloc.Read(s.Root)
	if err == nil {
		p, err = t.Plan(r, s.held(others))
	}
	return p, planning(s.name, err)
}

// ending is how an instance ended.
type ending struct {
	exit    *control.Exit // of the app; nil after a failure
	failure error
	kept    error // why the back end did not give all back
}

// run looks after the instance that begin boots or finds, until its end.
func (s *supervisor) run(ctx context.Context, o Options, begin func(context.Context, loader.Config) error) (end ending) {
	var err error
	if s.console, err = newConsole(s.Store().Path(s.name), s.is(attaching)); err != nil {
		return ending{failure: err}
	}
	viewed := s.show(o.Console)
	defer viewed()
	booting, abort := context.WithCancel(context.WithoutCancel(ctx))
	defer abort()
	s.abort = abort
	interrupted := context.AfterFunc(ctx, abort)
	if s.listener, err = s.listen(); err != nil {
		return ending{failure: err}
	}
	go s.serve()
	defer func() { end.kept = s.close() }()
	if err := begin(booting, s.config(o)); err != nil {
		return ending{failure: err}
	}
	interrupted() // from here on, the app is asked first
	close(s.up)
	if err := s.noteRunning(o.Started); err != nil {
		return ending{failure: err}
	}
	go s.watch()
	stop := context.AfterFunc(ctx, func() { s.end(0, o.Grace) })
	defer stop()
	end.exit, end.failure = s.instance.Wait()
	close(s.ended)
	if s.silent.Load() {
		end.exit, end.failure = nil, fmt.Errorf("nothing was heard of it for %v: it hung, and was ended", s.hang)
	}
	return end
}

// config is what the back end is told.
func (s *supervisor) config(o Options) loader.Config {
	c := s.want.config
	c.ID, c.Plan, c.Console = s.id, s.plan, s.console
	if !s.plan.TakenOffline() {
		c.Group = "/" + s.want.topology.Group(s.name)
	}
	c.Event = func(event loader.Event) {
		s.noteEvent(event)
		if o.Event != nil {
			o.Event(event)
		}
	}
	return c
}

// boot loads and starts the instance.
func (s *supervisor) boot(ctx context.Context, v *loader.Verified, c loader.Config) (err error) {
	if s.instance, err = s.want.backend.Load(ctx, v, c); err != nil {
		return err
	}
	if err := v.Close(); err != nil { // its memory is not needed any more
		return err
	}
	return s.instance.Start(ctx)
}

// noteRunning notes that the instance was started, unless it ran before, and calls started,
// unless that is nil.
func (s *supervisor) noteRunning(started func() error) error {
	if s.is(starting) {
		s.enter(attending)
		if _, err := s.update(func(r *instance.Record) error { return r.Transition(instance.Running, time.Now()) }); err != nil {
			return err
		}
	}
	if started != nil {
		return started()
	}
	return nil
}

// close frees what the back end has of the instance, before its CPUs are others'. One that
// goes on keeps it.
func (s *supervisor) close() error {
	if s.instance == nil || s.is(attaching) {
		return nil
	}
	return s.instance.Close()
}

// drainTimeout is how long a viewer may take for the last of the output.
const drainTimeout = 5 * time.Second

// show copies what the instance prints to w, if there is one, which keeps nobody waiting.
// The function that it returns ends the console.
func (s *supervisor) show(w io.Writer) (end func()) {
	shown := make(chan struct{})
	all := s.is(starting) // of what it printed before, whoever attends to it knows nothing
	go func() {
		defer close(shown)
		if w != nil {
			_ = s.console.follow(context.Background(), w, all)
		}
	}()
	return func() {
		if err := s.console.Close(); err != nil {
			s.Log.Warn("console", "why", err)
		}
		select {
		case <-shown:
		case <-time.After(drainTimeout):
		}
	}
}

// noteEvent keeps what the instance reports, for watch: an instance that reports all the
// time costs no more than one that does not.
func (s *supervisor) noteEvent(e loader.Event) {
	s.heard.Store(true)
	if e.Health != nil {
		s.health.Store(e.Health)
	}
}

// watch ends an instance that is not heard of any more, notes its health, and keeps its
// CPUs its own. It counts what it sees: while this process is stopped, nothing is missed.
func (s *supervisor) watch() {
	const interval = time.Second
	tick := time.NewTicker(interval)
	defer tick.Stop()
	said := ""
	var quiet time.Duration
	for {
		select {
		case <-s.ended:
			return
		case <-tick.C:
		}
		quiet += interval
		if s.heard.Swap(false) {
			quiet = 0
		}
		if s.hang > 0 && quiet > s.hang {
			s.silent.Store(true)
			_ = s.instance.Kill()
			return
		}
		err := s.noteHealth()
		if err == nil {
			err = s.guard()
		}
		if err != nil && err.Error() != said { // once, not every second
			s.Log.Warn("looking after the instance", "why", err)
			said = err.Error()
		}
	}
}

func (s *supervisor) noteHealth() error {
	h := s.health.Swap(nil)
	if h == nil {
		return nil
	}
	_, err := s.update(func(r *instance.Record) error { r.Health = h; return nil })
	return err
}

// end asks the app to stop, by its own stop signal if signal is 0, and ends the
// machine if it has not within grace.
func (s *supervisor) end(signal int, grace time.Duration) {
	if signal == 0 {
		signal = s.stop
	}
	err := s.instance.Signal(signal)
	if err != nil {
		s.Log.Warn("the app could not be asked to stop", "why", err)
		grace = 0
	}
	select {
	case <-s.ended:
		return
	case <-time.After(grace):
	}
	if err == nil {
		s.Log.Warn("the app did not stop in time, ending the machine", "signal", unix.SignalName(unix.Signal(signal)), "grace", grace)
	}
	_ = s.instance.Kill()
}

// finish notes how the instance ended, and gives back what it held. That which cannot
// be noted or given back is found by the next Recover. A full disk changes nothing of how it
// ended.
func (s *supervisor) finish(end ending) (*instance.Record, error) {
	r, err := s.noteEnd(func(r *instance.Record) error {
		if end.failure != nil {
			return r.Fail(end.failure.Error(), time.Now())
		}
		r.Exit = end.exit
		return r.Transition(instance.Stopped, time.Now())
	})
	s.holding.Lock()
	s.enter(returning)
	s.holding.Unlock()
	if end.kept != nil {
		err = errors.Join(err, fmt.Errorf("the back end did not give all back: %w", end.kept))
	} else {
		released := s.release(context.Background(), s.name)
		if errors.Is(released, alloc.ErrUnsaved) {
			s.Log.Warn("what the instance held is given back, but nobody gets it before that can be noted", "why", released)
			released = nil
		}
		err = errors.Join(err, released)
	}
	if err != nil {
		return r, fmt.Errorf("instance %q: %w", s.name, err)
	}
	change := func(r *instance.Record) error {
		r.Held, r.Supervisor = instance.Held{}, nil
		return nil
	}
	if s.unnoted {
		return r, change(r)
	}
	return s.noteEnd(change)
}

// noteEnd is update, but on a full disk returns what the record should say.
func (s *supervisor) noteEnd(change func(*instance.Record) error) (*instance.Record, error) {
	r, err := s.update(change)
	if !errors.Is(err, unix.ENOSPC) && !errors.Is(err, unix.EDQUOT) {
		return r, err
	}
	s.Log.Warn("how the instance ended cannot be noted", "why", err)
	s.unnoted = true
	if r, err = s.Store().Get(s.name); err == nil {
		err = change(r)
	}
	return r, err
}
