// SPDX-License-Identifier: Apache-2.0

package alloc_test

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/tenon-build/tenon/loader/alloc"
	"github.com/tenon-build/tenon/loader/alloc/alloctest"
)

// offline applies a plan of CPUs that the back end takes offline, and takes them.
func (w *world) offline(owner string, cpus int) *alloc.Report {
	report, err := apply(w.host, owner, func(others []alloc.Holding, has *alloc.Plan) (*alloc.Plan, error) {
		return w.read().Plan(alloc.Request{CPUs: cpus, Offline: true, ID: "7", Bounds: wide, Keep: has}, alloc.Held{Instances: others})
	})
	w.must(err)
	w.away(w.held(), nil)
	return report
}

func (w *world) read() *alloc.Topology {
	topo, err := alloc.Read(w.kernel)
	w.must(err)
	return topo
}

func (w *world) held() []alloc.Holding {
	held, err := w.host.Held()
	w.must(err)
	return held
}

// What is offline is held by whom it is, can be kept, and is where it was afterwards.
func TestOffline(t *testing.T) {
	w := newWorld(t, "eight", busyHost.Kernel())
	report := w.offline("web", 1)
	if want := (alloc.Report{Partition: "offline"}); fmt.Sprint(*report) != fmt.Sprint(want) {
		t.Errorf("%+v", *report)
	}
	state := w.kernel.State()
	for name, want := range map[string]string{
		"sys/fs/cgroup/cgroup.subtree_control": "\n",
		"proc/irq/21/smp_affinity_list":        "0,2-4,6-7\n",
		"proc/irq/default_smp_affinity":        "dd\n",
	} {
		if state[name] != want {
			t.Errorf("%s is %q, want %q", name, state[name], want)
		}
	}
	held := w.held()
	if p := held[0].Plan; p.CPUs.String() != "1" || p.Siblings.String() != "5" || p.ID != "7" || !w.host.Intact("web", &p, report) {
		t.Errorf("%+v", p)
	}
	for _, test := range []struct {
		list  alloc.CPUSet
		split bool
		held  []alloc.Holding
		want  string
	}{
		{alloc.CPUSet{1}, false, held, `CPU 1 is held by "web"`},
		{alloc.CPUSet{1, 5}, true, held, `CPUs 1,5 are held by "web"`},
		{alloc.CPUSet{1}, false, nil, "the host has no CPU 1"},
	} {
		_, err := w.read().Plan(alloc.Request{CPUList: test.list, SplitCores: test.split, Bounds: wide}, alloc.Held{Instances: test.held})
		if err == nil || err.Error() != test.want {
			t.Errorf("%s: got %v, want %s", test.list, err, test.want)
		}
	}
	_, err := w.read().Plan(alloc.Request{CPUs: 7, Bounds: wide}, alloc.Held{Instances: held})
	if want := `7 CPUs in whole cores are needed, 4 of 8 are free: CPUs 0,4 are reserved for the host, CPUs 1,5 are held by "web"`; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	for i, cpus := range []string{"1,5", "1-2,5", "2"} { // its idle sibling first
		w.offline("web", [3]int{2, 3, 1}[i])
		if got := w.held()[0].Plan; got.CPUs.String() != cpus {
			t.Errorf("%s of %s, want %s", got.CPUs, got.HeldCPUs(), cpus)
		}
	}
	w.must(w.release("web"))
	w.unchanged(w.before, "released")
}

// The host's own cores are those that it has, also where its first CPU was given away.
func TestOfflineFirst(t *testing.T) {
	w := newWorld(t, "eight", busyHost.Kernel())
	_, err := apply(w.host, "web", func([]alloc.Holding, *alloc.Plan) (*alloc.Plan, error) {
		return w.topo.Plan(alloc.Request{CPUList: alloc.CPUSet{0}, Offline: true, Bounds: wide}, alloc.Held{Host: alloc.Reserve{CPUs: alloc.CPUSet{2, 6}}})
	})
	w.must(err)
	w.away(w.held(), nil)
	if got := w.read().With(w.held()).Reserved(alloc.Reserve{}); got.String() != "1,5" {
		t.Errorf("%s", got)
	}
}

