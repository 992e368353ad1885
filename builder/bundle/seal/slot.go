// SPDX-License-Identifier: Apache-2.0

package seal

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
)

// Errors of this package; test with errors.Is.
var (
	// ErrImage says that a kernel image has no slot that the kernel would look at.
	ErrImage = errors.New("not a kernel image with a seal")

	// ErrOther says that a kernel would not unpack an initramfs.
	ErrOther = errors.New("another initramfs than the kernel's")
)

// The slot, as builder/kernel/seal/src/slot.S has it: Magic, the size in 8 bytes, the
// digest.
const (
	Magic    = "TENONSEAL slot 1"
	slotSize = len(Magic) + 8 + len(Digest{})
)

// Read returns what the slot of a bzImage says.
func Read(bzImage io.ReaderAt) (Seal, error) {
	at, err := find(bzImage)
	if err != nil {
		return Seal{}, err
	}
	var b [slotSize]byte
	if err := readAt(bzImage, b[:], at); err != nil {
		return Seal{}, err
	}
	rest := b[len(Magic):]
	size := binary.LittleEndian.Uint64(rest)
	if size == 0 || size > 1<<40 { // it is filled with ones before it is written
		return Seal{}, fmt.Errorf("%w: its slot names an initramfs of %d bytes", ErrImage, size)
	}
	return Seal{Size: int64(size), Digest: Digest(rest[8:])}, nil
}

// Write copies a bzImage of size bytes with another seal in its slot. Where the image ends
// with its checksum, the copy's is right, too.
func Write(to io.Writer, bzImage io.ReaderAt, size int64, s Seal) error {
	at, err := find(bzImage)
	if err != nil {
		return err
	}
	slot := binary.LittleEndian.AppendUint64([]byte(Magic), uint64(s.Size))
	slot = append(slot, s.Digest[:]...)
	behind := at + int64(len(slot))
	if behind > size-4 {
		return fmt.Errorf("%w: its slot is where it ends", ErrImage)
	}
	var end [4]byte
	if err := readAt(bzImage, end[:], size-4); err != nil {
		return err
	}
	had, has := crc32.NewIEEE(), crc32.NewIEEE()
	if _, err := io.Copy(had, io.NewSectionReader(bzImage, 0, size-4)); err != nil {
		return err
	}
	if _, err := io.Copy(io.MultiWriter(to, has), io.MultiReader(
		io.NewSectionReader(bzImage, 0, at), bytes.NewReader(slot), io.NewSectionReader(bzImage, behind, size-4-behind),
	)); err != nil {
		return err
	}
	if binary.LittleEndian.Uint32(end[:]) == ^had.Sum32() {
		binary.LittleEndian.PutUint32(end[:], ^has.Sum32())
	}
	_, err = to.Write(end[:])
	return err
}

// find returns where the slot begins. It is in a raw block of the zstd frame that the payload
// is, so that it is what the kernel will see, and nowhere else in these blocks. See
// Documentation/arch/x86/boot.rst for the header.
func find(bzImage io.ReaderAt) (slot int64, err error) {
	var head [0x250]byte
	if err := readAt(bzImage, head[:], 0); err != nil {
		return 0, err
	}
	le := binary.LittleEndian
	if le.Uint16(head[0x1fe:]) != 0xaa55 || string(head[0x202:0x206]) != "HdrS" || le.Uint16(head[0x206:]) < 0x208 {
		return 0, fmt.Errorf("%w: no bzImage of boot protocol 2.08 or later", ErrImage)
	}
	setup := int64(head[0x1f1]) // setup_sects; 0 means 4
	if setup == 0 {
		setup = 4
	}
	payload := (setup+1)*512 + int64(le.Uint32(head[0x248:]))
	blocks, err := rawBlocks(bzImage, payload, payload+int64(le.Uint32(head[0x24c:])))
	if err != nil {
		return 0, err
	}
	for _, b := range blocks {
		data := make([]byte, b.size)
		if err := readAt(bzImage, data, b.at); err != nil {
			return 0, err
		}
		at := bytes.Index(data, []byte(Magic))
		switch {
		case at < 0:
			continue
		case slot != 0 || bytes.Count(data, []byte(Magic)) > 1:
			return 0, fmt.Errorf("%w: it has several slots", ErrImage)
		case at+slotSize > len(data):
			return 0, fmt.Errorf("%w: its slot is cut", ErrImage)
		}
		slot = b.at + int64(at)
	}
	if slot == 0 {
		return 0, fmt.Errorf("%w: it has no slot", ErrImage)
	}
	return slot, nil
}

func readAt(r io.ReaderAt, p []byte, at int64) error {
	n, err := r.ReadAt(p, at)
	if n == len(p) {
		return nil
	}
	if err == io.EOF {
		return fmt.Errorf("%w: it ends too early", ErrImage)
	}
	return err
}
