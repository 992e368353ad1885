// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/tenon-build/tenon/builder/bundle/passwd"
)

// namespaceInit is the name by which this program is started as PID 1 of a namespace, to become
// the app: somebody has to mount /proc there, and that is before the change of user.
const namespaceInit = "appinit-namespace"

// startIsolated starts the app as PID 1 of a namespace.
func (a *app) startIsolated(c *children) (int, <-chan unix.WaitStatus, error) {
	file, err := a.lookPath(a.argv[0])
	if err != nil {
		return 0, nil, err
	}
	pid, status, err := c.start("/proc/self/exe", namespaceArgs(a.user, file, a.argv), &syscall.ProcAttr{
		Env:   a.env,
		Files: []uintptr{0, 1, 2},
		Sys:   &syscall.SysProcAttr{Setsid: true, Cloneflags: syscall.CLONE_NEWPID},
	})
	if err != nil {
		return 0, nil, fmt.Errorf("starting %s in a PID namespace: %w", file, err)
	}
	if a.namespace, err = unix.PidfdOpen(pid, 0); err != nil {
		return 0, nil, fmt.Errorf("pidfd_open(%d): %w", pid, err)
	}
	return pid, status, nil
}

// namespaceArgs are the arguments of enterNamespace, after the name.
func namespaceArgs(user *passwd.Identity, file string, argv []string) []string {
	var groups []string
	for _, g := range user.Groups {
		groups = append(groups, strconv.Itoa(int(g)))
	}
	return append([]string{namespaceInit, strconv.Itoa(int(user.UID)), strconv.Itoa(int(user.GID)), strings.Join(groups, ","), file}, argv...)
}

// enterNamespace makes the app of this process. It does not return.
func enterNamespace(args []string) {
	err := becomeApp(args)
	fmt.Fprintln(os.Stderr, "appinit: error:", err)
	code := 125
	if start, ok := errors.AsType[*startError](err); ok {
		code = start.code
	}
	os.Exit(code)
}

func becomeApp(args []string) error {
	if len(args) < 5 || os.Getpid() != 1 {
		return errors.New("this is how it starts an app")
	}
	// On top of the one that is there, for PID 1 too: it shows the app's own processes.
	if err := unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return fmt.Errorf("mounting /proc of the namespace: %w", err)
	}
	uid, uidErr := strconv.Atoi(args[0])
	gid, gidErr := strconv.Atoi(args[1])
	var groups []int
	for _, g := range strings.Split(args[2], ",") {
		n, err := strconv.Atoi(g)
		if err != nil {
			return err
		}
		groups = append(groups, n)
	}
	if err := errors.Join(uidErr, gidErr, syscall.Setgroups(groups)); err != nil {
		return fmt.Errorf("setgroups(%s): %w", args[2], err)
	}
	if err := syscall.Setgid(gid); err != nil {
		return fmt.Errorf("setgid(%d): %w", gid, err)
	}
	if err := syscall.Setuid(uid); err != nil {
		return fmt.Errorf("setuid(%d): %w", uid, err)
	}
	file, argv := args[3], args[4:]
	return execError(file, unix.Exec(file, argv, os.Environ()))
}

// joinNamespace lets what this goroutine starts be in the app's namespace, until leave is called.
func (a *app) joinNamespace() (leave func(), err error) {
	if a.namespace == 0 {
		return func() {}, nil
	}
	self, err := unix.PidfdOpen(os.Getpid(), 0)
	if err != nil {
		return nil, fmt.Errorf("pidfd_open: %w", err)
	}
	runtime.LockOSThread()
	leave = func() {
		if unix.Setns(self, unix.CLONE_NEWPID) == nil { // else the thread ends with its goroutine
			runtime.UnlockOSThread()
		}
		unix.Close(self)
	}
	if err := unix.Setns(a.namespace, unix.CLONE_NEWPID); err != nil {
		leave()
		return nil, fmt.Errorf("joining the app's PID namespace: %w", err)
	}
	return leave, nil
}
