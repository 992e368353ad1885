// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tenon-build/tenon/builder/bundle/manifest"
	"github.com/tenon-build/tenon/loader/instance"
	"github.com/tenon-build/tenon/testdata/debian"
	"github.com/tenon-build/tenon/testdata/e2e"
	"github.com/tenon-build/tenon/testdata/flat"
	"github.com/tenon-build/tenon/testdata/testbundle"
)

// These tests run kernels beside Debian's, which is a guest of QEMU.

// besideHost is a host that can do so. Its heart beats all the time.
type besideHost struct {
	*mortiseHost
	before  string
	longest time.Duration // between two beats of its heart
}

// beside does a test on a Debian host with mortise.ko.
func beside(t *testing.T, m debian.Machine, f func(h *besideHost)) {
	t.Helper()
	module := debian.Module(t)
	if os.Getenv(bundleEnv) == "" {
		t.Setenv(bundleEnv, e2e.CokernelProbe(t))
	}
	m.In(t, func() {
		if o := e2e.Execute(exec.Command("insmod", module, "allow_unsigned=1")); o.Code != 0 {
			t.Fatal(o)
		}
		h := &besideHost{mortiseHost: newMortiseHost(t, os.Getenv(bundleEnv), true)}
		h.before = h.cpus()
		stop := h.beatHeart()
		f(h)
		stop()
		t.Logf("the longest gap between two heartbeats of the host: %v", h.longest)
		h.unchanged("in the end")
		if o := e2e.Execute(exec.Command("rmmod", "mortise")); o.Code != 0 {
			t.Error(o)
		}
		for _, line := range complaint.FindAllString(e2e.Execute(exec.Command("dmesg")).Stdout, -1) {
			t.Errorf("the host's kernel: %s", line)
		}
	})
}

// complaint is how a kernel says that something is wrong with it.
var complaint = regexp.MustCompile(`(?m)^.*(BUG|WARNING|Oops|general protection|detected stall|INFO: task|Call Trace|No irq handler).*$`)

// beatHeart notes the longest time that a thread of the host did not run for.
func (h *besideHost) beatHeart() (stop func()) {
	done, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		last := time.Now()
		for tick := time.NewTicker(10 * time.Millisecond); ; {
			select {
			case <-done:
				return
			case <-tick.C:
			}
			now := time.Now()
			h.longest = max(h.longest, now.Sub(last))
			last = now
		}
	}()
	return func() { close(done); <-stopped }
}

func (h *besideHost) cpus() string {
	var out []string
	for _, name := range []string{"online", "present", "offline"} {
		out = append(out, name+" "+strings.TrimSpace(string(e2e.Must(os.ReadFile("/sys/devices/system/cpu/"+name)))))
	}
	return strings.Join(out, ", ")
}

// unchanged says that nothing of an instance is left.
func (h *besideHost) unchanged(when string) {
	h.Helper()
	if now := h.cpus(); now != h.before {
		h.Errorf("%s, the host has %s, and had %s", when, now, h.before)
	}
	h.untouched(when)
}

// reason is why an instance has failed.
func (h *besideHost) reason(name string) string {
	h.Helper()
	h.eventually(name+" does not fail", func() bool { return h.record(name).State == instance.Failed })
	r := h.record(name)
	if !r.Held.Empty() {
		h.Errorf("%s holds %+v", name, r.Held)
	}
	return r.Reason
}

// beats are the lines of an instance that computes.
func (h *besideHost) beats(name string) []string {
	h.Helper()
	return regexp.MustCompile(`(?m)^BEAT.*$`).FindAllString(strings.ReplaceAll(h.good("logs", name), "\r", ""), -1)
}

// Two kernels beside the host, all three at work. Nothing that the host does reaches the
// CPUs that it has lent, and what guests do does not reach its memory.
func TestE2ECokernel(t *testing.T) {
	beside(t, debian.Machine{Small: true}, func(h *besideHost) {
		h.Log(h.good("info"))
		for _, name := range []string{"one", "two"} {
			if o := h.start(name, "beat", "--backend", "cokernel", "--memory", "64MiB"); o.Code != 0 {
				h.Fatal(o, e2e.Execute(exec.Command("dmesg")))
			}
		}
		if o := h.start("three", "beat"); o.Code != 0 {
			h.Fatal(o)
		}
		if o := h.start("four", "beat"); o.Code != 4 {
			h.Error(o)
		}
		h.good("kill", "three")
		h.good("rm", "three")

		// The host's own work: memory with a pattern, and calls to all CPUs all the time.
		check := h.fill()
		storm := h.storm()
		one := len(h.beats("one"))
		two := len(h.beats("two"))
		time.Sleep(5 * time.Second)
		beats := h.beats("one")
		if len(beats) < one+10 || len(h.beats("two")) < two+10 {
			h.Errorf("they do not compute: %d and %d beats, then %d and %d", one, two, len(beats), len(h.beats("two")))
		}
		h.eventually("one is not healthy", func() bool { r := h.record("one"); return r.Health != nil && r.Health.Status == "healthy" })
		h.Log(h.good("ps"))
		last := beats[len(beats)-1]
		h.Logf("in one: %s; the host sent %d function calls meanwhile", last, storm())
		if !regexp.MustCompile(`^BEAT \d+ 1 (\w+=0 ?)+$`).MatchString(last) {
			h.Errorf("interrupts that others sent have come: %s", last)
		}
		for _, name := range []string{"one", "two"} {
			h.good("kill", name)
		}
		h.good("rm", "one", "two")
		check()
	})
}

