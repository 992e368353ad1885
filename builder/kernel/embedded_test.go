// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"bytes"
	"crypto/sha256"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/klauspost/compress/zstd"
)

// sealedImage is a bzImage with nothing in it but an archive, for tests to
// damage before it is put together.
type sealedImage struct {
	archive   string
	size      uint64 // as the kernel has it
	header    elf.Header64
	segment   elf.Prog64
	setup     byte   // setup_sects
	version   uint16 // of the boot protocol
	payload   func([]byte) []byte
	systemMap string
}

const (
	linkedAt  = 0xffffffff81f15000
	archiveAt = 0x180 // in the segment
)

func newSealedImage(archive string) *sealedImage {
	end := archiveAt + uint64(len(archive)+7)&^7
	i := &sealedImage{
		archive: archive, size: uint64(len(archive)), setup: 3, version: 0x20f, payload: func(p []byte) []byte { return p },
		header:  elf.Header64{Machine: uint16(elf.EM_X86_64), Phoff: 128, Phentsize: 56, Phnum: 2},
		segment: elf.Prog64{Type: uint32(elf.PT_LOAD), Off: 4096, Vaddr: linkedAt, Filesz: end + 8, Memsz: end + 4096},
		systemMap: fmt.Sprintf("%016x T _text\n%016x D __initramfs_start\n%016x D __initramfs_size\n",
			uint64(linkedAt), uint64(linkedAt+archiveAt), linkedAt+end),
	}
	copy(i.header.Ident[:], elf.ELFMAG+string([]byte{byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB)}))
	return i
}

func (i *sealedImage) bytes(t testing.TB) []byte {
	t.Helper()
	le := binary.LittleEndian
	var vmlinux bytes.Buffer
	at := func(offset int) { vmlinux.Write(make([]byte, offset-vmlinux.Len())) }
	write := func(v any) {
		if err := binary.Write(&vmlinux, le, v); err != nil {
			t.Fatal(err)
		}
	}
	write(i.header)
	at(128)
	write(elf.Prog64{Type: uint32(elf.PT_NOTE), Off: 1, Vaddr: linkedAt, Filesz: 1 << 20})
	write(i.segment)
	at(4096 + archiveAt)
	vmlinux.WriteString(i.archive)
	at((vmlinux.Len() + 7) &^ 7)
	write(i.size)
	vmlinux.WriteString("relocations")

	z, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	payload := i.payload(z.EncodeAll(vmlinux.Bytes(), nil))
	payload = le.AppendUint32(payload, uint32(vmlinux.Len()))
	const offset = 0x40
	setup := int(i.setup)
	if setup == 0 {
		setup = 4
	}
	image := make([]byte, (setup+1)*512+offset)
	image[0x1f1] = i.setup
	le.PutUint16(image[0x1fe:], 0xaa55)
	copy(image[0x202:], "HdrS")
	le.PutUint16(image[0x206:], i.version)
	le.PutUint32(image[0x248:], offset)
	le.PutUint32(image[0x24c:], uint32(len(payload)))
	return append(append(image, payload...), "what follows the payload"...)
}

func readEmbedded(bzImage io.Reader, systemMap, digest string, size int64) (string, error) {
	r, err := Embedded(bzImage, strings.NewReader(systemMap), size, digest)
	if err != nil {
		return "", err
	}
	defer r.Close()
	data, err := io.ReadAll(r)
	return string(data), err
}

func digestOf(s string) string { return fmt.Sprintf("sha256:%x", sha256.Sum256([]byte(s))) }

func TestEmbedded(t *testing.T) {
	for _, archive := range []string{"x", "12345678", strings.Repeat("an archive ", 100_000)} {
		for _, setup := range []byte{0, 1, 27} {
			i := newSealedImage(archive)
			i.setup = setup
			for _, r := range []io.Reader{bytes.NewReader(i.bytes(t)), iotest.DataErrReader(bytes.NewReader(i.bytes(t)))} {
				got, err := readEmbedded(r, i.systemMap, digestOf(archive), int64(len(archive)))
				if got != archive || err != nil {
					t.Errorf("%d bytes, setup_sects %d: got %d bytes, %v", len(archive), setup, len(got), err)
				}
			}
		}
	}
}

