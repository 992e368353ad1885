// SPDX-License-Identifier: Apache-2.0

package gunzip

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	klauspost "github.com/klauspost/compress/gzip"
)

func compress(t testing.TB, level int, data []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	z, err := gzip.NewWriterLevel(&b, level)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := z.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func decompress(r io.Reader) ([]byte, error) {
	z, err := NewReader(r)
	if err != nil {
		return nil, err
	}
	return io.ReadAll(z)
}

// samples have short and long matches, near and far, and codes of all lengths.
func samples(t testing.TB) map[string][]byte {
	t.Helper()
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	r := rand.New(rand.NewPCG(1, 2))
	skewed, noise := make([]byte, 1<<20), make([]byte, 1<<20)
	for i := range skewed {
		skewed[i], noise[i] = byte(r.ExpFloat64()*12), byte(r.Uint32())
	}
	return map[string][]byte{
		"nothing": nil, "a byte": {7}, "zeros": make([]byte, 1<<20), "program": self[:min(len(self), 4<<20)], "skewed": skewed, "noise": noise,
		"text": []byte(strings.Repeat("the quick brown fox ", 50_000)), "far": append(append(bytes.Clone(noise[:32768]), noise[:32768]...), noise[:300]...),
	}
}

func TestReader(t *testing.T) {
	for name, want := range samples(t) {
		for _, level := range []int{gzip.HuffmanOnly, gzip.NoCompression, gzip.BestSpeed, gzip.DefaultCompression, gzip.BestCompression} {
			packed := compress(t, level, want)
			for how, r := range map[string]io.Reader{
				"whole": bytes.NewReader(packed), "byte by byte": iotest.OneByteReader(bytes.NewReader(packed)), "with its end": iotest.DataErrReader(bytes.NewReader(packed)),
			} {
				if how == "byte by byte" && len(packed) > 1<<19 {
					continue
				}
				got, err := decompress(r)
				if err != nil || !bytes.Equal(got, want) {
					t.Errorf("%s, level %d, %s: %d bytes, want %d, %v", name, level, how, len(got), len(want), err)
				}
			}
		}
	}
}

func TestMembersAndHeader(t *testing.T) {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	z.Name, z.Comment, z.Extra, z.ModTime = "name", "comment", []byte("extra"), time.Unix(1, 0)
	_, err := z.Write([]byte("one "))
	if err := errors.Join(err, z.Close()); err != nil {
		t.Fatal(err)
	}
	two := append(append(b.Bytes(), compress(t, 9, nil)...), compress(t, 9, []byte("two"))...)
	if got, err := decompress(bytes.NewReader(two)); err != nil || string(got) != "one two" {
		t.Errorf("%q, %v", got, err)
	}
	for n := range len(two) {
		got, err := decompress(bytes.NewReader(two[:n]))
		whole := n == b.Len() || n == len(two)-len(compress(t, 9, []byte("two")))
		if (err == nil) != whole || err != nil && err != io.ErrUnexpectedEOF && n > 0 {
			t.Errorf("cut to %d of %d: %q, %v", n, len(two), got, err)
		}
	}
	if _, err := decompress(bytes.NewReader(append(two, "rubbish behind it"...))); !errors.Is(err, ErrHeader) {
		t.Error(err)
	}
	failed := errors.New("failed")
	if _, err := decompress(io.MultiReader(bytes.NewReader(two[:len(two)-3]), iotest.ErrReader(failed))); err != failed {
		t.Error(err)
	}
}

// Whatever is flipped, the result is an error or the same.
func TestFlipped(t *testing.T) {
	want := []byte(strings.Repeat("to be flipped, ", 40))
	for _, level := range []int{0, 1, 9, gzip.HuffmanOnly} {
		packed := compress(t, level, want)
		for i := range len(packed) * 8 {
			packed[i/8] ^= 1 << (i % 8)
			got, err := decompress(bytes.NewReader(packed))
			if err == nil && !bytes.Equal(got, want) {
				t.Errorf("level %d, bit %d: %q", level, i, got)
			}
			packed[i/8] ^= 1 << (i % 8)
		}
	}
}

// FuzzReader wants what the standard library says.
func FuzzReader(f *testing.F) {
	for _, data := range samples(f) {
		for _, level := range []int{0, 1, 9, gzip.HuffmanOnly} {
			f.Add(compress(f, level, data[:min(len(data), 2000)]))
		}
	}
	f.Fuzz(func(t *testing.T, packed []byte) {
		got, err := decompress(bytes.NewReader(packed))
		var want []byte
		z, wantErr := gzip.NewReader(bytes.NewReader(packed))
		if wantErr == nil {
			want, wantErr = io.ReadAll(z)
		}
		if errors.Is(wantErr, gzip.ErrHeader) || len(packed) > 3 && packed[3]&0xe0 != 0 {
			return // it takes no long names, and reserved flags
		}
		if (err == nil) != (wantErr == nil) || err == nil && !bytes.Equal(got, want) {
			t.Errorf("%d bytes, %v; want %d, %v", len(got), err, len(want), wantErr)
		}
	})
}

func BenchmarkReader(b *testing.B) {
	data := samples(b)["program"]
	packed := compress(b, gzip.DefaultCompression, data)
	for name, open := range map[string]func(r io.Reader) (io.Reader, error){
		"ours": func(r io.Reader) (io.Reader, error) { return NewReader(r) }, "klauspost": func(r io.Reader) (io.Reader, error) { return klauspost.NewReader(r) },
	} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(data)))
			buf := make([]byte, 256<<10)
			for b.Loop() {
				z, err := open(bufio.NewReaderSize(bytes.NewReader(packed), 64<<10))
				if err == nil {
					_, err = io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{z}, buf)
				}
				if err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
