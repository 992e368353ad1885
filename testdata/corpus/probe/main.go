// SPDX-License-Identifier: Apache-2.0

// Command probe is PID 1 of a kernel whose unpacker is under test. It lists
// /cases, or the whole root where there is none, on the second serial port, and
// turns the machine off.
package main

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/tenon-build/tenon/testdata/corpus/scan"
)

func main() {
	if err := list(); err != nil {
		fmt.Println("probe:", err) // the console
	}
	_ = unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
}

func list() error {
	out, err := os.OpenFile("/dev/ttyS1", os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	root := "/cases"
	if _, err := os.Lstat(root); err != nil {
		root = "/"
	}
	files, err := scan.Dir(root, false)
	if err != nil {
		return err
	}
	for _, f := range files {
		if _, err := fmt.Fprintln(out, f); err != nil {
			return err
		}
	}
	if _, err := fmt.Fprintln(out, "END", len(files)); err != nil {
		return err
	}
	return unix.IoctlSetInt(int(out.Fd()), unix.TCSBRK, 1) // wait until all is sent
}
