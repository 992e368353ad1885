// SPDX-License-Identifier: Apache-2.0

package builder

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/tenon-build/tenon/builder/bundle/manifest"
	"github.com/tenon-build/tenon/builder/fidelity"
	"github.com/tenon-build/tenon/builder/initramfs"
	"github.com/tenon-build/tenon/builder/rootfs"
)

const netRaw = "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"

const (
	accessACL = "\x02\x00\x00\x00\x01\x00\x06\x00\xff\xff\xff\xff\x04\x00\x04\x00\xff\xff\xff\xff\x20\x00\x04\x00\xff\xff\xff\xff"
	namedACL  = "user::rw-,user:bob:rwx,group::r--,mask::rwx,other::---"
)

func file(change func(n *rootfs.Inode)) *rootfs.Inode {
	n := rootfs.NewFile(strings.NewReader("body"), 4, 0o644)
	change(n)
	return n
}

func xattr(name, value string) *rootfs.Inode {
	return file(func(n *rootfs.Inode) { n.Xattrs = map[string]string{name: value} })
}

func treeOf(t *testing.T, files map[string]*rootfs.Inode) *rootfs.Tree {
	t.Helper()
	tree := rootfs.New()
	for name, n := range files {
		if err := tree.Put(name, n); err != nil {
			t.Fatal(err)
		}
	}
	return tree
}

// lines is what a report says, one word a difference.
func lines(f *fidelity.Report) string {
	var out []string
	for _, d := range f.Dropped {
		out = append(out, fmt.Sprintf("%s -%d -%d", d.Path, d.Entries, d.Bytes))
	}
	for _, c := range f.Changed {
		out = append(out, c.Path+" "+c.What)
	}
	return strings.Join(out, "; ")
}

func TestFit(t *testing.T) {
	late := func() *rootfs.Inode { return file(func(n *rootfs.Inode) { n.ModTime = time.Unix(1<<32, 5) }) }
	big := func() *rootfs.Inode { return rootfs.NewFile(strings.NewReader(""), 1<<32, 0o644) }
	shared := xattr("user.x", "1")
	tests := []struct {
		name    string
		files   map[string]*rootfs.Inode
		allowed string
		err     string
		want    string
	}{
		{"what fits", map[string]*rootfs.Inode{"a": xattr("security.capability", netRaw), "b": xattr("trusted.overlay", "y")}, "", "", ""},
		{"user attribute", map[string]*rootfs.Inode{"a": xattr("user.x", "1")}, "", `"a": not for an initramfs: extended attribute user.x: `, ""},
		{"it waived", map[string]*rootfs.Inode{"a": xattr("user.x", "1")}, "a", "", "a xattr user.x dropped"},
		{"ACL", map[string]*rootfs.Inode{"a": xattr("system.posix_acl_access", "1")}, "", "access control list system.posix_acl_access: it has not the form", ""},
		{"ACL that fits", map[string]*rootfs.Inode{"a": xattr(rootfs.AccessACL, accessACL)}, "", "", ""},
		{"ACL with names alone", map[string]*rootfs.Inode{"a": xattr(rootfs.AccessACL, namedACL)}, "", `"user:bob:rwx": it names a user or a group without a number`, ""},
		{"it waived: the group has what it had", map[string]*rootfs.Inode{"a": file(func(n *rootfs.Inode) { n.Perm, n.Xattrs = 0o670, map[string]string{rootfs.AccessACL: namedACL} })}, "a", "", "a xattr system.posix_acl_access dropped, mode 0640"},
		{"file flags", map[string]*rootfs.Inode{"a": xattr(rootfs.FileFlags, "immutable")}, "", `file flags "immutable"`, ""},
		{"name space alone", map[string]*rootfs.Inode{"a": xattr("security.", "1")}, "", "extended attribute security.", ""},
		{"long name", map[string]*rootfs.Inode{"a": xattr("security."+strings.Repeat("x", 250), "1")}, "", "extended attribute security.", ""},
		{"capability of version 1", map[string]*rootfs.Inode{"a": xattr("security.capability", "\x01\x00\x00\x01\x00\x20\x00\x00\x00\x00\x00\x00")}, "", "12 bytes of version 1 are no capabilities", ""},
		{"first of several files", map[string]*rootfs.Inode{"c": late(), "b": xattr("user.x", "1"), "d/e": big()}, "", `"b": not for an initramfs: extended attribute user.x: the app's root file system takes security.*, trusted.* and POSIX access control lists (and 2 more files)`, ""},
		{"all waived", map[string]*rootfs.Inode{"c": late(), "b": xattr("user.x", "1"), "d/e": big()}, "**", "", "d/e -1 -4294967296; b xattr user.x dropped; c time clamped to 2106-02-07T06:28:15Z"},
		{"one waived", map[string]*rootfs.Inode{"b": late(), "c": late()}, "b", `"c": modification time 4294967296`, ""},
		{"hard link, one name waived", map[string]*rootfs.Inode{"b": shared, "c": shared}, "b", `"c": not for`, ""},
		{"hard link, both waived", map[string]*rootfs.Inode{"b": shared, "c": shared}, "{b,c}", "", "b xattr user.x dropped"},
	}
	for _, test := range tests {
		c := newContent(treeOf(t, test.files))
		var allowed []string
		if test.allowed != "" {
			allowed = []string{test.allowed}
		}
		err := c.fit(allowed, checkXattr)
		if test.err == "" && err != nil || test.err != "" && (!errors.Is(err, initramfs.ErrMisfit) || !strings.Contains(err.Error(), test.err)) {
			t.Errorf("%s: %v, want %s", test.name, err, test.err)
		}
		if got := lines(c.fidelity); got != test.want {
			t.Errorf("%s: reported %q, want %q", test.name, got, test.want)
		}
		if test.err == "" {
			if err := c.fit(nil, checkXattr); err != nil {
				t.Errorf("%s: again: %v", test.name, err)
			}
		}
	}
}

