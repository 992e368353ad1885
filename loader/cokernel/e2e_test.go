// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package cokernel

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/tenon-build/tenon/testdata/debian"
	"github.com/tenon-build/tenon/testdata/e2e"
)

// The module is asked as a process that means no good would ask it: by its ioctls. Its
// guests are bare code, as no kernel is needed to be in the way of one.

// inHost calls f in a guest that has the module, with the parameters.
func inHost(t *testing.T, m debian.Machine, parameters string, f func(d *device)) {
	t.Helper()
	withModule(t, m, debian.Module(t), parameters, f)
}

// withModule does so with a module that was built before.
func withModule(t *testing.T, m debian.Machine, module, parameters string, f func(d *device)) {
	t.Helper()
	m.In(t, func() {
		if out, err := exec.Command("insmod", append([]string{module}, strings.Fields(parameters)...)...).CombinedOutput(); err != nil {
			t.Fatalf("insmod: %v: %s", err, out)
		}
		d, err := openDevice()
		if err != nil {
			t.Fatal(err)
		}
		defer func() {
			if t.Failed() {
				t.Log(dmesg(t))
			}
		}()
		before := hostState(t, d)
		f(d)
		if after := hostState(t, d); after != before {
			t.Errorf("the host was\n%s\nand is\n%s", before, after)
		}
		if err := d.Close(); err != nil {
			t.Error(err)
		}
		if out, err := exec.Command("rmmod", "mortise").CombinedOutput(); err != nil {
			t.Errorf("rmmod: %v: %s", err, out)
		}
		for _, line := range complaint.FindAllString(dmesg(t), -1) {
			t.Errorf("the host's kernel: %s", line)
		}
	})
}

// complaint is how a kernel says that something is wrong with it.
var complaint = regexp.MustCompile(`(?m)^.*(BUG|WARNING|Oops|general protection|detected stall|KASAN|INFO: task|possible circular|Call Trace).*$`)

func dmesg(t *testing.T) string {
	t.Helper()
	out, err := exec.Command("dmesg").CombinedOutput()
	if err != nil {
		t.Errorf("dmesg: %v", err)
	}
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	return strings.Join(lines[max(0, len(lines)-200):], "\n")
}

// hostState is what has to be as before: CPUs, and what the module could give.
func hostState(t *testing.T, d *device) string {
	t.Helper()
	var out []string
	for _, name := range []string{"online", "present", "offline"} {
		data, err := os.ReadFile("/sys/devices/system/cpu/" + name)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, name+" "+strings.TrimSpace(string(data)))
	}
	info, err := d.info()
	if err != nil {
		t.Fatal(err)
	}
	names, err := d.list()
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%s, %d pieces, %d instances %q", strings.Join(out, ", "), info.pieces, info.instances, names)
}

func ok(t *testing.T, what string, err error) {
	t.Helper()
	if err != nil {
		t.Fatalf("%s: %v\n%s", what, err, dmesg(t))
	}
}

func want(t *testing.T, what string, got error, want unix.Errno) {
	t.Helper()
	if !errors.Is(got, want) {
		t.Errorf("%s: %v, want %s", what, got, unix.ErrnoName(want))
	}
}

func create(t *testing.T, d *device, name string) *object {
	t.Helper()
	o, err := d.create(name)
	ok(t, "create "+name, err)
	return o
}

// An instance's life, each step refused where it does not belong.
func TestE2EModule(t *testing.T) { testModule(t, debian.Machine{}) }

// UEFI uses memory below 1 MiB otherwise.
func TestE2EModuleUEFI(t *testing.T) { testModule(t, debian.Machine{Firmware: debian.UEFI}) }

