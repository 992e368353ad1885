// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tenon-build/tenon/loader/alloc"
	"github.com/tenon-build/tenon/loader/instance"
)

// socketFile is the socket of an instance's supervisor, in the instance's directory.
// Each connection is one call: the client sends a call and gets a reply, both JSON. A
// reply to "attach" without an error is followed by what the instance prints, and what
// the client sends is typed on the console.
const socketFile = "supervisor.sock"

// call is what a supervisor is asked for.
type call struct {
	Verb   string        `json:"verb"` // signal, stop, resize, attach
	Signal int           `json:"signal,omitempty"`
	Grace  time.Duration `json:"grace,omitempty"` // of stop
	CPUs   int           `json:"cpus,omitempty"`  // of resize
	All    bool          `json:"all,omitempty"`   // attach: with what was printed before
	Type   bool          `json:"type,omitempty"`  // attach: and type
}

// reply is how that went.
type reply struct {
	Error string `json:"error,omitempty"`
	Taken bool   `json:"taken,omitempty"` // the error is alloc.ErrTaken
}

// maxCall is the largest call, in bytes.
const maxCall = 4096

// listen makes the socket. Its directory is open to this user alone.
func (s *supervisor) listen() (net.Listener, error) {
	dir, err := os.Open(s.Store().Path(s.name))
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	if err := unix.Unlinkat(int(dir.Fd()), socketFile, 0); err != nil && !errors.Is(err, unix.ENOENT) {
		return nil, fmt.Errorf("removing %s/%s: %w", dir.Name(), socketFile, err)
	}
	l, err := net.Listen("unix", socketPath(dir))
	if err != nil {
		return nil, fmt.Errorf("listening on %s/%s: %w", dir.Name(), socketFile, cause(err))
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false) // the path is not there any more
	return l, nil
}

// socketPath is short enough for an address, which a directory's own path may not be.
func socketPath(dir *os.File) string {
	return fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), socketFile)
}

// cause takes off what package net says of an address that nobody knows.
func cause(err error) error {
	var op *net.OpError
	if errors.As(err, &op) {
		return op.Err
	}
	return err
}

// serve answers calls until the listener is closed.
func (s *supervisor) serve() {
	for {
		conn, err := s.listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			s.Log.Warn("accepting a call", "why", err)
			time.Sleep(100 * time.Millisecond)
			continue
		}
		s.calls.Go(func() {
			defer conn.Close()
			s.answer(conn)
		})
	}
}

// goodbye takes no more calls, and lets those that wait for the end have their replies.
func (s *supervisor) goodbye() {
	if s.listener != nil {
		_ = s.listener.Close() // the socket's name may be the next one's already
	}
	close(s.done)
	answered := make(chan struct{})
	go func() {
		s.calls.Wait()
		close(answered)
	}()
	select {
	case <-answered:
	case <-time.After(2 * time.Second):
	}
}

func (s *supervisor) answer(conn net.Conn) {
	var c call
	_ = conn.SetReadDeadline(time.Now().Add(5 * time.Second))
	in := json.NewDecoder(io.LimitReader(conn, maxCall))
	if err := in.Decode(&c); err != nil {
		return // whoever it was is gone
	}
	_ = conn.SetReadDeadline(time.Time{})
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	if c.Verb == "stop" || c.Verb == "signal" && c.Signal == int(unix.SIGKILL) {
		select {
		case <-s.up:
		default:
			s.abort()
		}
	}
	select {
	case <-s.up:
	case <-s.done:
		out := reply{Error: fmt.Sprintf("instance %q: it could not be started", s.name)}
		if c.Verb == "stop" || c.Verb == "signal" {
			out.Error = "" // which is what was wanted
		}
		_ = json.NewEncoder(conn).Encode(out)
		return
	}
	if c.Verb == "attach" {
		s.attach(ctx, cancel, conn, &c)
		return
	}
	err := s.do(ctx, &c)
	out := reply{Taken: errors.Is(err, alloc.ErrTaken)}
	if err != nil {
		out.Error = err.Error()
	}
	_ = json.NewEncoder(conn).Encode(out)
}

func (s *supervisor) do(ctx context.Context, c *call) error {
	switch {
	case c.Verb == "stop":
		go s.end(c.Signal, c.Grace)
	case c.Verb == "signal" && c.Signal == int(unix.SIGKILL):
		if err := s.instance.Kill(); err != nil {
			return err
		}
	case c.Verb == "signal":
		return s.instance.Signal(c.Signal)
	case c.Verb == "resize":
		return s.resize(ctx, c.CPUs)
	default:
		return fmt.Errorf("%q is not a call that this version of mortise answers", c.Verb)
	}
	<-s.done
	return s.result
}

