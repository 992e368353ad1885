// SPDX-License-Identifier: Apache-2.0

// Package seal is how a kernel image is bound to the one initramfs that it unpacks: the
// slot in the image that holds the initramfs's size and digest.
//
// In: a bzImage that was compiled with the driver of builder/kernel/seal, and an
// initramfs. Out: what the slot says, and the image with another slot. Refused: images
// without a slot, with several, or with one that the kernel would not look at.
package seal

import (
	"crypto/sha256"
	"fmt"
	"hash"
	"io"
	"runtime"
	"sync/atomic"

	"golang.org/x/sync/errgroup"
)

// chunk is how much of an initramfs is hashed at once, in bytes: the kernel hashes on all
// its CPUs.
const chunk = 1 << 20

// Digest is the SHA-256 over the SHA-256s of an initramfs's chunks of 1 MiB, the last of
// which may be shorter.
type Digest [sha256.Size]byte

func (d Digest) String() string { return fmt.Sprintf("%x", d[:]) }

// Hash makes the Digest of what is written to it.
type Hash struct {
	chunk, list hash.Hash
	size        int64
}

// NewHash returns a Hash of nothing.
func NewHash() *Hash { return &Hash{chunk: sha256.New(), list: sha256.New()} }

// Write never fails.
func (h *Hash) Write(p []byte) (int, error) {
	for rest := p; len(rest) > 0; {
		n := min(int64(len(rest)), chunk-h.size%chunk)
		h.chunk.Write(rest[:n])
		h.size += n
		if rest = rest[n:]; h.size%chunk == 0 {
			h.endChunk()
		}
	}
	return len(p), nil
}

func (h *Hash) endChunk() {
	h.list.Write(h.chunk.Sum(nil))
	h.chunk.Reset()
}

// Seal returns the size and the digest of what was written. Nothing may be written after
// that.
func (h *Hash) Seal() Seal {
	if h.size%chunk != 0 {
		h.endChunk()
	}
	return Seal{Size: h.size, Digest: Digest(h.list.Sum(nil))}
}

// Seal names one initramfs.
type Seal struct {
	Size   int64 // bytes
	Digest Digest
}

// Of returns the seal of an initramfs that is there. All CPUs hash.
func Of(initramfs io.ReaderAt, size int64) (Seal, error) {
	sums := make([][sha256.Size]byte, (size+chunk-1)/chunk)
	var next atomic.Int64
	var workers errgroup.Group
	for range runtime.GOMAXPROCS(0) {
		workers.Go(func() error {
			buf := make([]byte, chunk)
			for {
				i := next.Add(1) - 1
				if i >= int64(len(sums)) {
					return nil
				}
				part := buf[:min(chunk, size-i*chunk)]
				if n, err := initramfs.ReadAt(part, i*chunk); n < len(part) {
					return err
				}
				sums[i] = sha256.Sum256(part)
			}
		})
	}
	if err := workers.Wait(); err != nil {
		return Seal{}, err
	}
	list := sha256.New()
	for _, s := range sums {
		list.Write(s[:])
	}
	return Seal{Size: size, Digest: Digest(list.Sum(nil))}, nil
}

// Check refuses a kernel that is not sealed to the initramfs, or that has another command line or
// lets something else in, as its .config says. The error wraps ErrImage, ErrOther or ErrConfig.
func Check(bzImage io.ReaderAt, config []byte, commandLine string, initramfs Seal) error {
	if err := CheckConfig(config, commandLine); err != nil {
		return err
	}
	want, err := Read(bzImage)
	if err == nil && initramfs != want {
		err = fmt.Errorf("%w: it is sealed to one of %d bytes with the digest %s, and this one has %d and %s", ErrOther, want.Size, want.Digest, initramfs.Size, initramfs.Digest)
	}
	return err
}
