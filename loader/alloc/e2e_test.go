// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package alloc_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tenon-build/tenon/loader/alloc"
	"github.com/tenon-build/tenon/testdata/debian"
	"github.com/tenon-build/tenon/testdata/e2e"
)

// A real kernel instead of alloctest's: eight CPUs in four cores on two nodes. The
// driver of the disk manages the affinities of its queues, so they cannot be moved.
func TestE2EDebian(t *testing.T) {
	debian.In(t, func() {
		g := &guest{T: t, host: alloc.Host{Root: alloc.Dir("/"), State: stateDir(t)}}
		g.run("modprobe virtio_blk; modprobe virtio-rng; mkdir /sys/fs/cgroup/other")
		g.before = g.state()
		t.Run("held", func(t *testing.T) { g.with(t).held() })
		t.Run("killed", func(t *testing.T) { g.with(t).killed() })

		if !e2e.Soak() { // much the same as the rest, and slow
			return
		}
		g.run("rmdir /sys/fs/cgroup/other; umount /sys/fs/cgroup; mount -t tmpfs tmpfs /sys/fs/cgroup; mkdir /sys/fs/cgroup/cpuset")
		g.eventually(func() error { return unix.Mount("cpuset", "/sys/fs/cgroup/cpuset", "cgroup", 0, "cpuset") })
		g.before = g.state()
		t.Run("killed, cgroup v1", func(t *testing.T) { g.with(t).killed() })
	}, "-blockdev", "null-co,node-name=disk,size=1048576", "-device", "virtio-blk-pci,drive=disk,num-queues=2,vectors=3", "-device", "virtio-rng-pci")
}

// guest is the machine, as a test in it sees it.
type guest struct {
	*testing.T
	host   alloc.Host
	before map[string]string
}

func (g *guest) with(t *testing.T) *guest { return &guest{t, g.host, g.before} }

func (g *guest) must(err error) {
	g.Helper()
	if err != nil {
		g.Fatal(err)
	}
}

func (g *guest) run(script string) {
	g.Helper()
	if out, err := exec.Command("sh", "-ec", script).CombinedOutput(); err != nil {
		g.Fatalf("%s: %v: %s", script, err, out)
	}
}

// eventually tries again what the kernel refuses while it still cleans up.
func (g *guest) eventually(do func() error) {
	g.Helper()
	err := do()
	for end := time.Now().Add(10 * time.Second); errors.Is(err, unix.EBUSY) && time.Now().Before(end); err = do() {
		time.Sleep(50 * time.Millisecond)
	}
	g.must(err)
}

func (g *guest) read(name string) string {
	g.Helper()
	data, err := os.ReadFile(name)
	g.must(err)
	return string(data)
}

func (g *guest) cpus(name string) alloc.CPUSet {
	g.Helper()
	cpus, err := alloc.ParseCPUs(g.read(name))
	g.must(err)
	return cpus
}

// state is what must come back: the names of all control groups and their files,
// what says which CPUs they have, the affinities of interrupts, and the names in the
// state directory.
func (g *guest) state() map[string]string {
	g.Helper()
	out := map[string]string{}
	note := func(name string, _ fs.DirEntry, err error) error {
		out[name] = ""
		switch base := filepath.Base(name); {
		case strings.HasPrefix(base, "cpuset."), base == "cgroup.subtree_control", base == "smp_affinity_list", base == "default_smp_affinity":
			out[name] = g.read(name)
		}
		return err
	}
	g.must(filepath.WalkDir("/sys/fs/cgroup", note))
	g.must(filepath.WalkDir("/proc/irq", note))
	g.must(filepath.WalkDir(g.host.State, note))
	return out
}

// same prints what is not as it was.
func (g *guest) same(want map[string]string, when string) {
	g.Helper()
	is := g.state()
	if maps.Equal(is, want) {
		return
	}
	for _, name := range slices.Sorted(maps.Keys(is)) {
		if was, there := want[name]; was != is[name] || !there {
			g.Errorf("%s is %q, was %q (there: %t)", name, is[name], was, there)
		}
	}
	g.Fatalf("%s: %d names, want %d", when, len(is), len(want))
}