func TestEmbeddedRefuses(t *testing.T) {
	const archive = "an archive"
	tests := []struct {
		name   string
		change func(i *sealedImage)
		want   string
	}{
		{"old protocol", func(i *sealedImage) { i.version = 0x207 }, "no bzImage of boot protocol 2.08"},
		{"gzip", func(i *sealedImage) { i.payload = func([]byte) []byte { return []byte("\x1f\x8b\x08\x00 and more") } }, "not compressed with zstd"},
		{"no payload", func(i *sealedImage) { i.payload = func([]byte) []byte { return nil } }, "payload of 4 bytes at 64"},
		{"payload that is cut", func(i *sealedImage) { i.payload = func(p []byte) []byte { return p[:len(p)-9] } }, "ends too early"},
		{"no ELF file", func(i *sealedImage) { i.header.Ident[0] = 'x' }, "not an ELF file for x86-64"},
		{"32 bits", func(i *sealedImage) { i.header.Ident[elf.EI_CLASS] = byte(elf.ELFCLASS32) }, "not an ELF file for x86-64"},
		{"big endian", func(i *sealedImage) { i.header.Ident[elf.EI_DATA] = byte(elf.ELFDATA2MSB) }, "not an ELF file for x86-64"},
		{"other machine", func(i *sealedImage) { i.header.Machine = uint16(elf.EM_AARCH64) }, "not an ELF file for x86-64"},
		{"many segments", func(i *sealedImage) { i.header.Phnum = 65535 }, "65535 program headers"},
		{"odd segments", func(i *sealedImage) { i.header.Phentsize = 1 }, "program headers of 1 bytes"},
		{"segments far away", func(i *sealedImage) { i.header.Phoff = 1 << 63 }, "program headers"},
		{"segments behind the end", func(i *sealedImage) { i.header.Phoff = 1 << 20 }, "ends too early"},
		{"segments inside the header", func(i *sealedImage) { i.header.Phoff = 8 }, "offset 8 is behind"},
		{"segment of another type", func(i *sealedImage) { i.segment.Type = uint32(elf.PT_NOTE) }, "no segment has 10 bytes at 0xffffffff81f15180"},
		{"segment elsewhere", func(i *sealedImage) { i.segment.Vaddr += 4096 }, "no segment has 10 bytes"},
		{"segment that is short", func(i *sealedImage) { i.segment.Filesz = archiveAt + 9 }, "no segment has 10 bytes"},
		{"segment without the size", func(i *sealedImage) { i.segment.Filesz-- }, "no segment has 8 bytes"},
		{"segment far away", func(i *sealedImage) { i.segment.Off = 1<<64 - 1 }, "no segment has 10 bytes"},
		{"segment that runs over", func(i *sealedImage) { i.segment.Vaddr, i.segment.Filesz = 0, 1<<64-1 }, "no segment has 10 bytes"},
		{"segment behind the end", func(i *sealedImage) { i.segment.Off = 1 << 20 }, "ends too early"},
		{"segment at the start", func(i *sealedImage) { i.segment.Vaddr, i.segment.Off = linkedAt+archiveAt, 0 }, "offset 0 is behind"},
		{"other archive", func(i *sealedImage) { i.archive = "An archive" }, "its initramfs has the digest " + digestOf("An archive")},
		{"longer archive", func(i *sealedImage) { i.size++ }, "it unpacks an initramfs of 11 bytes, want 10"},
		{"System.map without it", func(i *sealedImage) { i.systemMap = "0 T _text\n" }, "no symbol __initramfs_start"},
		{"System.map without its size", func(i *sealedImage) { i.systemMap = strings.Replace(i.systemMap, "_size", "_sized", 1) }, "no symbol __initramfs_size"},
		{"System.map with two", func(i *sealedImage) { i.systemMap += "0 D __initramfs_start\n" }, `"0 D __initramfs_start" is not the one address`},
		{"System.map without addresses", func(i *sealedImage) { i.systemMap = "x D __initramfs_start\n" }, "is not the one address"},
		{"System.map of one line", func(i *sealedImage) { i.systemMap = strings.Repeat("x", 1<<20) }, "token too long"},
		{"size before the archive", func(i *sealedImage) {
			i.systemMap = fmt.Sprintf("%x D __initramfs_start\n%x D __initramfs_size\n", uint64(linkedAt+archiveAt), uint64(linkedAt))
		}, "offset 4096 is behind"},
	}
	for _, test := range tests {
		i := newSealedImage(archive)
		test.change(i)
		if got, err := readEmbedded(bytes.NewReader(i.bytes(t)), i.systemMap, digestOf(archive), int64(len(archive))); !errors.Is(err, ErrImage) || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %q, %v", test.name, got, err)
		}
	}
	i := newSealedImage(archive)
	image := i.bytes(t)
	for _, size := range []int64{-1, 0, 11, 1 << 40} {
		if _, err := readEmbedded(bytes.NewReader(image), i.systemMap, digestOf(archive), size); !errors.Is(err, ErrImage) {
			t.Errorf("size %d: %v", size, err)
		}
	}
	for n := range 0x250 {
		if _, err := readEmbedded(bytes.NewReader(image[:n]), i.systemMap, digestOf(archive), 10); !errors.Is(err, ErrImage) {
			t.Fatalf("the first %d bytes: %v", n, err)
		}
	}
}

// Accidents of the reader are not the image's fault.
func TestEmbeddedErrors(t *testing.T) {
	i := newSealedImage("an archive")
	image := i.bytes(t)
	for n := range len(image) - len("1234what follows the payload") {
		r := io.MultiReader(bytes.NewReader(image[:n]), iotest.ErrReader(fs.ErrPermission))
		if _, err := readEmbedded(r, i.systemMap, digestOf("an archive"), 10); !errors.Is(err, fs.ErrPermission) || errors.Is(err, ErrImage) {
			t.Fatalf("after %d bytes: %v", n, err)
		}
	}
	if _, err := Embedded(bytes.NewReader(image), iotest.ErrReader(fs.ErrPermission), 1, ""); !errors.Is(err, fs.ErrPermission) || errors.Is(err, ErrImage) {
		t.Errorf("System.map: %v", err)
	}
}

// FuzzEmbedded gives the payload's content and System.map to whoever hands us a
// bundle.
func FuzzEmbedded(f *testing.F) {
	i := newSealedImage("an archive")
	f.Add(i.bytes(f), i.systemMap, int64(10))
	f.Fuzz(func(t *testing.T, image []byte, systemMap string, size int64) {
		got, err := readEmbedded(bytes.NewReader(image), systemMap, digestOf("an archive"), size)
		if err == nil && got != "an archive" {
			t.Errorf("got %q", got)
		}
	})
}
