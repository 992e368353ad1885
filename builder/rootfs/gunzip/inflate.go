// SPDX-License-Identifier: Apache-2.0

package gunzip

import "encoding/binary"

// block begins a block: RFC 1951, 3.2.3.
func (z *Reader) block() error {
	if z.last {
		z.last = false
		return errMember
	}
	head, err := z.take(3)
	if err != nil {
		return err
	}
	z.last = head&1 != 0
	switch head >> 1 {
	case 0:
		return z.beginStored()
	case 1:
		z.fixed()
	case 2:
		if err := z.dynamic(); err != nil {
			return err
		}
	default:
		return ErrCorrupt
	}
	z.step = (*Reader).compressed
	return nil
}

// beginStored reads the head of a stored block: 3.2.4.
func (z *Reader) beginStored() error {
	z.align()
	var head [4]byte
	at := 0
	if err := z.bytes(4, func(b []byte) { at += copy(head[at:], b) }); err != nil {
		return err
	}
	n := binary.LittleEndian.Uint16(head[:])
	if n != ^binary.LittleEndian.Uint16(head[2:]) {
		return ErrCorrupt
	}
	z.left, z.step = int(n), (*Reader).stored
	return nil
}

func (z *Reader) stored() error {
	n := min(z.left, outSize-z.w)
	if err := z.bytes(n, func(b []byte) { z.w += copy(z.out[z.w:], b) }); err != nil {
		return err
	}
	if z.left -= n; z.left == 0 {
		z.step = (*Reader).block
	}
	return nil
}

// fixed sets the codes of 3.2.6.
func (z *Reader) fixed() {
	var lengths [288]uint8
	for i := range lengths {
		switch {
		case i < 144:
			lengths[i] = 8
		case i < 256:
			lengths[i] = 9
		case i < 280:
			lengths[i] = 7
		default:
			lengths[i] = 8
		}
	}
	var distances [32]uint8
	for i := range distances {
		distances[i] = 5
	}
	z.lit.build(lengths[:], litEntry) // complete, and so without an error
	z.dist.build(distances[:], distEntry)
}

// codeOrder is the order of the code lengths' own lengths: 3.2.7.
const codeOrder = "\x10\x11\x12\x00\x08\x07\x09\x06\x0a\x05\x0b\x04\x0c\x03\x0d\x02\x0e\x01\x0f"

// dynamic reads the codes of a block: 3.2.7.
func (z *Reader) dynamic() error {
	head, err := z.take(14)
	if err != nil {
		return err
	}
	nlit, ndist, ncode := int(head&31)+257, int(head>>5&31)+1, int(head>>10)+4
	if nlit > 286 || ndist > 30 {
		return ErrCorrupt
	}
	var codes [19]uint8
	for i := range ncode {
		n, err := z.take(3)
		if err != nil {
			return err
		}
		codes[codeOrder[i]] = uint8(n)
	}
	if !z.lit.build(codes[:], plainEntry) {
		return ErrCorrupt
	}
	var lengths [286 + 30]uint8
	if err := z.codeLengths(lengths[:nlit+ndist]); err != nil {
		return err
	}
	if lengths[256] == 0 || !z.lit.build(lengths[:nlit], litEntry) || !z.dist.build(lengths[nlit:nlit+ndist], distEntry) {
		return ErrCorrupt
	}
	return nil
}

// codeLengths reads code lengths, which are coded themselves.
func (z *Reader) codeLengths(lengths []uint8) error {
	for i := 0; i < len(lengths); {
		e, err := z.symbol(&z.lit)
		if err != nil {
			return err
		}
		sym := e >> 16
		if sym < 16 {
			lengths[i] = uint8(sym)
			i++
			continue
		}
		var previous uint8
		extra, least := uint(2), 3
		switch {
		case sym == 16 && i == 0:
			return ErrCorrupt
		case sym == 16:
			previous = lengths[i-1]
		case sym == 17:
			extra = 3
		default:
			extra, least = 7, 11
		}
		more, err := z.take(extra)
		if err != nil {
			return err
		}
		n := least + int(more)
		if n > len(lengths)-i {
			return ErrCorrupt
		}
		for range n {
			lengths[i] = previous
			i++
		}
	}
	return nil
}

// symbol decodes one symbol, and asks for no more input than that needs.
func (z *Reader) symbol(t *table) (uint32, error) {
	for {
		e := t.look(z.bits & (1<<z.n - 1))
		k := uint(e & lengthMask)
		if k != 0 && k <= z.n {
			z.drop(k)
			return e, nil
		}
		if z.n >= maxCode {
			return 0, ErrCorrupt
		}
		if err := z.need(z.n + 1); err != nil {
			return 0, err
		}
	}
}

