// SPDX-License-Identifier: Apache-2.0

package seal

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// What is here follows RFC 8878, the format of zstd.

const (
	frameMagic = 0xfd2fb528
	maxBlock   = 128 << 10 // bytes
	maxBlocks  = 1 << 16   // of an image; the kernel's own limit for it is 1 GiB
	page       = 4096      // bytes
)

// Types of blocks: 3.1.1.2.2.
const (
	rawBlock = iota
	rleBlock
	compressedBlock
)

// Frame makes one frame of a kernel: not compressed up to the end of the page that has the
// slot, so that Write can fill it in, and of the rest what compress makes of it, a frame
// without a checksum. The blocks that begin a frame need nothing before them, so they may
// follow others. What has no slot is compressed as a whole.
func Frame(kernel []byte, compress func([]byte) ([]byte, error)) ([]byte, error) {
	slot := bytes.Index(kernel, []byte(Magic))
	if slot < 0 {
		return compress(kernel)
	}
	if bytes.LastIndex(kernel, []byte(Magic)) != slot {
		return nil, errors.New("the kernel has two slots for a seal")
	}
	raw := min((slot+slotSize+page-1)/page*page, len(kernel))
	frame := binary.LittleEndian.AppendUint32(nil, frameMagic)
	frame = append(frame, 2<<6|1<<5) // content size in 4 bytes, single segment: 3.1.1.1.1
	frame = binary.LittleEndian.AppendUint32(frame, uint32(len(kernel)))
	for rest := kernel[:raw]; len(rest) > 0; {
		part := rest[:min(len(rest), maxBlock)]
		if n := alike(part); n > 0 {
			frame = append(appendBlock(frame, rleBlock, n), part[0])
			rest = rest[n:]
			continue
		}
		n := page
		for n < len(part) && alike(part[n:]) == 0 {
			n += page
		}
		part = part[:min(n, len(part))]
		frame = append(appendBlock(frame, rawBlock, len(part)), part...)
		rest = rest[len(part):]
	}
	tail, err := compress(kernel[raw:])
	if err != nil {
		return nil, err
	}
	blocks, err := skipHeader(bytes.NewReader(tail), 0)
	if err != nil {
		return nil, err
	}
	if tail[4]&4 != 0 {
		return nil, errors.New("the compressed kernel has a checksum of its own")
	}
	return append(frame, tail[blocks:]...), nil
}

// appendBlock appends the header of a block that is not the last.
func appendBlock(frame []byte, kind, size int) []byte {
	h := uint32(size)<<3 | uint32(kind)<<1
	return append(frame, byte(h), byte(h>>8), byte(h>>16))
}

// alike returns how many bytes, in whole pages, are the same as the first.
func alike(data []byte) (n int) {
	for n+page <= len(data) && bytes.Count(data[n:n+page], data[:1]) == page {
		n += page
	}
	return n
}

// block is a part of a frame.
type block struct{ at, size int64 }

// rawBlocks lists the raw blocks of the frame between two offsets.
func rawBlocks(r io.ReaderAt, at, end int64) ([]block, error) {
	var out []block
	at, err := skipHeader(r, at)
	if err != nil {
		return nil, err
	}
	for range maxBlocks {
		var b [4]byte
		if err := readAt(r, b[:3], at); err != nil {
			return nil, err
		}
		h := binary.LittleEndian.Uint32(b[:])
		last, kind, size := h&1 != 0, h>>1&3, int64(h>>3)
		if kind > compressedBlock || size > maxBlock {
			return nil, fmt.Errorf("%w: its payload has a block of type %d with %d bytes", ErrImage, kind, size)
		}
		at += 3
		switch kind {
		case rawBlock:
			out = append(out, block{at, size})
		case rleBlock:
			size = 1
		}
		if at += size; at > end {
			return nil, fmt.Errorf("%w: its payload ends too early", ErrImage)
		}
		if last {
			return out, nil
		}
	}
	return nil, fmt.Errorf("%w: its payload has more than %d blocks", ErrImage, maxBlocks)
}

// skipHeader returns where the first block is: 3.1.1.1.
func skipHeader(r io.ReaderAt, at int64) (int64, error) {
	var b [5]byte
	if err := readAt(r, b[:], at); err != nil {
		return 0, err
	}
	if binary.LittleEndian.Uint32(b[:]) != frameMagic {
		return 0, fmt.Errorf("%w: its payload is not compressed with zstd", ErrImage)
	}
	descriptor := b[4]
	size := int64([]int{0, 2, 4, 8}[descriptor>>6]) // of the frame's content size
	if single := descriptor&0x20 != 0; !single {
		size++ // the window's descriptor
	} else if size == 0 {
		size = 1
	}
	size += int64([]int{0, 1, 2, 4}[descriptor&3]) // of the dictionary's ID
	return at + 5 + size, nil
}
