// SPDX-License-Identifier: Apache-2.0

package rootfs

import (
	"fmt"
	"io"
)

// What unpacks to more than freeInflation bytes may be at most maxRatio times
// its packed size: gzip makes 1032 zeros of one byte, zstd far more, and a
// sparse file any number of nothing, so that a small download would fill the
// disk long before Limits.Bytes. Real layers are 2 to 10 times their size.
const (
	maxRatio      = 250
	freeInflation = 1 << 30
)

func checkRatio(unpacked, packed int64) error {
	if unpacked > freeInflation && unpacked/maxRatio > packed {
		return fmt.Errorf("unpacks to more than %d times its %d bytes", maxRatio, packed)
	}
	return nil
}

// inflation bounds what comes out of a decompressor.
type inflation struct {
	r                io.Reader
	unpacked, packed int64
}

func (i *inflation) Read(p []byte) (int, error) {
	n, err := i.r.Read(p)
	i.unpacked += int64(n)
	if ratio := checkRatio(i.unpacked, i.packed); ratio != nil {
		return 0, ratio
	}
	return n, err
}
