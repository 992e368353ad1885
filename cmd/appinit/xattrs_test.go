// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tenon-build/tenon/builder/bundle/manifest"
)

// capNetBind is cap_net_bind_service=ep in the form that the kernel keeps.
const capNetBind = "\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"

// TestApplyXattrs sets what an image may have; it needs to be root on a file
// system with such attributes, or has only the failures to look at.
func TestApplyXattrs(t *testing.T) {
	root := t.TempDir()
	t.Chdir(root)
	if err := os.WriteFile(root+"/server", nil, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("server", root+"/link"); err != nil {
		t.Fatal(err)
	}
	for _, x := range []manifest.Xattr{
		{Path: "server", Name: "security.capability", Value: []byte(capNetBind)},
		{Path: "link", Name: "trusted.of-the-link", Value: []byte{}},
		{Path: "", Name: "trusted.of-the-root", Value: []byte("a\x00b")},
	} {
		err := applyXattrs(manifest.AppendXattr(nil, x))
		if err != nil && (strings.Contains(err.Error(), unix.EPERM.Error()) || strings.Contains(err.Error(), unix.EOPNOTSUPP.Error())) {
			t.Logf("not allowed here: %v", err)
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		got := make([]byte, 64)
		n, err := unix.Lgetxattr(root+"/"+x.Path, x.Name, got)
		if err != nil || string(got[:n]) != string(x.Value) {
			t.Errorf("%q of %q: got %q, %v", x.Name, x.Path, got[:max(n, 0)], err)
		}
	}
}

func TestApplyXattrsFails(t *testing.T) {
	t.Chdir(t.TempDir())
	absent := manifest.AppendXattr(nil, manifest.Xattr{Path: "bin/absent", Name: "trusted.x", Value: []byte("v")})
	for _, test := range []struct {
		table []byte
		want  string
	}{
		{absent, `"trusted.x" of "/bin/absent": no such file`},
		{absent[:len(absent)-1], "table of extended attributes"},
	} {
		if err := applyXattrs(test.table); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("got %v, want %q", err, test.want)
		}
	}
	if err := applyXattrs(nil); err != nil {
		t.Errorf("without a table: %v", err)
	}
}