// attach joins a connection to the console, until either ends.
func (s *supervisor) attach(ctx context.Context, cancel func(), conn net.Conn, c *call) {
	var out reply
	if c.Type && !s.want.backend.Can().Input {
		out.Error = fmt.Sprintf("back end %s: its console cannot be typed on", s.want.backend.Name())
	}
	if json.NewEncoder(conn).Encode(out) != nil || out.Error != "" {
		return
	}
	go func() {
		defer cancel()
		keys := make([]byte, 1024)
		for {
			n, err := conn.Read(keys)
			if err != nil {
				return
			}
			if c.Type && s.instance.Type(keys[:n]) != nil {
				return
			}
		}
	}()
	_ = s.console.follow(ctx, conn, c.All)
}

// resize gives the instance more CPUs, or takes some back. The instance keeps those
// that it has: they are taken before it gets them, and given back after it gave them up.
func (s *supervisor) resize(ctx context.Context, cpus int) error {
	s.holding.Lock()
	defer s.holding.Unlock()
	if s.over {
		return fmt.Errorf("instance %q: cannot resize: it has ended", s.name)
	}
	if !s.want.backend.Can().Resize {
		return fmt.Errorf("%w: %s cannot resize", ErrBackend, s.want.backend.Name())
	}
	request, before := s.want.request, s.plan
	request.CPUs, request.CPUList, request.Keep = cpus, nil, before
	planned := func(others []alloc.Holding) (p *alloc.Plan, err error) {
		t, err := alloc.Read(s.Root)
		if err == nil {
			p, err = t.Plan(request, s.held(others))
		}
		return p, planning(s.name, err)
	}
	apply := func(plan func([]alloc.Holding) (*alloc.Plan, error)) error {
		report, err := s.Host().Apply(s.name, func(others []alloc.Holding, _ *alloc.Plan) (p *alloc.Plan, err error) {
			if p, err = plan(others); err == nil {
				s.plan = p
			}
			return p, err
		})
		if err != nil {
			s.plan = before
			return unwrapPlan(err)
		}
		s.taken = report
		_, err = s.update(func(r *instance.Record) error { r.Held = heldOf(s.plan); return nil })
		return err
	}
	// Before Linux 6.2 a change of the group resets what threads are pinned to, so that
	// the instance pins them after each.
	pinned := func() error { return s.instance.Resize(ctx, s.plan.CPUs) }
	if cpus < len(before.CPUs) {
		p, err := planned(nil) // of its own, which nobody else can have
		if err == nil {
			err = s.instance.Resize(ctx, p.CPUs)
		}
		if err == nil {
			err = apply(func([]alloc.Holding) (*alloc.Plan, error) { return p, nil })
		}
		if err != nil {
			return err
		}
		return pinned()
	}
	if err := apply(planned); err != nil {
		return err
	}
	err := pinned()
	if err != nil {
		err = errors.Join(err, apply(func([]alloc.Holding) (*alloc.Plan, error) { return before, nil }), pinned())
	}
	return err
}

// dial connects to an instance's supervisor.
func (e *Engine) dial(ctx context.Context, name string) (net.Conn, error) {
	dir, err := os.Open(e.Store().Path(name))
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
		if _, ended := e.running(name, c.Verb); ended != nil { // meanwhile
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
	decoder := json.NewDecoder(conn)
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
	if err := e.live(ctx, name, "attach to"); err != nil {
		return nil, err
	}
	return e.open(ctx, name, &call{Verb: "attach", All: all, Type: input})
}

// live refuses instances that do not run, also those that only their record says do.
func (e *Engine) live(ctx context.Context, name, verb string) error {
	if err := e.Recover(ctx); err != nil {
		return err
	}
	_, err := e.running(name, verb)
	return err
}

// Signal sends a Linux signal to an instance's app. SIGKILL is for Kill.
func (e *Engine) Signal(ctx context.Context, name string, signal int) error {
	if err := e.live(ctx, name, "signal"); err != nil {
		return err
	}
	return e.call(ctx, name, &call{Verb: "signal", Signal: signal}, callTimeout)
}

// callTimeout is for calls that do not wait for the guest.
const callTimeout = 10 * time.Second

// Stop asks an instance's app to stop, by its own stop signal if signal is 0, ends the
// machine when that takes longer than grace, and waits until all is given back.
func (e *Engine) Stop(ctx context.Context, name string, signal int, grace time.Duration) error {
	err := e.live(ctx, name, "stop")
	if t := new(instance.TransitionError); errors.As(err, &t) && t.State != instance.Created {
		return nil // it has ended already, which is what was wanted
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
	if err := e.live(ctx, name, "resize"); err != nil {
		return err
	}
	return e.call(ctx, name, &call{Verb: "resize", CPUs: cpus}, resizeTimeout)
}
