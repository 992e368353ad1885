// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"
	"strconv"
	"strings"

	"github.com/klauspost/compress/zstd"
)

// ErrImage says that a kernel image does not hold the initramfs that it is said
// to; test with errors.Is.
var ErrImage = errors.New("unexpected kernel image")

// Limits on what a stranger may hand us.
const (
	maxVmlinux  = 2 << 30   // bytes; the kernel's own limit for what it maps is 1 GiB
	maxWindow   = 128 << 20 // bytes of zstd history: what the kernel itself takes
	maxSegments = 64
)

// Embedded returns the initramfs inside a sealed kernel, the .cpio.zst as it was
// put there, from the bzImage and its System.map. At its end it returns an error
// that wraps ErrImage, instead of io.EOF, unless size and digest ("sha256:HEX")
// are those of the bytes that the kernel will unpack, which it marks with
// __initramfs_size.
//
// Where the archive lies is System.map's word: of one that lies, all that is
// sure is that these bytes are in the image.
func Embedded(bzImage, systemMap io.Reader, size int64, digest string) (io.ReadCloser, error) {
	addresses, err := findSymbols(systemMap, startSymbol, sizeSymbol)
	if err != nil {
		return nil, err
	}
	payload, err := openPayload(bzImage)
	if err != nil {
		return nil, err
	}
	z, err := zstd.NewReader(payload, zstd.WithDecoderMaxWindow(maxWindow))
	if err != nil {
		return nil, err
	}
	e := &embedded{vmlinux: vmlinux{r: z}, z: z, left: size, size: size, digest: digest, sum: sha256.New()}
	if err := e.seek(addresses); err != nil {
		z.Close()
		return nil, err
	}
	return e, nil
}

// The symbols of usr/initramfs_data.S: where the archive begins, and where its
// size is stored, in 8 bytes.
const (
	startSymbol = "__initramfs_start"
	sizeSymbol  = "__initramfs_size"
)

// findSymbols returns the addresses of symbols, of all of them.
func findSymbols(systemMap io.Reader, names ...string) (map[string]uint64, error) {
	found := map[string]uint64{}
	lines := bufio.NewScanner(systemMap)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		for _, name := range names {
			if len(fields) != 3 || fields[2] != name {
				continue
			}
			address, err := strconv.ParseUint(fields[0], 16, 64)
			if _, twice := found[name]; err != nil || twice {
				return nil, fmt.Errorf("%w: System.map: %q is not the one address of %s", ErrImage, lines.Text(), name)
			}
			found[name] = address
		}
	}
	if errors.Is(lines.Err(), bufio.ErrTooLong) {
		return nil, fmt.Errorf("%w: System.map: %w", ErrImage, lines.Err())
	}
	if lines.Err() != nil {
		return nil, lines.Err()
	}
	for _, name := range names {
		if _, ok := found[name]; !ok {
			return nil, fmt.Errorf("%w: System.map: no symbol %s", ErrImage, name)
		}
	}
	return found, nil
}

// openPayload returns the compressed vmlinux of a bzImage: the fields of the
// setup header are those of Documentation/arch/x86/boot.rst.
func openPayload(bzImage io.Reader) (io.Reader, error) {
	var head [0x250]byte
	if err := readFull(bzImage, head[:]); err != nil {
		return nil, err
	}
	le := binary.LittleEndian
	version := le.Uint16(head[0x206:])
	if le.Uint16(head[0x1fe:]) != 0xaa55 || string(head[0x202:0x206]) != "HdrS" || version < 0x208 {
		return nil, fmt.Errorf("%w: no bzImage of boot protocol 2.08 or later", ErrImage)
	}
	setup := int64(head[0x1f1]) // setup_sects; 0 means 4
	if setup == 0 {
		setup = 4
	}
	offset, length := int64(le.Uint32(head[0x248:])), int64(le.Uint32(head[0x24c:])) // payload_offset, payload_length
	skip := (setup+1)*512 + offset - int64(len(head))
	if skip < 0 || length < 8 {
		return nil, fmt.Errorf("%w: payload of %d bytes at %d", ErrImage, length, offset)
	}
	if err := discard(bzImage, skip); err != nil {
		return nil, err
	}
	var magic [4]byte
	if err := readFull(bzImage, magic[:]); err != nil {
		return nil, err
	}
	if le.Uint32(magic[:]) != 0xfd2fb528 {
		return nil, fmt.Errorf("%w: the payload is not compressed with zstd", ErrImage)
	}
	// kbuild puts the uncompressed size behind it, in 4 bytes.
	return io.MultiReader(bytes.NewReader(magic[:]), io.LimitReader(bzImage, length-8)), nil
}

// vmlinux is read forward only.
type vmlinux struct {
	r      io.Reader
	offset int64
}

func (v *vmlinux) Read(p []byte) (int, error) {
	n, err := v.r.Read(p)
	v.offset += int64(n)
	if err != nil && err != io.EOF {
		err = fmt.Errorf("unpacking vmlinux: %w", ended(err))
	}
	return n, err
}

