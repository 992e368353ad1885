// SPDX-License-Identifier: Apache-2.0

package qemu

import (
	"errors"
	"os"
	"sync"
	"testing"

	"github.com/tenon-build/tenon/loader"
)

var _ loader.Backend = (*Backend)(nil)

func TestCheck(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	if err := new(Backend).Check(); err != ErrNoQEMU {
		t.Errorf("got %v, want %v", err, ErrNoQEMU)
	}
}

// Several type on a console that nobody reads.
func TestTypeEnds(t *testing.T) {
	t.Parallel()
	var i instance
	if _, err := i.socket(&i.console); err != nil {
		t.Fatal(err)
	}
	defer i.Close()
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			if err := i.Type(make([]byte, 1<<20)); !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("got %v, want %v", err, os.ErrDeadlineExceeded)
			}
		})
	}
	all.Wait()
}
