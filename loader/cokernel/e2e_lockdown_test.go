// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package cokernel

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/big"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/tenon-build/tenon/signer"
	"github.com/tenon-build/tenon/signer/authenticode"
	"github.com/tenon-build/tenon/signer/modsig"
	"github.com/tenon-build/tenon/signer/statement"
	"github.com/tenon-build/tenon/testdata/debian"
	bare "github.com/tenon-build/tenon/testdata/flat"
)

// attacker is root on a host that Secure Boot locks down. It has the module, whatever was
// signed for it, and no key.
type attacker struct {
	*testing.T
	d      *device
	o      *object // with memory
	key    *signer.Key
	report string
}

// TestE2ELockdown: what nobody signed does not run, whatever the ioctls say.
func TestE2ELockdown(t *testing.T) {
	module := debian.Module(t)
	(&debian.Machine{Small: true, Firmware: debian.UEFISecure}).In(t, func() {
		lockdown, err := os.ReadFile("/sys/kernel/security/lockdown")
		if err != nil || !strings.Contains(string(lockdown), "[integrity]") {
			t.Fatalf("lockdown: %q, %v", lockdown, err)
		}
		signed, err := os.ReadFile(module)
		ok(t, "module", err)
		a := &attacker{T: t, key: debian.Authority(t)}
		a.modules(signed)
		for _, parameters := range []string{"", "allow_unsigned=1"} {
			ok(t, "init_module", unix.InitModule(signed, parameters))
			a.with(func() {
				if parameters == "" {
					a.statements()
					a.headers()
					a.files()
				} else {
					a.unsigned()
					a.races()
					a.descriptors()
				}
			})
		}
		t.Logf("\n%-64s %-14s %s\n%s", "case", "expected", "seen", a.report)
		for _, line := range complaint.FindAllString(dmesg(t), -1) {
			t.Errorf("the host's kernel: %s", line)
		}
	})
}

// with calls f while the module is there, and removes it.
func (a *attacker) with(f func()) {
	a.Helper()
	d, err := openDevice()
	ok(a.T, "open", err)
	before := hostState(a.T, d)
	a.d, a.o = d, create(a.T, d, "prey")
	ok(a.T, "reserve", a.o.reserve(a.Context(), 0, 32<<20))
	ok(a.T, "take", a.o.take(2, false))
	f()
	ok(a.T, "end", errors.Join(a.o.end(), a.o.Close()))
	if after := hostState(a.T, d); after != before {
		a.Errorf("the host was\n%s\nand is\n%s", before, after)
	}
	ok(a.T, "close", d.Close())
	ok(a.T, "rmmod", unix.DeleteModule("mortise", unix.O_NONBLOCK))
}

// row compares what an attempt came to with what it has to.
func (a *attacker) row(name string, want unix.Errno, err error) {
	a.Helper()
	var seen unix.Errno
	if err != nil && !errors.As(err, &seen) {
		a.Fatalf("%s: %v", name, err)
	}
	word := func(e unix.Errno) string {
		if e == 0 {
			return "taken"
		}
		return unix.ErrnoName(e)
	}
	a.report += fmt.Sprintf("%-64s %-14s %s\n", name, word(want), word(seen))
	if seen != want {
		a.Errorf("%s: %s, want %s", name, word(seen), word(want))
	}
}

// ---- the module itself ----

func (a *attacker) modules(signed []byte) {
	a.Helper()
	ko, err := modsig.Strip(bytes.Clone(signed)) // it shares its memory
	ok(a.T, "strip", err)
	other, err := modsig.Sign(stranger(a.T), ko)
	ok(a.T, "sign", err)
	for _, c := range []struct {
		name string
		want unix.Errno
		ko   []byte
	}{
		{"module, unsigned", unix.EKEYREJECTED, ko},
		{"module, a byte flipped", unix.EKEYREJECTED, flipped(signed, len(ko)/2)},
		{"module, of another authority", unix.EKEYREJECTED, other},
		{"module, signed", 0, signed},
	} {
		err := unix.InitModule(c.ko, "")
		a.row(c.name, c.want, err)
		if err == nil {
			ok(a.T, "rmmod", unix.DeleteModule("mortise", unix.O_NONBLOCK))
		}
	}
}