func testModule(t *testing.T, m debian.Machine) {
	inHost(t, m, "allow_unsigned=1", func(d *device) {
		o := create(t, d, "one")
		_, err := d.create("one")
		want(t, "a name twice", err, unix.EEXIST)
		_, err = d.open("two")
		want(t, "a name that is none", err, unix.ENOENT)
		for _, name := range []string{"", "a b", "a/b", "a\nb", "a\xe9", strings.Repeat("a", 64)} {
			_, err = d.create(name)
			want(t, fmt.Sprintf("the name %q", name), err, unix.EINVAL)
		}
		if out, err := exec.Command("rmmod", "mortise").CombinedOutput(); err == nil {
			t.Errorf("the module went while there is an instance: %s", out)
		}
		want(t, "sleep while there is an instance", os.WriteFile("/sys/power/state", []byte("freeze"), 0), unix.EBUSY)
		_, err = os.OpenFile("/dev/snapshot", os.O_WRONLY, 0)
		want(t, "restore a snapshot of the host", err, unix.EBUSY)
		want(t, "start without an image", o.start(), unix.EBUSY)
		want(t, "stop before start", o.stop(), unix.EINVAL)
		want(t, "load without memory", o.load(image{kernel: flat(t, hang), possibleCPUs: 1}), unix.ENOSPC)
		want(t, "reserve nothing", o.reserve(t.Context(), 0, 0), unix.EINVAL)
		want(t, "reserve half a block", o.reserve(t.Context(), 0, 1<<20), unix.EINVAL)
		want(t, "reserve on node 7", o.reserve(t.Context(), 7, 2<<20), unix.EINVAL)
		want(t, "reserve on node -1", o.reserve(t.Context(), -1, 2<<20), unix.EINVAL)
		want(t, "reserve more than there is", o.reserve(t.Context(), 0, 64<<30), unix.ENOMEM)
		ok(t, "reserve", o.reserve(t.Context(), 0, 64<<20))
		ok(t, "reserve on the other node", o.reserve(t.Context(), 1, 32<<20))
		want(t, "load not for a CPU", o.load(image{kernel: flat(t, hang)}), unix.EINVAL)
		want(t, "load for too many CPUs", o.load(image{kernel: flat(t, hang), possibleCPUs: 65}), unix.EINVAL)
		want(t, "load what is no kernel", o.load(image{kernel: self(t), possibleCPUs: 1}), unix.ENOEXEC)
		ok(t, "load", o.load(image{kernel: flat(t, hang), possibleCPUs: 2}))
		want(t, "start without a CPU", o.start(), unix.EINVAL)
		want(t, "take the boot CPU", o.take(0, false), unix.EBUSY)
		want(t, "take a CPU that is none", o.take(100000, false), unix.EINVAL)
		ok(t, "take", o.take(2, false))
		want(t, "take twice", o.take(2, false), unix.EINVAL)
		want(t, "online behind its back", os.WriteFile("/sys/devices/system/cpu/cpu2/online", []byte("1"), 0), unix.EINVAL)
		ok(t, "take its sibling", o.take(3, true))
		want(t, "give what it has not", o.give(4), unix.EINVAL)
		ok(t, "start", o.start())
		want(t, "start twice", o.start(), unix.EBUSY)
		want(t, "load while it runs", o.load(image{kernel: flat(t, hang), possibleCPUs: 1}), unix.EBUSY)
		want(t, "reserve while it runs", o.reserve(t.Context(), 0, 2<<20), unix.EBUSY)
		want(t, "destroy while it runs", o.destroy(), unix.EBUSY)
		want(t, "give the CPU that it boots on", o.give(2), unix.EBUSY)
		want(t, "take for one that does not listen", o.take(4, false), unix.EAGAIN)
		ok(t, "close", o.Close()) // it runs on

		o, err = d.open("one")
		ok(t, "open again", err)
		s, err := o.status()
		ok(t, "status", err)
		if s.state != stateRunning || s.cpuCount != 2 || s.cpus[0] != 2 || s.cpus[1] != 3 || s.idle != 2 || s.alive != 0 || s.rangeCount != 2 {
			t.Errorf("status %+v", s)
		}
		ok(t, "stop", o.stop())
		o.wait()
		ok(t, "stop again", o.stop())
		want(t, "start again", o.start(), unix.EBUSY)
		ok(t, "destroy", o.destroy())
		want(t, "destroy again", o.destroy(), unix.ENODEV)
		_, err = o.status()
		want(t, "status of what is gone", err, unix.ENODEV)
		ok(t, "end what is gone", o.end())
		ok(t, "close", o.Close())

		growingInitrd(t, d)

		var all []*object
		for n := range 8 {
			all = append(all, create(t, d, fmt.Sprintf("n%d", n)))
		}
		_, err = d.create("n8")
		want(t, "one too many", err, unix.ENOSPC)
		for _, o := range all {
			ok(t, "destroy", errors.Join(o.destroy(), o.Close()))
		}
	})
}

