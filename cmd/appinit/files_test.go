// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

func TestReadFile(t *testing.T) {
	name := t.TempDir() + "/file"
	for _, size := range []int{0, 1, 4095, 4096, 4097, 100_000} {
		want := bytes.Repeat([]byte{'x'}, size)
		if err := os.WriteFile(name, want, 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := readFile(name); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%d bytes: got %d, %v", size, len(got), err)
		}
	}
	if _, err := readFile(name + "/x"); err != unix.ENOTDIR {
		t.Errorf("got %v", err)
	}
}

// An image may have anything where a file is expected.
func TestReadFileThatIsNone(t *testing.T) {
	fifo := t.TempDir() + "/fifo"
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	large := t.TempDir() + "/large"
	if err := os.WriteFile(large, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(large, maxFile+1); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]error{fifo: errNotRegular, "/dev/zero": errNotRegular, "/": errNotRegular, large: unix.EFBIG} {
		if _, err := readFile(path); err != want {
			t.Errorf("%s: got %v, want %v", path, err, want)
		}
	}
}

func TestReadDir(t *testing.T) {
	dir := t.TempDir()
	if names, err := readDir(dir); len(names) != 0 || err != nil {
		t.Errorf("empty: got %q, %v", names, err)
	}
	var want []string
	for i := range 700 { // more than one buffer
		want = append(want, fmt.Sprintf("a-name-of-some-length-%03d", i))
		if err := os.Mkdir(dir+"/"+want[i], 0o755); err != nil {
			t.Fatal(err)
		}
	}
	got, err := readDir(dir)
	if slices.Sort(got); err != nil || !slices.Equal(got, want) {
		t.Errorf("got %d names, %v", len(got), err)
	}
	if _, err := readDir(dir + "/absent"); err != unix.ENOENT {
		t.Errorf("got %v", err)
	}
}

func TestMkdirAll(t *testing.T) {
	dir := t.TempDir()
	if err := os.Symlink(".", dir+"/link"); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(dir+"/file", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]error{"": nil, "/a/b/c": nil, "/link": nil, "/link/d": nil, "/file": unix.EEXIST, "/file/e": unix.EEXIST} {
		if err := mkdirAll(dir + path); err != want {
			t.Errorf("%q: got %v, want %v", path, err, want)
		}
	}
	for _, path := range []string{"/a/b/c", "/d"} {
		if info, err := os.Stat(dir + path); err != nil || !info.IsDir() {
			t.Errorf("%q: %v, %v", path, info, err)
		}
	}
	if err := mkdirAll("/"); err != nil {
		t.Error(err)
	}
}
