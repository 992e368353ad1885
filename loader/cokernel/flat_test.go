// SPDX-License-Identifier: Apache-2.0

package cokernel

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"

	bare "github.com/tenon-build/tenon/testdata/flat"
)

// flat is a bzImage of bare code, in memory: what Linux would be in the way of.
func flat(t *testing.T, code []byte) *os.File {
	t.Helper()
	return memory(t, bare.Kernel(code))
}

// memory is a file of its own.
func memory(t *testing.T, data []byte) *os.File {
	t.Helper()
	fd, err := unix.MemfdCreate("image", unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), "image")
	t.Cleanup(func() { f.Close() })
	if _, err := f.Write(data); err != nil {
		t.Fatal(err)
	}
	return f
}

var hang = bare.Hang
