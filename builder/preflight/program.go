// SPDX-License-Identifier: Apache-2.0

package preflight

import (
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"
)

const (
	headSize    = 256  // what the kernel looks at first: BINPRM_BUF_SIZE
	maxScripts  = 5    // scripts that are run by scripts: exec_binprm() in fs/exec.c
	maxSegments = 1170 // as many as the kernel takes of 56 bytes each in 64 KiB
	pathMax     = 4096
)

// execute checks a file that is executable, which is called name.
func (r Request) execute(f *file, name string, depth int) *Problem {
	p := r.format(f, name, depth)
	if p != nil {
		p.Err = r.orVolume(p.Err, f.path)
	}
	return p
}

func (r Request) format(f *file, name string, depth int) *Problem {
	head := make([]byte, headSize)
	n, err := io.ReadFull(f.Open(), head)
	if err != nil && err != io.ErrUnexpectedEOF && err != io.EOF {
		return nil // whoever packs the file will fail, and say so
	}
	head = head[:n]
	switch {
	case strings.HasPrefix(string(head), "#!"):
		return r.script(string(head[2:]), name, depth)
	case strings.HasPrefix(string(head), elf.ELFMAG):
		return r.elf(f, name)
	case n == 0:
		return &Problem{Name: Format, Err: fmt.Errorf("%q is empty", name)}
	}
	return &Problem{Name: Format, Err: fmt.Errorf("%q is neither an ELF program nor a script that begins with #!: the kernel cannot start it", name)}
}

// script checks the first line of a script, without its #!.
func (r Request) script(head, name string, depth int) *Problem {
	line, _, _ := strings.Cut(head, "\n")
	interpreter, argument, _ := strings.Cut(strings.Trim(line, " \t"), " ")
	if i := strings.IndexByte(interpreter, '\t'); i >= 0 {
		interpreter, argument = interpreter[:i], interpreter[i+1:]+" "+argument
	}
	argument = strings.Trim(argument, " \t")
	f, err := r.executable(interpreter)
	switch {
	case errors.Is(err, errUnknown):
		return nil
	case interpreter == "":
		return &Problem{Name: Format, Err: fmt.Errorf("the first line of %q names no interpreter", name)}
	case err != nil && strings.HasSuffix(interpreter, "\r"):
		return &Problem{Name: Interpreter, Err: fmt.Errorf("the first line of %q ends in CR LF, as on Windows: the kernel looks for %q", name, interpreter)}
	case err != nil:
		return &Problem{Name: Interpreter, Err: fmt.Errorf("the interpreter of the script %q: %w", name, err)}
	case depth == maxScripts:
		return &Problem{Name: Interpreter, Err: fmt.Errorf("%q: more than %d scripts run each other", name, maxScripts)}
	}
	if p := r.execute(f, interpreter, depth+1); p != nil {
		p.Err = fmt.Errorf("the interpreter of the script %q: %w", name, p.Err)
		return p
	}
	if path.Base(interpreter) == "env" {
		return r.env(argument, name)
	}
	if strings.HasSuffix(argument, "\r") {
		return &Problem{Name: Interpreter, Warning: true, Err: fmt.Errorf("the first line of %q ends in CR LF, as on Windows: %s gets %q", name, interpreter, argument)}
	}
	return nil
}

// env checks the program that a first line such as "#!/usr/bin/env python3" names.
func (r Request) env(argument, name string) *Problem {
	words := []string{argument}
	if split, ok := strings.CutPrefix(argument, "-S"); ok {
		words = strings.Fields(split)
	}
	for len(words) > 0 {
		variable, _, assigned := strings.Cut(words[0], "=")
		if !assigned {
			break
		}
		if strings.Trim(variable, "'\"") == "PATH" {
			return nil // env looks there
		}
		words = words[1:]
	}
	if len(words) == 0 || words[0] == "" || strings.ContainsAny(words[0], "-'\"$\\ ") && !strings.HasSuffix(words[0], "\r") {
		return nil // it has a language of its own
	}
	_, err := r.find(words[0])
	switch {
	case err == nil || errors.Is(err, errUnknown):
		return nil
	case strings.HasSuffix(words[0], "\r"):
		return &Problem{Name: Interpreter, Err: fmt.Errorf("the first line of %q ends in CR LF, as on Windows: env looks for %q", name, words[0])}
	}
	return &Problem{Name: Interpreter, Err: fmt.Errorf("the interpreter of the script %q: %w", name, err)}
}

