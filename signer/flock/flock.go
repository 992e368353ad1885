// SPDX-License-Identifier: Apache-2.0

// Package flock waits for its turn, as flock(2) does.
//
// In: an open file or directory. Out: its lock, which goes when the last descriptor of it
// is closed, also those that other processes inherited. Refused: to wait longer than the
// context lasts.
package flock

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Lock waits until this process alone has the lock, or ctx ends: the error names the file, and
// wraps that of ctx.
func Lock(ctx context.Context, f *os.File) error {
	if ctx.Done() == nil { // the kernel wakes us in our turn
		return flock(f, unix.LOCK_EX)
	}
	for {
		free, err := Try(f)
		if free || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting for somebody who holds the lock of %q: %w", f.Name(), ctx.Err())
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// Try is Lock, but returns false at once where somebody else has the lock.
func Try(f *os.File) (locked bool, err error) {
	err = flock(f, unix.LOCK_EX|unix.LOCK_NB)
	if err == unix.EWOULDBLOCK {
		return false, nil
	}
	return err == nil, err
}

// TryShare is Share, but returns false at once where somebody else has the lock alone. A lock that
// f had is gone then.
func TryShare(f *os.File) (locked bool, err error) {
	err = flock(f, unix.LOCK_SH|unix.LOCK_NB)
	if err == unix.EWOULDBLOCK {
		return false, nil
	}
	return err == nil, err
}

// Holder names a process that holds the lock of a file: "process 123 (tenon)", or "another process"
// where /proc/locks does not tell.
func Holder(f *os.File) string {
	const unknown = "another process"
	var info unix.Stat_t
	if unix.Fstat(int(f.Fd()), &info) != nil {
		return unknown
	}
	locks, err := os.ReadFile("/proc/locks")
	if err != nil {
		return unknown
	}
	for line := range strings.Lines(string(locks)) { // 1: FLOCK ADVISORY WRITE 123 08:01:4567 0 EOF
		fields := strings.Fields(line)
		if len(fields) < 6 || fields[1] != "FLOCK" || !strings.HasSuffix(fields[5], fmt.Sprintf(":%d", info.Ino)) {
			continue
		}
		if pid, err := strconv.Atoi(fields[4]); err != nil || pid <= 0 {
			continue // of another PID namespace
		}
		name, err := os.ReadFile("/proc/" + fields[4] + "/comm")
		if err != nil {
			continue
		}
		return fmt.Sprintf("process %s (%s)", fields[4], strings.TrimSpace(string(name)))
	}
	return unknown
}

// Share waits until nobody else has the lock alone, and has it together with others. A lock
// that f had alone becomes a shared one.
func Share(f *os.File) error { return flock(f, unix.LOCK_SH) }

func flock(f *os.File, how int) error {
	for {
		err := unix.Flock(int(f.Fd()), how)
		switch err {
		case unix.EINTR:
			continue
		case unix.EWOULDBLOCK:
			return err
		}
		return os.NewSyscallError("flock", err)
	}
}
