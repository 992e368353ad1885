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
	"github.com/tenon-build/tenon/loader/limit"
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

// listen makes the socket. Its directory is open to this user alone.
func (s *supervisor) listen() (net.Listener, error) {
	dir, err := s.Store().Open(s.name)
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
	free := make(chan struct{}, limit.Calls)
	for {
		free <- struct{}{} // when there are too many, the others wait
		conn, err := s.listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			s.Log.Warn("accepting a call", "why", err)
			time.Sleep(100 * time.Millisecond)
			<-free
			continue
		}
		s.calls.Go(func() {
			defer func() { <-free }()
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
	in := json.NewDecoder(io.LimitReader(conn, limit.Call))
	if err := in.Decode(&c); err != nil {
		return // whoever it was is gone
	}
	_ = conn.SetReadDeadline(time.Time{})
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	ending := c.Verb == "stop" || c.Verb == "signal" && c.Signal == int(unix.SIGKILL)
	if ending && s.is(starting) {
		select {
		case <-s.up:
		default:
			s.abort()
		}
	}
	select {
	case <-s.up:
	case <-s.done:
		var out reply
		switch {
		case s.is(attaching):
			out.Error = fmt.Sprintf("instance %q: cannot attend to it", s.name)
		case !ending:
			out.Error = fmt.Sprintf("instance %q: it could not be started", s.name)
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
			return fmt.Errorf("instance %q: ending it: %w", s.name, err)
		}
	case c.Verb == "signal":
		if err := s.instance.Signal(c.Signal); err != nil {
			return fmt.Errorf("instance %q: sending signal %d: %w", s.name, c.Signal, err)
		}
		return nil
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