// growingInitrd loads an initrd whose size changes meanwhile: it is not read to where the
// kernel is, nor to the host's memory before that.
func growingInitrd(t *testing.T, d *device) {
	t.Helper()
	o := create(t, d, "grows")
	ok(t, "reserve", o.reserve(t.Context(), 0, 32<<20))
	kernel, initrd := flat(t, hang), memory(t, make([]byte, 4096))
	var done atomic.Bool
	var writer sync.WaitGroup
	writer.Go(func() {
		for n := 0; !done.Load(); n++ {
			if err := initrd.Truncate([]int64{4096, 16 << 20, 256 << 20}[n%3]); err != nil {
				t.Error(err)
				return
			}
		}
	})
	seen := map[string]int{}
	for began := time.Now(); time.Since(began) < time.Second; {
		err := o.load(image{kernel: kernel, initrd: initrd, possibleCPUs: 1})
		var errno unix.Errno
		errors.As(err, &errno)
		seen[unix.ErrnoName(errno)]++
		if err != nil && errno != unix.EFBIG && errno != unix.ENOSPC && errno != unix.EIO {
			t.Error(err)
		}
	}
	done.Store(true)
	writer.Wait()
	t.Logf("an initrd, while it grows: %v", seen)
	ok(t, "end", errors.Join(o.end(), o.Close()))
}

func self(t *testing.T) *os.File {
	f, err := os.Open("/proc/self/exe")
	ok(t, "open", err)
	t.Cleanup(func() { f.Close() })
	return f
}

// listen is: movq 0x250(%rsi), %rax; movq 32(%rax), %rax; movl $0xf7, 28(%rax); cli; jmp .
// It is a guest that seems to listen, by the zone that setup_data leads to, and does not.
var listen = []byte{0x48, 0x8b, 0x86, 0x50, 0x02, 0, 0, 0x48, 0x8b, 0x40, 0x20, 0xc7, 0x40, 0x1c, 0xf7, 0, 0, 0, 0xfa, 0xeb, 0xfe}

// answer begins likewise, and then answers:
// 1: movl 32(%rax), %ecx; movl $-errno, 48(%rax); movl %ecx, 44(%rax); jmp 1b.
func answer(errno uint32) []byte {
	return slices.Concat(listen[:18], []byte{0x8b, 0x48, 0x20, 0xc7, 0x40, 0x30}, binary.LittleEndian.AppendUint32(nil, -errno), []byte{0x89, 0x48, 0x2c, 0xeb, 0xf1})
}

// What a guest has not answered it may still do: a CPU that it was offered is not the
// host's before the guest has ended. What it refuses is.
func TestE2EUnanswered(t *testing.T) {
	inHost(t, debian.Machine{Small: true}, "allow_unsigned=1", func(d *device) {
		var o *object
		start := func(code []byte) {
			o = create(t, d, "one")
			ok(t, "reserve", o.reserve(t.Context(), 0, 32<<20))
			ok(t, "take", o.take(1, false))
			ok(t, "load", o.load(image{kernel: flat(t, code), possibleCPUs: 4}))
			ok(t, "start", o.start())
			time.Sleep(100 * time.Millisecond)
		}
		ask := func(number uint32, cpu, timeout uint32) error {
			_, err := o.call(number, unsafe.Pointer(&cpuArg{version: abiVersion, cpu: cpu, timeout: timeout}))
			return err
		}
		for _, test := range []struct {
			answer uint32
			want   error
			cpus   uint32
		}{
			{512, unix.EIO, 1}, // ERESTARTSYS, which is the kernel's own
			{uint32(unix.ENOSPC), unix.ENOSPC, 1},
			{uint32(unix.EEXIST), nil, 2}, // it has it already
		} {
			start(answer(test.answer))
			if err := ask(ioctlTake, 2, 10000); !errors.Is(err, test.want) {
				t.Errorf("take, answered with %d: %v", test.answer, err)
			}
			if s, err := o.status(); err != nil || s.cpuCount != test.cpus {
				t.Errorf("status %+v, %v", s, err)
			}
			ok(t, "end", errors.Join(o.end(), o.Close()))
		}

		start(listen)
		want(t, "take", ask(ioctlTake, 2, 200), unix.ETIMEDOUT)
		want(t, "give", ask(ioctlGive, 2, 200), unix.ETIMEDOUT)
		s, err := o.status()
		ok(t, "status", err)
		if s.cpuCount != 2 || s.cpus[1] != 2 || s.idle != 0 {
			t.Errorf("status %+v", s)
		}
		want(t, "online behind its back", os.WriteFile("/sys/devices/system/cpu/cpu2/online", []byte("1"), 0), unix.EINVAL)
		ok(t, "end", errors.Join(o.end(), o.Close()))
	})
}