// An instance's CPUs are held in one way.
func TestOfflineOrNot(t *testing.T) {
	w := newWorld(t, "eight", busyHost.Kernel())
	w.offline("web", 2)
	state := w.kernel.State()
	if _, err := w.count("web", 2); err == nil || !strings.Contains(err.Error(), "not taken offline, nor the other way round") {
		t.Error(err)
	}
	w.unchanged(state, "refused")
}

// Without control groups, CPUs can still be taken offline.
func TestOfflineWithoutCpusets(t *testing.T) {
	w := newWorld(t, "eight", busyHost.Kernel())
	w.kernel.Put("sys/fs/cgroup/cgroup.controllers", "cpu io\n")
	if _, err := w.count("cache", 2); err == nil {
		t.Error("no error")
	}
	w.offline("web", 2)
	w.must(w.release("web"))
}

// A thread that comes online after its siblings were taken is on their core.
func TestSiblingComesOnline(t *testing.T) {
	kernel := alloctest.Machine{CPUs: 8, SMT: 4, Adjacent: true}.Kernel()
	kernel.Away(alloc.CPUSet{7})
	before, err := alloc.Read(kernel)
	if err != nil {
		t.Fatal(err)
	}
	p, err := before.Plan(alloc.Request{CPUList: alloc.CPUSet{5}, SplitCores: true, Offline: true, Bounds: wide}, alloc.Held{})
	if err != nil {
		t.Fatal(err)
	}
	kernel.Away(alloc.CPUSet{5})
	now, err := alloc.Read(kernel)
	if err != nil {
		t.Fatal(err)
	}
	now = now.With([]alloc.Holding{{Owner: "web", Plan: *p}})
	for _, id := range []int{4, 5, 6, 7} {
		if got := now.CPUs[id]; got.ID != id || got.Siblings.String() != "4-7" || got.Online != (id != 5) {
			t.Errorf("%+v", got)
		}
	}
	if len(now.Caches) != 1 || now.Caches[0].CPUs.String() != "0-7" {
		t.Errorf("%+v", now.Caches)
	}
}

// hotplug takes CPUs away while a host is read.
type hotplug struct {
	*alloctest.Kernel
	at   string // before this file is read
	away []alloc.CPUSet
}

func (h *hotplug) ReadFile(name string) ([]byte, error) {
	if name == h.at && len(h.away) > 0 {
		h.Away(h.away[0])
		h.away = h.away[1:]
	}
	return h.Kernel.ReadFile(name)
}

// CPUs that come or go meanwhile do not make a host one that cannot be read.
func TestReadMeanwhile(t *testing.T) {
	const cpu, node = "sys/devices/system/cpu/cpu1/", "sys/devices/system/node/node0/"
	for _, at := range []string{cpu + "topology/physical_package_id", cpu + "topology/thread_siblings_list", cpu + "cache/index3/level", node + "cpulist", node + "meminfo"} {
		root := &hotplug{Kernel: busyHost.Kernel(), at: at, away: []alloc.CPUSet{{1}, {1, 5}, nil, {5}}}
		now, err := alloc.Read(root)
		if err != nil {
			t.Errorf("%s: %v", at, err)
			continue
		}
		want, err := alloc.Read(root.Kernel)
		if err != nil || !reflect.DeepEqual(now, want) {
			t.Errorf("%s: %v\n%+v\n%+v", at, err, now, want)
		}
	}
}

// What was written before CPUs could be taken offline is read.
func TestJournalWithoutOffline(t *testing.T) {
	w := newWorld(t, "eight", busyHost.Kernel())
	boot, err := w.kernel.ReadFile("proc/sys/kernel/random/boot_id")
	w.must(err)
	w.journal(fmt.Sprintf(`{"version":1,"boot":%q,"entries":{"web":{"state":"held","plan":{"cpus":"1","siblings":"5","memory":null,"pageSize":0,"devices":null,"companions":null}}},"irqs":{},"default":"","subtree":false}`, strings.TrimSpace(string(boot))))
	if held := w.held(); len(held) != 1 || !slices.Equal(held[0].Plan.HeldCPUs(), alloc.CPUSet{1, 5}) || held[0].Plan.TakenOffline() {
		t.Errorf("%+v", held)
	}
}
