// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"archive/tar"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// What somebody put at the output comes back, or stays at a name that the error says, whatever
// happens to the output meanwhile.
func TestReplaceLosesNothing(t *testing.T) {
	refused := errors.New("refused")
	for name, test := range map[string]struct {
		meanwhile func(path string) error // after the first exchange
		at, kept  string                  // what is at the output, and at the temporary name
	}{
		"nothing happens": {func(string) error { return nil }, "stranger's", ""},
		"ours vanishes":   {os.Remove, "stranger's", ""},
		"ours is replaced": {func(path string) error {
			return errors.Join(os.Remove(path), os.WriteFile(path, []byte("another's"), 0o644))
		}, "stranger's", "another's"},
		"the folder vanishes": {func(path string) error { return os.Rename(filepath.Dir(path), filepath.Dir(path)+"-away") }, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "dir")
			path := filepath.Join(dir, "out")
			if err := errors.Join(os.Mkdir(dir, 0o755), os.WriteFile(path, []byte("stranger's"), 0o644)); err != nil {
				t.Fatal(err)
			}
			check := func(string) error { return errors.Join(refused, test.meanwhile(path)) }
			err := writeTar(path, check, func(*tar.Writer) error { return nil })
			if !errors.Is(err, refused) {
				t.Errorf("got %v", err)
			}
			if test.at == "" { // all of it is elsewhere
				left, _ := filepath.Glob(dir + "-away/.out.tmp-*")
				if data, err := os.ReadFile(strings.Join(left, "")); err != nil || string(data) != "stranger's" {
					t.Errorf("%q, %v", data, err)
				}
				return
			}
			if data, err := os.ReadFile(path); err != nil || string(data) != test.at {
				t.Errorf("at the output: %q, %v", data, err)
			}
			left, _ := filepath.Glob(dir + "/.out.tmp-*")
			if test.kept == "" {
				if len(left) != 0 || errors.Is(err, errKept) {
					t.Errorf("left %q, %v", left, err)
				}
				return
			}
			if len(left) != 1 || !errors.Is(err, errKept) || !strings.Contains(err.Error(), left[0]) {
				t.Fatalf("left %q, %v", left, err)
			}
			if data, err := os.ReadFile(left[0]); err != nil || string(data) != test.kept {
				t.Errorf("kept %q, %v", data, err)
			}
		})
	}
}