// A guest says at which vector it listens. There is one; the others are not sent: its CPU may be
// the host's again, where they would mean something.
func TestE2EDoorbellVector(t *testing.T) {
	inHost(t, debian.Machine{Small: true}, "allow_unsigned=1", func(d *device) {
		for vector, expect := range map[uint32]unix.Errno{
			0xf7: unix.ETIMEDOUT, // it listens, and does not answer
			0:    unix.EAGAIN, 0x20: unix.EAGAIN, 0x30: unix.EAGAIN, 0x80: unix.EAGAIN, 0xec: unix.EAGAIN, 0xf8: unix.EAGAIN, 0xfb: unix.EAGAIN,
			0xfd: unix.EAGAIN, 0xff: unix.EAGAIN, 0x1f7: unix.EAGAIN,
		} {
			code := slices.Clone(listen)
			binary.LittleEndian.PutUint32(code[14:], vector)
			o := create(t, d, "one")
			ok(t, "reserve", o.reserve(t.Context(), 0, 32<<20))
			ok(t, "take", o.take(1, false))
			ok(t, "load", o.load(image{kernel: flat(t, code), possibleCPUs: 4}))
			ok(t, "start", o.start())
			time.Sleep(100 * time.Millisecond)
			_, err := o.call(ioctlTake, unsafe.Pointer(&cpuArg{version: abiVersion, cpu: 2, timeout: 200}))
			want(t, fmt.Sprintf("take from one that listens at %#x", vector), err, expect)
			ok(t, "end", errors.Join(o.end(), o.Close()))
		}
	})
}

// leave writes into the piece below 1 MiB, whose address is the first of the memory map:
// movq 0x2d0(%rsi), %rax; movl $0x5ec7e75, 0x2000(%rax); cli; jmp .
var leave = []byte{0x48, 0x8b, 0x86, 0xd0, 0x02, 0, 0, 0xc7, 0x80, 0, 0x20, 0, 0, 0x75, 0x7e, 0xec, 0x05, 0xfa, 0xeb, 0xfe}

// tell copies that to the console, and hangs: movq 0x2d0(%rsi), %rax; movl 0x2000(%rax), %ecx;
// movq 0x250(%rsi), %rax; movq 32(%rax), %rdx; movl %ecx, 0x1000(%rdx); movl $4, 0x40(%rdx);
// movl $1, 12(%rdx); cli; jmp .
var tell = []byte{0x48, 0x8b, 0x86, 0xd0, 0x02, 0, 0, 0x8b, 0x88, 0, 0x20, 0, 0, 0x48, 0x8b, 0x86, 0x50, 0x02, 0, 0, 0x48, 0x8b, 0x50, 0x20,
	0x89, 0x8a, 0, 0x10, 0, 0, 0xc7, 0x42, 0x40, 4, 0, 0, 0, 0xc7, 0x42, 0x0c, 1, 0, 0, 0, 0xfa, 0xeb, 0xfe}

