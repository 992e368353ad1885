// SPDX-License-Identifier: Apache-2.0

package uki

import (
	"bytes"
	"debug/pe"
	"encoding/binary"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/tenon-build/tenon/signer/authenticode"
)

// testStub is like systemd's: two sections, and a table of symbols behind them.
func testStub() []byte {
	b := make([]byte, 512+2*512+100)
	le := binary.LittleEndian
	copy(b, "MZ")
	le.PutUint32(b[0x3c:], 64)
	copy(b[64:], "PE\x00\x00")
	coff := b[68:]
	le.PutUint16(coff, pe.IMAGE_FILE_MACHINE_AMD64)
	le.PutUint16(coff[2:], 2)     // sections
	le.PutUint32(coff[8:], 3*512) // table of symbols
	le.PutUint32(coff[12:], 1)    // of one
	le.PutUint16(coff[16:], 240)  // size of the optional header
	opt := b[88:]
	le.PutUint16(opt, 0x20b)
	le.PutUint32(opt[32:], 512) // alignment in memory
	le.PutUint32(opt[36:], 512) // alignment in the file
	le.PutUint32(opt[56:], 0x3000)
	le.PutUint32(opt[60:], 512) // headers
	le.PutUint16(opt[68:], efiApplication)
	le.PutUint32(opt[108:], 16)
	for i, name := range []string{".text", ".sdmagic"} {
		s := opt[240+40*i:]
		copy(s, name)
		le.PutUint32(s[8:], 500)
		le.PutUint32(s[12:], uint32(0x1000*(i+1)))
		le.PutUint32(s[16:], 512)
		le.PutUint32(s[20:], uint32(512*(i+1)))
		copy(b[512*(i+1):], name+" of the stub")
	}
	return b
}

func section(name, content string) Section {
	return Section{name, int64(len(content)), func(w io.Writer) error { _, err := io.WriteString(w, content); return err }}
}

func TestWrite(t *testing.T) {
	contents := map[string]string{".initrd": strings.Repeat("i", 5000), ".linux": "the kernel"}
	var out bytes.Buffer
	if err := Write(&out, testStub(), []Section{section(".initrd", contents[".initrd"]), section(".linux", contents[".linux"])}); err != nil {
		t.Fatal(err)
	}
	image, err := pe.NewFile(bytes.NewReader(out.Bytes()))
	if err != nil {
		t.Fatal(err)
	}
	end := uint32(0)
	for _, s := range image.Sections {
		data, err := s.Data()
		if want := contents[s.Name]; err != nil || want != "" && string(data[:s.VirtualSize]) != want || want == "" && !bytes.HasPrefix(data, []byte(s.Name+" of the stub")) {
			t.Errorf("%s: %q, %v", s.Name, data, err)
		}
		if s.VirtualAddress < end || contents[s.Name] != "" && s.VirtualAddress%4096 != 0 {
			t.Errorf("%s is at %#x in memory, and what is before it ends at %#x", s.Name, s.VirtualAddress, end)
		}
		end = s.VirtualAddress + s.VirtualSize
	}
	h := image.OptionalHeader.(*pe.OptionalHeader64)
	if len(image.Sections) != 4 || image.NumberOfSymbols != 0 || h.SizeOfImage != (end+511)/512*512 || h.SizeOfInitializedData != 5120+512 {
		t.Errorf("%d sections, %d symbols, %d bytes in memory, %d of data", len(image.Sections), image.NumberOfSymbols, h.SizeOfImage, h.SizeOfInitializedData)
	}
	if _, err := authenticode.Parse(bytes.NewReader(out.Bytes()), int64(out.Len())); err != nil {
		t.Errorf("it cannot be signed: %v", err)
	}
}

func TestRefused(t *testing.T) {
	le := binary.LittleEndian
	none := []Section{}
	for name, c := range map[string]struct {
		edit     func(b []byte)
		sections []Section
		want     string
	}{
		"another file":     {func(b []byte) { b[64] = 'p' }, none, "not systemd's stub"},
		"another machine":  {func(b []byte) { le.PutUint16(b[68:], pe.IMAGE_FILE_MACHINE_ARM64) }, none, "no EFI application for x86-64"},
		"a driver":         {func(b []byte) { b[88+68] = 11 }, none, "no EFI application for x86-64"},
		"another program":  {func(b []byte) { b[88+240+40] = '_' }, none, "no section .sdmagic"},
		"a signed stub":    {func(b []byte) { b[88+112+4*8+4] = 8 }, none, "it is signed"},
		"no alignment":     {func(b []byte) { clear(b[88+36:][:4]) }, none, "aligned to 0 and 512 bytes"},
		"a cut stub":       {func(b []byte) { le.PutUint32(b[88+240+16:], 1<<20) }, none, "no room"},
		"full headers":     {nil, make([]Section, 9), "no room for 9 more sections"},
		"a section twice":  {nil, []Section{section(".text", "x")}, "has a section .text already"},
		"a huge section":   {nil, []Section{{".initrd", 1 << 32, nil}}, "4 GiB or more"},
		"another size":     {nil, []Section{{".linux", 3, section(".linux", "more").Write}}, "has 4 bytes, and was to have 3"},
		"a failing source": {nil, []Section{{".linux", 3, func(io.Writer) error { return io.ErrUnexpectedEOF }}}, "section .linux: unexpected EOF"},
	} {
		stub := testStub()
		if c.edit != nil {
			c.edit(stub)
		}
		err := Write(io.Discard, stub, c.sections)
		if err == nil || !strings.Contains(err.Error(), c.want) || len(c.sections) == 0 && !errors.Is(err, ErrStub) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
	for n := range testStub() { // whatever is cut off
		_ = Write(io.Discard, testStub()[:n], nil)
	}
}
