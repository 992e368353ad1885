// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func openCache(t *testing.T, dir string) *Cache {
	t.Helper()
	c, err := OpenCache(dir)
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
	if _, err := OpenCache(write(t, "file", "")); err == nil {
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