// What an instance leaves below 1 MiB, the next one does not find.
func TestE2ELowMemory(t *testing.T) {
	inHost(t, debian.Machine{Small: true}, "allow_unsigned=1", func(d *device) {
		var at []uint64
		for _, code := range [][]byte{slices.Concat(leave[:17], tell), leave, tell} { // the first sees what it wrote
			o := create(t, d, "one")
			ok(t, "reserve", o.reserve(t.Context(), 0, 32<<20))
			ok(t, "take", o.take(1, false))
			ok(t, "load", o.load(image{kernel: flat(t, code), possibleCPUs: 1}))
			console, err := o.channel(streamConsole)
			ok(t, "console", err)
			ok(t, "start", o.start())
			time.Sleep(200 * time.Millisecond)
			s, err := o.status()
			ok(t, "status", err)
			at = append(at, s.low)
			ok(t, "stop", o.stop())
			said, err := io.ReadAll(console)
			ok(t, "read", err)
			switch expect := map[int]string{1: "\x75\x7e\xec\x05", 3: "\x00\x00\x00\x00"}; len(at) {
			case 1, 3:
				if string(said) != expect[len(at)] {
					t.Errorf("guest %d found %x", len(at), said)
				}
			}
			ok(t, "end", errors.Join(console.Close(), o.end(), o.Close()))
		}
		if at[1] != at[2] {
			t.Errorf("they had different pieces: %x", at)
		}
	})
}

// While an image is read that never comes, its instance says how it is, and nothing waits.
func TestE2ELoadStalls(t *testing.T) {
	inHost(t, debian.Machine{Small: true}, "allow_unsigned=1", func(d *device) {
		stalls, at := unanswered(t)
		o := create(t, d, "one")
		ok(t, "reserve", o.reserve(t.Context(), 0, 32<<20))
		loaded := make(chan error, 1)
		kernel := flat(t, hang)
		go func() {
			_, err := o.call(ioctlLoad, unsafe.Pointer(&loadArg{version: abiVersion, image: int32(kernel.Fd()), initrd: -1, statement: at, statementSize: 100, possibleCPUs: 1}))
			loaded <- err
		}()
		time.Sleep(500 * time.Millisecond)
		again, err := d.open("one")
		ok(t, "open", err)
		answers := make(chan error, 1)
		go func() {
			s, err := again.status()
			if err == nil && s.state != stateEmpty {
				err = fmt.Errorf("state %d", s.state)
			}
			answers <- err
			for _, err := range []error{again.stop(), again.destroy(), again.start(), again.reserve(t.Context(), 0, 2<<20), again.take(1, false)} {
				answers <- err
			}
		}()
		for i, expect := range []error{nil, unix.EINVAL, unix.EBUSY, unix.EBUSY, unix.EBUSY, unix.EBUSY} {
			select {
			case err := <-answers:
				if !errors.Is(err, expect) {
					t.Errorf("call %d: %v, want %v", i, err, expect)
				}
			case err := <-loaded:
				t.Fatalf("the load ended: %v", err)
			case <-time.After(20 * time.Second):
				t.Fatalf("call %d waits", i)
			}
		}
		ok(t, "answer", unix.Close(stalls))
		if err := <-loaded; err == nil {
			t.Error("nothing was loaded, and that is fine")
		}
		ok(t, "end", errors.Join(again.end(), again.Close(), o.Close()))
	})
}

// Reserving memory can be broken off, and leaves nothing behind.
func TestE2EReserveInterrupted(t *testing.T) {
	inHost(t, debian.Machine{Small: true}, "allow_unsigned=1", func(d *device) {
		o := create(t, d, "one")
		for _, after := range []time.Duration{0, 20 * time.Millisecond} {
			ctx, cancel := context.WithTimeout(t.Context(), after)
			began := time.Now()
			err := o.reserve(ctx, 0, 1200<<20)
			cancel()
			t.Logf("after %v: %v, in %v", after, err, time.Since(began))
			if !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("got %v", err)
			}
			if s, err := o.status(); err != nil || s.rangeCount != 0 {
				t.Errorf("%+v, %v", s, err)
			}
		}
		ok(t, "reserve", o.reserve(t.Context(), 0, 1200<<20)) // in two pieces, one range or several
		ok(t, "end", errors.Join(o.end(), o.Close()))
	})
}

// Memory that has holes is taken around them. Sections are of 128 MiB: what is a hole has
// not even descriptions of its pages.
func TestE2EHoles(t *testing.T) {
	inHost(t, debian.Machine{Small: true, CommandLine: "memmap=256M$0x30000000"}, "allow_unsigned=1", func(d *device) {
		o := create(t, d, "one")
		ok(t, "reserve", o.reserve(t.Context(), 0, 1200<<20))
		s, err := o.status()
		ok(t, "status", err)
		var sum uint64
		for _, r := range s.ranges[:s.rangeCount] {
			sum += r.bytes
			t.Logf("%#x-%#x", r.start, r.start+r.bytes)
			if r.start < 0x40000000 && r.start+r.bytes > 0x30000000 {
				t.Error("it is in the hole")
			}
		}
		if sum != 1200<<20 {
			t.Errorf("%d bytes", sum)
		}
		ok(t, "end", errors.Join(o.end(), o.Close()))
	})
}

