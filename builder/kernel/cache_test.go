// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tenon-build/tenon/signer/flock"
)

func openCache(t *testing.T, dir string) *Cache {
	t.Helper()
	c, err := OpenCache(t.Context(), CacheOptions{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func write(t *testing.T, path, data string) string {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(data), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func names(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, e := range entries {
		out = append(out, e.Name())
	}
	return out
}

func TestCacheDir(t *testing.T) {
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	if got, want := openCache(t, "").Path("kernel", "x"), os.Getenv("XDG_CACHE_HOME")+"/tenon/kernel/x"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	t.Chdir(t.TempDir())
	c := openCache(t, "relative") // make runs elsewhere
	if !filepath.IsAbs(c.Path("tmp", "")) {
		t.Errorf("path is %s", c.Path("tmp", ""))
	}
	if _, err := OpenCache(t.Context(), CacheOptions{Dir: write(t, "file", "")}); err == nil {
		t.Error("a file is taken for a folder")
	}
}

// What a killed build left goes away, but not what a living one works in, nor what the
// programs write that a killed one started.
func TestCacheSweepsWhenAlone(t *testing.T) {
	dir := t.TempDir() + "/[a*"
	first := openCache(t, dir)
	left, err := first.TempDir()
	if err != nil {
		t.Fatal(err)
	}
	write(t, left+"/deep/file", "x")
	for _, folder := range []string{"k/work", "k/config", "held/work"} {
		write(t, filepath.Join(first.Path("objects", folder), "file"), "x")
	}
	held, err := first.lock(t.Context(), "objects", "held")
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	second := openCache(t, dir)
	if got := names(t, second.Path("tmp", "")); len(got) != 1 || !second.has("objects", "k/work") {
		t.Errorf("with another one at work: %v", got)
	}
	if err := errors.Join(first.Close(), second.Close()); err != nil {
		t.Fatal(err)
	}
	third := openCache(t, dir)
	if got := names(t, third.Path("tmp", "")); len(got) != 0 || third.has("objects", "k/work") {
		t.Errorf("alone: %v", got)
	}
	if !third.has("objects", "k/config") || !third.has("objects", "held/work") {
		t.Error("more is gone than killed builds left")
	}
}

// What others could have written would become part of a kernel.
func TestCacheOfOthers(t *testing.T) {
	root := os.Geteuid() == 0
	for name, test := range map[string]struct {
		change func(t *testing.T, base, dir string) error
		root   bool // the test has to be root
		want   string
	}{
		"private": {func(*testing.T, string, string) error { return nil }, false, ""},
		"below a folder like /tmp": {func(_ *testing.T, base, _ string) error {
			return os.Chmod(base, 0o777|os.ModeSticky)
		}, false, ""},
		"of the user's own group": {func(_ *testing.T, _, dir string) error {
			return errors.Join(os.Chown(dir, os.Geteuid(), os.Geteuid()), os.Chmod(dir, 0o775))
		}, true, ""},
		"for all to write": {func(_ *testing.T, _, dir string) error { return os.Chmod(dir, 0o777) }, false, "/cache has the mode 0777"},
		"like /tmp itself": {func(_ *testing.T, _, dir string) error { return os.Chmod(dir, 0o777|os.ModeSticky) }, false, "/cache has the mode 0777"},
		"for a group to write": {func(_ *testing.T, _, dir string) error {
			return errors.Join(os.Chown(dir, os.Geteuid(), 4321), os.Chmod(dir, 0o770))
		}, true, "/cache has the mode 0770, owner 0 and group 4321"},
		"a parent for all to write": {func(_ *testing.T, base, _ string) error { return os.Chmod(base, 0o777) }, false, "/base has the mode 0777"},
		"a folder in it for all to write": {func(t *testing.T, _, dir string) error {
			openCache(t, dir)
			return os.Chmod(dir+"/kernel", 0o757)
		}, false, "/cache/kernel has the mode 0757"},
		"an entry for all to write": {func(t *testing.T, _, dir string) error {
			openCache(t, dir)
			return errors.Join(os.Mkdir(dir+"/kernel/k", 0o755), os.Chmod(dir+"/kernel/k", 0o777))
		}, false, "/cache/kernel/k has the mode 0777"},
		"of somebody else":          {func(_ *testing.T, _, dir string) error { return os.Chown(dir, 4321, 4321) }, true, "/cache belongs to user 4321, and this is user 0"},
		"below somebody else's":     {func(_ *testing.T, base, _ string) error { return os.Chown(base, 4321, 4321) }, true, "/base belongs to user 4321"},
		"an entry of somebody else": {func(t *testing.T, _, dir string) error { return os.Chown(write(t, dir+"/config/c", "x"), 4321, 4321) }, true, "/cache/config/c belongs to user 4321"},
		"by a link through somebody else's": {func(_ *testing.T, base, dir string) error {
			real, others := filepath.Join(filepath.Dir(base), "real"), filepath.Join(filepath.Dir(base), "others")
			return errors.Join(os.Rename(dir, real), os.Mkdir(others, 0o777), os.Chmod(others, 0o777), os.Symlink(real, others+"/link"), os.Symlink(others+"/link", dir))
		}, false, "/others has the mode 0777"},
	} {
		t.Run(name, func(t *testing.T) {
			if test.root && !root {
				t.Skip("gives files away")
			}
			base := filepath.Join(t.TempDir(), "base")
			dir := filepath.Join(base, "cache")
			if err := errors.Join(os.MkdirAll(dir, 0o755), test.change(t, base, dir)); err != nil {
				t.Fatal(err)
			}
			c, err := OpenCache(t.Context(), CacheOptions{Dir: dir})
			if err == nil {
				err = c.Close()
			}
			if test.want == "" && err != nil || test.want != "" && (!errors.Is(err, ErrShared) || !strings.Contains(err.Error(), test.want)) {
				t.Errorf("got %v", err)
			}
			trusted, err := OpenCache(t.Context(), CacheOptions{Dir: dir, TrustDir: true})
			if err == nil {
				err = trusted.Close()
			}
			if err != nil {
				t.Errorf("trusted: %v", err)
			}
		})
	}
}

// Whoever holds a lock is named, and waiting for it ends with ctx.
func TestCacheThatAnotherHolds(t *testing.T) {
	dir := t.TempDir()
	c := openCache(t, dir)
	if info, err := os.Stat(dir + "/lock"); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("locks are for others to open: %v, %v", info.Mode(), err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	held, err := os.Open(dir + "/lock/use")
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	if locked, err := flock.Try(held); !locked || err != nil {
		t.Fatal(locked, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*patience/2)
	defer cancel()
	var said []string
	_, err = OpenCache(ctx, CacheOptions{Dir: dir, Waiting: func(what string) { said = append(said, what) }})
	want := fmt.Sprintf("process %d ", os.Getpid())
	if !errors.Is(err, context.DeadlineExceeded) || len(said) != 1 || !strings.Contains(said[0], "which holds "+dir+"/lock/use") || !strings.Contains(err.Error(), "lock/use") {
		t.Errorf("%v, said %q", err, said)
	}
	if !strings.HasPrefix(said[0], want) && !strings.HasPrefix(said[0], "somebody") {
		t.Errorf("said %q, want %q", said, want)
	}
}

// What one build left and another user's build cannot remove, or a disk that is full, stops nobody.
func TestCacheWithWhatCannotGo(t *testing.T) {
	dir := t.TempDir()
	left, err := openCache(t, dir).TempDir()
	if err != nil {
		t.Fatal(err)
	}
	_ = write(t, left+"/file", "x")
	if err := os.Chmod(left, 0o555); err != nil { // root removes it all the same
		t.Fatal(err)
	}
	defer os.Chmod(left, 0o755) //nolint:errcheck // may be gone
	openCache(t, dir)
}

func TestCommitKeepsTheFirst(t *testing.T) {
	c := openCache(t, t.TempDir())
	for i, want := range []string{"first", "first"} {
		tmp, err := c.TempDir()
		if err != nil {
			t.Fatal(err)
		}
		write(t, tmp+"/f", []string{"first", "second"}[i])
		if err := c.commit(tmp, "kernel", "k"); err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(c.Path("kernel", "k") + "/f"); err != nil || string(got) != want {
			t.Errorf("%q, %v", got, err)
		}
	}
	if !c.has("kernel", "k") || c.has("kernel", "other") {
		t.Error("has")
	}
	if err := c.commit(c.Path("tmp", "missing"), "kernel", "l"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}

func TestLock(t *testing.T) {
	dir := t.TempDir()
	first, second := openCache(t, dir), openCache(t, dir)
	lock, err := first.lock(t.Context(), "kernel", "k")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 250*time.Millisecond)
	defer cancel()
	if _, err := second.lock(ctx, "kernel", "k"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
	other, err := second.lock(t.Context(), "kernel", "other")
	if err != nil {
		t.Fatal(err)
	}
	other.Close()
	got := make(chan error)
	go func() {
		again, err := second.lock(t.Context(), "kernel", "k")
		if err == nil {
			err = again.Close()
		}
		got <- err
	}()
	lock.Close()
	if err := <-got; err != nil {
		t.Error(err)
	}
}

// The parts of a key do not run into each other.
func TestKey(t *testing.T) {
	seen := map[string]bool{}
	for _, parts := range [][]string{{"a", "b"}, {"ab"}, {"ab", ""}, {"", "ab"}, {"a", "b", ""}, {"1:a"}, nil} {
		k := key(parts...)
		if seen[k] || len(k) != 64 {
			t.Errorf("%q: %s", parts, k)
		}
		seen[k] = true
	}
}
