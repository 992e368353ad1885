// SPDX-License-Identifier: Apache-2.0

package qemu

import (
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
