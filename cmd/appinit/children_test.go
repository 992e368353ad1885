// SPDX-License-Identifier: Apache-2.0

package main

import (
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

func TestChildren(t *testing.T) {
	c := newChildren()
	attr := &syscall.ProcAttr{Files: []uintptr{0, 1, 2}}
	app, appStatus, err := c.start("/bin/sh", []string{"sh", "-c", "read x < /dev/null; kill -STOP $$; exit 3"}, attr)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := c.start("/absent", []string{"absent"}, attr); err != unix.ENOENT {
		t.Errorf("absent program: got %v, want ENOENT", err)
	}
	_, status, err := c.start("/bin/sh", []string{"sh", "-c", "exit 4"}, attr)
	if err != nil {
		t.Fatal(err)
	}
	if s := <-status; s.ExitStatus() != 4 {
		t.Errorf("second child: status %#x, want 4", s)
	}
	c.signal(app, unix.SIGKILL)
	if s := <-appStatus; !s.Signaled() || s.Signal() != unix.SIGKILL {
		t.Errorf("app: status %#x, want SIGKILL", s)
	}
	<-c.gone
	c.signal(app, unix.SIGKILL) // harmless: the PID may be another's by now
	if _, _, err := c.start("/bin/true", []string{"true"}, attr); err != errEnded {
		t.Errorf("after the end: got %v, want %v", err, errEnded)
	}
}
