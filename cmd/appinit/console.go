// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// openConsole makes /dev/null standard input and the console standard output
// and error, of PID 1 and so of the app. The console passes bytes on unchanged
// and echoes nothing. A kernel without any console device logs instead.
func openConsole() error {
	_, _ = unix.Setsid() // fails only for one who leads a session already
	null, err := unix.Open("/dev/null", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("opening /dev/null: %w", err)
	}
	console, err := unix.Open("/dev/console", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		console, err = unix.Open("/dev/kmsg", unix.O_WRONLY|unix.O_CLOEXEC, 0)
	}
	if err != nil {
		return fmt.Errorf("opening /dev/console or /dev/kmsg: %w", err)
	}
	if tty, err := unix.IoctlGetTermios(console, unix.TCGETS); err == nil {
		tty.Oflag &^= unix.OPOST
		tty.Lflag &^= unix.ECHO
		if err := unix.IoctlSetTermios(console, unix.TCSETS, tty); err != nil {
			return fmt.Errorf("setting the console raw: %w", err)
		}
	}
	for fd, from := range []int{null, console, console} {
		if from == fd {
			continue // the kernel gave PID 1 no standard files
		}
		if err := unix.Dup3(from, fd, 0); err != nil {
			return fmt.Errorf("dup3(%d, %d): %w", from, fd, err)
		}
	}
	return nil
}
