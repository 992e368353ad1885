// SPDX-License-Identifier: Apache-2.0

package qemu

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Accelerators. TCG is QEMU's emulation.
const (
	KVM = "kvm"
	TCG = "tcg"
)

// ProbeKVM says why KVM is not to be used, or nil. /dev/kvm may exist and
// still not run guests (nested virtualisation, a filter in front of it), so a
// guest is really started: a boot sector that tells it is alive.
func ProbeKVM(ctx context.Context, program string) error {
	kvm, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0)
	if err != nil {
		return err
	}
	kvm.Close()
	disk, err := bootSector()
	if err != nil {
		return err
	}
	defer disk.Close()
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, "-nodefaults", "-no-user-config", "-display", "none", "-machine", "pc", "-m", "32",
		"-accel", KVM, "-cpu", cpuModels[KVM], "-device", "isa-debug-exit,iobase=0xf4,iosize=1",
		"-drive", "file=/proc/self/fd/3,format=raw,if=ide,read-only=on")
	cmd.ExtraFiles = []*os.File{disk}
	rights, err := newRights(nil) // as a machine has them
	if err != nil {
		return err
	}
	cmd.Dir, cmd.SysProcAttr = "/", &syscall.SysProcAttr{Credential: rights.credential}
	err = cmd.Run()
	if ctx.Err() != nil {
		return fmt.Errorf("a test guest did not answer within 2 s")
	}
	if cmd.ProcessState == nil || cmd.ProcessState.ExitCode() != aliveStatus {
		return fmt.Errorf("a test guest failed: %w", err)
	}
	return nil
}

// alive is what the guest writes to the debug-exit port; QEMU then exits with
// twice that and one.
const (
	alive       = 0x2a
	aliveStatus = alive<<1 | 1
)

// bootSector is a disk of one sector: mov al, alive; mov dx, 0xf4; out dx, al;
// cli; hlt.
func bootSector() (*os.File, error) {
	fd, err := unix.MemfdCreate("boot sector", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, err
	}
	sector := make([]byte, 512)
	copy(sector, []byte{0xb0, alive, 0xba, 0xf4, 0x00, 0xee, 0xfa, 0xf4})
	sector[510], sector[511] = 0x55, 0xaa
	f := os.NewFile(uintptr(fd), "boot sector")
	_, err = f.Write(sector)
	return f, err
}
