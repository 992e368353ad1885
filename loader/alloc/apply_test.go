// SPDX-License-Identifier: Apache-2.0

package alloc_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tenon-build/tenon/loader/alloc"
	"github.com/tenon-build/tenon/loader/alloc/alloctest"
)

// busyHost has IRQs on all its CPUs; one cannot be moved.
var busyHost = alloctest.Machine{CPUs: 8, SMT: 2, Nodes: 2, IRQs: 9, Fixed: []int{20}}

// apply takes what plan says, of what others hold and what the owner has.
func apply(host *alloc.Host, owner string, plan func([]alloc.Holding, *alloc.Plan) (*alloc.Plan, error)) (*alloc.Report, error) {
	taking, err := host.Begin(context.Background(), owner)
	if err != nil {
		return nil, err
	}
	defer taking.Close()
	p, err := plan(taking.Others, taking.Has)
	if err != nil {
		return nil, err
	}
	return taking.Commit(p)
}

// count applies a plan of that many CPUs and 1 GiB.
func (w *world) count(owner string, cpus int) (*alloc.Report, error) {
	return apply(w.host, owner, func(others []alloc.Holding, has *alloc.Plan) (*alloc.Plan, error) {
		return w.topo.Plan(alloc.Request{CPUs: cpus, Memory: 1 << 30, Bounds: wide, Keep: has}, alloc.Held{Instances: others})
	})
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.fatal("%v", err)
	}
}

func (w *world) stateFiles() []string {
	files, err := filepath.Glob(w.host.State + "/*")
	w.must(err)
	return files
}

func TestApply(t *testing.T) {
	w := newWorld(t, "eight", busyHost.Kernel())
	report, err := w.count("web", 2)
	w.must(err)
	want := alloc.Report{Partition: "isolated", Group: "sys/fs/cgroup/mortise-web",
		Unmoved: []alloc.Unmoved{{IRQ: 20, Reason: "write 0,2-4,6-7 to proc/irq/20/smp_affinity_list: input/output error"}}}
	if fmt.Sprint(*report) != fmt.Sprint(want) {
		t.Errorf("got %+v", *report)
	}
	state := w.kernel.State()
	for name, want := range map[string]string{
		"sys/fs/cgroup/mortise-web/cpuset.cpus":           "1,5\n",
		"sys/fs/cgroup/mortise-web/cpuset.mems":           "0\n",
		"sys/fs/cgroup/mortise-web/cpuset.cpus.partition": "isolated\n",
		"sys/fs/cgroup/cgroup.subtree_control":            "cpuset\n",
		"proc/irq/21/smp_affinity_list":                   "0,2-4,6-7\n", // was on CPU 1 alone: the whole host takes it
		"proc/irq/22/smp_affinity_list":                   "2-4,6-7\n",
		"proc/irq/default_smp_affinity":                   "dd\n",
	} {
		if state[name] != want {
			t.Errorf("%s is %q, want %q", name, state[name], want)
		}
	}
	w.must(w.host.Release(context.Background(), "web"))
	w.must(w.host.Release(context.Background(), "web")) // does nothing
	w.unchanged(w.before, "released")
}

