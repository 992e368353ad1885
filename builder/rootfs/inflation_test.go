// SPDX-License-Identifier: Apache-2.0

package rootfs

import (
	"io"
	"strings"
	"testing"
)

func TestRatio(t *testing.T) {
	for _, test := range []struct {
		unpacked, packed int64
		fits             bool
	}{
		{0, 0, true}, {freeInflation, 0, true}, {freeInflation + 1, 1, false},
		{1000 * maxRatio << 20, 1000 << 20, true}, {1000*maxRatio<<20 + maxRatio, 1000 << 20, false},
		{64 << 30, 64 << 30, true}, {1<<63 - 1, 1 << 40, false},
	} {
		if err := checkRatio(test.unpacked, test.packed); (err == nil) != test.fits {
			t.Errorf("%d of %d: %v", test.unpacked, test.packed, err)
		}
	}
}

// What a decompressor gives is stopped whatever it is: files, headers that are
// no files, or what follows the archive.
func TestInflation(t *testing.T) {
	n, err := io.CopyBuffer(io.Discard, struct{ io.Reader }{&inflation{r: endless{}, packed: 1000}}, make([]byte, 1<<20))
	if err == nil || !strings.Contains(err.Error(), "its 1000 bytes") || n != freeInflation {
		t.Errorf("%d bytes, %v", n, err)
	}
}
