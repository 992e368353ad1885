// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tenon-build/tenon/loader/alloc"
	"github.com/tenon-build/tenon/loader/instance"
	"github.com/tenon-build/tenon/testdata/debian"
)

// These tests use mortise in a Debian guest, where virtual machines run under a KVM
// that QEMU emulates.

// bundleEnv names the bundle in the guest, which does not build it again.
const bundleEnv = "TENON_TEST_BUNDLE"

// onHost runs a test on a host that has eight cores on two nodes.
func onHost(t *testing.T, f func(h *mortiseHost)) {
	t.Helper()
	if os.Getenv(bundleEnv) == "" {
		t.Setenv(bundleEnv, probeBundle(t))
	}
	debian.In(t, debian.Machine{CPU: "max", MiB: 3072}, func() {
		if out, err := exec.Command("modprobe", "kvm_amd").CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		if err := os.MkdirAll("/etc/mortise", 0o755); err != nil {
			t.Fatal(err)
		}
		writeFile(t, "/etc/mortise/mortise.toml", []byte("version = 1\n[qemu]\naccel = \"kvm\"\n"))
		h := &mortiseHost{T: t, dir: t.TempDir()}
		h.before = h.state()
		f(h)
	})
}

// mortiseHost is this machine, which is the guest.
type mortiseHost struct {
	*testing.T
	dir    string
	before []string
}

func (h *mortiseHost) mortise(args ...string) outcome {
	h.Helper()
	return execute(exec.CommandContext(h.Context(), filepath.Join(required(h.T, "TENON_BIN"), "mortise"), args...))
}

func (h *mortiseHost) good(args ...string) string {
	h.Helper()
	o := h.mortise(args...)
	if o.code != 0 {
		h.Fatalf("mortise %q: %s", args, o)
	}
	return o.stdout
}

// start starts an instance in the background, whose app does what PROBE says.
func (h *mortiseHost) start(name, probe string, args ...string) outcome {
	h.Helper()
	return h.mortise(append(append([]string{"run", "--detach", "--allow-unsigned", "--name", name, "-e", "PROBE=" + probe}, args...), os.Getenv(bundleEnv))...)
}

func (h *mortiseHost) record(name string) *instance.Record {
	h.Helper()
	var records []*instance.Record
	if err := json.Unmarshal([]byte(h.good("inspect", name)), &records); err != nil || len(records) != 1 {
		h.Fatalf("%v, %v", err, records)
	}
	return records[0]
}

// await waits until an instance has printed something.
func (h *mortiseHost) await(name, what string) {
	h.Helper()
	h.eventually(name+" does not print "+what, func() bool { return strings.Contains(h.good("logs", name), what) })
}

func (h *mortiseHost) eventually(what string, is func() bool) {
	h.Helper()
	for deadline := time.Now().Add(2 * time.Minute); !is(); time.Sleep(100 * time.Millisecond) {
		if time.Now().After(deadline) {
			h.Fatalf("%s; %s", what, h.good("ps"))
		}
	}
}

// state is all that has to be as it was: control groups, interrupts, processes.
func (h *mortiseHost) state() (out []string) {
	h.Helper()
	add := func(pattern string) {
		for _, file := range must(filepath.Glob(pattern)) {
			data, _ := os.ReadFile(file) // a group's file may not be there
			out = append(out, file+": "+string(data))
		}
	}
	add("/sys/fs/cgroup/cgroup.subtree_control")
	add("/sys/fs/cgroup/*/cgroup.procs")
	add("/sys/fs/cgroup/cpuset.cpus.effective")
	add("/proc/irq/*/smp_affinity_list")
	add("/proc/irq/default_smp_affinity")
	for _, exe := range must(filepath.Glob("/proc/[0-9]*/exe")) {
		if program, err := os.Readlink(exe); err == nil && (strings.Contains(program, "qemu") || strings.Contains(program, "mortise")) {
			out = append(out, "process "+program)
		}
	}
	return out
}