// stranger has a certificate that nobody trusts.
func stranger(t *testing.T) *signer.Key {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	ok(t, "key", err)
	c := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "stranger"}, NotBefore: time.Now(), NotAfter: time.Now().Add(time.Hour), SubjectKeyId: []byte("stranger")}
	der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	ok(t, "certificate", err)
	c, err = x509.ParseCertificate(der)
	ok(t, "certificate", err)
	return &signer.Key{Signer: key, Chain: []*x509.Certificate{c}}
}

// ---- images and statements ----

func flipped(data []byte, at int) []byte {
	data = bytes.Clone(data)
	data[at] ^= 1
	return data
}

// sign signs a statement about an image, with the edits.
func (a *attacker) sign(image []byte, edits ...func(*statement.Statement)) []byte {
	a.Helper()
	s := statement.Statement{Target: "cokernel", Sealed: true, Size: int64(len(image)), Digest: sha256.Sum256(image)}
	for _, edit := range edits {
		edit(&s)
	}
	p7, err := statement.Sign(a.key, s)
	ok(a.T, "sign", err)
	return p7
}

// load loads an image that nobody is in the way of.
func (a *attacker) load(data, p7 []byte) error {
	a.Helper()
	return a.o.load(image{kernel: memory(a.T, data), statement: p7, possibleCPUs: 1})
}

// says starts what is loaded, and checks what it writes to its console. A new instance
// takes the place of the old one, which runs once.
func (a *attacker) says(text string) {
	a.Helper()
	ok(a.T, "start", a.o.start())
	console, err := a.o.channel(streamConsole)
	ok(a.T, "console", err)
	ok(a.T, "deadline", console.SetReadDeadline(time.Now().Add(10*time.Second)))
	got := make([]byte, len(text))
	if _, err := io.ReadFull(console, got); err != nil || string(got) != text {
		a.Fatalf("the guest says %q, %v, want %q", got, err, text)
	}
	ok(a.T, "close", console.Close())
	ok(a.T, "end", errors.Join(a.o.end(), a.o.Close()))
	a.o = create(a.T, a.d, "prey")
	ok(a.T, "reserve", a.o.reserve(a.Context(), 0, 32<<20))
	ok(a.T, "take", a.o.take(2, false))
}

const signedText, otherText = "this was signed\n", "this was not...\n"

