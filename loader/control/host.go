// SPDX-License-Identifier: Apache-2.0

package control

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/tenon-build/tenon/loader/limit"
)

// Host is the host's side of the channel to one guest. Its methods may be called from
// several goroutines.
type Host struct {
	port  Port
	conn  *Conn
	event func(*Message)

	mu        sync.Mutex
	configure func() *Configure // nil: the guest is configured
	pending   []int             // signals that came before that
	exit      *Exit
	asked     int // CPUs of the resize that has no answer yet
	answers   chan *Resized
}

// Port is the byte stream below a Host.
type Port interface {
	io.ReadWriter
	SetWriteDeadline(time.Time) error
}

// sendTimeout is how long what is sent may stay unread.
const sendTimeout = 2 * time.Second

// NewHost makes the host's side. configure is called once, for the guest's Hello; nil
// means that another process has configured the guest. event is called, in order, for
// each Ready, Health and Heartbeat.
func NewHost(port Port, configure func() *Configure, event func(*Message)) *Host {
	return &Host{port: port, conn: NewConn(port), configure: configure, event: event}
}

// Converse answers the guest until it is gone. An error says that it broke the protocol.
func (h *Host) Converse() error {
	for {
		m, err := h.conn.Receive()
		switch {
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, os.ErrClosed):
			return nil
		case err != nil:
			return err
		case m.Hello != nil:
			err = h.answer()
		case m.Exit != nil:
			h.mu.Lock()
			h.exit = m.Exit
			h.mu.Unlock()
		case m.Resized != nil:
			h.resized(m.Resized)
		case m.Configure != nil, m.Signal != nil, m.Resize != nil:
			err = errors.New("control: the guest sent what only a host sends")
		default:
			h.event(m)
		}
		if err != nil {
			return err
		}
	}
}

// answer sends Configure, and the signals that came too early for the guest.
func (h *Host) answer() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.configure == nil {
		return errors.New("control: the guest said hello twice")
	}
	messages := []*Message{{Configure: h.configure()}}
	h.configure = nil
	for _, n := range h.pending {
		messages = append(messages, &Message{Signal: &Signal{Number: n}})
	}
	for _, m := range messages {
		if err := h.send(m); err != nil {
			return fmt.Errorf("control: the guest does not listen: %w", err)
		}
	}
	return nil
}

func (h *Host) send(m *Message) error {
	if err := h.port.SetWriteDeadline(time.Now().Add(sendTimeout)); err != nil {
		return err
	}
	return h.conn.Send(m)
}

// Signal asks PID 1 to signal the app. Before PID 1 listens, the signal is kept for it.
func (h *Host) Signal(number int) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.configure != nil {
		if len(h.pending) == limit.Signals {
			return fmt.Errorf("%d signals wait for the guest already", limit.Signals)
		}
		h.pending = append(h.pending, number)
		return nil
	}
	return h.send(&Message{Signal: &Signal{Number: number}})
}

// Resize asks PID 1 to use n CPUs. Its answer comes by the channel, which is never closed.
func (h *Host) Resize(n int) (<-chan *Resized, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.configure != nil {
		return nil, errors.New("it is still booting")
	}
	h.asked, h.answers = n, make(chan *Resized, 1)
	return h.answers, h.send(&Message{Resize: &Resize{CPUs: n}})
}

func (h *Host) resized(r *Resized) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if r.CPUs == h.asked { // else nobody waits for it any more
		h.answers <- r
		h.asked = 0
	}
}

// Exit returns how the app ended; nil: the guest has not said.
func (h *Host) Exit() *Exit {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.exit
}
