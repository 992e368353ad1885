// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tenon-build/tenon/builder/bundle/manifest"
	"github.com/tenon-build/tenon/loader"
	"github.com/tenon-build/tenon/loader/control"
	"github.com/tenon-build/tenon/loader/instance"
)

// manifestFile is the manifest of what runs, in the instance's directory, for whoever
// attends to it later: the bundle may be out of reach then, or another one.
const manifestFile = "manifest.json"

// Attend looks after an instance that runs without a supervisor, as Run does of one that
// it has started. Of o.Console and o.Event, it gets what comes from now on.
//
// An error wraps instance.ErrAttended when somebody else does so, and is a
// *instance.TransitionError when it does not run. Until o.Started was called and returned
// no error, whatever goes wrong, and the end of ctx, leaves the instance as it was.
func (e *Engine) Attend(ctx context.Context, name string, o Options) (*instance.Record, error) {
	return e.supervisor(name).attend(ctx, o)
}

func (s *supervisor) attend(ctx context.Context, o Options) (*instance.Record, error) {
	if err := s.adopt(ctx); err != nil {
		return nil, err
	}
	defer s.goodbye()
	started := o.Started
	o.Started = nil
	end := s.run(ctx, o, func(ctx context.Context, c loader.Config) error { return s.find(ctx, c, started) })
	if s.is(attaching) {
		return nil, s.leave(context.WithoutCancel(ctx), end.failure)
	}
	r, err := s.finish(end)
	s.result = err
	return r, err
}

// adopt makes this process the supervisor of an instance that has none.
func (s *supervisor) adopt(ctx context.Context) error {
	self, err := instance.Identify(os.Getpid())
	if err != nil {
		return err
	}
	l, own, err := s.lock(ctx, s.name)
	if err != nil {
		return err
	}
	defer l.Unlock()
	r, err := s.Store().Get(s.name)
	if err == nil {
		err = own
	}
	if err == nil {
		err = r.CheckAttendable()
	}
	if err != nil {
		return err
	}
	m, err := s.manifest()
	if err != nil {
		return fmt.Errorf("instance %q: what it runs: %w", s.name, err)
	}
	if err := s.prepare(r, m); err != nil {
		return err
	}
	if err := s.inherit(ctx); err != nil {
		return err
	}
	s.want.config.CPUs = len(s.plan.CPUs)
	s.enter(attaching)
	_, err = s.update(func(r *instance.Record) error {
		r.Supervisor, r.Held = self, heldOf(s.plan)
		return nil
	})
	return err
}

// inherit takes over what the instance holds, and takes it once more, as guard does.
func (s *supervisor) inherit(ctx context.Context) error {
	taking, err := s.Host().Begin(ctx, s.name)
	if err != nil {
		return err
	}
	defer taking.Close()
	if taking.Has == nil {
		return fmt.Errorf("taking CPUs for %q: nothing is held for it", s.name)
	}
	s.plan = taking.Has
	s.taken, err = taking.Commit(s.plan)
	return err
}

// find attaches to the instance. Its supervisor may have been killed while it was resized:
// it gets what it holds.
func (s *supervisor) find(ctx context.Context, c loader.Config, started func() error) error {
	b, survives := s.want.backend.(loader.Survivor)
	if !survives {
		return fmt.Errorf("%w: instances of %s end with their supervisor", ErrBackend, s.want.backend.Name())
	}
	i, err := b.Attach(ctx, c)
	if err != nil {
		return err
	}
	if b.Can().Resize {
		if err := i.Resize(ctx, s.plan); err != nil {
			s.Log.Warn("the instance does not use the CPUs that it holds", "CPUs", s.plan.CPUs, "why", err)
		}
	}
	if err := context.Cause(ctx); err != nil {
		return err
	}
	s.instance = i
	if started != nil {
		if err := started(); err != nil {
			return err
		}
	}
	s.enter(attending)
	return nil
}

// leave makes the instance one that nobody attends to again.
func (s *supervisor) leave(ctx context.Context, cause error) error {
	_, err := s.update(func(r *instance.Record) error {
		r.Supervisor = nil
		return nil
	})
	if errors.Is(cause, fs.ErrNotExist) { // it has just ended
		err = errors.Join(err, s.Recover(ctx, s.name))
		if ended := s.checkRunning(s.name, "attend to"); errors.As(ended, new(*instance.TransitionError)) {
			cause = nil
			err = errors.Join(ended, err)
		}
	}
	if cause != nil {
		err = errors.Join(fmt.Errorf("instance %q: attending to it: %w", s.name, cause), err)
	}
	return err
}