// A load that never ends does not keep the host from going down.
func TestE2EHostRestarts(t *testing.T) {
	if debian.Inside() {
		loadForever(t)
	}
	module := debian.Module(t)
	g := (&debian.Machine{Small: true}).Boot(t)
	loads := debian.Self(t, 10*time.Minute)
	loads.Args = append([]string{"sh", "-c", `"$@" >/run/log 2>&1 & while ! grep LOADS /run/log; do sleep .1; done`, "sh"}, loads.Args...)
	for _, c := range []debian.Command{{Args: []string{"insmod", module, "allow_unsigned=1"}}, loads} {
		if r := g.Run(t, time.Minute, c); r.Status != 0 {
			t.Fatal(c.Args, r)
		}
	}
	g.Kexec(t)
}

// loadForever loads an image with a statement that lies where nobody answers page faults.
func loadForever(t *testing.T) {
	d, err := openDevice()
	ok(t, "open", err)
	o := create(t, d, "forever")
	ok(t, "reserve", o.reserve(t.Context(), 0, 32<<20))
	_, at := unanswered(t)
	time.AfterFunc(time.Second, func() { fmt.Println("LOADS") })
	_, err = o.call(ioctlLoad, unsafe.Pointer(&loadArg{version: abiVersion, image: int32(flat(t, hang).Fd()), initrd: -1, statement: at, statementSize: 100, possibleCPUs: 1}))
	t.Fatalf("the load ends: %v", err)
}

