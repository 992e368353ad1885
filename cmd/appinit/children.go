// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// grace is how long processes that the app left behind have between SIGTERM
// and SIGKILL, and how long the dying are then waited for.
const grace = 2 * time.Second

var errEnded = errors.New("the app has ended")

// children starts processes and reaps all that end, those that they left
// behind included. One loop alone waits, so that no two waiters take each
// other's status; os/exec, which waits by itself, is not used.
type children struct {
	mu      sync.Mutex
	waiting map[int]chan<- unix.WaitStatus
	app     int           // the first one started; no other is started after its end
	ended   bool          // app has been reaped
	gone    chan struct{} // closed when no process is left
}

func newChildren() *children {
	return &children{waiting: map[int]chan<- unix.WaitStatus{}, gone: make(chan struct{})}
}

// start runs a program and returns its PID and where its status will come.
func (c *children) start(path string, argv []string, attr *syscall.ProcAttr) (int, <-chan unix.WaitStatus, error) {
	// Held until the PID is entered: the loop may reap it before that.
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended {
		return 0, nil, errEnded
	}
	pid, err := syscall.ForkExec(path, argv, attr)
	if err != nil {
		return 0, nil, err
	}
	status := make(chan unix.WaitStatus, 1)
	c.waiting[pid] = status
	if c.app == 0 {
		c.app = pid
		go c.reap()
	}
	return pid, status, nil
}

// reap runs while there is any child: from the app's start until the app and
// all orphans are gone.
func (c *children) reap() {
	for {
		var status unix.WaitStatus
		pid, err := unix.Wait4(-1, &status, 0, nil)
		switch err {
		case nil:
			c.reaped(pid, status)
		case unix.EINTR:
		default: // ECHILD
			close(c.gone)
			return
		}
	}
}

func (c *children) reaped(pid int, status unix.WaitStatus) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if done, ok := c.waiting[pid]; ok {
		done <- status
		delete(c.waiting, pid)
	}
	c.ended = c.ended || pid == c.app
}

// signal sends a signal to a process that was started here, if it still is
// there.
func (c *children) signal(pid int, s unix.Signal) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.waiting[pid]; ok {
		_ = unix.Kill(pid, s) // it may be a zombie already
	}
}

// stop ends every process but this one.
func (c *children) stop() {
	for _, s := range []unix.Signal{unix.SIGTERM, unix.SIGKILL} {
		_ = unix.Kill(-1, s) // ESRCH when there is none
		select {
		case <-c.gone:
			return
		case <-time.After(grace):
		}
	}
}
