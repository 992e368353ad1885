// SPDX-License-Identifier: Apache-2.0

package main

import (
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// port is the device of the control channel. A zero deadline is none. Writes,
// their deadline and close are for one goroutine at a time.
type port struct {
	fd                          int // -1 when closed
	readDeadline, writeDeadline time.Time
	reading                     sync.Mutex // held by Read
	stop                        [2]int     // a pipe whose end stops Read; zero: none
}

func openPort(path string) (*port, error) {
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	return &port{fd: fd}, nil
}

// interruptible lets close end a Read that waits.
func (p *port) interruptible() error {
	return os.NewSyscallError("pipe2", unix.Pipe2(p.stop[:], unix.O_CLOEXEC))
}

// close returns when the device has taken what was sent. The driver of virtio
// ports tells it of the close and spins until that message, later than ours, is
// consumed; a write alone returns when the data is queued, and a machine that
// powers off right then can lose it. Beside a host kernel, what was written is
// in memory that the host reads also after the end.
func (p *port) close() {
	if p.stop[1] != 0 {
		_ = unix.Close(p.stop[1])
	}
	p.reading.Lock() // the driver hears of no close while somebody still polls
	defer p.reading.Unlock()
	_ = unix.Close(p.fd)
	p.fd = -1
}

// Read returns io.EOF while no host is connected.
func (p *port) Read(b []byte) (int, error) {
	p.reading.Lock()
	defer p.reading.Unlock()
	if p.fd < 0 {
		return 0, os.ErrClosed
	}
	for {
		n, err := unix.Read(p.fd, b)
		switch {
		case err == unix.EAGAIN || err == unix.EINTR:
			if err := p.wait(unix.POLLIN, p.readDeadline); err != nil {
				return 0, err
			}
		case err != nil:
			return 0, os.NewSyscallError("read", err)
		case n == 0 && len(b) > 0:
			return 0, io.EOF
		default:
			return n, nil
		}
	}
}

// Write writes all of b.
func (p *port) Write(b []byte) (int, error) {
	if p.fd < 0 {
		return 0, os.ErrClosed
	}
	done := 0
	for done < len(b) {
		n, err := unix.Write(p.fd, b[done:])
		switch {
		case err == unix.EAGAIN || err == unix.EINTR:
			if err := p.wait(unix.POLLOUT, p.writeDeadline); err != nil {
				return done, err
			}
		case err != nil:
			return done, os.NewSyscallError("write", err)
		default:
			done += n
		}
	}
	return done, nil
}

// wait waits until the port can be read or written, or returns
// os.ErrDeadlineExceeded.
func (p *port) wait(events int16, deadline time.Time) error {
	timeout := -1
	if !deadline.IsZero() {
		left := time.Until(deadline)
		if left <= 0 {
			return os.ErrDeadlineExceeded
		}
		timeout = int(left.Milliseconds()) + 1
	}
	fds := []unix.PollFd{{Fd: int32(p.fd), Events: events}}
	if events == unix.POLLIN && p.stop[0] != 0 {
		fds = append(fds, unix.PollFd{Fd: int32(p.stop[0])})
	}
	_, err := unix.Poll(fds, timeout)
	switch {
	case err != nil && err != unix.EINTR:
		return os.NewSyscallError("poll", err)
	case len(fds) > 1 && fds[1].Revents != 0:
		return os.ErrClosed
	}
	return nil
}