// fill fills most of the free memory with a pattern. The function that it returns checks it.
func (h *besideHost) fill() (check func()) {
	h.Helper()
	size := available() << 10 / 10 * 8
	data := e2e.Must(unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_POPULATE))
	page := bytes.Repeat([]byte("of the host's memory, "), 1+os.Getpagesize()/20)[:os.Getpagesize()]
	stamp := func(n int) []byte {
		binary.LittleEndian.PutUint64(page, uint64(n))
		return page
	}
	for n := 0; n < size/len(page); n++ {
		copy(data[n*len(page):], stamp(n))
	}
	h.Logf("%d MiB of the host's memory have a pattern", size>>20)
	return func() {
		h.Helper()
		for n := 0; n < size/len(page); n++ {
			if !bytes.Equal(data[n*len(page):][:len(page)], stamp(n)) {
				h.Fatalf("page %d of the host's memory was written to", n)
			}
		}
		if err := unix.Munmap(data); err != nil {
			h.Error(err)
		}
	}
}

// storm has the host's CPUs call each other all the time, by flushes of address spaces that
// several threads use. The function that it returns ends that, and says how often.
func (h *besideHost) storm() (end func() int) {
	ctx, cancel := context.WithCancel(h.Context())
	calls := func() (n int) {
		for _, m := range regexp.MustCompile(`(?m)^ *(TLB|CAL):([ \d]+)`).FindAllStringSubmatch(string(e2e.Must(os.ReadFile("/proc/interrupts"))), -1) {
			for _, f := range strings.Fields(m[2]) {
				n += e2e.Must(strconv.Atoi(f))
			}
		}
		return n
	}
	before := calls()
	var threads sync.WaitGroup
	for range 3 {
		threads.Go(func() {
			for ctx.Err() == nil {
				data := e2e.Must(unix.Mmap(-1, 0, 1<<16, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS))
				data[0] = 1
				_ = unix.Munmap(data)
				_, _, _ = unix.Syscall(unix.SYS_MEMBARRIER, 1, 0, 0) // MEMBARRIER_CMD_GLOBAL
			}
		})
	}
	return func() int {
		cancel()
		threads.Wait()
		return calls() - before
	}
}

