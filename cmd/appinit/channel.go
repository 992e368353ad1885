// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tenon-build/tenon/loader/control"
)

const (
	portTimeout      = time.Second      // for the kernel to name the ports of a virtio-serial device
	configureTimeout = 10 * time.Second // for the host to connect and answer
	sendTimeout      = 2 * time.Second  // for a host that is away
)

// channel is the control channel. Its methods do nothing on nil, which is the
// channel of a machine without one.
type channel struct {
	port *port
	conn *control.Conn
	mu   sync.Mutex // orders deadlines and writes
}

// connect opens the control channel, if there is one, and returns what the
// host configured.
func (p *pid1) connect() (*control.Configure, error) {
	path := findPort("/sys", time.Now().Add(portTimeout))
	if path == "" {
		return &control.Configure{}, nil
	}
	port, err := openPort(path)
	if err != nil {
		return nil, err
	}
	p.host = &channel{port: port, conn: control.NewConn(port)}
	config, err := p.host.configuration()
	if errors.Is(err, os.ErrDeadlineExceeded) {
		note("no configuration from the host in %v, going on with what was built in", configureTimeout)
		config, err = &control.Configure{}, nil
	}
	if err != nil {
		return nil, err
	}
	return config, nil
}

// findPort returns the device of the control channel, or "": the one of the
// driver for kernels beside a host, or the port that is named control.PortName.
// The kernel learns the names by messages that may still be under way, so it is
// asked again until deadline where there is a virtio-serial device at all.
func findPort(sys string, deadline time.Time) string {
	if unix.Access(sys+"/class/misc/tenon-control", unix.F_OK) == nil {
		return "/dev/tenon-control"
	}
	for {
		ports, _ := readDir(sys + "/class/virtio-ports")
		for _, port := range ports {
			name, _ := readFile(sys + "/class/virtio-ports/" + port + "/name")
			if strings.TrimSpace(string(name)) == control.PortName {
				return "/dev/" + port
			}
		}
		bound, _ := readDir(sys + "/bus/virtio/drivers/virtio_console")
		device := false
		for _, entry := range bound {
			device = device || strings.HasPrefix(entry, "virtio")
		}
		if !device || time.Now().After(deadline) {
			return ""
		}
		time.Sleep(time.Millisecond)
	}
}

// configuration says Hello and waits for the answer. It returns
// os.ErrDeadlineExceeded when none came.
func (c *channel) configuration() (*control.Configure, error) {
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return nil, fmt.Errorf("uname: %w", err)
	}
	hello := &control.Message{Hello: &control.Hello{Version: control.Version, Release: unix.ByteSliceToString(name.Release[:])}}
	deadline := time.Now().Add(configureTimeout)
	c.port.readDeadline, c.port.writeDeadline = deadline, deadline
	defer func() { c.port.readDeadline = time.Time{} }()
	for {
		if err := c.conn.Send(hello); err != nil {
			return nil, err
		}
		m, err := c.conn.Receive()
		if hungUp(err) && time.Now().Before(deadline) {
			time.Sleep(10 * time.Millisecond)
			continue
		}
		if err != nil {
			return nil, err
		}
		if m.Configure == nil {
			return nil, errors.New("control: the host's first message is not configure")
		}
		return m.Configure, nil
	}
}

// hungUp says whether err is how a port reads while no host is connected.
func hungUp(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
}

// receive passes on what the host asks for. A host that is gone may come back; one
// that breaks the protocol is not listened to any more. The app runs on.
func (p *pid1) receive() {
	for {
		m, err := p.host.conn.Receive()
		switch {
		case errors.Is(err, os.ErrClosed):
			return
		case hungUp(err):
			time.Sleep(time.Second)
		case err != nil:
			note("%v; the host is not listened to any more", err)
			return
		case m.Signal != nil:
			p.signals <- unix.Signal(m.Signal.Number)
		case m.Resize != nil:
			select {
			case p.resizes <- m.Resize:
			default: // never with a host that waits for its answers; signals do not wait
				note("control: refused a resize, as others wait")
			}
		default:
			note("control: refused a message that is out of place")
		}
	}
}

// send sends one message, if it can within sendTimeout. A frame of less than
// 32 KiB, as all of ours are, is written whole or not at all.
func (c *channel) send(m *control.Message) {
	if c == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.port.writeDeadline = time.Now().Add(sendTimeout)
	_ = c.conn.Send(m) // there is nobody else to tell
}

func (c *channel) heartbeat() {
	for range time.Tick(control.HeartbeatInterval) {
		c.send(&control.Message{Heartbeat: &control.Heartbeat{Uptime: uptime()}})
	}
}

// close returns when the host's device has what was sent.
func (c *channel) close() {
	if c == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.port.close()
}

// uptime returns nanoseconds since the kernel started.
func uptime() int64 {
	var t unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_BOOTTIME, &t) // cannot fail with this clock
	return t.Nano()
}
