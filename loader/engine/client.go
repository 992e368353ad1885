// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/tenon-build/tenon/loader/alloc"
	"github.com/tenon-build/tenon/loader/instance"
	"github.com/tenon-build/tenon/loader/limit"
)

// dial connects to an instance's supervisor.
func (e *Engine) dial(ctx context.Context, name string) (net.Conn, error) {
	dir, err := e.Store().Open(name)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	conn, err := new(net.Dialer).DialContext(ctx, "unix", socketPath(dir))
	if err != nil {
		return nil, fmt.Errorf("instance %q: its supervisor does not answer: %w", name, cause(err))
	}
	return conn, nil
}

// dialTimeout is how long a supervisor that has just begun may take to listen.
const dialTimeout = 2 * time.Second

// call makes a call and waits for the reply, at most for timeout.
func (e *Engine) call(ctx context.Context, name string, c *call, timeout time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	conn, err := e.open(ctx, name, c)
	if err != nil {
		return err
	}
	return conn.Close()
}

// open makes a call and returns the connection after a good reply.
func (e *Engine) open(ctx context.Context, name string, c *call) (*stream, error) {
	conn, err := e.dial(ctx, name)
	for patience := time.Now().Add(dialTimeout); err != nil; conn, err = e.dial(ctx, name) {
		if ended := e.checkRunning(name, c.Verb); ended != nil { // meanwhile
			return nil, ended
		}
		if time.Now().After(patience) {
			return nil, err
		}
		time.Sleep(10 * time.Millisecond)
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Now()) })
	defer stop()
	var in reply
	decoder := json.NewDecoder(io.LimitReader(conn, limit.Reply))
	if err = json.NewEncoder(conn).Encode(c); err == nil {
		err = decoder.Decode(&in)
	}
	switch {
	case ctx.Err() != nil:
		err = fmt.Errorf("instance %q: its supervisor did not answer in time: %w", name, context.Cause(ctx))
	case err != nil:
		err = fmt.Errorf("instance %q: its supervisor did not answer: %w", name, cause(err))
	case in.Taken:
		err = &TakenError{in.Error}
	case in.Error != "":
		err = errors.New(in.Error)
	default:
		// What came with the reply is the first of what follows, but for its newline.
		rest := io.MultiReader(decoder.Buffered(), conn)
		_, err = io.ReadFull(rest, make([]byte, 1))
		return &stream{conn, rest}, err
	}
	return nil, errors.Join(err, conn.Close())
}

// TakenError is a supervisor's alloc.ErrTaken.
type TakenError struct{ Reason string }

func (e *TakenError) Error() string { return e.Reason }

func (e *TakenError) Unwrap() error { return alloc.ErrTaken }

// stream is the connection after a reply.
type stream struct {
	net.Conn
	rest io.Reader
}

func (s *stream) Read(p []byte) (int, error) { return s.rest.Read(p) }

// Console is an instance's console: what it prints, until it ends. What is written to
// it is typed there.
type Console = io.ReadWriteCloser

// Attach opens the console of a running instance, with what it has printed if all is
// set, and to type on if input is set.
func (e *Engine) Attach(ctx context.Context, name string, all, input bool) (Console, error) {
	if err := e.checkLive(ctx, name, "attach to"); err != nil {
		return nil, err
	}
	return e.open(ctx, name, &call{Verb: "attach", All: all, Type: input})
}

// checkLive refuses instances that do not run, also those that only their record says do, and
// those that nobody attends to.
func (e *Engine) checkLive(ctx context.Context, name, verb string) error {
	if err := e.Recover(ctx, name); err != nil {
		return err
	}
	return e.checkRunning(name, verb)
}

// Signal sends a Linux signal to an instance's app. SIGKILL is for Kill.
func (e *Engine) Signal(ctx context.Context, name string, signal int) error {
	if err := e.checkLive(ctx, name, "signal"); err != nil {
		return err
	}
	return e.call(ctx, name, &call{Verb: "signal", Signal: signal}, callTimeout)
}

// callTimeout is for calls that do not wait for the guest.
const callTimeout = 10 * time.Second

// Stop asks an instance's app to stop, by its own stop signal if signal is 0, ends the
// machine when that takes longer than grace, and waits until all is given back.
func (e *Engine) Stop(ctx context.Context, name string, signal int, grace time.Duration) error {
	err := e.checkLive(ctx, name, "stop")
	if errors.Is(err, instance.ErrUnattended) {
		if err = e.stopUnattended(ctx, name, signal, grace); err == nil {
			return nil
		}
		if errors.Is(err, instance.ErrAttended) { // somebody was faster, and can be asked
			err = nil
		}
	}
	if t := new(instance.TransitionError); errors.As(err, &t) && t.State != instance.Created {
		return nil // it has ended already, which is what was wanted
	}
	if errors.Is(err, instance.ErrUnnoted) { // as well
		e.Log.Warn("an instance could not be looked after", "why", err)
		return nil
	}
	if err != nil {
		return err
	}
	return e.call(ctx, name, &call{Verb: "stop", Signal: signal, Grace: grace}, grace+killTimeout)
}

// resizeTimeout is how long a guest may take to add or give up CPUs.
const resizeTimeout = time.Minute

// Resize changes how many CPUs a running instance has.
func (e *Engine) Resize(ctx context.Context, name string, cpus int) error {
	if err := e.checkLive(ctx, name, "resize"); err != nil {
		return err
	}
	return e.call(ctx, name, &call{Verb: "resize", CPUs: cpus}, resizeTimeout)
}

// checkRunning refuses instances that are neither loaded nor running, or have nobody who
// could be asked.
func (e *Engine) checkRunning(name, verb string) error {
	r, err := e.Store().Get(name)
	if err == nil {
		err = r.CheckState(verb, instance.Running, instance.Loaded)
	}
	if err == nil && r.Unattended() {
		err = fmt.Errorf("instance %q: cannot %s: %w", name, verb, instance.ErrUnattended)
	}
	return err
}
