// SPDX-License-Identifier: Apache-2.0

package gunzip

import "math/bits"

const (
	maxCode  = 15 // bits of the longest code
	mainBits = 11
	mainMask = 1<<mainBits - 1
	subMask  = 1<<(maxCode-mainBits) - 1
)

// An entry of a table. From the lowest bit: how many bits the code has, 0 where
// there is none; how many extra bits follow; what it is; a literal, or the least
// length or distance, or where a second table begins.
const (
	lengthMask = 0x1f
	extraShift = 8
	extraMask  = 0xf
	isSub      = 1 << 14
	isEnd      = 1 << 15
	isLiteral  = 1 << 31
)

// table decodes a Huffman code: by its first 11 bits, and where they are not all
// of it, by 4 more.
type table struct {
	main [1 << mainBits]uint32
	sub  []uint32
}

// look returns the entry for what the next bits say.
func (t *table) look(next uint64) uint32 {
	e := t.main[next&mainMask]
	if e&isSub != 0 {
		e = t.sub[(e>>16&0x7fff)+uint32(next>>mainBits)&subMask]
	}
	return e
}

// build makes the table for codes of these lengths: RFC 1951, 3.2.2. A code that
// has too many or too few words is refused, but for none at all and for a
// single one of one bit, which some compressors make for distances.
func (t *table) build(lengths []uint8, entry func(symbol int) uint32) bool {
	var count, next [maxCode + 2]int
	for _, n := range lengths {
		count[n]++
	}
	count[0] = 0
	code, words := 0, 0
	for n := 1; n <= maxCode; n++ {
		code = (code + count[n-1]) << 1
		next[n] = code
		words += count[n] << (maxCode - n)
	}
	single := words == 1<<(maxCode-1) && count[1] == 1
	if words != 1<<maxCode && words != 0 && !single {
		return false
	}
	clear(t.main[:])
	t.sub = t.sub[:0]
	for symbol, n := range lengths {
		if n > 0 {
			t.put(bits.Reverse16(uint16(next[n]))>>(16-n), uint(n), entry(symbol)|uint32(n))
			next[n]++
		}
	}
	return true
}

// put sets all entries that begin with a code, its first bit lowest.
func (t *table) put(code uint16, n uint, e uint32) {
	if n <= mainBits {
		for i := uint(code); i < 1<<mainBits; i += 1 << n {
			t.main[i] = e
		}
		return
	}
	first := &t.main[code&mainMask]
	if *first == 0 {
		*first = isSub | uint32(len(t.sub))<<16
		t.sub = append(t.sub, make([]uint32, subMask+1)...)
	}
	base := uint(*first >> 16 & 0x7fff)
	for i := uint(code) >> mainBits; i <= subMask; i += 1 << (n - mainBits) {
		t.sub[base+i] = e
	}
}

func plainEntry(symbol int) uint32 { return uint32(symbol) << 16 }

// litEntry is for literals and lengths: 3.2.5.
func litEntry(symbol int) uint32 {
	const noSuch = 0 // with the code's own length: a length of 0
	switch {
	case symbol < 256:
		return isLiteral | uint32(symbol)<<16
	case symbol == 256:
		return isEnd
	case symbol == 285:
		return 258 << 16
	case symbol > 285:
		return noSuch
	case symbol < 265:
		return uint32(symbol-254) << 16
	}
	extra := uint32(symbol-261) / 4
	return (3+(4+uint32(symbol-261)%4)<<extra)<<16 | extra<<extraShift
}

// distEntry is for distances: 3.2.5.
func distEntry(symbol int) uint32 {
	switch {
	case symbol > 29:
		return 0 // no such distance
	case symbol < 4:
		return uint32(symbol+1) << 16
	}
	extra := uint32(symbol-2) / 2
	return (1+(2+uint32(symbol)%2)<<extra)<<16 | extra<<extraShift
}
