// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"os/signal"

	"golang.org/x/sys/unix"
)

// catchSignals returns the signals that PID 1 itself gets, and makes the
// kernel send SIGINT for Ctrl-Alt-Del. All are caught: Go's default for several
// is to exit, so that any root process could bring the kernel down. None is
// ignored, since the app would inherit that.
func catchSignals() <-chan os.Signal {
	caught := make(chan os.Signal, 16)
	signal.Notify(caught)
	_ = unix.Reboot(unix.LINUX_REBOOT_CMD_CAD_OFF)
	return caught
}

// forward sends the host's signals to the app, and stop for those that mean to
// PID 1 that the machine is to go down.
func (p *pid1) forward(app int, stop unix.Signal, caught <-chan os.Signal) {
	for {
		select {
		case s := <-p.signals:
			p.children.signal(app, s)
		case s := <-caught:
			switch s {
			case unix.SIGTERM, unix.SIGINT, unix.SIGPWR:
				p.children.signal(app, stop)
			}
		}
	}
}
