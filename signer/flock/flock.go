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
			return fmt.Errorf("waiting for %s, who has the lock of %q: %w", Holder(f), f.Name(), ctx.Err())
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

// Holder names the process that has the lock of f, as far as it is known: `process 12 "mortise" that is
// stopped`. See proc_locks(5) and proc_pid_stat(5).
func Holder(f *os.File) string {
	var st unix.Stat_t
	locks, err := os.ReadFile("/proc/locks")
	if err != nil || unix.Fstat(int(f.Fd()), &st) != nil {
		return unknown
	}
	file := fmt.Sprintf("%02x:%02x:%d", unix.Major(st.Dev), unix.Minor(st.Dev), st.Ino)
	for line := range strings.Lines(string(locks)) {
		fields := strings.Fields(line)
		if len(fields) > 5 && fields[1] == "FLOCK" && fields[5] == file {
			return process(fields[4])
		}
	}
	return unknown
}

const unknown = "somebody"

// process describes a process; 0 is one of another PID namespace.
func process(pid string) string {
	if pid == "0" || pid == "-1" {
		return unknown
	}
	stat, err := os.ReadFile("/proc/" + pid + "/stat")
	text := string(stat)
	first, last := strings.IndexByte(text, '('), strings.LastIndexByte(text, ')')
	if err != nil || first < 0 || last < first {
		return "process " + pid
	}
	name := "process " + pid + " " + strconv.QuoteToASCII(text[first+1:last])
	if state := strings.Fields(text[last+1:]); len(state) > 0 && (state[0] == "T" || state[0] == "t") {
		name += " that is stopped"
	}
	return name
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
