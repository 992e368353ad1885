// SPDX-License-Identifier: Apache-2.0

// Command guest is PID 1 of a machine of package debian: it makes the root, and
// runs what it is asked to.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tenon-build/tenon/testdata/debian"
)

func main() {
	fmt.Println("guest:", run())
	fmt.Println(unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF))
}

func run() error {
	if err := load(); err != nil {
		return err
	}
	if err := enterRoot(); err != nil {
		return err
	}
	os.Clearenv()
	for name, value := range map[string]string{"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "LANG": "C.UTF-8"} {
		if err := os.Setenv(name, value); err != nil {
			return err
		}
	}
	return serve()
}

// load loads the modules in the order of their names.
func load() error {
	files, err := filepath.Glob("/modules/*")
	if err != nil {
		return err
	}
	for _, name := range files {
		f, err := os.Open(name)
		if err != nil {
			return err
		}
		if err := unix.FinitModule(int(f.Fd()), "", 0); err != nil {
			return fmt.Errorf("loading %s: %w", name, err)
		}
		f.Close()
	}
	return nil
}

// enterRoot makes the root and goes there.
func enterRoot() error {
	for _, m := range []struct{ kind, dir, options string }{
		{"9p", "/lower", "trans=virtio,version=9p2000.L,msize=512000,ro,cache=loose"},
		{"tmpfs", "/upper", ""},
		{"overlay", "/root", "lowerdir=/lower,upperdir=/upper/files,workdir=/upper/work"},
		{"proc", "/root/proc", ""},
		{"sysfs", "/root/sys", ""},
		{"cgroup2", "/root/sys/fs/cgroup", ""},
		{"securityfs", "/root/sys/kernel/security", ""},
		{"devtmpfs", "/root/dev", ""},
		{"devpts", "/root/dev/pts", ""},
		{"tmpfs", "/root/dev/shm", ""},
		{"tmpfs", "/root/run", ""},
	} {
		if err := os.MkdirAll(m.dir, 0o755); err != nil {
			return err
		}
		if err := unix.Mount("lower", m.dir, m.kind, 0, m.options); err != nil {
			return fmt.Errorf("mounting %s at %s: %w", m.kind, m.dir, err)
		}
		if m.dir == "/upper" {
			if err := errors.Join(os.Mkdir("/upper/files", 0o755), os.Mkdir("/upper/work", 0o755)); err != nil {
				return err
			}
		}
	}
	if err := os.Chdir("/root"); err != nil {
		return err
	}
	if err := unix.Mount(".", "/", "", unix.MS_MOVE, ""); err != nil {
		return fmt.Errorf("moving the root: %w", err)
	}
	if err := unix.Chroot("."); err != nil {
		return err
	}
	return os.Chdir("/")
}

// serve says which kernel this is, and then what came of each command.
func serve() error {
	name, err := portName()
	if err != nil {
		return err
	}
	port, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	release, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		return err
	}
	in, out := json.NewDecoder(port), json.NewEncoder(port)
	if err := out.Encode(string(release[:len(release)-1])); err != nil {
		return err
	}
	for {
		var c debian.Command
		if err := in.Decode(&c); err != nil {
			return err
		}
		if err := out.Encode(execute(c)); err != nil {
			return err
		}
	}
}

// portName waits for the port, which is there soon after its driver.
func portName() (string, error) {
	for range 1000 {
		found, err := filepath.Glob("/dev/vport*p1")
		if err != nil {
			return "", err
		}
		if len(found) > 0 {
			return found[0], nil
		}
		time.Sleep(10 * time.Millisecond)
	}
	return "", errors.New("there is no virtio port")
}

func execute(c debian.Command) debian.Result {
	cmd := exec.Command(c.Args[0], c.Args[1:]...)
	cmd.Dir, cmd.Env = c.Dir, append(os.Environ(), c.Env...)
	out, err := cmd.CombinedOutput()
	if cmd.ProcessState == nil {
		return debian.Result{Output: err.Error(), Status: 127}
	}
	status := cmd.ProcessState.ExitCode()
	if s := cmd.ProcessState.Sys().(syscall.WaitStatus); s.Signaled() {
		status = 128 + int(s.Signal())
	}
	return debian.Result{Output: string(out), Status: status}
}