// Guests end in every way, and so does mortise; each time all comes back, and the next
// one boots.
func TestE2ECokernelDies(t *testing.T) {
	rounds := 1
	if e2e.Soak() {
		rounds = 20
	}
	beside(t, debian.Machine{Small: true}, func(h *besideHost) {
		free := h.free()
		load := exec.Command("sh", "-c", "while :; do find /usr/share >/dev/null; done & while :; do :; done")
		load.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		if err := load.Start(); err != nil {
			h.Fatal(err)
		}
		run := func(probe string, args ...string) {
			h.Helper()
			if o := h.start("x", probe, append([]string{"--cpus", "2", "--memory", "64MiB"}, args...)...); o.Code != 0 {
				h.Fatal(o, e2e.Execute(exec.Command("dmesg")))
			}
		}
		gone := func(when string) {
			h.Helper()
			h.good("rm", "x")
			h.unchanged(when)
		}
		for round := range rounds {
			when := func(what string) string { return fmt.Sprintf("%s, round %d", what, round) }
			run("panic")
			if r := h.reason("x"); r != "its kernel panicked" {
				h.Error(r)
			}
			gone(when("panic"))

			run("restart")
			if r := h.reason("x"); !strings.HasPrefix(r, "its kernel restarted") {
				h.Error(r)
			}
			gone(when("restart"))

			hung := []string{"run", "--detach", "--allow-unsigned", "--name", "x", "--hang-timeout", "3s", flatBundle(h.T, flat.Hang)}
			if o := h.mortise(hung...); o.Code != 0 {
				h.Fatal(o)
			}
			if r := h.reason("x"); !strings.HasPrefix(r, "nothing was heard of it") {
				h.Error(r)
			}
			gone(when("hang"))

			run("exit:3")
			h.eventually("x does not end", func() bool { return h.record("x").State == instance.Stopped })
			if r := h.record("x"); r.Exit == nil || r.Exit.Code != 3 {
				h.Errorf("%+v", r)
			}
			gone(when("exit"))

			// While it boots.
			run("wait")
			time.Sleep(rand.N(500 * time.Millisecond))
			h.good("kill", "x")
			gone(when("kill"))

			// Its supervisor, when it is up: the next one goes on.
			run("wait")
			h.await("x", "WAITING")
			supervisor := h.record("x").Supervisor.PID
			_ = unix.Kill(supervisor, unix.SIGKILL)
			h.gone(supervisor)
			if ps := h.good("ps"); !strings.Contains(ps, "unattended") {
				h.Error(ps)
			}
			if o := e2e.Execute(exec.Command("rmmod", "mortise")); o.Code == 0 {
				h.Fatal("the module is gone")
			}
			h.good("start", "x")
			if o := h.mortise("stop", "x"); o.Code != 0 {
				h.Error(o)
			}
			if r := h.record("x"); r.State != instance.Stopped || r.Exit == nil || r.Exit.Code != 7 || r.Starts != 1 {
				h.Errorf("%+v", r)
			}
			gone(when("supervisor"))

			// Nobody goes on: it is ended.
			run("wait")
			h.await("x", "WAITING")
			_ = unix.Kill(h.record("x").Supervisor.PID, unix.SIGKILL)
			h.good("rm", "-f", "x")
			h.unchanged(when("rm"))

			// Who does not know it, as when what was noted is lost, ends it by its ID.
			run("wait")
			h.await("x", "WAITING")
			id, elsewhere := h.record("x").ID, h.TempDir()+"/mortise"
			if o := h.mortise("gc"); o.Code != 0 || o.Stderr != "" {
				h.Error(o)
			}
			if o := h.mortise("gc", "--root", elsewhere); o.Code != 0 || !strings.Contains(o.Stderr, id) {
				h.Error(o)
			}
			h.good("rm", "-f", "--root", elsewhere, id)
			if r := h.reason("x"); r != "it was ended by somebody else" {
				h.Error(r)
			}
			gone(when("rm ID"))
		}
		// At any point of a start.
		for i := range rounds * 5 {
			cmd := h.command("run", "--allow-unsigned", "--name", "x", "--memory", "64MiB", "-e", "PROBE=wait", h.bundle)
			if err := cmd.Start(); err != nil {
				h.Fatal(err)
			}
			time.Sleep(rand.N(1500 * time.Millisecond))
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
			_ = h.mortise("rm", "-f", "x")
			h.unchanged(fmt.Sprint("killed ", i))
		}
		_ = unix.Kill(-load.Process.Pid, unix.SIGKILL)
		_ = load.Wait()
		// One instance had 64 MiB. What the load has used may stay in use.
		if now := h.free(); free-now > 60<<10 {
			h.Errorf("the host has %d KiB of memory, and had %d", now, free)
		} else {
			h.Logf("the host has %d KiB of memory, and had %d", now, free)
		}
	})
}

// free is how much memory the host can use, in KiB, when its caches are empty.
func (h *besideHost) free() int {
	h.Helper()
	if err := os.WriteFile("/proc/sys/vm/drop_caches", []byte("3"), 0); err != nil {
		h.Error(err)
	}
	return available()
}

