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
	"github.com/tenon-build/tenon/testdata/e2e"
)

// These tests use mortise as an operator does: on this machine, where it gets one CPU and
// instances boot in two seconds, and in a Debian guest with more of everything, where QEMU
// runs in QEMU, and only begins to boot.

func TestMain(m *testing.M) { e2e.Main(m) }

// mortiseHost is where mortise runs.
type mortiseHost struct {
	*testing.T
	dir    string
	bundle string
	guest  bool
	before []string
}

func newMortiseHost(t *testing.T, bundle string, guest bool) *mortiseHost {
	t.Helper()
	h := &mortiseHost{T: t, dir: t.TempDir(), bundle: bundle, guest: guest}
	e2e.WriteFile(t, h.dir+"/mortise.toml", []byte("version = 1\n[qemu]\naccel = \"tcg\"\n"))
	h.before = h.state()
	return h
}

// bundleEnv names the bundle in the guest, which does not build it again.
const bundleEnv = "TENON_TEST_BUNDLE"

// inGuest does a test on a host of four cores, of two CPUs each, on two nodes.
func inGuest(t *testing.T, f func(h *mortiseHost)) {
	t.Helper()
	if os.Getenv(bundleEnv) == "" {
		t.Setenv(bundleEnv, e2e.Probe(t))
	}
	debian.In(t, func() { f(newMortiseHost(t, os.Getenv(bundleEnv), true)) })
}

func (h *mortiseHost) command(args ...string) *exec.Cmd {
	h.Helper()
	args = append([]string{"--root", h.dir + "/mortise", "--config", h.dir + "/mortise.toml"}, args...)
	return exec.CommandContext(h.Context(), e2e.Program(h.T, "mortise"), args...)
}

func (h *mortiseHost) mortise(args ...string) e2e.Outcome {
	h.Helper()
	return e2e.Execute(h.command(args...))
}

func (h *mortiseHost) good(args ...string) string {
	h.Helper()
	o := h.mortise(args...)
	if o.Code != 0 {
		h.Fatalf("mortise %q: %s", args, o)
	}
	return o.Stdout
}

