// SPDX-License-Identifier: Apache-2.0

package authenticode

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/tenon-build/tenon/signer/internal/testkey"
	"github.com/tenon-build/tenon/signer/pkcs7"
)

// Where things lie in what synthetic makes.
const (
	peAt       = 64
	optionalAt = peAt + coffHeaderSize
	sumAt      = optionalAt + offsetChecksum
	headers    = 512
)

func entryAt(plus bool) int {
	if plus {
		return optionalAt + 112 + certificateIndex*directorySize
	}
	return optionalAt + 96 + certificateIndex*directorySize
}

func sectionsAt(plus bool) int { return entryAt(plus) + 2*directorySize }

// synthetic makes a PE image with six data directories, two sections, which
// stand in the table in the other order, and trailing bytes.
func synthetic(plus bool) []byte {
	b := make([]byte, headers+256+128+16)
	for i := headers; i < len(b); i++ {
		b[i] = byte(i * 7)
	}
	le := binary.LittleEndian
	copy(b, "MZ")
	le.PutUint32(b[offsetPEHeader:], peAt)
	copy(b[peAt:], "PE\x00\x00")
	le.PutUint16(b[peAt+6:], 2)
	le.PutUint16(b[peAt+20:], uint16(sectionsAt(plus)-optionalAt))
	le.PutUint16(b[optionalAt:], 0x10b)
	if plus {
		le.PutUint16(b[optionalAt:], 0x20b)
	}
	le.PutUint32(b[optionalAt+offsetHeadersSize:], headers)
	le.PutUint32(b[sumAt:], 0x12345678)
	le.PutUint32(b[entryAt(plus)-certificateIndex*directorySize-4:], 6)
	for n, s := range [][2]uint32{{headers + 256, 128}, {headers, 256}} {
		at := sectionsAt(plus) + n*sectionSize
		le.PutUint32(b[at+16:], s[1])
		le.PutUint32(b[at+20:], s[0])
	}
	return b
}