// held takes a core, and looks at who still comes there.
func (g *guest) held() {
	outside, inside := g.busy("other"), g.busy("other")
	topo, err := alloc.Read(g.host.Root)
	g.must(err)
	var plan *alloc.Plan
	report, err := apply(&g.host, "web", func(others []alloc.Holding, _ *alloc.Plan) (_ *alloc.Plan, err error) {
		plan, err = topo.Plan(alloc.Request{CPUs: 2, Memory: 64 << 20, Bounds: wide}, alloc.Held{Instances: others})
		return plan, err
	})
	g.must(err)
	held := plan.HeldCPUs()
	g.Logf("holds %s; %+v", held, *report)
	for _, id := range held {
		if cpu := topo.CPUs[id]; len(cpu.Siblings) != 2 || len(cpu.Siblings.Minus(held)) > 0 || len(plan.Memory) != 1 || cpu.Node != plan.Memory[0].Node {
			g.Errorf("%+v is of the plan %+v", cpu, plan)
		}
	}

	group := "/" + report.Group
	if got := g.read(group + "/cpuset.cpus.partition"); got != "isolated\n" || report.Partition != "isolated" {
		g.Errorf("the partition is %q, reported as %s", got, report.Partition)
	}
	for _, dir := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/other"} {
		if cpus := g.cpus(dir + "/cpuset.cpus.effective"); len(cpus) != 6 || len(cpus.And(held)) > 0 {
			g.Errorf("%s has CPUs %s", dir, cpus)
		}
	}
	g.must(os.WriteFile(group+"/cgroup.procs", []byte(strconv.Itoa(inside)), 0))
	seen := g.watch(outside, inside)
	if len(seen[0].And(held)) > 0 {
		g.Errorf("a process of another group was on CPUs %s", seen[0])
	}
	if len(seen[1].Minus(held)) > 0 {
		g.Errorf("a process of the group was on CPUs %s", seen[1])
	}
	var want unix.CPUSet
	for _, id := range held {
		want.Set(id)
	}
	if err := unix.SchedSetaffinity(outside, &want); !errors.Is(err, unix.EINVAL) {
		g.Errorf("another process asks for the CPUs: %v", err)
	}
	if err := g.host.Release(context.Background(), "web"); !errors.Is(err, unix.EBUSY) {
		g.Errorf("released while a process is in the group: %v", err)
	}
	g.must(unix.Kill(inside, unix.SIGKILL))
	g.must(unix.Kill(outside, unix.SIGKILL))
	g.interrupts(held, report)
	g.eventually(func() error { return g.host.Release(context.Background(), "web") })
	g.same(g.before, "released")
}

// busy starts a process of a group, which never rests.
func (g *guest) busy(group string) (pid int) {
	g.Helper()
	cmd := exec.Command("sh", "-c", "echo $$ >/sys/fs/cgroup/"+group+"/cgroup.procs; while :; do :; done")
	g.must(cmd.Start())
	go func() { _ = cmd.Wait() }() // it is killed
	return cmd.Process.Pid
}

// watch returns where processes were seen during a second.
func (g *guest) watch(pids ...int) []alloc.CPUSet {
	g.Helper()
	out := make([]alloc.CPUSet, len(pids))
	times := 0
	for end := time.Now().Add(time.Second); time.Now().Before(end); times++ {
		for i, pid := range pids {
			stat := g.read(fmt.Sprintf("/proc/%d/stat", pid))
			after := strings.Fields(stat[strings.LastIndexByte(stat, ')')+1:])
			cpu, err := strconv.Atoi(after[36]) // processor is the 39th, see proc(5)
			g.must(err)
			out[i] = out[i].Union(alloc.CPUSet{cpu})
		}
		time.Sleep(time.Millisecond)
	}
	g.Logf("processes %d were seen %d times, on CPUs %q", pids, times, out)
	return out
}

// interrupts wants none on the CPUs but those that are reported. The first one of
// each, after it was moved, may still come to where it was.
func (g *guest) interrupts(held alloc.CPUSet, report *alloc.Report) {
	unmoved := map[int]bool{}
	for _, u := range report.Unmoved {
		unmoved[u.IRQ] = true
	}
	const traffic = "dd if=/dev/hwrng of=/dev/null bs=64 count=20 status=none; echo >/dev/ttyS0; find /usr/"
	g.run(traffic + "include -maxdepth 1 >/dev/null")
	first := g.counts()
	g.run(traffic + "share -maxdepth 1 >/dev/null")
	came := 0
	for irq, now := range g.counts() {
		if unmoved[irq] {
			continue
		}
		dir := fmt.Sprintf("/proc/irq/%d/", irq)
		if cpus := g.cpus(dir + "smp_affinity_list"); len(cpus.And(held)) > 0 {
			g.Errorf("IRQ %d may come to %s", irq, cpus)
		}
		if cpus := g.cpus(dir + "effective_affinity_list"); !slices.Equal(now, first[irq]) && len(cpus.And(held)) > 0 {
			g.Errorf("IRQ %d comes to %s", irq, cpus)
		}
		for cpu, n := range now {
			came += n - first[irq][cpu]
			if held.Has(cpu) && n != first[irq][cpu] {
				g.Errorf("IRQ %d came %d times to CPU %d", irq, n-first[irq][cpu], cpu)
			}
		}
	}
	if came == 0 {
		g.Error("no interrupt came")
	}
	g.Logf("%d interrupts came, none to %s", came, held)
}

