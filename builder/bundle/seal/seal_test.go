// SPDX-License-Identifier: Apache-2.0

package seal

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
)

// The digest by its definition, in the shortest way.
func defined(data []byte) (d Digest) {
	list := sha256.New()
	for part := range slices.Chunk(data, 1<<20) {
		sum := sha256.Sum256(part)
		list.Write(sum[:])
	}
	return Digest(list.Sum(nil))
}

func random(n int) []byte {
	out := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(out)
	return out
}

func TestDigest(t *testing.T) {
	for _, size := range []int{1, chunk - 1, chunk, chunk + 1, 3*chunk + 7} {
		data := random(size)
		want := Seal{int64(size), defined(data)}
		h := NewHash()
		for part := range slices.Chunk(data, 1<<18+3) {
			if n, err := h.Write(part); n != len(part) || err != nil {
				t.Fatal(n, err)
			}
		}
		if got := h.Seal(); got != want {
			t.Errorf("%d bytes, as they come: %v, want %v", size, got, want)
		}
		if got, err := Of(bytes.NewReader(data), int64(size)); err != nil || got != want {
			t.Errorf("%d bytes: %v, %v, want %v", size, got, err, want)
		}
		if _, err := Of(bytes.NewReader(data[1:]), int64(size)); err == nil {
			t.Errorf("%d bytes of which one is missing have a digest", size)
		}
	}
}

// emptySlot is what slot.S puts into a kernel.
func emptySlot() []byte {
	return append([]byte(Magic), bytes.Repeat([]byte{0xff}, slotSize-len(Magic))...)
}

// testKernel is like a vmlinux: a header, zeros, a first page with the slot, more.
func testKernel() []byte {
	k := append(random(page), make([]byte, 2<<20)...)
	text := random(3 * page)
	copy(text[page+64:], emptySlot())
	k = append(k, text...)
	return append(k, bytes.Repeat([]byte("text of the kernel\xff\x80"), 20000)...)
}

func compress(data []byte) ([]byte, error) {
	z, err := zstd.NewWriter(nil, zstd.WithEncoderCRC(false))
	if err != nil {
		return nil, err
	}
	return z.EncodeAll(data, nil), nil
}

// bzImage is one with a payload.
func bzImage(payload []byte) []byte {
	b := make([]byte, 5*512+100)
	b[0x1f1] = 4
	copy(b[0x1fe:], "\x55\xaa")
	copy(b[0x202:], "HdrS\x0f\x02")
	binary.LittleEndian.PutUint32(b[0x248:], 100)
	binary.LittleEndian.PutUint32(b[0x24c:], uint32(len(payload)))
	b = append(b, payload...)
	return binary.LittleEndian.AppendUint32(b, ^crc32.ChecksumIEEE(b))
}

func testImage(t *testing.T) []byte {
	t.Helper()
	frame, err := Frame(testKernel(), compress)
	if err != nil {
		t.Fatal(err)
	}
	return bzImage(frame)
}

