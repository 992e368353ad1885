// SPDX-License-Identifier: Apache-2.0

// Command guest is PID 1 of a machine whose kernel is asked to load others, and
// to insert modules. See package judge.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/tenon-build/tenon/testdata/judge"
)

func main() {
	if err := run(); err != nil {
		fmt.Println("guest:", err)
	}
	fmt.Println(unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF))
}

func run() error {
	for _, fs := range []string{"proc", "sysfs", "securityfs"} {
		dir := "/" + fs
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		if err := unix.Mount(fs, dir, fs, 0, ""); err != nil {
			return fmt.Errorf("mounting %s: %w", fs, err)
		}
	}
	lockdown, err := os.ReadFile("/securityfs/lockdown")
	if err != nil {
		return err
	}
	fmt.Printf("%slockdown %s\n", judge.Said, strings.TrimSpace(string(lockdown)))
	base, err := os.ReadFile(judge.BasePath)
	if err != nil {
		return err
	}
	data, err := os.ReadFile(judge.StepsPath)
	if err != nil {
		return err
	}
	var steps []judge.Step
	if err := json.Unmarshal(data, &steps); err != nil {
		return err
	}
	for _, s := range steps {
		said := "0"
		if err := do(s, base); err != nil {
			errno, ok := err.(unix.Errno)
			if !ok {
				return fmt.Errorf("%s: %w", s.Name, err)
			}
			said = unix.ErrnoName(errno)
		}
		fmt.Printf("%s%s %s\n", judge.Said, s.Name, said)
	}
	return nil
}

func do(s judge.Step, base []byte) error {
	switch s.Do {
	case judge.Load:
		return load(judge.Apply(base, s.Edits, s.Size))
	case judge.Reboot:
		if err := load(judge.Apply(base, s.Edits, s.Size)); err != nil {
			return err
		}
		return unix.Reboot(unix.LINUX_REBOOT_CMD_KEXEC)
	case judge.Old:
		if _, _, errno := unix.Syscall6(unix.SYS_KEXEC_LOAD, 0, 0, 0, 0, 0, 0); errno != 0 {
			return errno
		}
	case judge.Insert:
		if err := unix.InitModule(s.Data, ""); err != nil {
			return err
		}
		return unix.DeleteModule("tiny", 0)
	case judge.Revoke:
		return revoke(s)
	}
	return nil
}

// load passes the initramfs that the image under test is sealed to.
func load(image []byte) error {
	f, err := open("/image", image)
	if err != nil {
		return err
	}
	defer f.Close()
	initrd, err := os.Open(judge.InitramfsPath)
	if err != nil {
		return err
	}
	defer initrd.Close()
	return unix.KexecFileLoad(int(f.Fd()), int(initrd.Fd()), "", 0)
}

func open(path string, data []byte) (*os.File, error) {
	if err := os.WriteFile(path, data, 0o600); err != nil {
		return nil, err
	}
	return os.Open(path)
}

// revoke finds the keyring by its name, as keyctl does with %:.blacklist.
func revoke(s judge.Step) error {
	keys, err := os.ReadFile("/proc/keys")
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(keys)) {
		if !strings.Contains(line, " keyring   .blacklist: ") {
			continue
		}
		ring, err := strconv.ParseInt(strings.Fields(line)[0], 16, 64)
		if err != nil {
			return err
		}
		_, err = unix.AddKey("blacklist", s.Key, s.Data, int(ring))
		return err
	}
	return fmt.Errorf("no keyring .blacklist: %s", keys)
}
