// SPDX-License-Identifier: Apache-2.0

package qemu

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// sealed is a file without a name.
func sealed(t *testing.T, content string) *os.File {
	t.Helper()
	fd, err := unix.MemfdCreate("image", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), "image")
	t.Cleanup(func() { f.Close() })
	if _, err := f.WriteString(content); err != nil {
		t.Fatal(err)
	}
	if _, err := unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, unix.F_SEAL_SEAL|unix.F_SEAL_WRITE|unix.F_SEAL_SHRINK|unix.F_SEAL_GROW); err != nil {
		t.Fatal(err)
	}
	return f
}

// IDs that are lent to users for namespaces are not QEMU's.
func TestLentUsers(t *testing.T) {
	dir := t.TempDir()
	for name, test := range map[string]struct {
		lent  string
		found bool
	}{
		"none":  {"# none\nalice:100000:65536\n", true},
		"half":  {fmt.Sprintf("alice:%d:%d\n", firstUser, (lastUser-firstUser)/2), true},
		"all":   {fmt.Sprintf("alice:100000:65536\n1000:%d:%d\n", firstUser-10, lastUser-firstUser+11), false},
		"wrong": {"alice:x:y\n", true},
	} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(test.lent), 0o644); err != nil {
			t.Fatal(err)
		}
		id, err := unusedUser(filepath.Join(dir, "missing"), path)
		if (err == nil) != test.found || test.found && name == "half" && id < firstUser+(lastUser-firstUser)/2 {
			t.Errorf("%s: %d, %v", name, id, err)
		}
	}
}

// What QEMU is to be is no account, has no capabilities but for low ports, and reads the images,
// which nobody else can.
func TestRights(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("that takes root")
	}
	users := map[uint32]bool{}
	for _, test := range []struct {
		listens forwards
		caps    string
	}{{nil, "0000000000000000"}, {forwards{6379}, "0000000000000000"}, {forwards{6379, 80}, "0000000000000400"}} {
		r, err := newRights(test.listens)
		if err != nil {
			t.Fatal(err)
		}
		id := r.credential.Uid
		if int64(id) < firstUser || int64(id) > lastUser || r.credential.Gid != id || users[id] {
			t.Errorf("%+v", r.credential)
		}
		users[id] = true
		k, paths, err := r.keep(sealed(t, "kernel\n"), sealed(t, "initrd\n"))
		if err != nil {
			t.Fatal(err)
		}
		cat := func(attributes *syscall.SysProcAttr, files ...string) (string, error) {
			cmd := exec.Command("cat", files...)
			cmd.Dir, cmd.SysProcAttr = "/", attributes
			out, err := cmd.CombinedOutput()
			return string(out), err
		}
		if out, err := cat(r.attributes(), paths...); err != nil || out != "kernel\ninitrd\n" {
			t.Errorf("%q, %v", out, err)
		}
		other := &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: id - 1, Gid: id}}
		if out, err := cat(other, paths...); err == nil {
			t.Errorf("another user reads %q", out)
		}
		status, err := cat(r.attributes(), "/proc/self/status")
		if err != nil {
			t.Fatal(status, err)
		}
		for field, want := range map[string]string{
			"Uid": fmt.Sprintf("%d\t%[1]d\t%[1]d\t%[1]d", id), "Gid": fmt.Sprintf("%d\t%[1]d\t%[1]d\t%[1]d", id), "CapPrm": test.caps, "CapEff": test.caps, "CapAmb": test.caps,
		} {
			if _, rest, _ := strings.Cut(status, "\n"+field+":\t"); !strings.HasPrefix(rest, want+"\n") {
				t.Errorf("%s is not %q:\n%s", field, want, status)
			}
		}
		if err := k.Close(); err != nil || k.Close() != nil {
			t.Error(err)
		}
		if out, err := cat(r.attributes(), paths...); err == nil {
			t.Errorf("kept for ever: %q", out)
		}
	}
}
