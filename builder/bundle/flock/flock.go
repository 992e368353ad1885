// SPDX-License-Identifier: Apache-2.0

// Package flock waits for its turn.
//
// In: an open file or directory. Out: its lock, which goes when it is closed.
// Refused: to wait longer than the context lasts.
package flock

import (
	"context"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Lock is flock(2), for one alone, but ends with ctx.
func Lock(ctx context.Context, f *os.File) error {
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err != unix.EWOULDBLOCK && err != unix.EINTR {
			return os.NewSyscallError("flock", err)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting for somebody who holds the lock of %q: %w", f.Name(), ctx.Err())
		case <-time.After(5 * time.Millisecond):
		}
	}
}