// unanswered returns the address of a page that nobody answers faults of, until the descriptor is
// closed.
func unanswered(t *testing.T) (fd int, at uint64) {
	page, err := unix.Mmap(-1, 0, os.Getpagesize(), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	ok(t, "mmap", err)
	at = uint64(uintptr(unsafe.Pointer(&page[0])))
	uffd, _, errno := unix.Syscall(unix.SYS_USERFAULTFD, unix.O_CLOEXEC, 0, 0)
	if errno != 0 {
		t.Fatal(errno)
	}
	// UFFDIO_API, and UFFDIO_REGISTER of pages that are missing.
	_, err = call(uffd, 0xc018aa3f, unsafe.Pointer(&[3]uint64{0xaa}))
	ok(t, "userfaultfd", err)
	_, err = call(uffd, 0xc020aa00, unsafe.Pointer(&[4]uint64{at, uint64(len(page)), 1}))
	ok(t, "userfaultfd", err)
	return int(uffd), at
}

// A guest that hangs with interrupts off is ended, and what it had comes back, also while
// the host is busy.
func TestE2EHang(t *testing.T) {
	rounds := 3
	if e2e.Soak() {
		rounds = 100
	}
	inHost(t, debian.Machine{Small: true}, "allow_unsigned=1", func(d *device) {
		load := exec.Command("sh", "-c", "while :; do find /usr/share >/dev/null; done & while :; do :; done")
		load.SysProcAttr = &unix.SysProcAttr{Setpgid: true}
		ok(t, "load", load.Start())
		var longest time.Duration
		for range rounds {
			o := create(t, d, "hang")
			ok(t, "reserve", o.reserve(t.Context(), 0, 256<<20))
			ok(t, "take", errors.Join(o.take(2, false), o.take(3, false)))
			ok(t, "load", o.load(image{kernel: flat(t, hang), possibleCPUs: 2}))
			ok(t, "start", o.start())
			time.Sleep(10 * time.Millisecond)
			began := time.Now()
			ok(t, "end", o.end())
			longest = max(longest, time.Since(began))
			ok(t, "close", o.Close())
		}
		ok(t, "kill", unix.Kill(-load.Process.Pid, unix.SIGKILL))
		_ = load.Wait()
		t.Logf("giving 256 MiB and two CPUs back took up to %v on a busy host", longest)
	})
}

// While a CPU is lent, the host's kernel neither works nor takes interrupts on it, however
// busy its other CPUs are, and with calls to all others of them all the time.
func TestE2EExclusive(t *testing.T) {
	inHost(t, debian.Machine{Small: true}, "allow_unsigned=1", func(d *device) {
		o := create(t, d, "lent")
		ok(t, "reserve", o.reserve(t.Context(), 0, 64<<20))
		ok(t, "load", o.load(image{kernel: flat(t, hang), possibleCPUs: 1}))
		storm := exec.Command(os.Args[0])
		storm.Env = append(os.Environ(), stormEnv+"=1")
		ok(t, "storm", storm.Start())
		time.Sleep(time.Second)
		const lent, other = 2, 3
		before := counters(t)
		ok(t, "take", o.take(lent, false))
		ok(t, "start", o.start())
		time.Sleep(5 * time.Second)
		ok(t, "end", o.end())
		after := counters(t)
		ok(t, "kill", storm.Process.Kill())
		_ = storm.Wait()
		for _, what := range []string{"ticks", "interrupts"} {
			here, there := after[what][lent]-before[what][lent], after[what][other]-before[what][other]
			t.Logf("%s while CPU %d was lent for 5 s, and to be taken and given back: %d, on CPU %d: %d", what, lent, here, other, there)
			if here > there/4 {
				t.Errorf("CPU %d had %d %s, CPU %d %d", lent, here, what, other, there)
			}
		}
		ok(t, "close", o.Close())
	})
}

const stormEnv = "TENON_STORM"

func TestMain(m *testing.M) {
	if os.Getenv(stormEnv) != "" {
		storm()
	}
	e2e.Main(m)
}

// storm keeps all CPUs busy, and has them call each other, until it is killed.
func storm() {
	for range 4 {
		go func() {
			for {
				data, err := unix.Mmap(-1, 0, 1<<16, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
				if err != nil {
					panic(err)
				}
				data[0] = 1
				_ = unix.Munmap(data)
				_, _, _ = unix.Syscall(unix.SYS_MEMBARRIER, 1, 0, 0) // MEMBARRIER_CMD_GLOBAL
			}
		}()
	}
	select {}
}

// counters are the ticks that CPUs worked, and the interrupts that they took, by CPU.
func counters(t *testing.T) map[string]map[int]int {
	t.Helper()
	number := func(text string) int {
		n, err := strconv.Atoi(text)
		ok(t, "number", err)
		return n
	}
	stat, err := os.ReadFile("/proc/stat")
	ok(t, "read", err)
	ticks, taken := map[int]int{}, map[int]int{}
	for _, m := range regexp.MustCompile(`(?m)^cpu(\d+) (\d+) (\d+) (\d+)`).FindAllStringSubmatch(string(stat), -1) {
		ticks[number(m[1])] = number(m[2]) + number(m[3]) + number(m[4])
	}
	text, err := os.ReadFile("/proc/interrupts")
	ok(t, "read", err)
	head, rows, _ := strings.Cut(string(text), "\n")
	for line := range strings.Lines(rows) {
		fields := strings.Fields(line)[1:]
		for i, cpu := range strings.Fields(head) {
			if i < len(fields) && strings.Trim(fields[i], "0123456789") == "" {
				taken[number(strings.TrimPrefix(cpu, "CPU"))] += number(fields[i])
			}
		}
	}
	return map[string]map[int]int{"ticks": ticks, "interrupts": taken}
}

// Random calls break nothing, and leak nothing.
func TestE2EFuzz(t *testing.T) {
	fuzz(t, debian.Machine{Small: true}, debian.Module(t))
}

func fuzz(t *testing.T, m debian.Machine, module string) {
	t.Helper()
	calls := 2000
	if e2e.Soak() {
		calls = 100000
	}
	withModule(t, m, module, "allow_unsigned=1", func(d *device) {
		seed := uint64(time.Now().UnixNano())
		t.Logf("seed %d", seed)
		f := &fuzzer{Rand: rand.New(rand.NewPCG(seed, 0)), d: d, t: t, kernel: flat(t, hang), rubbish: self(t), counts: map[string]int{}}
		for n := range calls {
			f.step(n)
		}
		f.clean()
		t.Logf("%d calls: %v", calls, f.counts)
	})
}

// fuzzer makes calls that are often right in most of what they say.
type fuzzer struct {
	*rand.Rand
	d       *device
	t       *testing.T
	objects []*object
	files   []*os.File // channels
	kernel  *os.File
	rubbish *os.File
	counts  map[string]int // of what was done, by its name and whether it was taken
}

// pick returns one of the usual values, and now and then another one.
func (f *fuzzer) pick(usual ...int64) int64 {
	if f.IntN(8) == 0 {
		return []int64{-1, 0, 1, 1 << 31, 1<<63 - 1, f.Int64()}[f.IntN(6)]
	}
	return usual[f.IntN(len(usual))]
}

func (f *fuzzer) step(n int) {
	name, err := f.call(n)
	if err != nil {
		name += " refused"
	}
	f.counts[name]++
}

func (f *fuzzer) call(n int) (string, error) {
	if len(f.objects) == 0 || f.IntN(20) == 0 {
		o, err := f.d.create(fmt.Sprintf("f%d", f.IntN(4)))
		if err == nil {
			f.objects = append(f.objects, o)
		}
		return "create", err
	}
	at := f.IntN(len(f.objects))
	o := f.objects[at]
	switch f.IntN(60) { // most are cheap: CPUs take long to come and go
	case 0:
		return "reserve", o.reserve(f.t.Context(), int(f.pick(0)), f.pick(2<<20, 32<<20))
	case 1, 2:
		return "take", o.take(int(f.pick(1, 2, 3)), f.IntN(4) == 0)
	case 3:
		return "give", o.give(int(f.pick(1, 2, 3)))
	case 4:
		return "load", o.load(image{kernel: f.kernel, possibleCPUs: int(f.pick(1, 2, 4)), statement: make([]byte, f.IntN(2)*f.IntN(200))})
	case 5:
		return "load rubbish", o.load(image{kernel: f.rubbish, possibleCPUs: int(f.pick(1, 2))})
	case 6:
		return "start", o.start()
	case 7: // all that it takes, where it is not there yet
		if s, err := o.status(); err == nil && s.rangeCount == 0 {
			_ = o.reserve(f.t.Context(), 0, 32<<20)
		}
		_ = o.take(1+f.IntN(3), false)
		_ = o.load(image{kernel: f.kernel, possibleCPUs: 4})
		return "boot", o.start()
	case 8:
		return "stop", o.stop()
	case 9:
		_ = o.stop()
		err := o.destroy()
		if err == nil {
			ok(f.t, "close", o.Close())
			f.objects = append(f.objects[:at], f.objects[at+1:]...)
		}
		return "destroy", err
	case 10:
		file, err := o.channel(int(f.pick(streamConsole, streamControl)))
		if err == nil {
			f.files = append(f.files, file)
		}
		return "channel", err
	case 11:
		return "stream", f.stream()
	case 12:
		other, err := f.d.open(fmt.Sprintf("f%d", f.IntN(5)))
		if err == nil {
			err = other.Close()
		}
		return "open", err
	}
	var arg [4096]byte
	for i := range arg {
		arg[i] = byte(f.Uint32())
	}
	arg[0], arg[1], arg[2], arg[3] = abiVersion, 0, 0, 0
	number := []uint32{ioctlReserve, ioctlTake, ioctlGive, ioctlLoad, ioctlStatus, f.Uint32()}[f.IntN(6)]
	_, err := o.call(number, unsafe.Pointer(&arg))
	return "anything", err
}

// stream reads or writes one, without waiting.
func (f *fuzzer) stream() error {
	if len(f.files) == 0 {
		return nil
	}
	at := f.IntN(len(f.files))
	file := f.files[at]
	if len(f.files) > 10 || f.IntN(10) == 0 { // they keep what their instance said
		f.files = append(f.files[:at], f.files[at+1:]...)
		return file.Close()
	}
	_ = file.SetDeadline(time.Now().Add(time.Millisecond))
	data := make([]byte, f.IntN(1<<17))
	var err error
	if f.IntN(2) == 0 {
		_, err = file.Read(data)
	} else {
		_, err = file.Write(data)
	}
	return err
}

func (f *fuzzer) clean() {
	for _, file := range f.files {
		ok(f.t, "close", file.Close())
	}
	for _, o := range f.objects {
		ok(f.t, "end", errors.Join(o.end(), o.Close()))
	}
}