func parse(t *testing.T, b []byte) *Image {
	t.Helper()
	i, err := Parse(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	return i
}

func digest(t *testing.T, b []byte) [32]byte {
	t.Helper()
	d, err := parse(t, b).Digest(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func attach(t *testing.T, b []byte, signatures ...[]byte) []byte {
	t.Helper()
	var out bytes.Buffer
	if err := parse(t, b).Attach(&out, signatures...); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func TestDigest(t *testing.T) {
	for _, plus := range []bool{false, true} {
		b := synthetic(plus)
		want := sha256.New()
		want.Write(b[:sumAt])
		want.Write(b[sumAt+4 : entryAt(plus)])
		want.Write(b[entryAt(plus)+8:])
		if got := digest(t, b); !bytes.Equal(got[:], want.Sum(nil)) {
			t.Errorf("plus %v: got %x", plus, got)
		}
		for at := range b {
			c := slices.Clone(b)
			c[at] ^= 1
			i, err := Parse(bytes.NewReader(c), int64(len(c)))
			if err != nil {
				continue
			}
			got, err := i.Digest(t.Context())
			left := at >= sumAt && at < sumAt+4
			if err != nil || (got == digest(t, b)) != left {
				t.Errorf("plus %v: byte %d is digested: %v, want %v; %v", plus, at, left, !left, err)
			}
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := parse(t, synthetic(true)).Digest(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func TestSignAttachVerify(t *testing.T) {
	key := testkey.NewAuthority(t).Key(t, nil)
	b := synthetic(true)
	p7, err := Sign(key, digest(t, b))
	if err != nil {
		t.Fatal(err)
	}
	signed := attach(t, b, p7, []byte("another"))
	if digest(t, signed) != digest(t, b) {
		t.Error("a signature changes the digest")
	}
	certs := parse(t, signed).Certificates
	if len(certs) != 2 || certs[0].Revision != Revision2 || certs[0].Type != TypePKCS7 || string(certs[1].Data) != "another" {
		t.Fatalf("got %d certificates", len(certs))
	}
	s, err := Verify(certs[0].Data, digest(t, signed))
	if err != nil || !s.Chain[0].Equal(key.Chain[0]) {
		t.Errorf("got %v", err)
	}
	if _, err := Verify(certs[0].Data, [32]byte{}); !errors.Is(err, ErrDigest) {
		t.Errorf("another image: %v", err)
	}
	if _, err := Verify([]byte("another"), digest(t, b)); !errors.Is(err, pkcs7.ErrInvalid) {
		t.Errorf("no signature: %v", err)
	}
	// Signing again, and signing what is signed, give the same bytes.
	if !bytes.Equal(attach(t, signed, p7), attach(t, b, p7)) {
		t.Error("not the same when signed again")
	}
	if !bytes.Equal(attach(t, signed), attach(t, b)) || len(attach(t, signed)) != len(b) {
		t.Error("not the same when stripped")
	}
	for _, bad := range [][]byte{nil, make([]byte, pkcs7.MaxSize+1)} {
		if err := parse(t, b).Attach(&bytes.Buffer{}, bad); err == nil {
			t.Errorf("attached %d bytes", len(bad))
		}
	}
}

// The checksum of a file with itself set to zero, as CheckSumMappedFile has it.
func TestChecksum(t *testing.T) {
	b := attach(t, synthetic(true), []byte("odd number of bytes"))
	got := binary.LittleEndian.Uint32(b[sumAt:])
	binary.LittleEndian.PutUint32(b[sumAt:], 0)
	var want uint32
	for i := 0; i < len(b); i += 2 {
		want += uint32(binary.LittleEndian.Uint16(b[i:]))
		want = want>>16 + want&0xffff
	}
	if want += uint32(len(b)); got != want {
		t.Errorf("got %#x, want %#x", got, want)
	}
	for split := range 9 {
		var c checksum
		c.write(b[:split])
		c.write(b[split : split+1])
		c.write(b[split+1:])
		if got := c.sum(int64(len(b))); got != want {
			t.Errorf("split at %d: got %#x, want %#x", split, got, want)
		}
	}
}

func TestRefused(t *testing.T) {
	le := binary.LittleEndian
	entry, table := entryAt(true), sectionsAt(true)
	for _, test := range []struct {
		name, want string
		edit       func([]byte) []byte
	}{
		{"empty", "truncated", func([]byte) []byte { return nil }},
		{"odd size", "multiple of 8", func(b []byte) []byte { return b[:len(b)-1] }},
		{"no MZ", "no DOS header", func(b []byte) []byte { b[0] = 0; return b }},
		{"no PE", "no PE header", func(b []byte) []byte { b[peAt] = 0; return b }},
		{"PE header in the DOS header", "overlaps", func(b []byte) []byte { le.PutUint32(b[offsetPEHeader:], 4); return b }},
		{"PE header outside", "truncated", func(b []byte) []byte { le.PutUint32(b[offsetPEHeader:], 1<<31); return b }},
		{"cut in the headers", "truncated", func(b []byte) []byte { return b[:peAt+32] }},
		{"cut in the sections", "truncated", func(b []byte) []byte { return b[:headers+8] }},
		{"optional header of another kind", "unknown kind", func(b []byte) []byte { b[optionalAt]++; return b }},
		{"no optional header", "no optional header", func(b []byte) []byte { le.PutUint16(b[peAt+20:], 0); return b }},
		{"short optional header", "optional header is truncated", func(b []byte) []byte { le.PutUint16(b[peAt+20:], 40); return b }},
		{"few directories", "data directories", func(b []byte) []byte { le.PutUint32(b[entry-certificateIndex*8-4:], 4); return b }},
		{"more directories than place", "data directories", func(b []byte) []byte { le.PutUint32(b[entry-certificateIndex*8-4:], 1<<31); return b }},
		{"section table elsewhere", "data directories", func(b []byte) []byte { le.PutUint16(b[peAt+20:], uint16(table-optionalAt+8)); return b }},
		{"no sections", "0 sections", func(b []byte) []byte { le.PutUint16(b[peAt+6:], 0); return b }},
		{"many sections", "97 sections", func(b []byte) []byte { le.PutUint16(b[peAt+6:], 97); return b }},
		{"headers end in the section table", "SizeOfHeaders", func(b []byte) []byte { le.PutUint32(b[optionalAt+60:], uint32(table)+8); return b }},
		{"headers outside", "SizeOfHeaders", func(b []byte) []byte { le.PutUint32(b[optionalAt+60:], 1<<20); return b }},
		{"overlap", "begins at", func(b []byte) []byte { b[table+20] -= 8; return b }},
		{"gap", "begins at", func(b []byte) []byte { b[table+20] += 8; return b }},
		{"section outside", "truncated", func(b []byte) []byte { le.PutUint32(b[table+16:], 1<<31); return b }},
		{"section over the headers", "begins at", func(b []byte) []byte { le.PutUint32(b[table+sectionSize+20:], 0); return b }},
		{"table in the middle", "not at the end", func(b []byte) []byte { le.PutUint32(b[entry:], headers); b[entry+4] = 64; return b }},
		{"table of no size", "has 0 bytes", func(b []byte) []byte { le.PutUint32(b[entry:], headers); return b }},
		{"table without place", "is at 0", func(b []byte) []byte { b[entry+4] = 64; return b }},
		{"table outside", "not at the end", func(b []byte) []byte { le.PutUint32(b[entry:], 1<<31); b[entry+4] = 64; return b }},
		{"table over the sections", "truncated", func(b []byte) []byte {
			b = append(b, 16, 0, 0, 0, 0, 2, 2, 0, 1, 1, 1, 1, 1, 1, 1, 1)
			b = slices.Delete(b, headers+256, len(b)-16)
			le.PutUint32(b[entry:], uint32(len(b)-16))
			b[entry+4] = 16
			return b
		}},
		{"certificate longer than the table", "table that has", func(b []byte) []byte { return withTable(b, 24, make([]byte, 8)) }},
		{"certificate without content", "table that has", func(b []byte) []byte { return withTable(b, 8, make([]byte, 8)) }},
		{"bytes behind a certificate", "not zero", func(b []byte) []byte { return withTable(b, 9, []byte{1, 1, 0, 0, 0, 0, 0, 0}) }},
	} {
		b := test.edit(synthetic(true))
		_, err := Parse(bytes.NewReader(b), int64(len(b)))
		if !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: got %v, want %q", test.name, err, test.want)
		}
	}
}

// withTable adds a certificate table with one entry that says it has n bytes.
func withTable(b []byte, n uint32, data []byte) []byte {
	le := binary.LittleEndian
	le.PutUint32(b[entryAt(true):], uint32(len(b)))
	le.PutUint32(b[entryAt(true)+4:], uint32(8+len(data)))
	b = le.AppendUint32(b, n)
	b = append(b, 0, 2, 2, 0)
	return append(b, data...)
}

// A file that cannot be read is not an image to refuse.
func TestReadError(t *testing.T) {
	f, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := Parse(f, 1024); err == nil || errors.Is(err, ErrInvalid) {
		t.Errorf("got %v", err)
	}
}

// An image that is taken can be written, and what is written is the same image.
func FuzzParse(f *testing.F) {
	f.Add(synthetic(false))
	f.Add(synthetic(true))
	f.Add(withTable(synthetic(true), 16, make([]byte, 8)))
	f.Fuzz(func(t *testing.T, b []byte) {
		i, err := Parse(bytes.NewReader(b), int64(len(b)))
		if err != nil {
			if !errors.Is(err, ErrInvalid) {
				t.Error(err)
			}
			return
		}
		if len(i.Certificates) == 0 {
			out := attach(t, b)
			copy(out[i.checksum:], b[i.checksum:i.checksum+4])
			if !bytes.Equal(out, b) {
				t.Error("writing the image changes it")
			}
		}
		signed := attach(t, b, []byte("signature"))
		if digest(t, signed) != digest(t, b) || string(parse(t, signed).Certificates[0].Data) != "signature" {
			t.Error("signing changes the image")
		}
		if !bytes.Equal(attach(t, signed), attach(t, b)) {
			t.Error("stripped, it is another image")
		}
	})
}

// What is taken names the digest that it is taken for.
func FuzzIndirectData(f *testing.F) {
	seed, err := indirectData([32]byte{1, 2, 3})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(seed)
	f.Fuzz(func(t *testing.T, der []byte) {
		digest, err := parseIndirectData(der)
		if err != nil {
			return
		}
		if !bytes.HasSuffix(der, digest[:]) {
			t.Errorf("got %x of %x", digest, der)
		}
	})
}

func BenchmarkDigest(b *testing.B) {
	image := append(synthetic(true), bytes.Repeat([]byte{1}, 64<<20)...)
	i, err := Parse(bytes.NewReader(image), int64(len(image)))
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(image)))
	for b.Loop() {
		if _, err := i.Digest(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkSHA256(b *testing.B) {
	image := bytes.Repeat([]byte{1}, 64<<20)
	b.SetBytes(int64(len(image)))
	for b.Loop() {
		sha256.Sum256(image)
	}
}

// pesign names the content in another way, which the kernel takes, too; no third
// one is taken.
func TestVerifyContentType(t *testing.T) {
	key := testkey.NewAuthority(t).Key(t, nil)
	digest := sha256.Sum256(nil)
	content, err := indirectData(digest)
	if err != nil {
		t.Fatal(err)
	}
	for oid, want := range map[string]bool{oidPEImageData: true, oidPesign: true, strings.Repeat("x", len(oidPesign)): false} {
		p7, err := pkcs7.SignAttached(key, pkcs7.OIDIndirectData(), bytes.Replace(content, []byte(oidPEImageData), []byte(oid), 1))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Verify(p7, digest); (err == nil) != want {
			t.Errorf("%x: %v", oid, err)
		}
	}
}