// counts reads how often each IRQ came to each CPU.
func (g *guest) counts() map[int][]int {
	g.Helper()
	out := map[int][]int{}
	for line := range strings.Lines(g.read("/proc/interrupts")) {
		name, rest, _ := strings.Cut(strings.TrimSpace(line), ":")
		irq, err := strconv.Atoi(name)
		if err != nil {
			continue
		}
		for _, field := range strings.Fields(rest)[:8] {
			n, err := strconv.Atoi(field)
			g.must(err)
			out[irq] = append(out[irq], n)
		}
	}
	return out
}

// killed does each operation in processes that kill themselves, each at the next
// point, and looks at what the recovery makes of that.
func (g *guest) killed() {
	topo, err := alloc.Read(g.host.Root)
	g.must(err)
	plan := func(cpus int) *alloc.Plan {
		p, err := topo.Plan(alloc.Request{CPUs: cpus, Memory: 64 << 20, Bounds: wide}, alloc.Held{})
		g.must(err)
		return p
	}
	type operation struct {
		name     string
		from, to *alloc.Plan
	}
	operations := []operation{{"apply", nil, plan(2)}, {"grow", plan(2), plan(4)}, {"release", plan(2), nil}}
	if e2e.Soak() {
		operations = append(operations, operation{"shrink", plan(4), plan(2)})
	}
	kills := 0
	for _, op := range operations {
		g.must(set(&g.host, op.from))
		undone := g.state()
		points := g.worker(op.to, 0)
		done := g.state()
		g.must(set(&g.host, op.from))
		completed := 0
		for at := 1; at <= points; at++ {
			g.worker(op.to, at)
			if at%2 == 0 {
				g.must(g.host.Recover(context.Background()))
			} else { // any operation recovers
				g.must(g.host.Release(context.Background(), "nobody"))
			}
			if maps.Equal(g.state(), done) {
				completed++
				g.must(set(&g.host, op.from))
			} else {
				g.same(undone, fmt.Sprintf("%s, killed at point %d of %d", op.name, at, points))
			}
		}
		g.Logf("%s: %d kills, %d of them undone", op.name, points, points-completed)
		if points < 20 || completed == 0 || completed == points {
			g.Errorf("%s has %d points", op.name, points)
		}
		kills += points
		g.must(g.host.Release(context.Background(), "web"))
		g.same(g.before, op.name)
	}
	g.Logf("%d kills, and everything as it was before", kills)
}

// worker runs an operation in a process of its own, which kills itself at a point;
// 0: it does not. It returns how many points there were.
func (g *guest) worker(p *alloc.Plan, at int) (points int) {
	g.Helper()
	plan, err := json.Marshal(p)
	g.must(err)
	cmd := exec.Command("/proc/self/exe", g.host.State, string(plan), strconv.Itoa(at))
	cmd.Env = []string{workerEnv + "=1"}
	out, err := cmd.CombinedOutput()
	if at > 0 {
		if status := cmd.ProcessState.Sys().(syscall.WaitStatus); !status.Signaled() || status.Signal() != syscall.SIGKILL {
			g.Fatalf("was to be killed at %d: %v: %s", at, err, out)
		}
		return at
	}
	g.must(err)
	points, err = strconv.Atoi(string(out))
	g.must(err)
	return points
}

const workerEnv = "TENON_ALLOC_WORKER"

// TestMain is also what the processes do that kill themselves.
func TestMain(m *testing.M) {
	if os.Getenv(workerEnv) == "" {
		os.Exit(m.Run())
	}
	var plan *alloc.Plan
	at, err := strconv.Atoi(os.Args[3])
	if err = errors.Join(err, json.Unmarshal([]byte(os.Args[2]), &plan)); err != nil {
		panic(err)
	}
	points := 0
	host := alloc.Host{Root: alloc.Dir("/"), State: os.Args[1], Fault: func(n int, _ string) error {
		if points = n; n == at {
			_ = unix.Kill(os.Getpid(), unix.SIGKILL)
		}
		return nil
	}}
	if err := set(&host, plan); err != nil {
		panic(err)
	}
	fmt.Print(points)
}

// set gives web what a plan says; nil: nothing.
func set(host *alloc.Host, p *alloc.Plan) error {
	if p == nil {
		return host.Release(context.Background(), "web")
	}
	_, err := apply(host, "web", func([]alloc.Holding, *alloc.Plan) (*alloc.Plan, error) { return p, nil })
	return err
}