// Whoever is killed at any point leaves what was before, or what was asked for.
func TestKilledAnywhere(t *testing.T) {
	for _, m := range []alloctest.Machine{busyHost, {CPUs: 8, SMT: 2, Nodes: 2, IRQs: 9, Cgroup: 1}} {
		for name, op := range map[string]struct {
			before func(*world)
			do     func(*world) error
			undone string // CPUs that are held after a kill that is undone
			done   string
		}{
			"apply":   {func(*world) {}, func(w *world) error { _, err := w.count("web", 2); return err }, "", "1,5"},
			"grow":    {func(w *world) { _, err := w.count("web", 2); w.must(err) }, func(w *world) error { _, err := w.count("web", 4); return err }, "1,5", "1-2,5-6"},
			"shrink":  {func(w *world) { _, err := w.count("web", 4); w.must(err) }, func(w *world) error { _, err := w.count("web", 2); return err }, "2-3,6-7", "2,6"},
			"release": {func(w *world) { _, err := w.count("web", 2); w.must(err) }, func(w *world) error { return w.host.Release(context.Background(), "web") }, "1,5", ""},
		} {
			undone, done := 0, 0
			for at := 1; ; at++ {
				w := newWorld(t, fmt.Sprintf("%s, cgroup v%d, killed at %d", name, max(2-m.Cgroup, m.Cgroup), at), m.Kernel())
				op.before(w)
				state := w.kernel.State()
				w.host.Fault = func(n int, _ string) error {
					if n == at {
						return errCrashed
					}
					return nil
				}
				err := op.do(w)
				w.host.Fault = nil
				if err == nil {
					break
				}
				if !errors.Is(err, errCrashed) {
					w.fatal("%v", err)
				}
				w.must(w.host.Recover(context.Background()))
				w.check()
				switch got := w.holdings()["web"].CPUs.String(); got {
				case op.undone:
					w.unchanged(state, "undone")
					undone++
				case op.done:
					done++
				default:
					w.fatal("holds %s", got)
				}
				w.must(w.host.Release(context.Background(), "web"))
				w.unchanged(w.before, "released")
				if left := w.stateFiles(); len(left) > 0 {
					w.fatal("left %v", left)
				}
			}
			if undone+done < 20 || undone == 0 || done == 0 {
				t.Errorf("%s has %d points that are undone and %d that are done", name, undone, done)
			}
		}
	}
}

// The recovery may be killed, too, at any point.
func TestRecoveryKilledAnywhere(t *testing.T) {
	for at := 1; ; at++ {
		w := newWorld(t, fmt.Sprintf("killed at %d", at), busyHost.Kernel())
		w.host.Fault = func(_ int, name string) error {
			if name == "after: write isolated to sys/fs/cgroup/mortise-web/cpuset.cpus.partition" {
				return errCrashed
			}
			return nil
		}
		if _, err := w.count("web", 2); !errors.Is(err, errCrashed) {
			t.Fatal(err)
		}
		w.host.Fault = func(n int, _ string) error {
			if n == at {
				return errCrashed
			}
			return nil
		}
		err := w.host.Recover(context.Background())
		w.host.Fault = nil
		w.must(w.host.Recover(context.Background()))
		w.unchanged(w.before, "recovered")
		if err == nil {
			if at < 10 {
				t.Errorf("recovery has %d points", at-1)
			}
			return
		}
	}
}

// Every write that the kernel refuses is named, and undone.
func TestRefusedAnywhere(t *testing.T) {
	for at := 1; ; at++ {
		w := newWorld(t, fmt.Sprintf("write %d", at), busyHost.Kernel())
		n, what := 0, ""
		w.kernel.Fail = func(op, name string) error {
			if n++; n != at {
				return nil
			}
			what = name
			return unix.ENOMEM
		}
		_, err := w.count("web", 2)
		w.kernel.Fail = nil
		if what == "" {
			if at < 10 {
				t.Errorf("%d writes", at-1)
			}
			return
		}
		if strings.HasPrefix(what, "proc/irq") {
			w.must(err) // reported
			w.must(w.host.Release(context.Background(), "web"))
		} else if err == nil || !strings.Contains(err.Error(), what) || !strings.HasSuffix(err.Error(), "cannot allocate memory") || !errors.Is(err, unix.ENOMEM) {
			w.fatal("%s: got %v", what, err)
		}
		w.unchanged(w.before, "refused")
		if left := w.stateFiles(); len(left) > 0 {
			w.fatal("left %v", left)
		}
	}
}

