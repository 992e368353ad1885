// SPDX-License-Identifier: Apache-2.0

package ownership

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestCheck(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	for name, mode := range map[string]fs.FileMode{"safe": 0o755, "own": 0o775, "others": 0o757, "sticky": 0o777 | fs.ModeSticky} {
		must(os.Mkdir(at(name), 0o755))
		must(os.WriteFile(at(name)+"/file", nil, 0o644))
		must(os.WriteFile(at(name)+"/shared", nil, 0o644))
		must(os.Chmod(at(name)+"/shared", 0o646))
		must(os.Chmod(at(name), mode))
	}
	must(os.Symlink("others/../safe/file", at("by-others")))
	must(os.Symlink(at("safe"), at("link")))
	must(os.Symlink("loop", at("loop")))
	for name, want := range map[string]string{
		"safe/file": "", "safe": "", "link/file": "", "sticky/file": "",
		"safe/shared": "safe/shared has the mode 0646, owner ", "sticky/shared": "sticky/shared has",
		"sticky": "sticky has the mode 0777", "others/file": "others has the mode 0757", "by-others": "others has the mode 0757",
	} {
		err := Check(at(name))
		if (err == nil) != (want == "") || err != nil && (!errors.Is(err, ErrUnsafe) || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := Check(at("safe/none")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing: %v", err)
	}
	if err := Check(at("loop")); err == nil || errors.Is(err, ErrUnsafe) {
		t.Errorf("loop: %v", err)
	}
	for name, safe := range map[string]bool{"safe/none": true, "sticky/none": true, "others/none": false} {
		if err := CheckParents(at(name)); (err == nil) != safe {
			t.Errorf("parents of %s: %v", name, err)
		}
	}
	if os.Geteuid() != 0 {
		return
	}
	if err := Check(at("own/file")); err != nil {
		t.Errorf("of root and its group: %v", err)
	}
	// user::rw-, user:12:rw-, group::r--, mask::rw-, other::r--: what the mode has for the group is the mask.
	acl := []byte("\x02\x00\x00\x00" + "\x01\x00\x06\x00\xff\xff\xff\xff" + "\x02\x00\x06\x00\x0c\x00\x00\x00" +
		"\x04\x00\x04\x00\xff\xff\xff\xff" + "\x10\x00\x06\x00\xff\xff\xff\xff" + "\x20\x00\x04\x00\xff\xff\xff\xff")
	switch err := unix.Setxattr(at("own/file"), "system.posix_acl_access", acl, 0); err {
	case nil:
		if err := Check(at("own/file")); !errors.Is(err, ErrUnsafe) || !strings.Contains(err.Error(), "own/file has the mode 0664") {
			t.Errorf("with an ACL: %v", err)
		}
	case unix.EOPNOTSUPP:
		t.Log("no ACLs here")
	default:
		t.Error(err)
	}
	must(os.Chown(at("own"), 0, 12))
	if err := Check(at("own/file")); !errors.Is(err, ErrUnsafe) || !strings.Contains(err.Error(), "own has the mode 0775, owner 0 and group 12") {
		t.Errorf("of another group: %v", err)
	}
	must(os.Chown(at("safe/file"), 12, 12))
	must(os.Lchown(at("link"), 12, 12))
	for _, name := range []string{"safe/file", "link/shared"} {
		if err := Check(at(name)); !errors.Is(err, ErrUnsafe) || !strings.Contains(err.Error(), "belongs to user 12") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
