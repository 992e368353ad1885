// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tenon-build/tenon/loader/control"
)

// What is started between joinNamespace and leave is beside the app, and nothing after that.
func TestJoinNamespace(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("makes a PID namespace")
	}
	start := func(flags uintptr) (pid int, namespace string) {
		t.Helper()
		pid, err := syscall.ForkExec("/bin/sleep", []string{"sleep", "60"}, &syscall.ProcAttr{Sys: &syscall.SysProcAttr{Cloneflags: flags}})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			_ = unix.Kill(pid, unix.SIGKILL)
			_, _ = unix.Wait4(pid, nil, 0, nil)
		})
		namespace, err = os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", pid))
		if err != nil {
			t.Fatal(err)
		}
		return pid, namespace
	}
	pid, inside := start(syscall.CLONE_NEWPID)
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	a := &app{namespace: fd}
	leave, err := a.joinNamespace()
	if err != nil {
		t.Fatal(err)
	}
	_, beside := start(0)
	leave()
	_, after := start(0)
	if beside != inside || after == inside {
		t.Errorf("the app is in %s, a command in %s, one afterwards in %s", inside, beside, after)
	}
}

// reboot(2) of the PID 1 of a namespace ends it by a signal that ends it in no other way.
func TestExitOfNamespace(t *testing.T) {
	for _, test := range []struct {
		isolated bool
		status   unix.WaitStatus
		want     control.Exit
	}{
		{false, unix.WaitStatus(unix.SIGINT), control.Exit{Signal: int(unix.SIGINT)}},
		{true, unix.WaitStatus(unix.SIGINT), control.Exit{}},
		{true, unix.WaitStatus(unix.SIGHUP), control.Exit{}},
		{true, unix.WaitStatus(unix.SIGKILL), control.Exit{Signal: int(unix.SIGKILL)}},
		{true, 7 << 8, control.Exit{Code: 7}},
	} {
		if got := (&pid1{isolated: test.isolated}).exit(test.status); got != test.want {
			t.Errorf("%+v: got %+v", test, got)
		}
	}
}