func TestApplyRefuses(t *testing.T) {
	for name, test := range map[string]struct {
		machine alloctest.Machine
		owner   string
		prepare func(*world)
		want    string
	}{
		"a name that is a path": {owner: "../x", want: `"../x" cannot own CPUs`},
		"an empty name":         {owner: "", want: `"" cannot own CPUs`},
		"a group of others": {prepare: func(w *world) { w.must(w.kernel.Mkdir("sys/fs/cgroup/mortise-web")); w.before = w.kernel.State() },
			want: "the control group sys/fs/cgroup/mortise-web is there already, and not in the journal"},
		"CPUs of another group": {machine: alloctest.Machine{CPUs: 4, Subtree: true}, prepare: func(w *world) {
			w.must(w.kernel.WriteFile("sys/fs/cgroup/system.slice/cpuset.cpus", []byte("0-3")))
			w.before = w.kernel.State()
		}, want: `CPUs 1-2 are in the control group "system.slice"`}, // since it was planned
		"a journal of another version": {prepare: func(w *world) {
			w.journal(`{"version":2,"boot":"","entries":{},"irqs":{},"default":"","subtree":false}`)
		}, want: "version 2: this program reads version 1"},
		"a journal cut short": {prepare: func(w *world) { w.journal(`{"version":1`) }, want: "alloc.json: unexpected EOF"},
		"a journal with a path": {prepare: func(w *world) {
			w.journal(`{"version":1,"boot":"","entries":{"../x":{"state":"held"}},"irqs":{},"default":"","subtree":false}`)
		}, want: `alloc.json: "../x" cannot own CPUs`},
		"a journal with an unknown state": {prepare: func(w *world) {
			w.journal(`{"version":1,"boot":"","entries":{"x":{"state":"restoring"}},"irqs":{},"default":"","subtree":false}`)
		}, want: `the state of "x" is unknown`},
		"a journal with an unknown field": {prepare: func(w *world) { w.journal(`{"version":1,"x":1}`) }, want: `unknown field "x"`},
		"no state directory":              {prepare: func(w *world) { w.host.State += "/missing/state" }, want: "no such file or directory"},
	} {
		t.Run(name, func(t *testing.T) {
			if test.machine.CPUs == 0 {
				test.machine = busyHost
			}
			if test.prepare == nil {
				test.prepare = func(*world) {}
			} else {
				test.owner = "web"
			}
			w := newWorld(t, name, test.machine.Kernel())
			test.prepare(w)
			_, err := w.count(test.owner, 2)
			if err == nil || !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("got %v, want %s", err, test.want)
			}
			w.unchanged(w.before, "refused")
		})
	}
}

func (w *world) journal(data string) {
	w.must(os.WriteFile(w.host.State+"/alloc.json", []byte(data), 0o600))
}

// What another plan holds is refused even where nobody asked what is held.
func TestOverlap(t *testing.T) {
	w := newWorld(t, "eight", busyHost.Kernel())
	for _, owner := range []string{"web", "cache"} {
		_, err := apply(w.host, owner, func([]alloc.Holding, *alloc.Plan) (*alloc.Plan, error) {
			return &alloc.Plan{CPUs: alloc.CPUSet{1}, Siblings: alloc.CPUSet{5}}, nil
		})
		if want := `taking CPUs for "cache": CPUs 1,5 are held by "web"`; owner == "cache" && (err == nil || err.Error() != want || !errors.Is(err, alloc.ErrTaken)) {
			t.Errorf("got %v", err)
		}
	}
}

func TestProcessesInTheGroup(t *testing.T) {
	w := newWorld(t, "eight", busyHost.Kernel())
	_, err := w.count("web", 2)
	w.must(err)
	w.kernel.Put("sys/fs/cgroup/mortise-web/cgroup.procs", "17\n18\n")
	state := w.kernel.State()
	err = w.host.Release(context.Background(), "web")
	if !errors.Is(err, unix.EBUSY) || !strings.HasSuffix(err.Error(), "processes are in sys/fs/cgroup/mortise-web: 17 18") {
		t.Errorf("got %v", err)
	}
	w.unchanged(state, "busy")
	w.check()
	_, err = w.count("cache", 2) // nobody else waits for it
	w.must(err)
	w.must(w.host.Release(context.Background(), "cache"))
	w.unchanged(state, "busy")
	w.kernel.Put("sys/fs/cgroup/mortise-web/cgroup.procs", "")
	w.must(w.host.Release(context.Background(), "web"))
	w.unchanged(w.before, "released")
}

// What cannot be put back keeps nobody from work, and is tried again.
func TestInterruptNotRestored(t *testing.T) {
	w := newWorld(t, "eight", busyHost.Kernel())
	_, err := w.count("web", 2)
	w.must(err)
	w.kernel.Fail = func(_, name string) error {
		if strings.HasPrefix(name, "proc/irq/22/") {
			return unix.ENOSPC
		}
		return nil
	}
	err = w.host.Release(context.Background(), "web")
	if err == nil || !strings.Contains(err.Error(), "an interrupt is not back where it was: write 2-7 to proc/irq/22/smp_affinity_list: no space left on device") {
		t.Errorf("got %v", err)
	}
	_, err = w.count("cache", 2)
	w.must(err)
	w.kernel.Fail = nil
	w.must(w.host.Release(context.Background(), "cache"))
	w.unchanged(w.before, "released")
}

