// SPDX-License-Identifier: Apache-2.0

// Package control is the control channel between whoever runs an instance and
// its PID 1.
//
// The wire: frames in both directions over a reliable byte stream (a
// virtio-serial port on qemu). A frame is a 4-byte big-endian length, 1 to
// MaxFrame, and that many bytes of JSON: one Message with exactly one field
// set. The guest opens with Hello; the host answers with Configure; then
// either side sends what it has. Refused: longer frames, unknown fields,
// anything else than one field set.
//
// What the host sends can never change what runs: no entrypoint, user, mount
// or undeclared environment variable.
package control

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"
	"unicode"

	"github.com/tenon-build/tenon/loader/limit"
	"github.com/tenon-build/tenon/signer/strictjson"
)

// Version is the protocol version that Hello announces.
const Version = 1

// HeartbeatInterval is how often the guest sends a Heartbeat.
const HeartbeatInterval = 5 * time.Second

// MaxFrame is the largest JSON document of one frame, in bytes.
const MaxFrame = limit.Frame

// MaxCPUs is how many CPUs a machine may have: as many as Linux on x86-64 can be
// configured for.
const MaxCPUs = 8192

// PortName is the name of the virtio-serial port.
const PortName = "org.tenon.control"

// Message is one frame: exactly one field is set.
type Message struct {
	// From the guest.
	Hello     *Hello     `json:"hello,omitempty"`
	Ready     *Ready     `json:"ready,omitempty"`
	Health    *Health    `json:"health,omitempty"`
	Heartbeat *Heartbeat `json:"heartbeat,omitempty"`
	Resized   *Resized   `json:"resized,omitempty"`
	Exit      *Exit      `json:"exit,omitempty"`

	// From the host.
	Configure *Configure `json:"configure,omitempty"`
	Signal    *Signal    `json:"signal,omitempty"`
	Resize    *Resize    `json:"resize,omitempty"`
}

// Hello is the guest's first frame.
type Hello struct {
	Version int    `json:"version"`
	Release string `json:"release"` // uname -r
}

// Ready says that the app's process has been started.
type Ready struct {
	PID    int   `json:"pid"`
	Uptime int64 `json:"uptime"` // nanoseconds since the kernel started
}

// Health reports a change of the health state: "healthy" or "unhealthy".
type Health struct {
	Status string `json:"status"`
	Output string `json:"output,omitempty"` // why, as Line makes it
}

// Heartbeat comes every HeartbeatInterval.
type Heartbeat struct {
	Uptime int64 `json:"uptime"` // nanoseconds since the kernel started
}

// Resized answers a Resize. Error, as Line makes it, says why it was not done; a
// part of it may have been.
type Resized struct {
	CPUs  int    `json:"cpus"` // as in Resize
	Error string `json:"error,omitempty"`
}

// Exit is the guest's last frame: how the app ended. Error is set when PID 1
// could not run the app, and Code is then 125, 126 or 127 as in docker; Signal
// is set when a signal ended it; else Code is its exit status, 0 to 255.
type Exit struct {
	Code   int    `json:"code"`
	Signal int    `json:"signal,omitempty"`
	Error  string `json:"error,omitempty"`
}

// Configure is the host's first frame; a later one is refused. Empty fields
// leave what was built in.
type Configure struct {
	Hostname  string            `json:"hostname,omitempty"`
	Address   string            `json:"address,omitempty"`   // of the first network interface, CIDR notation; empty means DHCP
	Gateway   string            `json:"gateway,omitempty"`   // IPv4 address
	Resolvers []string          `json:"resolvers,omitempty"` // IPv4 or IPv6 addresses
	Time      int64             `json:"time,omitempty"`      // Unix time in nanoseconds
	Env       map[string]string `json:"env,omitempty"`       // values of declared parameters
}

// Signal asks PID 1 to send a signal to the app.
type Signal struct {
	Number int `json:"number"` // Linux signal number, 1 to 64
}

// Resize asks PID 1 to bring the first CPUs of the machine online, as soon as they
// are there, and to take the others offline.
type Resize struct {
	CPUs int `json:"cpus"` // 1 to MaxCPUs
}

// Conn reads and writes frames. Send may be called from several goroutines.
type Conn struct {
	rw io.ReadWriter
	mu sync.Mutex // orders writes
}