func (a *attacker) statements() {
	a.Helper()
	good, other := bare.Kernel(bare.Speak(signedText)), bare.Kernel(bare.Speak(otherText))
	p7 := a.sign(good)
	a.row("signed", 0, a.load(good, p7))
	a.says(signedText)

	before := a.key
	a.key = stranger(a.T)
	foreign := a.sign(good)
	a.key = before
	pe, err := authenticode.Sign(a.key, sha256.Sum256(good))
	ok(a.T, "sign", err)
	for _, c := range []struct {
		name  string
		want  unix.Errno
		image []byte
		p7    []byte
	}{
		{"unsigned", unix.EPERM, good, nil},
		{"a byte of the code flipped", unix.EKEYREJECTED, flipped(good, 5*512+0x201), p7},
		{"a byte of the real-mode part flipped", unix.EKEYREJECTED, flipped(good, 17), p7},
		{"the last byte flipped", unix.EKEYREJECTED, flipped(good, len(good)-1), p7},
		{"a byte longer", unix.EKEYREJECTED, append(bytes.Clone(good), 0), p7},
		{"a byte shorter", unix.EKEYREJECTED, good[:len(good)-1], p7},
		{"the statement of another image", unix.EKEYREJECTED, other, p7},
		{"a statement about another size", unix.EKEYREJECTED, good, a.sign(good, func(s *statement.Statement) { s.Size-- })},
		{"a statement for qemu", unix.EKEYREJECTED, good, a.sign(good, func(s *statement.Statement) { s.Target = "qemu" })},
		{"a statement for cokernel-", unix.EKEYREJECTED, good, a.sign(good, func(s *statement.Statement) { s.Target = "cokernel-" })},
		{"a detached image, as if it was sealed", unix.EKEYREJECTED, good, a.sign(good, func(s *statement.Statement) { s.Sealed = false })},
		{"signed by another authority", unix.ENOKEY, good, foreign},
		{"the last byte of the signature flipped", unix.EINVAL, good, flipped(p7, len(p7)-1)},
		{"the first byte of the signature's DER flipped", unix.EBADMSG, good, flipped(p7, 0)},
		{"half a signature", unix.EBADMSG, good, p7[:len(p7)/2]},
		{"a signature that lacks a byte", unix.EBADMSG, good, p7[:len(p7)-1]},
		{"one byte of a signature", unix.EBADMSG, good, p7[:1]},
		{"a signature of zeros", unix.EBADMSG, good, make([]byte, 65535)},
		{"an Authenticode signature", unix.EBADMSG, good, pe},
		{"64 KiB of signature", unix.EMSGSIZE, good, make([]byte, 65536)},
		{"16 MiB of signature", unix.EMSGSIZE, good, make([]byte, 16<<20)},
	} {
		ok(a.T, "a good one before", a.load(good, p7))
		a.row(c.name, c.want, a.load(c.image, c.p7))
		want(a.T, c.name+": start", a.o.start(), unix.EBUSY)
	}

	detached := a.sign(good, func(s *statement.Statement) { s.Sealed = false })
	initrd := memory(a.T, []byte("x"))
	a.row("detached, as signed", unix.EPERM, a.o.load(image{kernel: memory(a.T, good), initrd: initrd, detached: true, statement: detached, possibleCPUs: 1}))
	a.row("sealed, presented as detached", unix.EPERM, a.o.load(image{kernel: memory(a.T, good), initrd: initrd, detached: true, statement: p7, possibleCPUs: 1}))
	a.row("detached, unsigned", unix.EPERM, a.o.load(image{kernel: memory(a.T, good), initrd: initrd, detached: true, possibleCPUs: 1}))
	want(a.T, "start what was refused", a.o.start(), unix.EBUSY)

	text := []byte("init=/evil\x00")
	for _, c := range []struct {
		name string
		want unix.Errno
		edit func(*loadArg)
	}{
		{"sealed, with an initrd, which it checks by itself", 0, func(l *loadArg) { l.initrd = int32(initrd.Fd()) }},
		{"sealed, with a descriptor of an initrd that is none", unix.EBADF, func(l *loadArg) { l.initrd = -2 }},
		{"sealed, with a command line", unix.EINVAL, func(l *loadArg) {
			l.commandLine, l.commandLineBytes = uint64(uintptr(unsafe.Pointer(&text[0]))), 10
		}},
		{"sealed, with a command line of nothing somewhere", 0, func(l *loadArg) { l.commandLine = 1 }},
		{"detached, with a command line that is not there", unix.EFAULT, func(l *loadArg) { l.flags, l.commandLine, l.commandLineBytes = loadDetached, 1, 100 }},
		{"detached, with a command line in the kernel", unix.EFAULT, func(l *loadArg) {
			l.flags, l.commandLine, l.commandLineBytes = loadDetached, 0xffff888000000000, 100
		}},
		{"detached, with a long command line", unix.EINVAL, func(l *loadArg) { l.flags, l.commandLineBytes = loadDetached, 2048 }},
		{"a flag that is none", unix.EINVAL, func(l *loadArg) { l.flags = 2 }},
		{"a signature that is not there", unix.EFAULT, func(l *loadArg) { l.statement = 0 }},
		{"a signature that ends where nothing is", unix.EFAULT, func(l *loadArg) { l.statement = l.statement&^4095 - 64 }},
		{"a signature in the kernel's memory", unix.EFAULT, func(l *loadArg) { l.statement = 0xffff888000000000 }},
		{"a signature at an address that is none", unix.EFAULT, func(l *loadArg) { l.statement = 1 << 62 }},
		{"a signature of 4 GiB", unix.EMSGSIZE, func(l *loadArg) { l.statementSize = 1<<32 - 1 }},
		{"another version", unix.EPROTO, func(l *loadArg) { l.version = abiVersion - 1 }},
		{"no CPU", unix.EINVAL, func(l *loadArg) { l.possibleCPUs = 0 }},
		{"4 G CPUs", unix.EINVAL, func(l *loadArg) { l.possibleCPUs = 1<<32 - 1 }},
	} {
		a.row(c.name, c.want, a.loadRaw(good, p7, c.edit))
	}
	_, err = a.o.call(ioctlLoad, nil)
	a.row("no argument", unix.EFAULT, err)
}

