// SPDX-License-Identifier: Apache-2.0

package rootfs

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"testing"
	"testing/iotest"
)

func TestReadAhead(t *testing.T) {
	data := make([]byte, aheadSize*(2*aheadBuffers+1)+17)
	r := rand.NewChaCha8([32]byte{})
	_, _ = r.Read(data) // never fails
	failed := errors.New("failed")
	for _, n := range []int{0, 1, aheadSize - 1, aheadSize, aheadSize + 1, len(data)} {
		for name, open := range map[string]func() io.Reader{
			"whole": func() io.Reader { return bytes.NewReader(data[:n]) }, "half": func() io.Reader { return iotest.HalfReader(bytes.NewReader(data[:n])) },
			"with its end": func() io.Reader { return iotest.DataErrReader(bytes.NewReader(data[:n])) },
		} {
			a := readAhead(open())
			got, err := io.ReadAll(a)
			if err != nil || !bytes.Equal(got, data[:n]) {
				t.Errorf("%s, %d bytes: got %d, %v", name, n, len(got), err)
			}
			if _, err := a.Read(make([]byte, 1)); err != io.EOF {
				t.Errorf("%s, %d bytes: after the end: %v", name, n, err)
			}
			a.Close()
		}
		a := readAhead(io.MultiReader(bytes.NewReader(data[:n]), iotest.ErrReader(failed)))
		if got, err := io.ReadAll(a); err != failed || !bytes.Equal(got, data[:n]) {
			t.Errorf("%d bytes: got %d, %v", n, len(got), err)
		}
		a.Close()
	}
}

// Whoever stops early waits for no more than the read under way.
func TestReadAheadClose(t *testing.T) {
	for _, n := range []int{0, 1, 3 * aheadSize} {
		inner := readAhead(endless{})
		outer := readAhead(inner)
		if _, err := io.ReadFull(outer, make([]byte, n)); err != nil {
			t.Fatal(err)
		}
		outer.Close()
		inner.Close()
	}
}

type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }
