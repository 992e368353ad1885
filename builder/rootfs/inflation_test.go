// SPDX-License-Identifier: Apache-2.0

package rootfs

import (
	"errors"
	"io"
	"testing"
)

func TestRatio(t *testing.T) {
	for _, test := range []struct {
		unpacked, packed int64
		fits             bool
	}{
		{0, 0, true}, {freeInflation, 0, true}, {freeInflation + 1, 1, false},
		{1000 * 250 << 20, 1000 << 20, true}, {1000*250<<20 + 250, 1000 << 20, false},
		{64 << 30, 64 << 30, true}, {1<<63 - 1, 1 << 40, false},
	} {
		if err := newBudget(DefaultLimits).checkRatio(test.unpacked, test.packed); (err == nil) != test.fits {
			t.Errorf("%d of %d: %v", test.unpacked, test.packed, err)
		}
	}
}

// What a decompressor gives is stopped whatever it is: files, headers that are
// no files, or what follows the archive.
func TestInflation(t *testing.T) {
	read := func(left *budget, packed int64) (int64, error) {
		return io.CopyBuffer(io.Discard, struct{ io.Reader }{&inflation{r: endless{}, left: left, packed: packed}}, make([]byte, 1<<20))
	}
	left := newBudget(DefaultLimits)
	if n, err := read(left, 1000); !errors.Is(err, ErrRatio) || n != freeInflation {
		t.Errorf("%d bytes, %v", n, err)
	}
	left.stream.Store(3 << 20) // what other layers have left
	if n, err := read(left, 1000); !errors.Is(err, ErrSize) || n != 3<<20 {
		t.Errorf("%d bytes, %v", n, err)
	}
}
