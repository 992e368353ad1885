// SPDX-License-Identifier: Apache-2.0

package authenticode

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
)

// chunk is read at once: large enough that reads cost nothing, small enough for
// a core's cache.
const chunk = 256 << 10

// span is a range of the image's bytes.
type span struct{ from, to int64 }

// signed lists what is digested. The numbers are those of "Calculating the PE
// Image Hash" in the specification.
func (i *Image) signed() []span {
	return []span{
		// 3. From the beginning to CheckSum, without it.
		{0, i.checksum},
		// 4, 5. To the Certificate Table entry of the Optional Header Data
		// Directories, without it.
		{i.checksum + 4, i.certificate},
		// 6. To the end of the headers, SizeOfHeaders.
		{i.certificate + directorySize, i.headers},
		// 7 to 12. All sections by PointerToRawData; 13. what lies behind them
		// and before the certificate table. Parse saw to it that this is one range.
		{i.headers, i.end},
	}
}

// Digest returns the SHA-256 digest of the image as if it were unsigned.
func (i *Image) Digest(ctx context.Context) (digest [32]byte, err error) {
	h := sha256.New()
	buf := make([]byte, chunk)
	for _, s := range i.signed() {
		if err := i.each(ctx, s, buf, func(b []byte) error { h.Write(b); return nil }); err != nil {
			return digest, fmt.Errorf("digesting the image: %w", err)
		}
	}
	return [32]byte(h.Sum(nil)), nil
}

// each calls f with the bytes of a span, a piece at a time.
func (i *Image) each(ctx context.Context, s span, buf []byte, f func([]byte) error) error {
	for off := s.from; off < s.to; {
		if err := ctx.Err(); err != nil {
			return err
		}
		b := buf[:min(int64(len(buf)), s.to-off)]
		if n, err := i.r.ReadAt(b, off); n < len(b) {
			if err == nil || err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return err
		}
		if err := f(b); err != nil {
			return err
		}
		off += int64(len(b))
	}
	return nil
}
