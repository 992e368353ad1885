// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package instance

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// /run is full: of bytes, then of files.
func TestE2EFullRun(t *testing.T) {
	for name, test := range map[string]struct {
		options string
		fill    func(dir string) error
	}{
		"bytes": {"size=256k,mode=0700", func(dir string) error {
			f, err := os.Create(filepath.Join(dir, "log"))
			if err != nil {
				return err
			}
			_, err = io.Copy(f, strings.NewReader(strings.Repeat("x", 1<<20)))
			return errors.Join(err, f.Close())
		}},
		"files": {"nr_inodes=32,mode=0700", func(dir string) error {
			for {
				f, err := os.CreateTemp(dir, "log")
				if err != nil {
					return err
				}
				f.Close()
			}
		}},
	} {
		run := t.TempDir()
		if err := unix.Mount("tmpfs", run, "tmpfs", 0, test.options); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := unix.Unmount(run, 0); err != nil {
				t.Error(err)
			}
		})
		s := &Store{Dir: filepath.Join(run, "mortise")}
		web := create(t, s, "web")
		if err := test.fill(run); !errors.Is(err, unix.ENOSPC) {
			t.Fatal(name, err)
		}
		before := tree(t, s.Dir)
		_, err := s.Update(t.Context(), "web", func(r *Record) error { r.Held.CPUs = "2-3"; return nil })
		if !errors.Is(err, unix.ENOSPC) || !strings.HasPrefix(err.Error(), `instance "web": `) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v", name, err)
		}
		locked(t, s, func(l *Lock) {
			if err := l.Create(bundled("cache"), day); !errors.Is(err, unix.ENOSPC) || !strings.HasPrefix(err.Error(), `instance "cache": `) || strings.Contains(err.Error(), "\n") {
				t.Errorf("%s: %v", name, err)
			}
		})
		if got := tree(t, s.Dir); !reflect.DeepEqual(got, before) {
			t.Errorf("%s: left %q", name, got)
		}
		if got, err := s.Get("web"); err != nil || !reflect.DeepEqual(got, web) {
			t.Errorf("%s: %v, %+v", name, err, got)
		}
		locked(t, s, func(l *Lock) { // which frees some
			if err := l.Remove(t.Context(), "web"); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		})
	}
}