// elf checks what the kernel checks of an ELF program: load_elf_binary() in fs/binfmt_elf.c.
func (r Request) elf(f *file, name string) *Problem {
	h, err := readHeader(f)
	if err != nil {
		return &Problem{Name: Format, Err: fmt.Errorf("%q: %w", name, err)}
	}
	wide := h.class == elf.ELFCLASS64
	switch {
	case h.machine == elf.EM_X86_64 && !wide && !r.X32:
		return &Problem{Name: IA32, Err: fmt.Errorf("%q is a program for x32, which the kernel does not run", name)}
	case h.machine == elf.EM_386 && !wide && !r.IA32:
		return &Problem{Name: IA32, Err: fmt.Errorf("%q is a 32-bit program, which the kernel runs with IA32_EMULATION=y only", name)}
	case h.machine != elf.EM_X86_64 && (h.machine != elf.EM_386 || wide):
		return &Problem{Name: CPU, Err: fmt.Errorf("%q is a program for another CPU: %s", name, strings.TrimPrefix(h.machine.String(), "EM_"))}
	case h.kind != elf.ET_EXEC && h.kind != elf.ET_DYN:
		return &Problem{Name: Format, Err: fmt.Errorf("%q is an ELF file of type %s, not a program", name, strings.TrimPrefix(h.kind.String(), "ET_"))}
	case h.interpreter == "":
		return nil
	}
	_, err = r.executable(h.interpreter)
	switch {
	case err == nil || errors.Is(err, errUnknown):
		return nil
	case strings.Contains(h.interpreter, "ld-musl"):
		err = fmt.Errorf("it was made for musl, the C library of Alpine Linux: %w", err)
	}
	return &Problem{Name: Loader, Err: fmt.Errorf("the dynamic loader of %q: %w", name, err)}
}

// header is what the kernel reads of an ELF file.
type header struct {
	class       elf.Class
	machine     elf.Machine
	kind        elf.Type
	interpreter string // path of the dynamic loader; empty in a static program
}

// readHeader reads the header and the program headers. Sections do not matter to the kernel, and
// package elf reads them first.
func readHeader(f *file) (*header, error) {
	content := f.Open().(io.ReaderAt)
	buf := make([]byte, 64)
	if _, err := content.ReadAt(buf[:52], 0); err != nil {
		return nil, errors.New("an ELF file that is cut off")
	}
	var order binary.ByteOrder = binary.LittleEndian
	if elf.Data(buf[elf.EI_DATA]) == elf.ELFDATA2MSB {
		order = binary.BigEndian
	}
	h := &header{class: elf.Class(buf[elf.EI_CLASS]), kind: elf.Type(order.Uint16(buf[16:])), machine: elf.Machine(order.Uint16(buf[18:]))}
	if order == binary.BigEndian || h.class != elf.ELFCLASS64 && h.class != elf.ELFCLASS32 {
		return h, nil // for another CPU: the rest does not matter
	}
	// Where program headers are and how many, then where their fields are.
	at, size, count := uint64(order.Uint32(buf[28:])), 32, order.Uint16(buf[44:])
	if h.class == elf.ELFCLASS64 {
		if _, err := content.ReadAt(buf, 0); err != nil {
			return nil, errors.New("an ELF file that is cut off")
		}
		at, size, count = order.Uint64(buf[32:]), 56, order.Uint16(buf[56:])
	}
	if count > maxSegments || at > uint64(f.Size) {
		return nil, fmt.Errorf("an ELF file with %d program headers at %d", count, at)
	}
	segments := make([]byte, size*int(count))
	if _, err := content.ReadAt(segments, int64(at)); err != nil {
		return nil, errors.New("an ELF file that is cut off")
	}
	for ; len(segments) > 0; segments = segments[size:] {
		if elf.ProgType(order.Uint32(segments)) != elf.PT_INTERP {
			continue
		}
		offset, length := uint64(order.Uint32(segments[4:])), uint64(order.Uint32(segments[16:]))
		if h.class == elf.ELFCLASS64 {
			offset, length = order.Uint64(segments[8:]), order.Uint64(segments[32:])
		}
		name := make([]byte, min(length, pathMax+1))
		if length < 2 || length > pathMax || offset > uint64(f.Size) {
			return nil, errors.New("an ELF file with a damaged name of its dynamic loader")
		}
		if _, err := content.ReadAt(name, int64(offset)); err != nil || name[length-1] != 0 {
			return nil, errors.New("an ELF file with a damaged name of its dynamic loader")
		}
		h.interpreter, _, _ = strings.Cut(string(name), "\x00")
		break // the kernel takes the first
	}
	return h, nil
}

// IsStatic says whether the command is an ELF program without a dynamic loader.
func (r Request) IsStatic(argv []string) bool {
	if len(argv) == 0 {
		return false
	}
	f, err := r.find(argv[0])
	if err != nil {
		return false
	}
	magic := make([]byte, len(elf.ELFMAG))
	if _, err := io.ReadFull(f.Open(), magic); err != nil || string(magic) != elf.ELFMAG {
		return false
	}
	h, err := readHeader(f)
	return err == nil && h.interpreter == ""
}
