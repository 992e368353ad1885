// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tenon-build/tenon/loader/control"
)

// powerOff reports how the app ended and switches the machine off. It never
// returns: the kernel panics when PID 1 does.
func (p *pid1) powerOff(exit control.Exit) {
	if exit.Error != "" {
		fmt.Fprintln(os.Stderr, "appinit: error:", exit.Error)
	}
	p.host.send(&control.Message{Exit: &exit})
	p.host.close()
	drainConsole()
	unix.Sync()
	for _, how := range []int{unix.LINUX_REBOOT_CMD_POWER_OFF, unix.LINUX_REBOOT_CMD_HALT} {
		if err := unix.Reboot(how); err != nil {
			note("reboot(%#x): %v", how, err)
		}
	}
	select {}
}

// drainConsole waits until a slow console has taken the app's last words, but
// not for one that takes nothing.
func drainConsole() {
	drained := make(chan struct{})
	go func() {
		defer close(drained)
		_ = unix.IoctlSetInt(1, unix.TCSBRK, 1) // tcdrain(3)
	}()
	select {
	case <-drained:
	case <-time.After(grace):
	}
}