// NewConn makes a Conn on a byte stream.
func NewConn(rw io.ReadWriter) *Conn { return &Conn{rw: rw} }

// Send writes one frame.
func (c *Conn) Send(m *Message) error {
	if err := m.check(); err != nil {
		return err
	}
	body, err := json.Marshal(m)
	if err != nil {
		return err
	}
	if len(body) > MaxFrame {
		return fmt.Errorf("control: frame of %d bytes, at most %d", len(body), MaxFrame)
	}
	frame := binary.BigEndian.AppendUint32(make([]byte, 0, 4+len(body)), uint32(len(body)))
	c.mu.Lock()
	defer c.mu.Unlock()
	_, err = c.rw.Write(append(frame, body...))
	return err
}

// Receive reads one frame. It returns io.EOF when the stream ends between
// frames, and io.ErrUnexpectedEOF when it ends within one.
func (c *Conn) Receive() (*Message, error) {
	var head [4]byte
	if _, err := io.ReadFull(c.rw, head[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(head[:])
	if n == 0 || n > MaxFrame {
		return nil, fmt.Errorf("control: frame of %d bytes, want 1 to %d", n, MaxFrame)
	}
	body := make([]byte, n)
	if _, err := io.ReadFull(c.rw, body); err != nil {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return nil, fmt.Errorf("control: frame of %d bytes: %w", n, err)
	}
	var m Message
	if err := strictjson.Decode(body, MaxFrame, &m); err != nil {
		return nil, fmt.Errorf("control: %w", err)
	}
	if err := m.check(); err != nil {
		return nil, err
	}
	return &m, nil
}

// check refuses a message that has not exactly one field set, or values that
// the other side could not rely on.
func (m *Message) check() error {
	set := 0
	for _, present := range []bool{
		m.Hello != nil, m.Ready != nil, m.Health != nil, m.Heartbeat != nil, m.Resized != nil, m.Exit != nil,
		m.Configure != nil, m.Signal != nil, m.Resize != nil,
	} {
		if present {
			set++
		}
	}
	switch {
	case set != 1:
		return fmt.Errorf("control: a frame has %d messages, want 1", set)
	case m.Hello != nil && m.Hello.Version != Version:
		return fmt.Errorf("control: protocol version %d, want %d", m.Hello.Version, Version)
	case m.Health != nil && m.Health.Status != "healthy" && m.Health.Status != "unhealthy":
		return fmt.Errorf("control: health status %q", m.Health.Status)
	case m.Health != nil && m.Health.Output != Line(m.Health.Output):
		return errors.New("control: health output is not one printable line")
	case m.Exit != nil:
		return m.Exit.check()
	case m.Signal != nil && (m.Signal.Number < 1 || m.Signal.Number > maxSignal):
		return fmt.Errorf("control: signal %d", m.Signal.Number)
	case m.Resize != nil && (m.Resize.CPUs < 1 || m.Resize.CPUs > MaxCPUs):
		return fmt.Errorf("control: resize to %d CPUs", m.Resize.CPUs)
	case m.Resized != nil && (m.Resized.CPUs < 1 || m.Resized.CPUs > MaxCPUs || m.Resized.Error != Line(m.Resized.Error)):
		return fmt.Errorf("control: resized to %d CPUs, error %.80q", m.Resized.CPUs, m.Resized.Error)
	}
	return nil
}

const maxSignal = 64

func (e *Exit) check() error {
	switch {
	case e.Error != "" && (e.Error != Line(e.Error) || e.Signal != 0 || e.Code < 125 || e.Code > 127):
		return fmt.Errorf("control: exit with error %.80q, code %d, signal %d", e.Error, e.Code, e.Signal)
	case e.Code < 0 || e.Code > 255 || e.Signal < 0 || e.Signal > maxSignal || e.Code != 0 && e.Signal != 0:
		return fmt.Errorf("control: exit with code %d, signal %d", e.Code, e.Signal)
	}
	return nil
}

// Line makes text fit for a message: one printable line of at most 4 KiB.
func Line(text string) string {
	text = strings.ReplaceAll(strings.TrimSpace(text), "\n", "; ")
	text = strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return '?'
	}, strings.ToValidUTF8(text, "?"))
	if len(text) > maxLine {
		text = strings.ToValidUTF8(text[:maxLine], "")
	}
	return strings.TrimSpace(text)
}

const maxLine = 4096