// untouched says that the host is as it was, and that nothing of an instance is left.
func (h *mortiseHost) untouched(when string) {
	h.Helper()
	if now := h.state(); !slices.Equal(now, h.before) {
		h.Errorf("%s, the host is not as it was:\n%q\n%q", when, h.before, now)
	}
	if left := must(filepath.Glob("/run/mortise/[^.]*")); len(left) > 0 {
		h.Errorf("%s, there is %q", when, left)
	}
}

// qemu returns the process of an instance's machine.
func (h *mortiseHost) qemu(name string) int {
	h.Helper()
	procs := string(must(os.ReadFile("/sys/fs/cgroup/mortise-" + name + "/cgroup.procs")))
	for _, pid := range strings.Fields(procs) { // one of KVM's own threads may be there, too
		if exe, err := os.Readlink("/proc/" + pid + "/exe"); err == nil && strings.Contains(exe, "qemu") {
			return must(strconv.Atoi(pid))
		}
	}
	h.Fatalf("the control group of %q: %q", name, procs)
	return 0
}

var vcpuRE = regexp.MustCompile(`^CPU (\d+)/`)

// pins returns where each virtual CPU of an instance may run, by number, and checks that
// nothing of its machine may run on what is not its.
func (h *mortiseHost) pins(name string) (out []string) {
	h.Helper()
	own := must(alloc.ParseCPUs(h.record(name).Held.CPUs))
	for _, file := range must(filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", h.qemu(name)))) {
		text := string(must(os.ReadFile(file)))
		field := func(name string) string {
			_, rest, _ := strings.Cut("\n"+text, "\n"+name+":")
			value, _, _ := strings.Cut(rest, "\n")
			return strings.TrimSpace(value)
		}
		allowed := field("Cpus_allowed_list")
		if other := must(alloc.ParseCPUs(allowed)).Minus(own); len(other) > 0 {
			h.Errorf("%s: thread %q of %q may run on %s", file, field("Name"), name, allowed)
		}
		if m := vcpuRE.FindStringSubmatch(field("Name")); m != nil {
			out = append(out, m[1]+" on "+allowed)
		}
	}
	slices.Sort(out)
	return out
}

// As many instances as fit, each on its own cores; the next one is refused. They grow and
// shrink, end in every way, and leave nothing.
func TestE2EMortise(t *testing.T) {
	onHost(t, func(h *mortiseHost) {
		h.Log(h.good("info"))
		var names []string
		var last outcome
		for i := range 9 {
			name := fmt.Sprint("web", i)
			if last = h.start(name, "wait", "--cpus", "2"); last.code != 0 {
				break
			}
			names = append(names, name)
		}
		if len(names) != 3 || last.code != 4 || !strings.Contains(last.stderr, `mortise: error: planning "web3": 2 CPUs in whole cores are needed, 1 of 8 are free: `) || !strings.Contains(last.stderr, `held by "web0"`) {
			h.Fatalf("%q, then %s", names, last)
		}
		h.Log(last.stderr)
		var all alloc.CPUSet
		for _, name := range names {
			cpus := must(alloc.ParseCPUs(h.record(name).Held.CPUs))
			if len(cpus) != 2 || len(all.And(cpus)) > 0 {
				h.Errorf("%q holds %s, others %s", name, cpus, all)
			}
			all = all.Union(cpus)
			if got, want := h.pins(name), []string{fmt.Sprintf("0 on %d", cpus[0]), fmt.Sprintf("1 on %d", cpus[1])}; !slices.Equal(got, want) {
				h.Errorf("%q: %q, not %q", name, got, want)
			}
			group := "/sys/fs/cgroup/mortise-" + name
			if kind := string(must(os.ReadFile(group + "/cpuset.cpus.partition"))); kind != "isolated\n" {
				h.Errorf("%s is %q", group, kind)
			}
		}
		if host := strings.TrimSpace(string(must(os.ReadFile("/sys/fs/cgroup/cpuset.cpus.effective")))); len(must(alloc.ParseCPUs(host)).And(all)) > 0 {
			h.Errorf("the host has %s, the instances %s", host, all)
		}
		for _, name := range names {
			h.await(name, "WAITING")
		}

		// One gives up a CPU, so that another one can be had, and wants it back.
		resize := func(cpus string, code int, pinned int) {
			h.Helper()
			if o := h.mortise("resize", "--cpus", cpus, names[1]); o.code != code {
				h.Error(o)
			}
			got := h.pins(names[1])
			for _, pin := range got[:pinned] {
				if strings.ContainsAny(strings.Fields(pin)[2], "-,") {
					h.Errorf("%q", got)
				}
			}
			if held := must(alloc.ParseCPUs(h.record(names[1]).Held.CPUs)); len(held) != pinned {
				h.Errorf("%s held", held)
			}
		}
		resize("1", 0, 1)
		if o := h.start("other", "wait", "--cpus", "2"); o.code != 0 {
			h.Error(o)
		}
		resize("2", 4, 1)
		h.good("rm", "--force", "other")
		resize("2", 0, 2)
		resize("3", 1, 2)

		// systemd takes the controller away from those that it does not know.
		if err := os.WriteFile("/sys/fs/cgroup/cgroup.subtree_control", []byte("-cpuset"), 0); err != nil {
			h.Error(err)
		}
		for _, name := range names {
			h.eventually(name+" does not get its CPUs back", func() bool {
				kind, _ := os.ReadFile("/sys/fs/cgroup/mortise-" + name + "/cpuset.cpus.partition")
				return string(kind) == "isolated\n"
			})
		}
		time.Sleep(time.Second)
		for _, name := range names {
			for _, pin := range h.pins(name) {
				if strings.ContainsAny(strings.Fields(pin)[2], "-,") {
					h.Error(pin)
				}
			}
		}

		for _, name := range names {
			h.good("stop", name)
			if r := h.record(name); r.State != instance.Stopped || r.Exit == nil || r.Exit.Code != 7 {
				h.Errorf("%+v", r)
			}
		}
		h.good(append([]string{"rm"}, names...)...)
		h.untouched("after stop")
	})
}

