// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package main

import (
	"bytes"
	"debug/pe"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tenon-build/tenon/builder/bundle"
	"github.com/tenon-build/tenon/builder/uki"
	"github.com/tenon-build/tenon/cmd/internal/cli"
	"github.com/tenon-build/tenon/testdata/debian"
	"github.com/tenon-build/tenon/testdata/e2e"
	"github.com/tenon-build/tenon/testdata/testbundle"
)

// TestE2EUKI boots a bundle as one file by firmware, and changes that file.
func TestE2EUKI(t *testing.T) {
	dir := t.TempDir()
	key := dir + "/release/signing.key"
	if o := e2e.Tenon(t, "key", "create", dir+"/release", "--profile", "release", "--issuer", e2e.Path("testdata/judge"), "--name", "release"); o.Code != 0 {
		t.Fatal(o)
	}
	path := e2e.Copy(t, e2e.Probe(t))
	if o := e2e.Tenon(t, "sign", path, "--key", key); o.Code != 0 {
		t.Fatal(o)
	}
	export := func(args ...string) []byte {
		t.Helper()
		file := filepath.Join(t.TempDir(), "probe.efi")
		o := e2e.Tenon(t, append([]string{"export", path, "--format", "uki", "-o", file}, args...)...)
		if o.Code != 0 || o.Stdout != file+"\n" || !strings.Contains(o.Stderr, "kexec does not take this file") {
			t.Fatal(o)
		}
		if left := e2e.Must(os.ReadDir(filepath.Dir(file))); len(left) != 1 {
			t.Errorf("left behind: %v", left)
		}
		return e2e.Must(os.ReadFile(file))
	}
	unsigned, signed := export(), export("--key", key)
	e2e.Tool(t, "sbverify", "--cert", e2e.Path("testdata/judge/ca.crt"), e2e.WriteFile(t, dir+"/signed.efi", signed))

	firmware(t, debian.UEFISecure, signed, "REPORT", nil)
	firmware(t, debian.UEFISecure, unsigned, "Access Denied", nil)
	// The stub appends such a file to the initramfs.
	stopped := "Kernel panic - not syncing: tenon: "
	firmware(t, debian.UEFISecure, signed, stopped, map[string]string{"EFI/BOOT/BOOTX64.EFI.extra.d/evil.cred": "x"})
	image, err := pe.NewFile(bytes.NewReader(unsigned))
	if err != nil {
		t.Fatal(err)
	}
	good := e2e.Must(image.Section(".initrd").Data())[:image.Section(".initrd").VirtualSize]
	kernel := e2e.Must(image.Section(".linux").Data())[:image.Section(".linux").VirtualSize]
	with := func(kernel, initrd []byte) []byte {
		t.Helper()
		var out bytes.Buffer
		var sections []uki.Section
		for name, data := range map[string][]byte{".linux": kernel, ".initrd": initrd, ".cmdline": []byte(e2e.HostileCommandLine)} {
			if data != nil {
				sections = append(sections, uki.Section{Name: name, Size: int64(len(data)), Write: func(w io.Writer) error { _, err := w.Write(data); return err }})
			}
		}
		if err := uki.Write(&out, e2e.Must(os.ReadFile(defaultStub)), sections); err != nil {
			t.Fatal(err)
		}
		return out.Bytes()
	}
	weak, _ := e2e.Build(t, "--detached", "-r", e2e.ProbeRecipe(), "--name", "probe", e2e.Image(t, nil, e2e.ProbeFiles...))
	for _, h := range e2e.HostileInitrds(t, good) {
		if !e2e.Soak() && h.Name != "one behind" && h.Name != "none" {
			continue // each boot of firmware takes its time
		}
		firmware(t, debian.UEFI, with(kernel, h.Data), stopped, nil)
		if h.Name == "one behind" {
			firmware(t, debian.UEFI, with(e2e.Must(os.ReadFile(e2e.LayerFile(t, weak, bundle.KernelType))), h.Data), h.Wins, nil)
		}
	}

	none := dir + "/none.efi"
	detached, _, err := testbundle.Write(t.Context(), t.TempDir(), nil, "initramfs", nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		args   []string
		code   int
		stderr string
	}{
		{[]string{path, "--format", "uki", "--stub", dir + "/nosuch"}, cli.ExitFailed, "hint: apt-get install systemd-boot-efi"},
		{[]string{path, "--format", "uki", "--stub", dir + "/release/signing.crt"}, cli.ExitFailed, "not systemd's stub for x86-64"},
		{[]string{path, "--format", "kernel", "--key", key}, cli.ExitUsage, "--key is for --format uki"},
		{[]string{path, "--format", "img"}, cli.ExitUsage, `--format "img" is none of kernel, uki and dir`},
		{[]string{detached, "--format", "uki", "--allow-unsigned"}, cli.ExitFailed, "hint: a unified kernel image is made of a bundle that was built without --detached"},
	} {
		if o := e2e.Tenon(t, append([]string{"export", "-o", none}, test.args...)...); o.Code != test.code || !strings.Contains(o.Stderr, test.stderr) {
			t.Errorf("%q: want %d, %q: %s", test.args, test.code, test.stderr, o)
		}
		if _, err := os.Stat(none); err == nil {
			t.Errorf("%q: something was written", test.args)
		}
	}
}

// firmware has UEFI firmware boot a program, with more files on its disk, and returns what the
// machine printed up to the text.
func firmware(t *testing.T, f debian.Firmware, program []byte, text string, more map[string]string) string {
	t.Helper()
	disk := t.TempDir()
	for name, data := range more {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(disk, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		e2e.WriteFile(t, filepath.Join(disk, name), []byte(data))
	}
	if err := os.MkdirAll(disk+"/EFI/BOOT", 0o755); err != nil {
		t.Fatal(err)
	}
	e2e.WriteFile(t, disk+"/EFI/BOOT/BOOTX64.EFI", program)
	r := &e2e.Running{Cmd: exec.CommandContext(t.Context(), "qemu-system-x86_64", append(f.Options(t),
		"-accel", "tcg,thread=multi", "-cpu", "max", "-m", "1024", "-nodefaults", "-display", "none", "-no-reboot", "-serial", "stdio",
		"-netdev", "user,id=n", "-device", "virtio-net-pci,netdev=n,romfile=", "-drive", "format=raw,file=fat:rw:"+disk)...)}
	r.Cmd.Stdout, r.Cmd.Stderr = r, r
	if err := r.Cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _, _ = r.Cmd.Process.Kill(), r.Cmd.Wait() }()
	r.Expect(t, text)
	return r.String()
}
