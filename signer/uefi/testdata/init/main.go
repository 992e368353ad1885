// SPDX-License-Identifier: Apache-2.0

// Command init is PID 1 of a test machine: it writes the files in /updates, whose
// names are PLACE-WHAT.VARIABLE, to variables of UEFI, in the order of their
// names, and shows what keys the kernel has.
package main

import (
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

const vars = "/sys/firmware/efi/efivars"

func main() {
	if err := run(); err != nil {
		fmt.Println("init:", err)
	}
	fmt.Println("the end")
	_ = unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
}

func run() error {
	for target, kind := range map[string]string{"/proc": "proc", "/sys": "sysfs"} {
		if err := unix.Mount(kind, target, kind, 0, ""); err != nil {
			return fmt.Errorf("mounting %s: %w", target, err)
		}
	}
	module, err := os.Open("/efivarfs.ko")
	if err != nil {
		return err
	}
	if err := unix.FinitModule(int(module.Fd()), "", 0); err != nil {
		return fmt.Errorf("inserting efivarfs: %w", err)
	}
	if err := unix.Mount("efivarfs", vars, "efivarfs", 0, ""); err != nil {
		return fmt.Errorf("mounting efivarfs: %w", err)
	}
	updates, err := os.ReadDir("/updates")
	if err != nil {
		return err
	}
	for _, u := range updates {
		what, variable, _ := strings.Cut(u.Name(), ".")
		verdict := "taken"
		if err := update(vars+"/"+variable, "/updates/"+u.Name()); err != nil {
			verdict = "refused: " + err.Error()
		}
		fmt.Printf("update: %s %s\n", what, verdict)
	}
	keys, err := os.ReadFile("/proc/keys")
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(keys)) {
		fmt.Print("key: ", line)
	}
	return nil
}

// update writes a variable at once, as efivarfs wants it.
func update(variable, from string) error {
	data, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	if f, err := os.Open(variable); err == nil { // a variable that is there is immutable
		err := unix.IoctlSetPointerInt(int(f.Fd()), unix.FS_IOC_SETFLAGS, 0)
		if err := f.Close(); err != nil {
			return err
		}
		if err != nil {
			return err
		}
	}
	f, err := os.OpenFile(variable, os.O_WRONLY|os.O_CREATE, 0o644)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.Write(data)
	return err
}
