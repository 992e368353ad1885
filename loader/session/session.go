// SPDX-License-Identifier: Apache-2.0

// Package session is what every back end does alike while an instance runs: it copies the
// console, types on it, speaks with PID 1, passes on what PID 1 reports, and tells how the app ended.
//
// In: a configuration, a console and a control channel. Out: events, and the app's exit
// status when the guest has said it. Refused: a guest that breaks the protocol, which is
// ended. A console that cannot be written ends no guest: it is an error of Wait. When a guest
// has not said how it ended, the back end has to find out.
package session

import (
	"context"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/tenon-build/tenon/loader"
	"github.com/tenon-build/tenon/loader/control"
)

// Guest is what a back end has of a machine.
type Guest struct {
	Console, Channel control.Port // both end with the guest

	// Configure completes what the guest is told when it says hello; it may be nil.
	Configure func(*control.Configure)
	Told      bool // another process has told it

	Kill func() error // ends it at once
	Gone func()       // returns when it is gone
}

// Session is the conversation with one guest. Its methods may be called from several
// goroutines.
type Session struct {
	*control.Host
	config  *loader.Config
	guest   Guest
	started time.Time

	ended      chan struct{}
	consoleErr error // of writing the console; valid after ended
	talkErr    error // the guest broke the protocol; likewise
}

// New makes a session with a guest that Follow listens to. Until then, what is sent is
// kept.
func New(c *loader.Config, g Guest) *Session {
	s := &Session{config: c, guest: g, ended: make(chan struct{})}
	configure := s.configure
	if g.Told {
		configure = nil
	}
	s.Host = control.NewHost(g.Channel, configure, s.event)
	return s
}

func (s *Session) configure() *control.Configure {
	c := &control.Configure{Hostname: s.config.Hostname, Time: time.Now().UnixNano(), Env: s.config.Env}
	if s.guest.Configure != nil {
		s.guest.Configure(c)
	}
	return c
}

func (s *Session) event(m *control.Message) {
	if s.config.Event != nil {
		s.config.Event(loader.Event{Since: time.Since(s.started), Ready: m.Ready, Health: m.Health, Heartbeat: m.Heartbeat})
	}
}

// Follow listens to the guest, which was started then, until it is gone. When ctx ends
// before that, the guest is killed.
func (s *Session) Follow(ctx context.Context, started time.Time) {
	s.started = started
	var output sync.WaitGroup
	output.Go(func() {
		out := &sink{w: s.config.Console}
		_, _ = io.Copy(out, s.guest.Console)
		s.consoleErr = out.err
	})
	output.Go(func() {
		if err := s.Converse(); err != nil {
			s.talkErr = err
			_ = s.guest.Kill()
		}
	})
	output.Go(s.guest.Gone)
	go func() {
		output.Wait()
		close(s.ended)
	}()
	go func() {
		select {
		case <-ctx.Done():
			_ = s.guest.Kill()
		case <-s.ended:
		}
	}()
}

// Ended is closed when the guest is gone, and all that it said was read.
func (s *Session) Ended() <-chan struct{} { return s.ended }

// Wait waits until the guest has ended, and returns how the app ended. Both are nil when the
// guest has not said it.
func (s *Session) Wait() (*control.Exit, error) {
	<-s.ended
	switch {
	case s.talkErr != nil:
		return nil, fmt.Errorf("the guest was ended: %w", s.talkErr)
	case s.consoleErr != nil:
		return nil, fmt.Errorf("writing the console: %w", s.consoleErr)
	}
	return s.Exit(), nil
}

// typeTimeout is how long what is typed may stay unread.
const typeTimeout = 2 * time.Second

// Type writes to the guest's console. The error is os.ErrDeadlineExceeded when the guest
// does not read; it has a part of the keys then.
func (s *Session) Type(keys []byte) error {
	err := s.guest.Console.SetWriteDeadline(time.Now().Add(typeTimeout))
	if err == nil {
		_, err = s.guest.Console.Write(keys)
	}
	if err != nil {
		return fmt.Errorf("typing on the console: %w", err)
	}
	return nil
}

// sink passes on what is written to it until that fails, and takes the rest: a machine does
// not hang because nobody reads its console.
type sink struct {
	w   io.Writer // may be nil
	err error     // why it was not passed on
}

func (s *sink) Write(p []byte) (int, error) {
	if s.err == nil && s.w != nil {
		_, s.err = s.w.Write(p)
	}
	return len(p), nil
}
