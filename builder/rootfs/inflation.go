// SPDX-License-Identifier: Apache-2.0

package rootfs

import (
	"fmt"
	"io"
)

// freeInflation is what any layer may unpack to, in bytes, however small it is.
const freeInflation = 1 << 30

// checkRatio bounds what becomes of packed bytes: a small download would fill the
// disk long before Limits.Bytes.
func (b *budget) checkRatio(unpacked, packed int64) error {
	if b != nil && b.limits.Ratio > 0 && unpacked > freeInflation && unpacked/b.limits.Ratio > packed {
		return fmt.Errorf("%w: %d bytes to more than %d times as many", ErrRatio, packed, b.limits.Ratio)
	}
	return nil
}

// inflation bounds what comes out of a decompressor, of this layer and of all.
type inflation struct {
	r                io.Reader
	left             *budget
	unpacked, packed int64
}

func (i *inflation) Read(p []byte) (int, error) {
	n, err := i.r.Read(p)
	i.unpacked += int64(n)
	if ratio := i.left.checkRatio(i.unpacked, i.packed); ratio != nil {
		return 0, ratio
	}
	if i.left != nil && i.left.stream.Add(int64(-n)) < 0 {
		return 0, fmt.Errorf("%w (%d, and %d for headers and padding)", ErrSize, i.left.limits.Bytes, int64(maxOverhead))
	}
	return n, err
}