// An IRQ may go, and its number come back for something else.
func TestInterruptGone(t *testing.T) {
	w := newWorld(t, "eight", busyHost.Kernel())
	_, err := w.count("web", 2)
	w.must(err)
	w.kernel.Fail = func(_, name string) error {
		if strings.HasPrefix(name, "proc/irq/22/") {
			return unix.ENODEV
		}
		return nil
	}
	w.must(w.host.Release(context.Background(), "web"))
	if left := w.stateFiles(); len(left) > 0 {
		t.Errorf("left %v", left)
	}
}

// After a reboot nothing is held, whatever the journal says.
func TestReboot(t *testing.T) {
	w := newWorld(t, "eight", busyHost.Kernel())
	_, err := w.count("web", 2)
	w.must(err)
	w.kernel = busyHost.Kernel()
	w.kernel.Put("proc/sys/kernel/random/boot_id", "another\n")
	w.host.Root = w.kernel
	if held := w.holdings(); len(held) > 0 {
		t.Errorf("held are %v", held)
	}
	_, err = w.count("cache", 2)
	w.must(err)
	w.must(w.host.Release(context.Background(), "cache"))
	w.unchanged(w.before, "released")
}

// Another group that has begun to use the controller keeps it.
func TestSubtreeInUse(t *testing.T) {
	w := newWorld(t, "eight", busyHost.Kernel())
	_, err := w.count("web", 2)
	w.must(err)
	w.must(w.kernel.WriteFile("sys/fs/cgroup/system.slice/cpuset.cpus", []byte("0,2")))
	w.must(w.host.Release(context.Background(), "web"))
	if got := w.kernel.State()["sys/fs/cgroup/system.slice/cpuset.cpus"]; got != "0,2\n" {
		t.Errorf("got %q", got)
	}
	if left := w.stateFiles(); len(left) > 0 {
		t.Errorf("left %v", left)
	}
}

// A change that has ended changes nothing more, and keeps nobody waiting.
func TestTakingEnds(t *testing.T) {
	w := newWorld(t, "eight", busyHost.Kernel())
	before := w.kernel.State()
	taking, err := w.host.Begin(context.Background(), "web")
	w.must(err)
	taking.Close()
	taking.Close()
	if _, err := taking.Commit(&alloc.Plan{CPUs: alloc.CPUSet{1}, Siblings: alloc.CPUSet{5}}); err == nil || err.Error() != `taking CPUs for "web": the change has ended already` {
		t.Errorf("got %v", err)
	}
	if _, err := w.count("cache", 2); err != nil {
		t.Error(err)
	}
	w.must(w.host.Release(context.Background(), "cache"))
	w.unchanged(before, "released")
}

// Twenty at once take what there is, each its own.
func TestAtOnce(t *testing.T) {
	kernel := alloctest.Machine{CPUs: 48, SMT: 2, Nodes: 2, IRQs: 6}.Kernel()
	w := newWorld(t, "at once", kernel)
	var all sync.WaitGroup
	errs := make([]error, 30)
	for i := range errs {
		all.Go(func() {
			host := alloc.Host{Root: kernel, State: w.host.State}
			_, errs[i] = apply(&host, fmt.Sprintf("app-%d", i), func(others []alloc.Holding, _ *alloc.Plan) (*alloc.Plan, error) {
				return w.topo.Plan(alloc.Request{CPUs: 2, Memory: 1 << 28, Bounds: wide}, alloc.Held{Instances: others})
			})
		})
	}
	all.Wait()
	taken := slices.DeleteFunc(slices.Clone(errs), func(err error) bool { return err == nil })
	if len(taken) != 7 || slices.ContainsFunc(taken, func(err error) bool { return !errors.Is(err, alloc.ErrTaken) }) {
		t.Errorf("got %v", taken)
	}
	w.check()
	for owner := range w.holdings() {
		all.Go(func() {
			if err := (&alloc.Host{Root: kernel, State: w.host.State}).Release(context.Background(), owner); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	w.unchanged(w.before, "released")
}