// Whatever dies first: the machine, the kernel in it, the supervisor, at any moment.
func TestE2EMortiseDies(t *testing.T) {
	onHost(t, func(h *mortiseHost) {
		for _, test := range []struct {
			name, probe string
			args        []string
			kill        func()
			reason      string
		}{
			{"supervisor", "wait", nil, func() { _ = unix.Kill(h.record("x").Supervisor.PID, unix.SIGKILL) }, "its supervisor, process "},
			{"machine", "wait", nil, func() { _ = unix.Kill(h.qemu("x"), unix.SIGKILL) }, "QEMU failed: signal: killed"},
			{"hang", "wait", []string{"--hang-timeout", "15s"}, func() { _ = unix.Kill(h.qemu("x"), unix.SIGSTOP) }, "nothing was heard of it for 15s"},
			{"kernel", "panic", nil, func() {}, "the kernel ended without an exit status"},
		} {
			if o := h.start("x", test.probe, test.args...); o.code != 0 {
				h.Fatal(test.name, o)
			}
			if test.probe == "wait" {
				h.await("x", "WAITING")
			}
			machine := h.qemu("x")
			test.kill()
			h.eventually(test.name+" does not fail", func() bool { return h.record("x").State == instance.Failed })
			if r := h.record("x"); !strings.HasPrefix(r.Reason, test.reason) || !r.Held.Empty() {
				h.Errorf("%s: %q, %+v", test.name, r.Reason, r.Held)
			}
			if _, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", machine)); err == nil { // a zombie has none
				h.Errorf("%s: QEMU is still there", test.name)
			}
			h.good("rm", "x")
			h.untouched(test.name)
		}

		// The supervisor, after any time.
		rounds := 20
		if soak() {
			rounds = 200
		}
		states := map[instance.State]int{}
		for i := range rounds {
			cmd := exec.Command(filepath.Join(required(h.T, "TENON_BIN"), "mortise"), "run", "--allow-unsigned", "--name", "x", "-e", "PROBE=wait", os.Getenv(bundleEnv))
			if err := cmd.Start(); err != nil {
				h.Fatal(err)
			}
			time.Sleep(time.Duration(i) * 1500 * time.Millisecond / time.Duration(rounds))
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
			h.good("gc")
			if o := h.mortise("inspect", "x"); o.code == 0 {
				states[h.record("x").State]++
				h.good("rm", "x")
			}
			h.untouched(fmt.Sprint("round ", i))
		}
		h.Logf("killed %d times; of what there was: %v", rounds, states)
	})
}

