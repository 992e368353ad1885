// SPDX-License-Identifier: Apache-2.0

package rename

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// without makes file systems lack the flags, as the errno says it.
func without(t *testing.T, errno error) {
	t.Cleanup(func() { renameat2 = unix.Renameat2 })
	renameat2 = func(int, string, int, string, uint) error { return errno }
}

// each runs a test where the flags are, and where they are not.
func each(t *testing.T, test func(t *testing.T)) {
	t.Run("with the flags", test)
	for _, errno := range []unix.Errno{unix.EINVAL, unix.ENOSYS, unix.EOPNOTSUPP} {
		t.Run("without the flags, "+unix.ErrnoName(errno), func(t *testing.T) {
			without(t, errno)
			test(t)
		})
	}
}

// put makes a directory or file with a content that look finds.
func put(t *testing.T, path, kind, content string) {
	t.Helper()
	var err error
	switch kind {
	case "directory":
		err = errors.Join(os.Mkdir(path, 0o755), os.WriteFile(path+"/file", []byte(content), 0o644))
	case "empty directory":
		err = os.Mkdir(path, 0o755)
	case "file":
		err = os.WriteFile(path, []byte(content), 0o644)
	case "dangling link":
		err = os.Symlink(content, path)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func look(t *testing.T, path string) string {
	t.Helper()
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "nothing"
	case err != nil:
		t.Fatal(err)
	case info.Mode()&fs.ModeSymlink != 0:
		target, _ := os.Readlink(path)
		return "link to " + target
	case info.IsDir():
		path += "/file"
	}
	data, _ := os.ReadFile(path)
	return string(data)
}

func entries(t *testing.T, dir string) (names []string) {
	t.Helper()
	found, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range found {
		names = append(names, e.Name())
	}
	return names
}

func TestNoReplace(t *testing.T) {
	each(t, func(t *testing.T) {
		for _, kind := range []string{"file", "directory", "dangling link"} {
			for _, old := range []string{"", "file", "directory", "empty directory", "dangling link"} {
				dir := t.TempDir()
				from, to := filepath.Join(dir, "from"), filepath.Join(dir, "to")
				put(t, from, kind, "new")
				put(t, to, old, "old")
				was, stood := look(t, from), look(t, to)
				err := NoReplace(from, to)
				switch {
				case old == "" && (err != nil || look(t, to) != was || look(t, from) != "nothing"):
					t.Errorf("%s: %v, there is %q", kind, err, look(t, to))
				case old != "" && (!errors.Is(err, fs.ErrExist) || look(t, to) != stood || look(t, from) != was):
					t.Errorf("%s over %s: %v, %q and %q", kind, old, err, look(t, from), look(t, to))
				}
			}
		}
		dir := t.TempDir()
		if err := NoReplace(dir+"/nosuch", dir+"/to"); !errors.Is(err, fs.ErrNotExist) {
			t.Error(err)
		}
	})
}

func TestExchange(t *testing.T) {
	each(t, func(t *testing.T) {
		for _, kinds := range [][2]string{{"file", "file"}, {"directory", "directory"}, {"file", "directory"}, {"directory", "dangling link"}} {
			dir := t.TempDir()
			a, b := filepath.Join(dir, "a"), filepath.Join(dir, "b")
			put(t, a, kinds[0], "new")
			put(t, b, kinds[1], "old")
			was, stood := look(t, a), look(t, b)
			if err := Exchange(a, b); err != nil || look(t, a) != stood || look(t, b) != was {
				t.Errorf("%v: %v, %q and %q", kinds, err, look(t, a), look(t, b))
			}
			if err := Exchange(a, dir+"/nosuch"); !errors.Is(err, fs.ErrNotExist) || look(t, a) != stood {
				t.Errorf("with nothing: %v", err)
			}
			if err := Exchange(dir+"/nosuch", b); !errors.Is(err, fs.ErrNotExist) || look(t, b) != was {
				t.Errorf("nothing: %v", err)
			}
			if got := entries(t, dir); len(got) != 2 {
				t.Errorf("left behind: %q", got)
			}
		}
	})
}

// What appears while nothing is at the path stays, and so does what was there.
func TestExchangeWithWhatAppears(t *testing.T) {
	dir := t.TempDir()
	a, b := filepath.Join(dir, "a"), filepath.Join(dir, "b")
	put(t, a, "directory", "new")
	put(t, b, "directory", "old")
	t.Cleanup(func() { renameat2 = unix.Renameat2 })
	renameat2 = func(_ int, from string, _ int, to string, flags uint) error {
		if flags == unix.RENAME_NOREPLACE && from == a && to == b {
			put(t, b, "file", "another's")
		}
		return unix.EINVAL
	}
	err := Exchange(a, b)
	aside, _ := filepath.Glob(dir + "/.b.old-*/b")
	if !errors.Is(err, fs.ErrExist) || look(t, a) != "new" || look(t, b) != "another's" || len(aside) != 1 || look(t, aside[0]) != "old" {
		t.Fatalf("%v: %q, %q, %q", err, look(t, a), look(t, b), entries(t, dir))
	}
	if !strings.Contains(err.Error(), "what was at "+b+" is now "+aside[0]) {
		t.Error(err)
	}
}
