// SPDX-License-Identifier: Apache-2.0

// Package gunzip decompresses gzip (RFC 1952) and the deflate data in it (RFC
// 1951), in less time than the general libraries: reading an image waits for
// nothing else. It decodes into a window of its own, with a bit buffer of 64
// bits and tables of 11.
//
// In: a stream of one or more members. Out: their contents, one after the other.
// Refused: what the RFCs do not allow, and what differs from its checksum.
package gunzip

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
)

// What is wrong with data; test with errors.Is. A stream that ends too early is
// io.ErrUnexpectedEOF.
var (
	ErrHeader   = errors.New("gzip: invalid header")
	ErrCorrupt  = errors.New("gzip: corrupt data")
	ErrChecksum = errors.New("gzip: invalid checksum")
)

const (
	history  = 32 << 10 // how far back a match may reach
	maxMatch = 258
	slack    = 16 // what a match may write beyond its end
	inSize   = 64 << 10
	outSize  = history + 128<<10 + maxMatch + slack
	keep     = 8 // bytes before pos that may have to be read again
)

// Reader is an io.Reader of the contents.
type Reader struct {
	src    io.Reader
	in     []byte
	pos    int // next byte of in
	end    int // of what in holds
	srcErr error

	bits uint64 // n bits that are next; above them, bits of the bytes at pos or 0
	n    uint

	out   []byte
	w     int // end of what was decoded
	r     int // end of what Read has returned
	start int // of what a match may reach

	step      func(*Reader) error // decodes on
	err       error               // after what was decoded
	last      bool                // the block is the member's last one
	left      int                 // of a stored block
	crc, size uint32
	lit, dist table
}

// NewReader reads the first header.
func NewReader(src io.Reader) (*Reader, error) {
	z := &Reader{src: src, in: make([]byte, inSize), out: make([]byte, outSize), step: (*Reader).block}
	return z, z.header()
}

// Read returns decoded bytes; errors come after all that came before them.
func (z *Reader) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for z.r == z.w {
		if z.err != nil {
			return 0, z.err
		}
		z.slide()
		z.err = z.step(z)
		decoded := z.out[z.r:z.w]
		z.crc = crc32.Update(z.crc, crc32.IEEETable, decoded)
		z.size += uint32(len(decoded))
		if z.err == errMember {
			z.err = z.trailer()
		}
	}
	n := copy(p, z.out[z.r:z.w])
	z.r += n
	return n, nil
}

// errMember ends a member.
var errMember = errors.New("end of the member")

// slide makes room, when all that was decoded is read.
func (z *Reader) slide() {
	if z.w+maxMatch+slack <= outSize-history {
		return
	}
	from := max(z.start, z.w-history)
	copy(z.out, z.out[from:z.w])
	z.start, z.w = 0, z.w-from
	z.r = z.w
}

// load reads more input, and says whether there is any.
func (z *Reader) load() bool {
	if z.srcErr != nil {
		return false
	}
	from := max(z.pos-keep, 0)
	copy(z.in, z.in[from:z.end])
	z.pos, z.end = z.pos-from, z.end-from
	for range 100 {
		var n int
		n, z.srcErr = z.src.Read(z.in[z.end:])
		z.end += n
		if n > 0 || z.srcErr != nil {
			return n > 0
		}
	}
	z.srcErr = io.ErrNoProgress
	return false
}

// ended is the error for input that is missing.
func (z *Reader) ended() error {
	if z.srcErr == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return z.srcErr
}

// need makes k bits available, at most 32.
func (z *Reader) need(k uint) error {
	for z.n < k {
		if z.pos == z.end && !z.load() {
			return z.ended()
		}
		z.bits |= uint64(z.in[z.pos]) << z.n
		z.pos++
		z.n += 8
	}
	return nil
}

// take returns k bits.
func (z *Reader) take(k uint) (uint32, error) {
	if err := z.need(k); err != nil {
		return 0, err
	}
	v := uint32(z.bits & (1<<k - 1))
	z.drop(k)
	return v, nil
}

func (z *Reader) drop(k uint) {
	z.bits >>= k
	z.n -= k
}

// align gives back what is left of the bit buffer, but for the bits of a byte
// that has begun.
func (z *Reader) align() {
	z.pos -= int(z.n / 8)
	z.bits, z.n = 0, 0
}

// bytes calls fn with whole bytes of input, n in all.
func (z *Reader) bytes(n int, fn func([]byte)) error {
	for n > 0 {
		if z.pos == z.end && !z.load() {
			return z.ended()
		}
		k := min(n, z.end-z.pos)
		fn(z.in[z.pos : z.pos+k])
		z.pos += k
		n -= k
	}
	return nil
}

// header reads a member's header: RFC 1952, 2.3.
func (z *Reader) header() error {
	var head [10]byte
	at, sum := 0, uint32(0)
	get := func(n int) error {
		at = 0
		return z.bytes(n, func(b []byte) {
			at += copy(head[at:], b)
			sum = crc32.Update(sum, crc32.IEEETable, b)
		})
	}
	if err := get(10); err != nil {
		return err
	}
	flags := head[3]
	if head[0] != 0x1f || head[1] != 0x8b || head[2] != 8 || flags&0xe0 != 0 {
		return ErrHeader
	}
	if flags&4 != 0 { // FEXTRA
		if err := get(2); err != nil {
			return err
		}
		n := int(binary.LittleEndian.Uint16(head[:]))
		if err := z.bytes(n, func(b []byte) { sum = crc32.Update(sum, crc32.IEEETable, b) }); err != nil {
			return err
		}
	}
	for _, flag := range []byte{8, 16} { // FNAME, FCOMMENT
		for flags&flag != 0 {
			if err := get(1); err != nil {
				return err
			}
			if head[0] == 0 {
				break
			}
		}
	}
	if flags&2 != 0 { // FHCRC
		want := uint16(sum)
		if err := get(2); err != nil {
			return err
		}
		if binary.LittleEndian.Uint16(head[:]) != want {
			return ErrHeader
		}
	}
	z.crc, z.size, z.start = 0, 0, z.w
	return nil
}

// trailer checks a member, and looks for another one. It returns io.EOF when
// there is none.
func (z *Reader) trailer() error {
	z.align()
	var tail [8]byte
	at := 0
	if err := z.bytes(8, func(b []byte) { at += copy(tail[at:], b) }); err != nil {
		return err
	}
	if binary.LittleEndian.Uint32(tail[:]) != z.crc || binary.LittleEndian.Uint32(tail[4:]) != z.size {
		return ErrChecksum
	}
	if z.pos == z.end && !z.load() {
		return z.srcErr
	}
	return z.header()
}
