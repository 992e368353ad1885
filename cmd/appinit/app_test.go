// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/tenon-build/tenon/builder/bundle/manifest"
)

func TestWithDefaults(t *testing.T) {
	got := withDefaults([]string{"A=1"}, "web", "/root")
	if want := []string{"A=1", "PATH=" + manifest.DefaultPath, "HOSTNAME=web", "HOME=/root"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	image := []string{"HOME=/h", "PATH=", "HOSTNAME=mine"}
	if got := withDefaults(image, "web", "/root"); !slices.Equal(got, image) {
		t.Errorf("the image's own: got %q, want %q", got, image)
	}
}

func TestLookPath(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	for name, mode := range map[string]os.FileMode{"a/run": 0o755, "b/run": 0o755, "a/plain": 0o644, "b/both": 0o755, "a/both": 0o644} {
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, nil, mode); err != nil {
			t.Fatal(err)
		}
	}
	search := dir + "/none:" + dir + "/a:" + dir + "/b"
	tests := []struct {
		name, search, want string
		code               int
	}{
		{"run", search, dir + "/a/run", 0},
		{"both", search, dir + "/b/both", 0},
		{"b/run", "", "b/run", 0},
		{"run", "b", "b/run", 0},
		{dir + "/b/run", "", dir + "/b/run", 0},
		{"absent", search, "", 127},
		{"run", "", "", 127},
		{"", search, "", 126}, // the directories themselves
		{"plain", search, "", 126},
		{"a", dir, "", 126},
		{dir + "/absent", search, "", 127},
		{dir + "/a/run/x", search, "", 127},
	}
	for _, test := range tests {
		got, err := lookPath(test.name, test.search)
		code := 0
		if start, ok := errors.AsType[*startError](err); ok {
			code = start.code
		}
		if got != test.want || code != test.code {
			t.Errorf("%q in %q: got %q, code %d, want %q, code %d", test.name, test.search, got, code, test.want, test.code)
		}
	}
}
