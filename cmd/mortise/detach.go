// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/tenon-build/tenon/cmd/internal/cli"
)

// What runs in the background is this program with the same arguments, in a session of
// its own. Until the instance was started, it prints to where its parent does; then it
// writes the instance's name to a pipe, whose descriptor is in startedEnv, and prints to
// supervisorLog in the instance's directory. The parent ends when it has read the name, or
// with the child's exit status.
const (
	startedEnv    = "MORTISE_STARTED_FD"
	supervisorLog = "supervisor.log"
)

// startedPipe returns the pipe, or nil in a process that is not in the background.
func startedPipe() *os.File {
	fd, err := strconv.Atoi(os.Getenv(startedEnv))
	if err != nil {
		return nil
	}
	_ = os.Unsetenv(startedEnv)
	unix.CloseOnExec(fd)
	return os.NewFile(uintptr(fd), "started")
}

// spawn runs this command line again in the background, and prints the instance's name.
func (a *app) spawn(ctx context.Context) error {
	read, write, err := os.Pipe()
	if err != nil {
		return err
	}
	defer read.Close()
	program, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := exec.Command(program, os.Args[1:]...)
	cmd.Env = append(os.Environ(), startedEnv+"=3")
	cmd.ExtraFiles = []*os.File{write}
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	err = cmd.Start()
	write.Close()
	if err != nil {
		return fmt.Errorf("starting the supervisor: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { _ = cmd.Process.Signal(syscall.SIGTERM) })
	defer stop()
	name, err := io.ReadAll(read)
	if err == nil && strings.HasSuffix(string(name), "\n") {
		_, err = a.Stdout.Write(name)
		return err
	}
	_ = cmd.Wait()
	code := cmd.ProcessState.ExitCode()
	if code <= 0 { // it says why, unless it was killed
		return cli.Exit(cli.ExitFailed, fmt.Errorf("the supervisor ended before the instance was started: %v", cmd.ProcessState))
	}
	return cli.Exit(code, nil)
}

// leave tells the parent that the instance was started, and lets go of its terminal.
func (a *app) leave(started *os.File, name string) error {
	log, err := a.here().Store().OpenFile(name, supervisorLog, os.O_WRONLY|os.O_CREATE|os.O_TRUNC|os.O_APPEND)
	if err != nil {
		return err
	}
	defer log.Close()
	if _, err := fmt.Fprintln(started, name); err != nil {
		return fmt.Errorf("nobody waits for the instance any more: %w", err)
	}
	if err := os.Chdir("/"); err != nil { // and of its directory
		return err
	}
	for _, fd := range []int{1, 2} {
		if err := unix.Dup3(int(log.Fd()), fd, 0); err != nil {
			return err
		}
	}
	return started.Close()
}
