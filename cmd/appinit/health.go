// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tenon-build/tenon/builder/bundle/manifest"
	"github.com/tenon-build/tenon/loader/control"
)

// startPoll is how often an app that has not been healthy yet is checked.
const startPoll = 100 * time.Millisecond

// watchHealth checks the app until it ends, and reports each change.
func (p *pid1) watchHealth(a *app, check *manifest.Health) {
	state := healthState{retries: check.Retries}
	for {
		began := time.Now()
		var err error
		if check.TCP != 0 {
			err = checkTCP(check.TCP, check.Timeout)
		} else {
			err = a.checkExec(p.children, check.Exec, check.Timeout)
		}
		if errors.Is(err, errEnded) {
			return
		}
		if state.observe(err == nil) {
			p.host.send(&control.Message{Health: state.report(err)})
		}
		pause := check.Interval
		if state.status == "" {
			// A command that takes long must not take a CPU away from the app.
			pause = min(pause, max(startPoll, time.Since(began)))
		}
		time.Sleep(pause)
	}
}

// healthState turns the results of checks into a status.
type healthState struct {
	retries  int
	failures int    // in a row
	status   string // empty until the first success
}

// observe takes one result and says whether the status has changed.
func (s *healthState) observe(ok bool) bool {
	before := s.status
	if ok {
		s.failures, s.status = 0, "healthy"
	} else if s.failures++; s.status == "healthy" && s.failures >= s.retries {
		s.status = "unhealthy"
	}
	return s.status != before
}

func (s *healthState) report(err error) *control.Health {
	h := &control.Health{Status: s.status}
	if err != nil {
		h.Output = control.Line(err.Error())
	}
	return h
}

// checkTCP connects to the port on either loopback address.
func checkTCP(port int, timeout time.Duration) error {
	err := dial(unix.AF_INET, &unix.SockaddrInet4{Port: port, Addr: [4]byte{127, 0, 0, 1}}, timeout)
	if err != nil && dial(unix.AF_INET6, &unix.SockaddrInet6{Port: port, Addr: [16]byte{15: 1}}, timeout) == nil {
		return nil
	}
	if err != nil {
		return fmt.Errorf("port %d: %w", port, err)
	}
	return nil
}

func dial(family int, to unix.Sockaddr, timeout time.Duration) error {
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.Connect(fd, to); err != unix.EINPROGRESS {
		return err
	}
	deadline := time.Now().Add(timeout)
	for {
		ready := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}
		n, err := unix.Poll(ready, int(max(0, time.Until(deadline)).Milliseconds()))
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return err
		}
		if n == 0 {
			return unix.ETIMEDOUT
		}
		failed, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR)
		if err == nil && failed != 0 {
			err = unix.Errno(failed)
		}
		return err
	}
}

// checkExec runs the command and takes its output as the reason of a failure.
func (a *app) checkExec(c *children, argv []string, timeout time.Duration) error {
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close()
	pid, status, err := a.exec(c, argv, w.Fd(), w.Fd())
	w.Close()
	if err != nil {
		return err
	}
	output := make(chan string, 1)
	go func() {
		data, _ := io.ReadAll(io.LimitReader(r, 4096))
		output <- string(data)
		_, _ = io.Copy(io.Discard, r) // or the command blocks
	}()
	var result unix.WaitStatus
	select {
	case result = <-status:
	case <-time.After(timeout):
		_ = unix.Kill(-pid, unix.SIGKILL)
		<-status
		return fmt.Errorf("%s: no result in %v", argv[0], timeout)
	}
	if result.Exited() && result.ExitStatus() == 0 {
		return nil
	}
	// What it left running may hold the pipe: take what is there.
	_ = r.SetReadDeadline(time.Now().Add(startPoll))
	return fmt.Errorf("%s: status %d: %s", argv[0], result.ExitStatus(), <-output)
}
