// SPDX-License-Identifier: Apache-2.0

package modsig

import (
	"bytes"
	"encoding/binary"
	"errors"
	"slices"
	"testing"

	"github.com/tenon-build/tenon/signer"
	"github.com/tenon-build/tenon/signer/internal/testkey"
	"github.com/tenon-build/tenon/signer/pkcs7"
)

// module is the least that Sign takes: an ELF header of a relocatable file, and
// more.
func module() []byte {
	b := append([]byte("\x7fELF\x02\x01\x01"), make([]byte, 200)...)
	b[16] = 1
	return b
}

func sign(t *testing.T, key *signer.Key, b []byte) []byte {
	t.Helper()
	out, err := Sign(key, b)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestSign(t *testing.T) {
	key := testkey.NewAuthority(t).Intermediate(t).Key(t, nil)
	other := testkey.NewAuthority(t).Key(t, nil)
	plain := module()
	signed := sign(t, key, plain)
	if !bytes.Equal(plain, module()) {
		t.Error("the argument changed")
	}
	who, err := Verify(signed)
	if err != nil || signer.Fingerprint(who.Key) != signer.Fingerprint(key.Public()) || len(who.Chain) != 2 {
		t.Errorf("got %v, %v", who, err)
	}
	for name, again := range map[string][]byte{
		"again":                   sign(t, key, signed),
		"over another's":          sign(t, key, sign(t, other, plain)),
		"over two of another's":   sign(t, key, twice(sign(t, other, plain), sign(t, other, plain))),
		"of a clipped slice":      sign(t, key, plain[:len(plain):len(plain)]),
		"of one with more behind": sign(t, key, append(plain, "behind"...)[:len(plain)]),
	} {
		if !bytes.Equal(again, signed) {
			t.Errorf("signed %s: other bytes", name)
		}
	}
	if got, err := Strip(signed); err != nil || !bytes.Equal(got, plain) {
		t.Errorf("stripped: %x, %v", got, err)
	}
	if got, err := Strip(plain); err != nil || !bytes.Equal(got, plain) {
		t.Errorf("stripped of nothing: %x, %v", got, err)
	}
}

// twice appends the signature of one module to another.
func twice(module, from []byte) []byte {
	return append(bytes.Clone(module), from[len(from)-tail(from):]...)
}

// tail is the length of the last signature with its record and marker.
func tail(signed []byte) int {
	size := binary.BigEndian.Uint32(signed[len(signed)-len(marker)-4:])
	return int(size) + recordSize + len(marker)
}

func TestVerifyRefuses(t *testing.T) {
	key := testkey.NewAuthority(t).Key(t, nil)
	signed := sign(t, key, module())
	record := len(signed) - len(marker) - recordSize
	edit := func(at int, b byte) []byte {
		out := slices.Clone(signed)
		out[at] = b
		return out
	}
	sized := func(n uint32) []byte {
		out := slices.Clone(signed)
		binary.BigEndian.PutUint32(out[record+8:], n)
		return out
	}
	for name, test := range map[string]struct {
		module []byte
		want   error
	}{
		"unsigned":               {module(), ErrUnsigned},
		"body flipped":           {edit(100, 1), pkcs7.ErrInvalid},
		"signature flipped":      {edit(record-5, signed[record-5]^1), pkcs7.ErrInvalid},
		"marker flipped":         {edit(len(signed)-1, ' '), ErrUnsigned},
		"a byte behind":          {append(slices.Clone(signed), 0), ErrUnsigned},
		"truncated":              {signed[len(signed)-record+100:], ErrInvalid},
		"signed twice":           {twice(signed, signed), ErrInvalid},
		"nothing but the marker": {append(module()[:64:64], marker...), ErrInvalid},
		"algorithm":              {edit(record, 1), ErrInvalid},
		"hash":                   {edit(record+1, 4), ErrInvalid},
		"kind PGP":               {edit(record+2, 0), ErrInvalid},
		"signer's name":          {edit(record+3, 1), ErrInvalid},
		"key's name":             {edit(record+4, 1), ErrInvalid},
		"padding":                {edit(record+7, 1), ErrInvalid},
		"length 0":               {sized(0), ErrInvalid},
		"length of all":          {sized(uint32(record)), ErrInvalid},
		"length beyond":          {sized(1<<32 - 1), ErrInvalid},
		"length one less":        {sized(uint32(tail(signed)) - uint32(recordSize+len(marker)) - 1), pkcs7.ErrInvalid},
		"length one more":        {sized(uint32(tail(signed)) - uint32(recordSize+len(marker)) + 1), pkcs7.ErrInvalid},
		"empty":                  {nil, ErrInvalid},
		"text":                   {bytes.Repeat([]byte("#"), 100), ErrInvalid},
		"a program":              {edit(16, 2), ErrInvalid},
		"big endian":             {edit(5, 2), ErrInvalid},
		"gzip":                   {[]byte("\x1f\x8b\x08\x00"), ErrCompressed},
		"xz":                     {[]byte("\xfd7zXZ\x00\x00"), ErrCompressed},
		"zstd":                   {[]byte("\x28\xb5\x2f\xfd\x00"), ErrCompressed},
	} {
		if who, err := Verify(test.module); !errors.Is(err, test.want) || who != nil {
			t.Errorf("%s: got %v, %v, want %v", name, who, err, test.want)
		}
	}
}

// FuzzSplit: what is not a signature is refused, and what is splits the bytes.
func FuzzSplit(f *testing.F) {
	f.Add(module())
	f.Add(append(module(), "0000\x00\x00\x02\x00\x00\x00\x00\x00\x00\x00\x00\x04"+marker...))
	f.Fuzz(func(t *testing.T, b []byte) {
		content, p7, err := split(b)
		switch {
		case err != nil && !errors.Is(err, ErrInvalid):
			t.Errorf("%v", err)
		case err == nil && p7 == nil && !bytes.Equal(content, b):
			t.Error("unsigned, and changed")
		case err == nil && p7 != nil && len(content)+len(p7)+recordSize+len(marker) != len(b):
			t.Errorf("%d bytes became %d and %d", len(b), len(content), len(p7))
		}
	})
}
