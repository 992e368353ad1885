// SPDX-License-Identifier: Apache-2.0

package session

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tenon-build/tenon/loader"
	"github.com/tenon-build/tenon/loader/control"
)

// guest is the other end of a session.
type guest struct {
	console net.Conn
	channel *control.Conn
	end     func()
	killed  atomic.Bool
}

// talk starts a session with a guest that ends by end, or when it is killed.
func talk(t *testing.T, c loader.Config, told bool) (*guest, *Session) {
	t.Helper()
	ours, theirs := net.Pipe()
	port, conn := net.Pipe()
	gone := make(chan struct{})
	g := &guest{console: theirs, channel: control.NewConn(conn)}
	g.end = sync.OnceFunc(func() { theirs.Close(); conn.Close(); close(gone) })
	s := New(&c, Guest{
		Console: ours, Channel: port, Told: told,
		Configure: func(c *control.Configure) { c.Address = "10.0.2.15/24" },
		Kill:      func() error { g.killed.Store(true); g.end(); return nil },
		Gone:      func() { <-gone },
	})
	t.Cleanup(func() { g.end(); ours.Close(); port.Close() })
	return g, s
}

func send(t *testing.T, g *guest, m *control.Message) {
	t.Helper()
	if err := g.channel.Send(m); err != nil {
		t.Error(err)
	}
}

func TestSession(t *testing.T) {
	var console bytes.Buffer
	var events []loader.Event
	c := loader.Config{
		Settings: loader.Settings{Hostname: "web", Env: map[string]string{"PORT": "80"}},
		Console:  &console, Event: func(e loader.Event) { events = append(events, e) },
	}
	g, s := talk(t, c, false)
	s.Follow(t.Context(), time.Now().Add(-time.Hour))
	if err := s.Signal(15); err != nil { // it is kept until the guest listens
		t.Error(err)
	}
	send(t, g, &control.Message{Hello: &control.Hello{Version: control.Version, Release: "6.1"}})
	m, err := g.channel.Receive()
	if err != nil || m.Configure == nil || m.Configure.Hostname != "web" || m.Configure.Address != "10.0.2.15/24" || m.Configure.Env["PORT"] != "80" || m.Configure.Time == 0 {
		t.Errorf("%+v, %v", m, err)
	}
	if m, err := g.channel.Receive(); err != nil || m.Signal == nil || m.Signal.Number != 15 {
		t.Errorf("%+v, %v", m, err)
	}
	send(t, g, &control.Message{Ready: &control.Ready{PID: 2}})
	if _, err := io.WriteString(g.console, "hello"); err != nil {
		t.Error(err)
	}
	send(t, g, &control.Message{Exit: &control.Exit{Code: 7}})
	g.end()
	exit, err := s.Wait()
	if err != nil || exit == nil || exit.Code != 7 || console.String() != "hello" {
		t.Errorf("%+v, %v, %q", exit, err, console.String())
	}
	if len(events) != 1 || events[0].Ready == nil || events[0].Since < time.Hour {
		t.Errorf("%+v", events)
	}
}

func TestSessionEnds(t *testing.T) {
	for name, test := range map[string]struct {
		told   bool
		do     func(t *testing.T, g *guest, cancel func())
		killed bool
		want   string // of the error
	}{
		"silent":  {false, func(_ *testing.T, g *guest, _ func()) { g.end() }, false, ""},
		"context": {false, func(_ *testing.T, _ *guest, cancel func()) { cancel() }, true, ""},
		"hello once more": {true, func(t *testing.T, g *guest, _ func()) {
			send(t, g, &control.Message{Hello: &control.Hello{Version: control.Version}})
		}, true, "the guest was ended: control: the guest said hello twice"},
		"another's words": {false, func(t *testing.T, g *guest, _ func()) {
			send(t, g, &control.Message{Signal: &control.Signal{Number: 9}})
		}, true, "what only a host sends"},
		"console is full": {false, func(_ *testing.T, g *guest, _ func()) { _, _ = io.WriteString(g.console, "x"); g.end() }, false, "writing the console: no space"},
		"console not read": {false, func(_ *testing.T, g *guest, _ func()) {
			_, _ = io.WriteString(g.console, strings.Repeat("x", 1<<20))
			g.end()
		}, false, "writing the console: no space"},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			g, s := talk(t, loader.Config{Console: fullDisk{}}, test.told)
			s.Follow(ctx, time.Now())
			test.do(t, g, cancel)
			exit, err := s.Wait()
			if exit != nil || (err == nil) != (test.want == "") || err != nil && !strings.Contains(err.Error(), test.want) || g.killed.Load() != test.killed {
				t.Errorf("%+v, %v, killed %v; want %q", exit, err, g.killed.Load(), test.want)
			}
		})
	}
}

type fullDisk struct{}

func (fullDisk) Write([]byte) (int, error) { return 0, errors.New("no space") }

// Several type on a console that nobody reads.
func TestTypeEnds(t *testing.T) {
	t.Parallel()
	_, s := talk(t, loader.Config{}, false)
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			if err := s.Type(make([]byte, 1<<20)); !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("got %v, want %v", err, os.ErrDeadlineExceeded)
			}
		})
	}
	all.Wait()
}