// skipTo goes forward to an offset of the file.
func (v *vmlinux) skipTo(offset int64) error {
	if offset < v.offset || offset > maxVmlinux {
		return fmt.Errorf("%w: vmlinux: offset %d is behind, or too large", ErrImage, offset)
	}
	return discard(v, offset-v.offset)
}

// embedded reads the archive, and then checks it.
type embedded struct {
	vmlinux
	z          *zstd.Decoder
	size, left int64
	sizeOffset int64 // where vmlinux has the archive's size
	digest     string
	sum        hash.Hash
	err        error
}

// seek goes to the archive.
func (e *embedded) seek(addresses map[string]uint64) error {
	segments, err := e.segments()
	if err != nil {
		return err
	}
	if e.size < 1 || e.size > maxVmlinux {
		return fmt.Errorf("%w: an initramfs of %d bytes", ErrImage, e.size)
	}
	start, err := fileOffset(segments, addresses[startSymbol], uint64(e.size))
	if err != nil {
		return err
	}
	if e.sizeOffset, err = fileOffset(segments, addresses[sizeSymbol], 8); err != nil {
		return err
	}
	return e.skipTo(start)
}

// segments reads the program headers of the ELF file.
func (v *vmlinux) segments() ([]elf.Prog64, error) {
	var h elf.Header64
	if err := binary.Read(v, binary.LittleEndian, &h); err != nil {
		return nil, ended(err)
	}
	class, data := elf.Class(h.Ident[elf.EI_CLASS]), elf.Data(h.Ident[elf.EI_DATA])
	if string(h.Ident[:4]) != elf.ELFMAG || class != elf.ELFCLASS64 || data != elf.ELFDATA2LSB || elf.Machine(h.Machine) != elf.EM_X86_64 {
		return nil, fmt.Errorf("%w: the payload is not an ELF file for x86-64", ErrImage)
	}
	if h.Phentsize != 56 || h.Phnum > maxSegments || h.Phoff > maxVmlinux {
		return nil, fmt.Errorf("%w: vmlinux: %d program headers of %d bytes at %d", ErrImage, h.Phnum, h.Phentsize, h.Phoff)
	}
	if err := v.skipTo(int64(h.Phoff)); err != nil {
		return nil, err
	}
	segments := make([]elf.Prog64, h.Phnum)
	if err := binary.Read(v, binary.LittleEndian, segments); err != nil {
		return nil, ended(err)
	}
	return segments, nil
}

// fileOffset returns where the file has the n bytes at an address.
func fileOffset(segments []elf.Prog64, address, n uint64) (int64, error) {
	for _, s := range segments {
		in := address - s.Vaddr
		if elf.ProgType(s.Type) == elf.PT_LOAD && address >= s.Vaddr && in < s.Filesz && n <= s.Filesz-in && s.Off <= maxVmlinux && in <= maxVmlinux {
			return int64(s.Off + in), nil
		}
	}
	return 0, fmt.Errorf("%w: vmlinux: no segment has %d bytes at %#x", ErrImage, n, address)
}

func (e *embedded) Read(p []byte) (int, error) {
	if e.err != nil || len(p) == 0 {
		return 0, e.err
	}
	if e.left == 0 {
		e.err = e.check()
		return 0, e.err
	}
	n, err := e.vmlinux.Read(p[:min(int64(len(p)), e.left)])
	e.sum.Write(p[:n])
	e.left -= int64(n)
	if err == io.EOF && e.left == 0 {
		err = nil
	}
	e.err = ended(err)
	return n, e.err
}

// check returns io.EOF if all is well.
func (e *embedded) check() error {
	if got := fmt.Sprintf("sha256:%x", e.sum.Sum(nil)); got != e.digest {
		return fmt.Errorf("%w: its initramfs has the digest %s, want %s", ErrImage, got, e.digest)
	}
	if err := e.skipTo(e.sizeOffset); err != nil {
		return err
	}
	var raw [8]byte
	if err := readFull(&e.vmlinux, raw[:]); err != nil {
		return err
	}
	if n := binary.LittleEndian.Uint64(raw[:]); n != uint64(e.size) {
		return fmt.Errorf("%w: it unpacks an initramfs of %d bytes, want %d", ErrImage, n, e.size)
	}
	return io.EOF
}

// Close releases the decompressor. The bzImage is the caller's.
func (e *embedded) Close() error {
	e.z.Close()
	return nil
}

func readFull(r io.Reader, p []byte) error {
	_, err := io.ReadFull(r, p)
	return ended(err)
}

func discard(r io.Reader, n int64) error {
	_, err := io.CopyN(io.Discard, r, n)
	return ended(err)
}

// ended says of a file that ends too early that it is not what it should be.
func ended(err error) error {
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		return fmt.Errorf("%w: it ends too early", ErrImage)
	}
	return err
}