// Without PID 1 nobody applies a table.
func TestFitWithoutTable(t *testing.T) {
	c := newContent(treeOf(t, map[string]*rootfs.Inode{"a": xattr("security.capability", netRaw)}))
	if err := c.fit(nil, checkNoXattr); !errors.Is(err, initramfs.ErrMisfit) {
		t.Error(err)
	}
	if err := c.fit([]string{"a"}, checkNoXattr); err != nil || lines(c.fidelity) != "a xattr security.capability dropped" {
		t.Errorf("%q, %v", lines(c.fidelity), err)
	}
}

// A folder that goes takes what is below it along, whatever that is.
func TestFitFolder(t *testing.T) {
	tree := treeOf(t, map[string]*rootfs.Inode{"d/late": file(func(n *rootfs.Inode) { n.ModTime = time.Unix(-1, 0) }), "e": xattr("user.x", "1")})
	d, err := tree.Lookup("d")
	if err != nil {
		t.Fatal(err)
	}
	d.UID = -1
	c := newContent(tree)
	if err := c.fit([]string{"**"}, checkXattr); err != nil || lines(c.fidelity) != "d -2 -4; e xattr user.x dropped" {
		t.Errorf("%q, %v", lines(c.fidelity), err)
	}
}

func TestPutXattrs(t *testing.T) {
	shared := xattr("security.b", "2")
	shared.Xattrs["security.a"] = "1"
	tree := treeOf(t, map[string]*rootfs.Inode{".a": xattr("security.hidden", "3"), "z": shared, "a": shared, "bin/ping": xattr("security.capability", netRaw), "plain": file(func(*rootfs.Inode) {})})
	root, err := tree.Lookup("/")
	if err != nil {
		t.Fatal(err)
	}
	root.Xattrs = map[string]string{"trusted.root": ""}
	c := newContent(tree)
	if _, err := c.putXattrs(); err != nil {
		t.Fatal(err)
	}
	n, err := tree.Lookup(manifest.XattrsPath)
	if err != nil || n.Perm != 0o600 {
		t.Fatalf("%+v, %v", n, err)
	}
	table := make([]byte, n.Size)
	if _, err := n.Open().Read(table); err != nil {
		t.Fatal(err)
	}
	var got []string
	err = manifest.EachXattr(table, func(x manifest.Xattr) error {
		got = append(got, fmt.Sprintf("%s %s %d", x.Path, x.Name, len(x.Value)))
		return nil
	})
	if want := []string{" trusted.root 0", ".a security.hidden 1", "a security.a 1", "a security.b 1", "bin/ping security.capability 20"}; err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%q, %v", got, err)
	}
	if want := (fidelity.Xattrs{Count: 5, Capabilities: []fidelity.Capability{{Path: "bin/ping", Capabilities: "cap_net_raw=ep"}}}); !reflect.DeepEqual(c.fidelity.Xattrs, want) {
		t.Errorf("%+v", c.fidelity.Xattrs)
	}

	none := newContent(treeOf(t, map[string]*rootfs.Inode{"a": file(func(*rootfs.Inode) {})}))
	if _, err := none.putXattrs(); err != nil || len(none.fidelity.Added) != 0 {
		t.Errorf("%+v, %v", none.fidelity, err)
	}
}

// Names that share a file's attributes cost neither memory nor time of their own.
func TestFitManyNames(t *testing.T) {
	shared := xattr("user.x", "1")
	for i := range 1000 {
		shared.Xattrs[fmt.Sprintf("user.%d", i)] = ""
	}
	names := map[string]*rootfs.Inode{}
	for i := range 1000 {
		names[fmt.Sprintf("d/%04d", i)] = shared
	}
	looked := 0
	count := func(name, value string) error { looked++; return checkXattr(name, value) }
	c := newContent(treeOf(t, names))
	if err := c.fit(nil, count); !errors.Is(err, initramfs.ErrMisfit) || !strings.Contains(err.Error(), `"d/0000"`) || !strings.Contains(err.Error(), "(and 999 more files)") || looked != 1001 {
		t.Errorf("%v, looked at %d attributes", err, looked)
	}
	if err := c.fit([]string{"d/*"}, checkXattr); err != nil || len(c.fidelity.Changed) != 1001 {
		t.Errorf("%v, %d changes", err, len(c.fidelity.Changed))
	}
	link := &rootfs.Inode{Type: rootfs.Symlink, Target: "a", Xattrs: map[string]string{"trusted.x": strings.Repeat("x", 60000)}}
	for i := range 2000 { // each of which the table would have
		names[fmt.Sprintf("d/%04d", i)] = link
	}
	if _, err := newContent(treeOf(t, names)).putXattrs(); err == nil || !strings.Contains(err.Error(), "extended attributes of more than") {
		t.Error(err)
	}
}