// flatBundle is a bundle of bare code.
func flatBundle(t *testing.T, code []byte) string {
	t.Helper()
	path, _, err := testbundle.Write(t.Context(), t.TempDir(), flat.Kernel(code), "", func(m *manifest.Manifest) {
		m.Target, m.Claims.Devices, m.Parameters = "cokernel", nil, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// When the host's kernel panics, the guest goes on. Only its memory can tell.
func TestE2ECokernelHostPanics(t *testing.T) {
	module, bundle := debian.Module(t), e2e.CokernelProbe(t)
	dir := t.TempDir()
	m := debian.Machine{Small: true, CommandLine: "panic=0", Args: []string{
		"-object", "memory-backend-file,id=ram,size=2048M,share=on,mem-path=" + dir + "/ram", "-machine", "memory-backend=ram",
	}}
	g := m.Boot(t)
	mortise := e2e.Program(t, "mortise")
	for _, args := range [][]string{
		{"insmod", module, "allow_unsigned=1"},
		{mortise, "run", "--detach", "--allow-unsigned", "--memory", "64MiB", "--name", "x", "-e", "PROBE=beat", bundle},
	} {
		if r := g.Run(t, time.Minute, debian.Command{Args: args}); r.Status != 0 {
			t.Fatal(args, r)
		}
	}
	printed := watchRing(t, dir+"/ram")
	g.Kill(t, 10*time.Second, debian.Command{Args: []string{"sh", "-c", "echo c >/proc/sysrq-trigger"}})
	before := printed()
	time.Sleep(5 * time.Second)
	after := printed()
	t.Logf("the host's kernel is dead; in 5 s the guest printed %d bytes", after-before)
	if after-before < 100 {
		t.Error("the guest is dead, too")
	}
}

// The kernel that comes after the host's has the whole machine, whatever guests there were.
func TestE2ECokernelHostRestarts(t *testing.T) {
	module, bundle := debian.Module(t), e2e.CokernelProbe(t)
	mortise := e2e.Program(t, "mortise")
	g := (&debian.Machine{Small: true}).Boot(t)
	run := func(args ...string) string {
		t.Helper()
		r := g.Run(t, time.Minute, debian.Command{Args: args})
		if r.Status != 0 {
			t.Fatal(args, r)
		}
		return r.Output
	}
	for range 2 {
		run("insmod", module, "allow_unsigned=1")
		for _, name := range []string{"one", "two"} {
			run(mortise, "run", "--detach", "--allow-unsigned", "--memory", "64MiB", "--name", name, "-e", "PROBE=beat", bundle)
		}
		if cpus := run("cat", "/sys/devices/system/cpu/online"); cpus == "0-3\n" {
			t.Fatalf("the host still has the CPUs %s", cpus)
		}
		g.Kexec(t)
		if cpus := run("cat", "/sys/devices/system/cpu/online"); cpus != "0-3\n" {
			t.Fatalf("the host has the CPUs %s", cpus)
		}
	}
	if lines := complaint.FindAllString(run("dmesg"), -1); lines != nil {
		t.Errorf("the host's kernel: %q", lines)
	}
}

// watchRing finds a guest's console ring (loader/cokernel/guest/src/zone.h) in a machine's
// memory. The function that it returns says how many bytes were ever written to it.
func watchRing(t *testing.T, path string) (written func() uint32) {
	t.Helper()
	f := e2e.Must(os.Open(path))
	defer f.Close()
	size := e2e.Must(f.Stat()).Size()
	ram := e2e.Must(unix.Mmap(int(f.Fd()), 0, int(size), unix.PROT_READ, unix.MAP_SHARED))
	t.Cleanup(func() { _ = unix.Munmap(ram) })
	const page, ringsAt = 4096, 64
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); {
		for at := 0; at < len(ram); at += page {
			if zone := ram[at:]; string(zone[:8]) == "TENNZONE" && zone[8] == 1 && zone[12] == 1 { // its version, alive
				return func() uint32 { return binary.LittleEndian.Uint32(zone[ringsAt:]) }
			}
		}
	}
	t.Fatal("the machine's memory has no zone")
	return nil
}

// CPUs come and go while the guest runs, also others than before, and the console takes
// what is typed.
func TestE2ECokernelResize(t *testing.T) {
	beside(t, debian.Machine{}, func(h *besideHost) {
		if o := h.start("x", "cpus", "--cpus", "1", "--memory", "64MiB"); o.Code != 0 {
			h.Fatal(o, e2e.Execute(exec.Command("dmesg")))
		}
		h.await("x", "CPUS 1")
		resize := func(n int) {
			h.Helper()
			if o := h.mortise("resize", "--cpus", fmt.Sprint(n), "x"); o.Code != 0 {
				h.Fatal(o, h.good("logs", "x"), e2e.Execute(exec.Command("dmesg")))
			}
			h.eventually("the guest has other CPUs", func() bool {
				seen := regexp.MustCompile(`CPUS \d`).FindAllString(h.good("logs", "x"), -1)
				return len(seen) > 0 && seen[len(seen)-1] == fmt.Sprintf("CPUS %d", n)
			})
			h.Log(n, h.record("x").Held.CPUs, h.cpus())
		}
		for _, n := range []int{3, 2, 4, 1} {
			resize(n)
		}
		// Another one takes what it had: the guest, which can have four, sees a fifth.
		if o := h.start("y", "wait", "--cpus", "2", "--memory", "64MiB"); o.Code != 0 {
			h.Fatal(o)
		}
		resize(3)
		h.good("kill", "x", "y")
		h.good("rm", "x", "y")
	})
}