func (s *supervisor) keepManifest(m *manifest.Manifest) error {
	if s.want.request.ID == "" {
		return nil
	}
	data, err := json.Marshal(m)
	if err != nil {
		return err
	}
	f, err := s.Store().OpenFile(s.name, manifestFile, os.O_WRONLY|os.O_CREATE|os.O_TRUNC)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	return errors.Join(err, f.Close())
}

func (s *supervisor) manifest() (*manifest.Manifest, error) {
	f, err := s.Store().OpenFile(s.name, manifestFile, os.O_RDONLY)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, manifest.MaxSize+1))
	if err != nil {
		return nil, err
	}
	return manifest.Decode(data)
}

// stopUnattended attends to an instance until it has stopped. That is not broken off:
// nobody else would note how it ended.
func (e *Engine) stopUnattended(ctx context.Context, name string, signal int, grace time.Duration) error {
	s := e.supervisor(name)
	_, err := s.attend(context.WithoutCancel(ctx), Options{Started: func() error {
		go s.end(signal, grace)
		return nil
	}})
	return err
}

// killUnattended ends an instance that nobody attends to. One that did not outlive its
// supervisor has ended by then.
func (e *Engine) killUnattended(ctx context.Context, name string) error {
	l, own, err := e.lock(ctx, name)
	if err != nil {
		return err
	}
	defer l.Unlock()
	if errors.Is(own, instance.ErrUnnoted) { // it has ended, and all is given back
		e.Log.Warn("an instance could not be looked after", "why", own)
		return nil
	}
	r, err := e.Store().Get(name)
	if err == nil {
		err = own
	}
	if err == nil {
		err = r.CheckAttendable()
	}
	if errors.Is(err, instance.ErrNotFound) || errors.As(err, new(*instance.TransitionError)) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := e.handBack(ctx, r.ID, killTimeout); err != nil {
		return fmt.Errorf("instance %q: %w", name, err)
	}
	_, err = e.Store().Update(ctx, name, func(r *instance.Record) error {
		r.Exit = &control.Exit{Signal: int(unix.SIGKILL)}
		return r.Transition(instance.Stopped, time.Now())
	})
	err = errors.Join(err, e.release(ctx, name)) // whatever can be noted
	if err != nil {
		return err
	}
	return e.cleared(ctx, name)
}

// lives says whether a running instance goes on without its supervisor. Where that is not
// known, nothing is taken from it.
func (e *Engine) lives(ctx context.Context, r *instance.Record) bool {
	b, err := e.backend(r.Backend)
	s, survives := b.(loader.Survivor)
	if err != nil || !survives {
		return false
	}
	alive := false
	err = within(ctx, func() (err error) { alive, err = s.Alive(r.ID); return err })
	if err != nil {
		e.Log.Warn("an instance without a supervisor may run", "instance", r.Name, "why", err)
	}
	return alive || err != nil
}

// errKept says that what an instance holds cannot be given to others yet.
var errKept = errors.New("the back end does not give it back")

// handBack has the back end give back what it took for an instance with an ID, which
// those have that may have outlived their supervisor. Which back end it was, a damaged
// record does not say.
func (e *Engine) handBack(ctx context.Context, id string, patience time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for _, b := range e.Backends {
		if s, survives := b.(loader.Survivor); survives && id != "" {
			if err := within(ctx, func() error { return s.Discard(ctx, id) }); err != nil {
				return fmt.Errorf("%w: %s: %w", errKept, b.Name(), err)
			}
		}
	}
	return nil
}

// answerTime is how long a back end may always take.
const answerTime = 100 * time.Millisecond

// within asks a back end that may not answer: one call may wait for another that hangs, in the
// kernel. What is asked goes on then.
func within(ctx context.Context, ask func() error) error {
	done := make(chan error, 1)
	go func() { done <- ask() }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
	}
	select {
	case err := <-done:
		return err
	case <-time.After(answerTime):
		return fmt.Errorf("it does not answer: %w", context.Cause(ctx))
	}
}