// start starts an instance in the background, whose app does what PROBE says.
func (h *mortiseHost) start(name, probe string, args ...string) e2e.Outcome {
	h.Helper()
	return h.mortise(append(append([]string{"run", "--detach", "--allow-unsigned", "--name", name, "-e", "PROBE=" + probe}, args...), h.bundle)...)
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
	for _, pattern := range []string{
		"/sys/fs/cgroup/mortise-*/cgroup.procs", "/sys/fs/cgroup/cpuset/mortise-*/cgroup.procs",
		"/sys/fs/cgroup/cgroup.subtree_control", "/sys/fs/cgroup/cpuset.cpus.effective", "/sys/fs/cgroup/cpuset/cpuset.effective_cpus",
		"/proc/irq/*/smp_affinity_list", "/proc/irq/default_smp_affinity",
	} {
		for _, file := range e2e.Must(filepath.Glob(pattern)) {
			data, _ := os.ReadFile(file) // it may go away
			out = append(out, file+": "+string(data))
		}
	}
	for _, file := range e2e.Must(filepath.Glob("/proc/[0-9]*/cmdline")) {
		line, _ := os.ReadFile(file)
		program, _, _ := strings.Cut(string(line), "\x00")
		if strings.HasSuffix(program, "/mortise") && strings.Contains(string(line), h.dir) || h.guest && strings.Contains(program, "qemu") {
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
	if left := e2e.Must(filepath.Glob(h.dir + "/mortise/[^.]*")); len(left) > 0 {
		h.Errorf("%s, there is %q", when, left)
	}
}

// groups are an instance's control groups, with either version.
func groups(name string) []string {
	return append(e2e.Must(filepath.Glob("/sys/fs/cgroup/mortise-"+name)), e2e.Must(filepath.Glob("/sys/fs/cgroup/cpuset/mortise-"+name))...)
}

// group is an instance's control group.
func (h *mortiseHost) group(name string) string {
	h.Helper()
	found := groups(name)
	if len(found) != 1 {
		h.Fatalf("the control group of %q: %q", name, found)
	}
	return found[0]
}

// qemu returns the process of an instance's machine.
func (h *mortiseHost) qemu(name string) int {
	h.Helper()
	return e2e.Must(strconv.Atoi(strings.TrimSpace(string(e2e.Must(os.ReadFile(h.group(name) + "/cgroup.procs"))))))
}

// gone waits until a process is gone. A zombie is.
func (h *mortiseHost) gone(pid int) {
	h.Helper()
	h.eventually(fmt.Sprintf("process %d is still there", pid), func() bool {
		_, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
		return err != nil
	})
}

var vcpuRE = regexp.MustCompile(`^CPU (\d+)/`)

// pins returns where each virtual CPU of an instance may run, by number, and checks that
// nothing of its machine may run on what is not its.
func (h *mortiseHost) pins(name string) (out []string) {
	h.Helper()
	own := e2e.Must(alloc.ParseCPUs(h.record(name).Held.CPUs))
	for _, file := range e2e.Must(filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", h.qemu(name)))) {
		text := string(e2e.Must(os.ReadFile(file)))
		field := func(name string) string {
			_, rest, _ := strings.Cut("\n"+text, "\n"+name+":")
			value, _, _ := strings.Cut(rest, "\n")
			return strings.TrimSpace(value)
		}
		allowed := field("Cpus_allowed_list")
		if other := e2e.Must(alloc.ParseCPUs(allowed)).Minus(own); len(other) > 0 {
			h.Errorf("%s: thread %q of %q may run on %s", file, field("Name"), name, allowed)
		}
		if m := vcpuRE.FindStringSubmatch(field("Name")); m != nil {
			out = append(out, m[1]+" on "+allowed)
		}
	}
	slices.Sort(out)
	return out
}

// As many instances as fit, each on its own cores; the next one is refused. Whoever takes
// a partition away does not have it for long, and in the end all is as before.
func TestE2EMortiseFits(t *testing.T) {
	inGuest(t, func(h *mortiseHost) {
		h.Log(h.good("info"))
		var names []string
		var last e2e.Outcome
		for i := range 9 {
			name := fmt.Sprint("web", i)
			if last = h.start(name, "wait"); last.Code != 0 {
				break
			}
			names = append(names, name)
		}
		if len(names) != 3 || last.Code != 4 || !strings.Contains(last.Stderr, `mortise: error: planning "web3": 1 CPUs in whole cores are needed, 0 of 8 are free: `) || !strings.Contains(last.Stderr, `held by "web0"`) {
			h.Fatalf("%q, then %s", names, last)
		}
		h.Log(last.Stderr)
		var all alloc.CPUSet
		pinned := func(name string) {
			h.Helper()
			cpus := e2e.Must(alloc.ParseCPUs(h.record(name).Held.CPUs))
			h.eventually(fmt.Sprintf("%q is not pinned to the first of %s", name, cpus), func() bool {
				return slices.Equal(h.pins(name), []string{fmt.Sprintf("0 on %d", cpus[0])})
			})
		}
		for _, name := range names {
			cpus := e2e.Must(alloc.ParseCPUs(h.record(name).Held.CPUs))
			if len(cpus) != 2 || len(all.And(cpus)) > 0 { // one, and its idle sibling
				h.Errorf("%q holds %s, others %s", name, cpus, all)
			}
			all = all.Union(cpus)
			pinned(name)
			if kind := string(e2e.Must(os.ReadFile(h.group(name) + "/cpuset.cpus.partition"))); kind != "isolated\n" {
				h.Errorf("%q is %q", name, kind)
			}
		}
		if host := strings.TrimSpace(string(e2e.Must(os.ReadFile("/sys/fs/cgroup/cpuset.cpus.effective")))); len(e2e.Must(alloc.ParseCPUs(host)).And(all)) > 0 {
			h.Errorf("the host has %s, the instances %s", host, all)
		}

		// systemd takes the controller away from those that it does not know.
		if err := os.WriteFile("/sys/fs/cgroup/cgroup.subtree_control", []byte("-cpuset"), 0); err != nil {
			h.Error(err)
		}
		for _, name := range names {
			h.eventually(name+" does not get its CPUs back", func() bool {
				kind, _ := os.ReadFile(h.group(name) + "/cpuset.cpus.partition")
				return string(kind) == "isolated\n"
			})
			pinned(name)
		}

		h.good("kill", names[0])
		if o := h.start("web3", "wait", "--rm"); o.Code != 0 { // now there is room
			h.Error(o)
		}
		h.good("kill", names[1], names[2], "web3")
		for _, name := range names {
			if r := h.record(name); r.State != instance.Stopped || r.Exit == nil || r.Exit.Signal != 9 {
				h.Errorf("%+v", r)
			}
		}
		h.good(append([]string{"rm"}, names...)...)
		h.eventually("web3 is not removed", func() bool { return !strings.Contains(h.good("ps"), "web3") })
		h.untouched("after kill")
	})
}

// Whatever dies first: the machine, the kernel in it, the supervisor, at any moment.
func TestE2EMortiseDies(t *testing.T) {
	h := newMortiseHost(t, e2e.Probe(t), false)
	for _, test := range []struct {
		name, probe string
		args        []string
		kill        func()
		reason      string
	}{
		{"supervisor", "wait", nil, func() { _ = unix.Kill(h.record("x").Supervisor.PID, unix.SIGKILL) }, "its supervisor, process "},
		{"machine", "wait", nil, func() { _ = unix.Kill(h.qemu("x"), unix.SIGKILL) }, "QEMU failed: signal: killed"},
		{"hang", "wait", []string{"--hang-timeout", "12s"}, func() { _ = unix.Kill(h.qemu("x"), unix.SIGSTOP) }, "nothing was heard of it for 12s"},
		{"kernel", "panic", nil, func() {}, "the kernel ended without an exit status"},
	} {
		if o := h.start("x", test.probe, test.args...); o.Code != 0 {
			h.Fatal(test.name, o)
		}
		machine := h.qemu("x")
		if test.probe == "wait" {
			h.await("x", "WAITING")
		}
		test.kill()
		h.eventually(test.name+" does not fail", func() bool { return h.record("x").State == instance.Failed })
		if r := h.record("x"); !strings.HasPrefix(r.Reason, test.reason) || !r.Held.Empty() {
			h.Errorf("%s: %q, %+v", test.name, r.Reason, r.Held)
		}
		h.gone(machine)
		h.good("rm", "x")
		h.untouched(test.name)
	}

	// The supervisor, after any time.
	rounds := 20
	if e2e.Soak() {
		rounds = 200
	}
	states := map[instance.State]int{}
	for i := range rounds {
		cmd := h.command("run", "--allow-unsigned", "--name", "x", "-e", "PROBE=wait", h.bundle)
		if err := cmd.Start(); err != nil {
			h.Fatal(err)
		}
		time.Sleep(time.Duration(i) * 600 * time.Millisecond / time.Duration(rounds))
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		h.good("gc")
		if o := h.mortise("inspect", "x"); o.Code == 0 {
			states[h.record("x").State]++
			h.good("rm", "x")
		}
		h.untouched(fmt.Sprint("round ", i))
	}
	h.Logf("killed %d times; of what there was: %v", rounds, states)
}

// Cycles leave nothing behind: no process, control group, file, or memory. What the app
// ended with is kept.
func TestE2EMortiseCycles(t *testing.T) {
	h := newMortiseHost(t, e2e.Probe(t), false)
	cycles := 4
	if e2e.Soak() {
		cycles = 100
	}
	var memory []int
	for i := range cycles {
		if o := h.start("x", "wait"); o.Code != 0 {
			h.Fatal(o)
		}
		machine := h.qemu("x")
		if o := h.start("y", "wait"); o.Code != 4 || !strings.Contains(o.Stderr, `held by "x"`) {
			h.Error(o)
		}
		h.await("x", "WAITING")
		if got, want := h.pins("x"), "0 on "+h.record("x").Held.CPUs; len(got) != 1 || got[0] != want {
			h.Errorf("%q, not %q", got, want)
		}
		h.good("stop", "x")
		if r := h.record("x"); r.State != instance.Stopped || r.Exit == nil || r.Exit.Code != 7 {
			h.Errorf("%+v", r)
		}
		h.good("rm", "x")
		h.gone(machine)
		h.untouched(fmt.Sprint("cycle ", i))
		memory = append(memory, available())
	}
	// The first one fills caches. Others use memory, too; a machine has 60 MiB.
	if lost := memory[1] - memory[len(memory)-1]; lost > 150<<10 {
		h.Errorf("%d KiB of memory are gone: %v", lost, memory)
	}
	h.Logf("%d cycles; available memory, in KiB: %v", cycles, memory)
}

// available is what /proc/meminfo says, in KiB.
func available() int {
	text := string(e2e.Must(os.ReadFile("/proc/meminfo")))
	_, rest, _ := strings.Cut(text, "MemAvailable:")
	return e2e.Must(strconv.Atoi(strings.Fields(rest)[0]))
}

// What goes wrong with files: /run is full before and while an instance runs, a policy
// cannot be read.
func TestE2EMortiseFiles(t *testing.T) {
	h := newMortiseHost(t, e2e.Probe(t), false)
	root := h.dir + "/mortise"
	if err := os.Mkdir(root, 0o700); err != nil {
		h.Fatal(err)
	}
	if err := unix.Mount("tmpfs", root, "tmpfs", 0, "size=64k,mode=700"); err != nil {
		h.Fatal(err)
	}
	defer func() { _ = unix.Unmount(root, unix.MNT_DETACH) }()
	fill := func() {
		f := e2e.Must(os.OpenFile(root+"/.fill", os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600))
		defer f.Close()
		for {
			if _, err := f.Write(make([]byte, 4096)); err != nil {
				return
			}
		}
	}
	fill()
	if o := h.start("x", "wait"); o.Code != 1 || !strings.Contains(o.Stderr, "no space left on device") || !strings.Contains(o.Stderr, "hint: make room where --root is") {
		h.Error(o)
	}
	h.untouched("with a full disk")

	// It fills up while an instance runs.
	if err := os.Remove(root + "/.fill"); err != nil {
		h.Fatal(err)
	}
	if o := h.start("x", "wait"); o.Code != 0 {
		h.Fatal(o)
	}
	machine := h.qemu("x")
	fill()
	_ = h.mortise("kill", "x")
	h.gone(machine)
	if left := groups("x"); len(left) > 0 {
		h.Errorf("left %q", left)
	}
	if err := os.Remove(root + "/.fill"); err != nil {
		h.Fatal(err)
	}
	h.good("rm", "--force", "x")
	h.untouched("with a disk that filled up")

	policy := e2e.WriteFile(h.T, h.dir+"/policy.toml", []byte("version = 1\n"))
	if err := os.Chmod(policy, 0o000); err != nil {
		h.Fatal(err)
	}
	for dir := h.dir; dir != "/tmp" && dir != "/"; dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil {
			h.Fatal(err)
		}
	}
	nobody := h.command("plan", "--policy", policy, h.bundle)
	nobody.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	if o := e2e.Execute(nobody); o.Code != 1 || !strings.Contains(o.Stderr, "policy.toml: permission denied") || !strings.Contains(o.Stderr, "hint: mortise runs as root") {
		h.Error(o)
	}
}