// loadRaw calls the ioctl with any argument. The signature ends where a page does, and
// nothing is before it or after it.
func (a *attacker) loadRaw(data, p7 []byte, edit func(*loadArg)) error {
	a.Helper()
	const page = 4096
	size := (len(p7) + page - 1) / page * page
	guarded, err := unix.Mmap(-1, 0, size+2*page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	ok(a.T, "mmap", err)
	defer func() { ok(a.T, "munmap", unix.Munmap(guarded)) }()
	at := guarded[page+size-len(p7) : page+size]
	copy(at, p7)
	ok(a.T, "mprotect", errors.Join(unix.Mprotect(guarded[:page], unix.PROT_NONE), unix.Mprotect(guarded[page+size:], unix.PROT_NONE)))
	l := &loadArg{version: abiVersion, image: int32(memory(a.T, data).Fd()), initrd: -1, possibleCPUs: 1,
		statement: uint64(uintptr(unsafe.Pointer(&at[0]))), statementSize: uint32(len(p7))}
	edit(l)
	_, err = a.o.call(ioctlLoad, unsafe.Pointer(l))
	return err
}

// headers asks for odd images that a key signed which is trusted: the module believes
// some of what they say.
func (a *attacker) headers() {
	a.Helper()
	le := binary.LittleEndian
	for _, c := range []struct {
		name string
		want unix.Errno
		edit func(b []byte)
	}{
		{"setup_sects 0, which means 4", 0, func(b []byte) { b[0x1f1] = 0 }},
		{"setup_sects 255", unix.ENOEXEC, func(b []byte) { b[0x1f1] = 255 }},
		{"no boot_flag", unix.ENOEXEC, func(b []byte) { b[0x1fe] = 0 }},
		{"no header", unix.ENOEXEC, func(b []byte) { b[0x202] = 0 }},
		{"boot protocol 2.11", unix.ENOEXEC, func(b []byte) { b[0x206] = 0x0b }},
		{"a header that ends at 0x202", unix.ENOEXEC, func(b []byte) { b[0x201] = 0 }},
		{"a header that ends at 0x263", unix.ENOEXEC, func(b []byte) { b[0x201] = 0x61 }},
		{"a header that ends at 0x301", 0, func(b []byte) { b[0x201] = 0xff }},
		{"not loaded high", unix.ENOEXEC, func(b []byte) { b[0x211] = 0 }},
		{"not relocatable", unix.ENOEXEC, func(b []byte) { b[0x234] = 0 }},
		{"no 64-bit entry", unix.ENOEXEC, func(b []byte) { b[0x236] = 0 }},
		{"kernel_alignment 0", unix.ENOEXEC, func(b []byte) { le.PutUint32(b[0x230:], 0) }},
		{"kernel_alignment 1", 0, func(b []byte) { le.PutUint32(b[0x230:], 1) }},
		{"kernel_alignment 3", unix.ENOEXEC, func(b []byte) { le.PutUint32(b[0x230:], 3) }},
		{"kernel_alignment 32 MiB", unix.ENOSPC, func(b []byte) { le.PutUint32(b[0x230:], 32<<20) }},
		{"kernel_alignment 1 GiB", unix.ENOSPC, func(b []byte) { le.PutUint32(b[0x230:], 1<<30) }},
		{"kernel_alignment 2 GiB", unix.ENOEXEC, func(b []byte) { le.PutUint32(b[0x230:], 1<<31) }},
		{"init_size 0", unix.ENOEXEC, func(b []byte) { le.PutUint32(b[0x260:], 0) }},
		{"init_size smaller than the image", unix.ENOEXEC, func(b []byte) { le.PutUint32(b[0x260:], 4096) }},
		{"init_size of all memory", unix.ENOSPC, func(b []byte) { le.PutUint32(b[0x260:], 32<<20) }},
		{"init_size of nearly all memory", 0, func(b []byte) { le.PutUint32(b[0x260:], 30<<20) }},
		{"init_size 4 GiB", unix.ENOSPC, func(b []byte) { le.PutUint32(b[0x260:], 1<<32-1) }},
		{"pref_address in no range", unix.ENOSPC, func(b []byte) { le.PutUint64(b[0x258:], 1<<40) }},
		{"pref_address 2^63", unix.ENOSPC, func(b []byte) { le.PutUint64(b[0x258:], 1<<63) }},
		{"pref_address 2^64-1", unix.ENOSPC, func(b []byte) { le.PutUint64(b[0x258:], 1<<64-1) }},
		{"a setup_data of its own", 0, func(b []byte) { le.PutUint64(b[0x250:], 0xfee00000) }},
		{"a command line of its own", 0, func(b []byte) { le.PutUint32(b[0x228:], 0xfee00000) }},
		{"an initrd of its own", 0, func(b []byte) { le.PutUint32(b[0x218:], 0xfee00000) }},
	} {
		b := bare.Kernel(bare.Speak(signedText))
		c.edit(b)
		err := a.load(b, a.sign(b))
		a.row("signed, with "+c.name, c.want, err)
		if err == nil {
			a.says(signedText)
		}
	}
	// Nothing but the setup is signed: what the guest would run is what is in memory.
	b := bare.Kernel(bare.Speak(signedText))
	for _, size := range []int{0x1f0, 0x260, 1024, 5 * 512, 5*512 + 1, 5*512 + 0x200} {
		a.row(fmt.Sprintf("signed, cut to %#x bytes", size), unix.ENOEXEC, a.load(b[:size], a.sign(b[:size])))
	}
	a.row("signed, of no bytes", unix.ENOEXEC, a.load(nil, a.sign(b)))
}

// files asks for descriptors of all kinds.
func (a *attacker) files() {
	a.Helper()
	good := bare.Kernel(bare.Speak(signedText))
	p7 := a.sign(good)
	dir, err := os.MkdirTemp("/dev/shm", "") // an overlay does not count who has a file mapped
	ok(a.T, "dir", err)
	path, written := dir+"/image", dir+"/written"
	ok(a.T, "write", errors.Join(os.WriteFile(path, good, 0o600), os.WriteFile(written, good, 0o600)))
	open := func(name string, flags int) *os.File {
		fd, err := unix.Open(name, flags|unix.O_CLOEXEC, 0)
		ok(a.T, "open "+name, err)
		return os.NewFile(uintptr(fd), name)
	}
	var pipe [2]int
	ok(a.T, "pipe", unix.Pipe(pipe[:]))
	huge := memory(a.T, good)
	ok(a.T, "truncate", huge.Truncate(1<<62))
	over := memory(a.T, good)
	ok(a.T, "truncate", over.Truncate(5*512+1<<20+1))
	for _, c := range []struct {
		name string
		want unix.Errno
		file *os.File
	}{
		{"a file", 0, open(path, unix.O_RDONLY)},
		{"a file, write-only", unix.EBADF, open(written, unix.O_WRONLY)},
		{"a file, by O_PATH", unix.EBADF, open(path, unix.O_PATH)},
		{"a directory", unix.EINVAL, open(dir, unix.O_RDONLY)},
		{"a pipe", unix.EINVAL, os.NewFile(uintptr(pipe[0]), "pipe")},
		{"/dev/zero", unix.EINVAL, open("/dev/zero", unix.O_RDONLY)},
		{"/dev/mortise", unix.EINVAL, a.d.file},
		{"the instance", unix.EINVAL, a.o.file},
		{"/proc/self/maps", unix.EINVAL, open("/proc/self/maps", unix.O_RDONLY)},
		{"a file of 4 EiB", unix.ENOEXEC, huge},
		{"a file longer than its init_size", unix.ENOEXEC, over},
	} {
		a.row("image: "+c.name, c.want, a.o.load(image{kernel: c.file, statement: p7, possibleCPUs: 1}))
	}
	file := open(path, unix.O_RDONLY)
	writer := open(path, unix.O_RDWR)
	a.row("image: a file that is open for writing", unix.ETXTBSY, a.o.load(image{kernel: file, statement: p7, possibleCPUs: 1}))
	shared, err := unix.Mmap(int(writer.Fd()), 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	ok(a.T, "mmap", errors.Join(err, writer.Close()))
	a.row("image: a file that is mapped for writing", unix.ETXTBSY, a.o.load(image{kernel: file, statement: p7, possibleCPUs: 1}))
	ok(a.T, "munmap", unix.Munmap(shared))
	a.row("image: the file again", 0, a.o.load(image{kernel: file, statement: p7, possibleCPUs: 1}))
	ok(a.T, "write", os.WriteFile(path, flipped(good, 5*512+0x201), 0o600))
	a.row("image: the file, changed meanwhile", unix.EKEYREJECTED, a.o.load(image{kernel: file, statement: p7, possibleCPUs: 1}))
	want(a.T, "start what was loaded before", a.o.start(), unix.EBUSY)
	ok(a.T, "load", a.load(good, p7))
	a.says(signedText)
}

// unsigned asks where the module's parameter would allow it, were it not for the lockdown.
func (a *attacker) unsigned() {
	a.Helper()
	info, err := a.d.info()
	ok(a.T, "info", err)
	if info.unsignedAllowed != 1 || info.locked != 1 {
		a.Errorf("the module says %+v", info)
	}
	b := bare.Kernel(bare.Speak(otherText))
	a.row("unsigned, with allow_unsigned=1", unix.EPERM, a.load(b, nil))
	a.row("unsigned, detached, with allow_unsigned=1", unix.EPERM, a.o.load(image{kernel: memory(a.T, b), initrd: memory(a.T, b), detached: true, possibleCPUs: 1}))
	a.row("allow_unsigned, changed", unix.EACCES, os.WriteFile("/sys/module/mortise/parameters/allow_unsigned", []byte("1"), 0))
}

// races changes an image while it is loaded: what runs is what was verified.
func (a *attacker) races() {
	a.Helper()
	good, other := bare.Kernel(bare.Speak(signedText)), bare.Kernel(bare.Speak(otherText))
	p7 := a.sign(good)
	for _, c := range []struct {
		name   string
		change func(f *os.File, odd bool) error
	}{
		{"its code", func(f *os.File, odd bool) error {
			_, err := f.WriteAt(map[bool][]byte{false: good, true: other}[odd], 0)
			return err
		}},
		{"its header", func(f *os.File, odd bool) error {
			_, err := f.WriteAt([]byte{map[bool]byte{false: 4, true: 1}[odd]}, 0x1f1)
			return err
		}},
		{"its init_size", func(f *os.File, odd bool) error {
			_, err := f.WriteAt([]byte{0, 0, map[bool]byte{false: 0x10, true: 0xff}[odd], 0}, 0x260)
			return err
		}},
		{"its size", func(f *os.File, odd bool) error {
			return f.Truncate(map[bool]int64{false: int64(len(good)), true: 64 << 20}[odd])
		}},
	} {
		f := memory(a.T, good)
		var done atomic.Bool
		var writer sync.WaitGroup
		writer.Go(func() {
			for n := 0; !done.Load(); n++ {
				if err := c.change(f, n%2 == 1); err != nil {
					a.Error(err)
					return
				}
			}
		})
		seen := map[string]int{}
		for began, started := time.Now(), 0; time.Since(began) < time.Second || len(seen) < 2 && time.Since(began) < time.Minute; {
			err := a.o.load(image{kernel: f, statement: p7, possibleCPUs: 1})
			var errno unix.Errno
			errors.As(err, &errno)
			seen[unix.ErrnoName(errno)]++
			if err == nil && started < 3 {
				started++
				a.says(signedText)
			}
		}
		done.Store(true)
		writer.Wait()
		a.Logf("an image, while %s changes: %v", c.name, seen)
		if len(seen) < 2 {
			a.Errorf("%s: nothing raced", c.name)
		}
	}
}

// descriptors are shared by threads that do everything at once, and by what one can do
// with a descriptor.
func (a *attacker) descriptors() {
	a.Helper()
	status, err := a.o.status()
	ok(a.T, "status", err)
	if err := a.offline(status.ranges[0].start); err == nil {
		a.Error("memory of an instance was taken offline")
	}
	control, err := a.o.channel(streamControl)
	ok(a.T, "channel", err)
	for _, f := range []*os.File{a.d.file, a.o.file, control} {
		for _, prot := range []int{unix.PROT_READ, unix.PROT_WRITE, unix.PROT_EXEC} {
			_, err := unix.Mmap(int(f.Fd()), 0, 4096, prot, unix.MAP_SHARED)
			a.row(fmt.Sprintf("mmap of %s, %d", f.Name(), prot), unix.ENODEV, err)
		}
	}
	// Closed under a reader, and read by a copy.
	fd, err := unix.Dup(int(control.Fd()))
	ok(a.T, "dup", errors.Join(err, unix.SetNonblock(fd, false)))
	ended := make(chan error)
	go func() {
		_, err := unix.Read(fd, make([]byte, 10))
		ended <- err
	}()
	ok(a.T, "close", control.Close())
	good, other := bare.Kernel(bare.Speak(signedText)), bare.Kernel(bare.Speak(otherText))
	p7 := a.sign(good)
	ok(a.T, "load", a.load(good, p7))
	a.says(signedText) // and destroys it
	ok(a.T, "read until the instance ends", <-ended)
	ok(a.T, "close", unix.Close(fd))

	// Eight threads, and one name.
	var all sync.WaitGroup
	var counts [8]int
	until := time.Now().Add(3 * time.Second)
	signedFile, unsignedFile := memory(a.T, good), memory(a.T, other)
	for n := range counts {
		all.Go(func() {
			for time.Now().Before(until) {
				o, err := a.d.open("crowd")
				if err != nil {
					if o, err = a.d.create("crowd"); err != nil {
						continue
					}
				}
				for range 20 {
					a.one(o, n, signedFile, unsignedFile, p7)
					counts[n]++
				}
				if err := o.Close(); err != nil {
					a.Error(err)
				}
			}
		})
	}
	all.Wait()
	a.Logf("calls of eight threads: %v", counts)
	if o, err := a.d.open("crowd"); err == nil {
		ok(a.T, "end", errors.Join(o.end(), o.Close()))
	}
}

// offline takes the memory block of an address from the host.
func (a *attacker) offline(address uint64) error {
	a.Helper()
	text, err := os.ReadFile("/sys/devices/system/memory/block_size_bytes")
	ok(a.T, "block size", err)
	size, err := strconv.ParseUint(strings.TrimSpace(string(text)), 16, 64)
	ok(a.T, "block size", err)
	return os.WriteFile(fmt.Sprintf("/sys/devices/system/memory/memory%d/state", address/size), []byte("offline"), 0)
}

// one is what a thread of number n does.
func (a *attacker) one(o *object, n int, signed, unsigned *os.File, p7 []byte) {
	switch n {
	case 0:
		_ = o.reserve(a.Context(), 0, 8<<20)
	case 1:
		_ = o.take(3, false)
	case 2:
		_ = o.give(3)
	case 3:
		_ = o.load(image{kernel: signed, statement: p7, possibleCPUs: 1})
		_ = o.start()
	case 4:
		if err := o.load(image{kernel: unsigned, statement: p7, possibleCPUs: 1}); err == nil {
			a.Error("an unsigned image was loaded")
		}
	case 5:
		_ = o.start()
		_ = o.stop()
	case 6:
		_ = o.destroy()
	case 7:
		_, _ = o.status()
		if console, err := o.channel(streamConsole); err == nil {
			_ = console.SetReadDeadline(time.Now().Add(time.Millisecond))
			got, _ := io.ReadAll(io.LimitReader(console, int64(len(signedText))))
			if !strings.HasPrefix(signedText, string(got)) {
				a.Errorf("a guest says %q", got)
			}
			_ = console.Close()
		}
	}
}
