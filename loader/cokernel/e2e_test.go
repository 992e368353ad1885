// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package cokernel

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tenon-build/tenon/testdata/debian"
)

// buildModule makes mortise.ko for Debian's kernel, and returns its path.
func buildModule(t *testing.T) string {
	t.Helper()
	headers, err := filepath.Glob("/lib/modules/*-amd64/build")
	if err != nil || len(headers) == 0 {
		t.Fatalf("no headers of Debian's package linux-headers-amd64: %v", err)
	}
	dir := t.TempDir()
	for _, from := range []string{"module", "guest/src"} {
		if err := os.CopyFS(dir, os.DirFS(from)); err != nil {
			t.Fatal(err)
		}
	}
	if out, err := exec.Command("make", "-C", headers[len(headers)-1], "M="+dir, "KCFLAGS=-Werror", "modules").CombinedOutput(); err != nil {
		t.Fatalf("building the module: %v\n%s", err, out)
	}
	return filepath.Join(dir, "mortise.ko")
}

// insert loads the module into the kernel that runs.
func insert(t *testing.T, path, parameters string) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := unix.FinitModule(int(f.Fd()), parameters, 0); err != nil {
		t.Fatalf("inserting the module: %v\n%s", err, dmesg(t))
	}
}

func dmesg(t *testing.T) string {
	out, err := exec.Command("dmesg").CombinedOutput()
	if err != nil {
		t.Errorf("dmesg: %v", err)
	}
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	return strings.Join(lines[max(0, len(lines)-40):], "\n")
}

func TestE2EModule(t *testing.T) {
	debian.In(t, func() {
		insert(t, os.Getenv("MORTISE_KO"), "")
		d, err := openDevice()
		if err != nil {
			t.Fatal(err)
		}
		info, err := d.info()
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%+v", info)
		before := host(t)
		o, err := d.create("one")
		if err != nil {
			t.Fatal(err, dmesg(t))
		}
		if err := o.reserve(0, 256<<20); err != nil {
			t.Fatal(err, dmesg(t))
		}
		if err := o.take(2, false); err != nil {
			t.Fatal(err, dmesg(t))
		}
		if err := o.take(3, true); err != nil {
			t.Fatal(err, dmesg(t))
		}
		s, err := o.status()
		t.Logf("%+v %v", s, err)
		t.Log(host(t))
		if err := o.destroy(); err != nil {
			t.Fatal(err, dmesg(t))
		}
		after := host(t)
		t.Log(before, after, dmesg(t))
	})
}

func host(t *testing.T) string {
	var out []string
	for _, name := range []string{"online", "present", "offline"} {
		data, err := os.ReadFile("/sys/devices/system/cpu/" + name)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, name+" "+strings.TrimSpace(string(data)))
	}
	return strings.Join(out, ", ")
}
