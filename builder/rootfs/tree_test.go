// SPDX-License-Identifier: Apache-2.0

package rootfs

import (
	"errors"
	"io/fs"
	"strings"
	"testing"
)

func TestLookup(t *testing.T) {
	tree, err := unpack(t, layer(t, file("usr/bin/sh", "1"), symlink("bin", "usr/bin"), symlink("sh", "/bin/sh"),
		symlink("loop", "loop"), symlink("out", "../../../usr"), symlink("dangling", "nowhere"), device("dev/null", 1, 3)))
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"/usr/bin/sh": "1", "bin/sh": "1", "sh": "1", "../../sh": "1", "out/bin/../../bin/sh": "1", "usr//./bin/sh": "1",
	} {
		n, err := tree.Lookup(name)
		if err != nil || n.Size != int64(len(want)) {
			t.Errorf("%s: %v, %v", name, n, err)
		}
	}
	for _, name := range []string{"", "/", ".", "..", "usr/.."} {
		if n, err := tree.Lookup(name); err != nil || n != tree.root {
			t.Errorf("%q is not the root: %v, %v", name, n, err)
		}
	}
	for name, want := range map[string]error{
		"nowhere": fs.ErrNotExist, "dangling": fs.ErrNotExist, "nowhere/a": fs.ErrNotExist,
		"loop": errTooManyLinks, "loop/a": errTooManyLinks, "sh/a": errNotDirectory, "dev/null/a": errNotDirectory,
	} {
		if _, err := tree.Lookup(name); !errors.Is(err, want) {
			t.Errorf("%s: got %v, want %v", name, err, want)
		}
	}
}

func TestPutAndRemove(t *testing.T) {
	tree := New()
	put := func(name, body string) error {
		return tree.Put(name, NewFile(strings.NewReader(body), int64(len(body)), 0o644))
	}
	for _, name := range []string{"/a/b/one", "a/b/two", "a/c", "d", "a/b/one"} {
		if err := put(name, name); err != nil {
			t.Fatal(err)
		}
	}
	if err := tree.Put("dev/console", NewDevice(5, 1, 0o600)); err != nil {
		t.Fatal(err)
	}
	const want = "a/\na/b/\na/b/one=a/b/one\na/b/two=a/b/two\na/c=a/c\nd=d\ndev/\ndev/console c5:1\n"
	if got := list(t, tree); got != want {
		t.Errorf("got\n%s", got)
	}
	for _, name := range []string{"/", "", "a/..", "d/x"} {
		if put(name, "") == nil {
			t.Errorf("Put took %q", name)
		}
	}
	entries, bytes := tree.Remove(func(name string) bool { return name == "a/b" || name == "d" })
	if entries != 4 || bytes != int64(len("a/b/one"+"a/b/two"+"d")) {
		t.Errorf("removed %d entries, %d bytes", entries, bytes)
	}
	if got := list(t, tree); got != "a/\na/c=a/c\ndev/\ndev/console c5:1\n" {
		t.Errorf("got\n%s", got)
	}
}

func TestClean(t *testing.T) {
	for in, want := range map[string]string{"/": "", "": "", "/a/b/": "a/b", "../a": "a", "a/./b/../c": "a/c"} {
		if got := Clean(in); got != want {
			t.Errorf("Clean(%q) is %q, want %q", in, got, want)
		}
	}
}
