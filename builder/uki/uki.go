// SPDX-License-Identifier: Apache-2.0

// Package uki writes unified kernel images: one file with a kernel and its initramfs, which
// UEFI firmware starts by itself. It follows the UAPI Group's specification 5, "Unified
// Kernel Image", and systemd-stub(7).
//
// In: systemd's stub for x86-64, and what its sections are to hold. Out: a PE image without a
// signature. Refused: a file that is no such stub, that is signed or that has a section of
// that name already, sections for which its headers have no room, and images of 4 GiB and more.
package uki

import (
	"bytes"
	"debug/pe"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
)

// ErrStub says that a file is not a stub that can be used; test with errors.Is.
var ErrStub = errors.New("not systemd's stub for x86-64")

// Section is one that is added to the stub.
type Section struct {
	Name  string // at most 8 bytes
	Size  int64  // bytes
	Write func(io.Writer) error
}

// Sizes and offsets of Microsoft's "PE Format".
const (
	coffSize, sectionSize = 24, 40 // coffSize with the signature "PE\0\0"
	efiApplication        = 10     // IMAGE_SUBSYSTEM_EFI_APPLICATION
	readOnlyData          = 0x40000040
	page                  = 4096
)

// Write writes the stub with sections behind its own.
func Write(w io.Writer, stub []byte, sections []Section) error {
	image, table, err := parse(stub)
	if err != nil {
		return err
	}
	h := image.OptionalHeader.(*pe.OptionalHeader64)
	le := binary.LittleEndian
	at := int64(h.SizeOfHeaders) // in the file
	end := int64(0)              // in memory
	for _, s := range image.Sections {
		at, end = max(at, int64(s.Offset)+int64(s.Size)), max(end, int64(s.VirtualAddress)+int64(s.VirtualSize))
	}
	if at > int64(len(stub)) || table+int64(len(image.Sections)+len(sections))*sectionSize > int64(h.SizeOfHeaders) {
		return fmt.Errorf("%w: its headers have no room for %d more sections", ErrStub, len(sections))
	}
	out := bytes.Clone(stub[:at]) // a table of symbols, behind the sections, is of no use
	added := int64(0)
	for i, s := range sections {
		if image.Section(s.Name) != nil {
			return fmt.Errorf("%w: it has a section %s already", ErrStub, s.Name)
		}
		end = align(end, max(page, int64(h.SectionAlignment)))
		stored := align(s.Size, int64(h.FileAlignment))
		if max(at, end)+stored > math.MaxUint32 {
			return fmt.Errorf("section %s: with it, the image has 4 GiB or more", s.Name)
		}
		e := out[table+int64(len(image.Sections)+i)*sectionSize:][:sectionSize]
		clear(e)
		copy(e[:8], s.Name)
		le.PutUint32(e[8:], uint32(s.Size))
		le.PutUint32(e[12:], uint32(end))
		le.PutUint32(e[16:], uint32(stored))
		le.PutUint32(e[20:], uint32(at))
		le.PutUint32(e[36:], readOnlyData)
		end += s.Size
		at += stored
		added += stored
	}
	coff := out[le.Uint32(stub[0x3c:]):]
	le.PutUint16(coff[6:], uint16(len(image.Sections)+len(sections)))
	clear(coff[12:20]) // the table of symbols
	optional := coff[coffSize:]
	le.PutUint32(optional[8:], h.SizeOfInitializedData+uint32(added))
	le.PutUint32(optional[56:], uint32(align(end, int64(h.SectionAlignment))))
	if _, err := w.Write(out); err != nil {
		return err
	}
	for _, s := range sections {
		n := &counter{w: w}
		if err := s.Write(n); err != nil {
			return fmt.Errorf("section %s: %w", s.Name, err)
		}
		if n.n != s.Size {
			return fmt.Errorf("section %s: it has %d bytes, and was to have %d", s.Name, n.n, s.Size)
		}
		if _, err := w.Write(make([]byte, align(s.Size, int64(h.FileAlignment))-s.Size)); err != nil {
			return err
		}
	}
	return nil
}

// parse returns the stub, and where its table of sections begins.
func parse(stub []byte) (image *pe.File, table int64, err error) {
	image, err = pe.NewFile(bytes.NewReader(stub))
	if err != nil {
		return nil, 0, fmt.Errorf("%w: %w", ErrStub, err)
	}
	h, ok := image.OptionalHeader.(*pe.OptionalHeader64)
	switch {
	case !ok || image.Machine != pe.IMAGE_FILE_MACHINE_AMD64 || h.Subsystem != efiApplication:
		return nil, 0, fmt.Errorf("%w: it is no EFI application for x86-64", ErrStub)
	case image.Section(".sdmagic") == nil:
		return nil, 0, fmt.Errorf("%w: it has no section .sdmagic", ErrStub)
	case h.NumberOfRvaAndSizes <= pe.IMAGE_DIRECTORY_ENTRY_SECURITY:
		return nil, 0, fmt.Errorf("%w: it has no place for a signature", ErrStub)
	case h.DataDirectory[pe.IMAGE_DIRECTORY_ENTRY_SECURITY].Size != 0:
		return nil, 0, fmt.Errorf("%w: it is signed, and would not be any more", ErrStub)
	case h.FileAlignment < 8 || h.FileAlignment&(h.FileAlignment-1) != 0 || h.SectionAlignment == 0 || h.SectionAlignment&(h.SectionAlignment-1) != 0:
		return nil, 0, fmt.Errorf("%w: its sections are aligned to %d and %d bytes", ErrStub, h.FileAlignment, h.SectionAlignment)
	}
	return image, int64(binary.LittleEndian.Uint32(stub[0x3c:])) + coffSize + int64(image.SizeOfOptionalHeader), nil
}

func align(n, to int64) int64 { return (n + to - 1) / to * to }

type counter struct {
	w io.Writer
	n int64
}

func (c *counter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}