// compressed decodes a block, until it ends or the window is full.
func (z *Reader) compressed() error {
	for z.w <= outSize-maxMatch-slack {
		if z.end-z.pos >= 32 {
			end, err := z.fast()
			if err != nil {
				return err
			}
			if end {
				z.step = (*Reader).block
				return nil
			}
			if z.w > outSize-maxMatch-slack {
				return nil
			}
		}
		// Near the end of the input.
		e, err := z.symbol(&z.lit)
		switch {
		case err != nil:
			return err
		case e&isLiteral != 0:
			z.out[z.w] = byte(e >> 16)
			z.w++
			continue
		case e&isEnd != 0:
			z.step = (*Reader).block
			return nil
		}
		if err := z.match(e); err != nil {
			return err
		}
	}
	return nil
}

// match decodes the rest of a match, and copies it.
func (z *Reader) match(e uint32) error {
	more, err := z.take(uint(e >> extraShift & extraMask))
	if err != nil {
		return err
	}
	n := int(e>>16&0x7fff) + int(more)
	if e, err = z.symbol(&z.dist); err != nil {
		return err
	}
	if more, err = z.take(uint(e >> extraShift & extraMask)); err != nil {
		return err
	}
	d := int(e>>16&0x7fff) + int(more)
	if n == 0 || d == 0 || d > z.w-z.start {
		return ErrCorrupt
	}
	for range n {
		z.out[z.w] = z.out[z.w-d]
		z.w++
	}
	return nil
}

// fast decodes while there is plenty of input and room, without asking for each
// bit whether it is there. It says whether the block ended. A refill makes at
// least 56 bits: two literals of 11 bits each and a length with its extra bits
// (20); then a distance with its extra bits (28).
func (z *Reader) fast() (bool, error) {
	in, out := z.in[:z.end], z.out
	bits, n, pos, w := z.bits, z.n, z.pos, z.w
	lit, dist := &z.lit, &z.dist
	ended, bad := false, false
	for pos+16 <= len(in) && w <= outSize-maxMatch-slack {
		bits |= binary.LittleEndian.Uint64(in[pos:]) << (n & 63)
		pos += int((63 - n) >> 3)
		n |= 56

		e := lit.main[bits&mainMask]
		if e&isLiteral != 0 {
			bits >>= e & lengthMask
			n -= uint(e & lengthMask)
			out[w] = byte(e >> 16)
			w++
			e = lit.main[bits&mainMask]
			if e&isLiteral != 0 {
				bits >>= e & lengthMask
				n -= uint(e & lengthMask)
				out[w] = byte(e >> 16)
				w++
				e = lit.main[bits&mainMask]
			}
		}
		if e&isSub != 0 {
			e = lit.sub[(e>>16&0x7fff)+uint32(bits>>mainBits)&subMask]
		}
		k := e & lengthMask
		bits >>= k
		n -= uint(k)
		if e&isLiteral != 0 {
			out[w] = byte(e >> 16)
			w++
			continue
		}
		if e&isEnd != 0 {
			ended = true
			break
		}
		x := e >> extraShift & extraMask
		length := int(e>>16&0x7fff) + int(bits&(1<<x-1))
		bits >>= x
		n -= uint(x)
		if k == 0 || length == 0 {
			bad = true
			break
		}

		bits |= binary.LittleEndian.Uint64(in[pos:]) << (n & 63)
		pos += int((63 - n) >> 3)
		n |= 56
		e = dist.main[bits&mainMask]
		if e&isSub != 0 {
			e = dist.sub[(e>>16&0x7fff)+uint32(bits>>mainBits)&subMask]
		}
		k = e & lengthMask
		bits >>= k
		n -= uint(k)
		x = e >> extraShift & extraMask
		d := int(e>>16&0x7fff) + int(bits&(1<<x-1))
		bits >>= x
		n -= uint(x)
		if k == 0 || d == 0 || d > w-z.start {
			bad = true
			break
		}
		copyMatch(out, w, d, length)
		w += length
	}
	// Above n there may be bits of bytes that pos has not passed.
	z.bits, z.n, z.pos, z.w = bits&(1<<n-1), n, pos, w
	if bad {
		return false, ErrCorrupt
	}
	return ended, nil
}

// copyMatch copies n bytes from d before w. It may write up to slack bytes more.
func copyMatch(out []byte, w, d, n int) {
	if d < 8 {
		for i := range n {
			out[w+i] = out[w+i-d]
		}
		return
	}
	if n > 64 && d >= n {
		copy(out[w:w+n], out[w-d:])
		return
	}
	to, from := out[w:w+n+8], out[w-d:]
	for len(to) >= 8 && len(from) >= 8 && n > 0 {
		binary.LittleEndian.PutUint64(to, binary.LittleEndian.Uint64(from))
		to, from, n = to[8:], from[8:], n-8
	}
}