// payload is what the kernel would see of an image.
func payload(t *testing.T, image []byte) []byte {
	t.Helper()
	z, err := zstd.NewReader(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer z.Close()
	out, err := z.DecodeAll(image[5*512+100:len(image)-4], nil)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestFrame(t *testing.T) {
	image := testImage(t)
	if got := payload(t, image); !bytes.Equal(got, testKernel()) {
		t.Error("the frame holds something else")
	}
	if len(image) > 5*512+100+7*page {
		t.Errorf("%d bytes: more is left as it is than the pages of the slot", len(image))
	}
	// Pages of one byte, of 0xff, too, and others that are only alike.
	odd := append(bytes.Repeat([]byte{0xff}, 2*page), bytes.Repeat([]byte{0xff, 0x80}, page)...)
	odd = append(append(odd, emptySlot()...), 1, 2, 3)
	frame, err := Frame(odd, compress)
	if err != nil {
		t.Fatal(err)
	}
	if got := payload(t, bzImage(frame)); !bytes.Equal(got, odd) {
		t.Error("the frame of odd pages holds something else")
	}
	plain, err := Frame([]byte("no slot"), compress)
	if want, _ := compress([]byte("no slot")); err != nil || !bytes.Equal(plain, want) {
		t.Errorf("%x, %v", plain, err)
	}
	if _, err := Frame(append(testKernel(), emptySlot()...), compress); err == nil {
		t.Error("two slots are taken")
	}
	checked := func(data []byte) ([]byte, error) {
		z, err := zstd.NewWriter(nil)
		if err != nil {
			return nil, err
		}
		return z.EncodeAll(data, nil), nil
	}
	if _, err := Frame(testKernel(), checked); err == nil {
		t.Error("a checksum of the rest is taken for one of all")
	}
}

func TestWrite(t *testing.T) {
	image := testImage(t)
	if _, err := Read(bytes.NewReader(image)); !errors.Is(err, ErrImage) {
		t.Errorf("an empty slot: %v", err)
	}
	initramfs := random(2*chunk + 5)
	s, err := Of(bytes.NewReader(initramfs), int64(len(initramfs)))
	if err != nil {
		t.Fatal(err)
	}
	write := func(image []byte) []byte {
		t.Helper()
		var out bytes.Buffer
		if err := Write(&out, bytes.NewReader(image), int64(len(image)), s); err != nil {
			t.Fatal(err)
		}
		return out.Bytes()
	}
	sealed := write(image)
	if again := write(sealed); !bytes.Equal(again, sealed) {
		t.Error("sealed twice, it has other bytes")
	}
	if got, err := Read(bytes.NewReader(sealed)); err != nil || got != s {
		t.Errorf("%v, %v, want %v", got, err, s)
	}
	if n := len(sealed) - 4; len(sealed) != len(image) || binary.LittleEndian.Uint32(sealed[n:]) != ^crc32.ChecksumIEEE(sealed[:n]) {
		t.Errorf("%d bytes of %d, or another checksum", len(sealed), len(image))
	}
	want := testKernel()
	slot := bytes.Index(want, []byte(Magic))
	binary.LittleEndian.PutUint64(want[slot+len(Magic):], uint64(s.Size))
	copy(want[slot+len(Magic)+8:], s.Digest[:])
	if got := payload(t, sealed); !bytes.Equal(got, want) {
		t.Error("the kernel would see something else")
	}
	// Newer images have no checksum.
	image[len(image)-1] ^= 1
	if got := write(image); !bytes.Equal(got[len(got)-4:], image[len(image)-4:]) {
		t.Error("an image that ends without a checksum got one")
	}

	check := func(bzImage, config, initramfs []byte) error {
		t.Helper()
		s, err := Of(bytes.NewReader(initramfs), int64(len(initramfs)))
		if err != nil {
			t.Fatal(err)
		}
		return Check(bytes.NewReader(bzImage), config, "quiet", s)
	}
	if err := check(sealed, config("", `CONFIG_CMDLINE="quiet"`), initramfs); err != nil {
		t.Error(err)
	}
	if err := check(sealed, config("TENON_SEAL"), initramfs); !errors.Is(err, ErrConfig) {
		t.Errorf("a configuration without the driver: %v", err)
	}
	if err := check(image, config("", `CONFIG_CMDLINE="quiet"`), initramfs); !errors.Is(err, ErrImage) {
		t.Errorf("an image that is not sealed yet: %v", err)
	}
	initramfs[chunk] ^= 1
	for name, data := range map[string][]byte{"one bit": initramfs, "longer": append(initramfs, 0), "shorter": initramfs[1:]} {
		if err := check(sealed, config("", `CONFIG_CMDLINE="quiet"`), data); !errors.Is(err, ErrOther) || !strings.Contains(err.Error(), "is sealed to one of 2097157 bytes") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// FuzzRead: whatever an image is, it is refused, or can be sealed and read again.
func FuzzRead(f *testing.F) {
	frame, err := Frame(testKernel(), compress)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(bzImage(frame))
	f.Add(bzImage(append(append(appendBlock([]byte{0x28, 0xb5, 0x2f, 0xfd, 1 << 5, 0}, rawBlock, slotSize), emptySlot()...), 1, 0, 0)))
	f.Fuzz(func(t *testing.T, image []byte) {
		want := Seal{Size: 7, Digest: Digest{1}}
		var out bytes.Buffer
		if Write(&out, bytes.NewReader(image), int64(len(image)), want) != nil {
			return
		}
		if got, err := Read(bytes.NewReader(out.Bytes())); err != nil || got != want || out.Len() != len(image) {
			t.Errorf("%v, %v, %d bytes of %d", got, err, out.Len(), len(image))
		}
	})
}

func TestRefused(t *testing.T) {
	good := testImage(t)
	edit := func(f func(b []byte) []byte) []byte { return f(slices.Clone(good)) }
	raw := func(data []byte) []byte {
		return append(appendBlock([]byte{0x28, 0xb5, 0x2f, 0xfd, 1 << 5, 0}, rawBlock, len(data)), data...)
	}
	last := []byte{1, 0, 0}
	for name, c := range map[string]struct {
		image []byte
		want  string
	}{
		"nothing":         {nil, "it ends too early"},
		"no header":       {edit(func(b []byte) []byte { b[0x202] = 'h'; return b }), "no bzImage"},
		"an old protocol": {edit(func(b []byte) []byte { b[0x206] = 7; return b }), "no bzImage"},
		"another format":  {edit(func(b []byte) []byte { b[5*512+100] = 0; return b }), "not compressed with zstd"},
		"a cut payload":   {edit(func(b []byte) []byte { return b[:5*512+200] }), "it ends too early"},
		"a short payload": {edit(func(b []byte) []byte { b[0x24c], b[0x24d], b[0x24e] = 9, 0, 0; return b }), "its payload ends too early"},
		"no slot":         {bzImage(append(raw([]byte("nothing here")), last...)), "it has no slot"},
		"a cut slot":      {bzImage(append(raw([]byte(Magic+"too short")), last...)), "its slot is cut"},
		"two in a block":  {bzImage(append(raw(append(emptySlot(), emptySlot()...)), last...)), "several slots"},
		"two blocks":      {bzImage(append(append(raw(emptySlot()), append(appendBlock(nil, rawBlock, slotSize), emptySlot()...)...), last...)), "several slots"},
		"a reserved type": {bzImage(append(raw(emptySlot()), 7, 0, 0)), "a block of type 3"},
		"a large block":   {bzImage(append(raw(emptySlot()), appendBlock(nil, rawBlock, maxBlock+1)...)), "a block of type 0 with 131073 bytes"},
	} {
		if _, err := Read(bytes.NewReader(c.image)); !errors.Is(err, ErrImage) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
		if err := Write(new(bytes.Buffer), bytes.NewReader(c.image), int64(len(c.image)), Seal{1, Digest{}}); err == nil {
			t.Errorf("%s: it is sealed", name)
		}
	}
	// The slot is found behind any header that RFC 8878 allows for.
	for descriptor, size := range map[byte]int{0: 1, 1: 2, 2: 3, 3: 5, 1 << 5: 1, 1<<5 | 3: 5, 1 << 6: 3, 2 << 6: 5, 3 << 6: 9, 3<<6 | 1<<5: 8} {
		frame := append([]byte{0x28, 0xb5, 0x2f, 0xfd, descriptor}, make([]byte, size)...)
		slot := append([]byte(Magic), 1)
		slot = append(slot, make([]byte, slotSize-len(slot))...)
		frame = append(append(appendBlock(frame, rawBlock, slotSize), slot...), last...)
		if got, err := Read(bytes.NewReader(bzImage(frame))); err != nil || got.Size != 1 {
			t.Errorf("descriptor %#x: %v, %v", descriptor, got, err)
		}
	}
}