// Cycles leave nothing behind: no process, control group, file, or memory.
func TestE2EMortiseCycles(t *testing.T) {
	onHost(t, func(h *mortiseHost) {
		cycles := 4
		if soak() {
			cycles = 100
		}
		if err := os.Mkdir("/run/mortise", 0o700); err != nil {
			h.Fatal(err)
		}
		var memory []int
		for i := range cycles {
			if o := h.start("x", "wait", "--rm"); o.code != 0 {
				h.Fatal(o)
			}
			h.await("x", "WAITING")
			h.good("stop", "x")
			h.eventually("it is still there", func() bool { return h.mortise("inspect", "x").code == 1 })
			h.untouched(fmt.Sprint("cycle ", i))
			memory = append(memory, available())
		}
		// The first one loads programs and modules.
		if lost := memory[1] - memory[len(memory)-1]; lost > 32<<10 {
			h.Errorf("%d KiB of memory are gone: %v", lost, memory)
		}
		h.Logf("%d cycles; available memory, in KiB: %v", cycles, memory)
	})
}

// available is what /proc/meminfo says, in KiB, without caches.
func available() int {
	_ = os.WriteFile("/proc/sys/vm/drop_caches", []byte("3"), 0)
	text := string(must(os.ReadFile("/proc/meminfo")))
	_, rest, _ := strings.Cut(text, "MemFree:")
	return must(strconv.Atoi(strings.Fields(rest)[0]))
}

// What goes wrong with files: /run is full, a policy cannot be read, the console of an
// instance goes on without room.
func TestE2EMortiseFiles(t *testing.T) {
	onHost(t, func(h *mortiseHost) {
		full := h.dir + "/full"
		if err := os.Mkdir(full, 0o700); err != nil {
			h.Fatal(err)
		}
		if err := unix.Mount("tmpfs", full, "tmpfs", 0, "size=64k,mode=700"); err != nil {
			h.Fatal(err)
		}
		defer func() { _ = unix.Unmount(full, unix.MNT_DETACH) }()
		fill := func() {
			f := must(os.OpenFile(full+"/.fill", os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600))
			defer f.Close()
			for {
				if _, err := f.Write(make([]byte, 4096)); err != nil {
					return
				}
			}
		}
		fill()
		if o := h.start("x", "wait", "--root", full); o.code != 1 || !strings.Contains(o.stderr, "no space left on device") || !strings.Contains(o.stderr, "hint: make room where --root is") {
			h.Error(o)
		}
		h.untouched("with a full disk")
		if left := must(filepath.Glob(full + "/[^.]*")); len(left) > 0 {
			h.Errorf("%q", left)
		}

		// It fills up while an instance runs.
		if err := os.Remove(full + "/.fill"); err != nil {
			h.Fatal(err)
		}
		if o := h.start("x", "wait", "--root", full); o.code != 0 {
			h.Fatal(o)
		}
		fill()
		h.eventually("it does not end", func() bool {
			_ = h.mortise("--root", full, "kill", "x")
			return len(must(filepath.Glob("/sys/fs/cgroup/mortise-x"))) == 0
		})
		if err := os.Remove(full + "/.fill"); err != nil {
			h.Fatal(err)
		}
		h.good("--root", full, "rm", "x")
		h.untouched("with a disk that filled up")

		policy := writeFile(h.T, h.dir+"/policy.toml", []byte("version = 1\n"))
		if err := os.Chmod(policy, 0o000); err != nil {
			h.Fatal(err)
		}
		nobody := exec.CommandContext(h.Context(), filepath.Join(required(h.T, "TENON_BIN"), "mortise"), "plan", "--policy", policy, os.Getenv(bundleEnv))
		nobody.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		if err := os.Chmod(h.dir, 0o755); err != nil {
			h.Fatal(err)
		}
		if o := execute(nobody); o.code != 1 || !strings.Contains(o.stderr, "permission denied") || !strings.Contains(o.stderr, "hint: mortise runs as root") {
			h.Error(o)
		}
	})
}
