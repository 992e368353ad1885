// SPDX-License-Identifier: Apache-2.0

package alloc_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tenon-build/tenon/loader/alloc"
	"github.com/tenon-build/tenon/loader/alloc/alloctest"
)

// machines are topologies, each named by its quirk.
var machines = map[string]alloctest.Machine{
	"one-cpu":            {CPUs: 1, IRQs: 3},
	"two-cpus-v1":        {CPUs: 2, IRQs: 6, Cgroup: 1},
	"four-cores":         {CPUs: 4, IRQs: 6, Subtree: true},
	"smt2":               {CPUs: 8, SMT: 2, IRQs: 9, NICs: 3},
	"smt2-adjacent":      {CPUs: 16, SMT: 2, Adjacent: true, Nodes: 2, IRQs: 12, Fixed: []int{21, 24}, NICs: 4},
	"smt2-v1":            {CPUs: 16, SMT: 2, Nodes: 2, IRQs: 6, Cgroup: 1},
	"smt4":               {CPUs: 64, SMT: 4, Adjacent: true, Nodes: 4, CachedCores: 2, IRQs: 12},
	"before-6.1":         {CPUs: 12, SMT: 2, Nodes: 2, IRQs: 6, Old: true},
	"without-numa":       {CPUs: 8, Nodes: -1, IRQs: 6, HugePages: 512},
	"offline-holes":      {CPUs: 24, SMT: 2, Nodes: 3, Offline: alloc.CPUSet{0, 3, 5, 14, 15, 23}, IRQs: 9},
	"uneven-memory":      {CPUs: 32, SMT: 2, Nodes: 4, Memory: []int64{8 << 10, 0, 1 << 10, 65 << 10}, IRQs: 6},
	"huge-pages":         {CPUs: 16, Nodes: 2, HugePages: 1024, Memory: []int64{4 << 10}, IRQs: 6, Isolated: alloc.CPUSet{4, 5}},
	"sixteen-nodes":      {CPUs: 128, SMT: 2, Nodes: 16, IRQs: 9, NICs: 16},
	"caches-in-a-node":   {CPUs: 96, SMT: 2, Nodes: 2, CachedCores: 4, IRQs: 9},
	"smt4-offline-holes": {CPUs: 32, SMT: 4, Nodes: 2, Offline: alloc.CPUSet{1, 9, 10, 31}, IRQs: 6, Subtree: true},
	"512-cpus":           {CPUs: 512, SMT: 2, Nodes: 8, CachedCores: 8, IRQs: 12, Fixed: []int{22}, NICs: 8},
}

// world is a host, and what is known to be true of it.
type world struct {
	t      *testing.T
	name   string
	rng    *rand.Rand
	kernel *alloctest.Kernel
	topo   *alloc.Topology
	host   *alloc.Host
	before map[string]string
	mixed  bool // every other owner's CPUs are taken offline
	gone   alloc.CPUSet
	log    []string
	counts map[string]int
}

func newWorld(t *testing.T, name string, kernel *alloctest.Kernel) *world {
	t.Helper()
	topo, err := alloc.Read(kernel)
	if err != nil {
		t.Fatal(err)
	}
	return &world{t: t, name: name, kernel: kernel, topo: topo, counts: map[string]int{},
		host: &alloc.Host{Root: kernel, State: stateDir(t)}, before: kernel.State()}
}

// stateDir is in memory where there is such a directory, as /run is.
func stateDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "alloc")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func (w *world) fatal(format string, args ...any) {
	w.t.Helper()
	w.t.Fatalf("%s: %s\nafter:\n%s", w.name, fmt.Sprintf(format, args...), strings.Join(w.log, "\n"))
}

var (
	wide       = alloc.Bounds{CPUs: alloc.Range{Min: 1, Max: 8192}, Memory: alloc.Range{Max: 1 << 50}, Devices: map[string]alloc.Range{"02": {Max: 64}}}
	errCrashed = errors.New("crashed")
)

func (w *world) request() alloc.Request {
	r := alloc.Request{CPUs: 1 + w.rng.IntN(1+min(12, len(w.topo.CPUs)/2)), Memory: w.rng.Int64N(2 << 30), Bounds: wide}
	if w.rng.IntN(8) == 0 {
		r.CPUs = 1 + w.rng.IntN(len(w.topo.CPUs))
	}
	if w.rng.IntN(5) == 0 {
		r.Node = new(w.rng.IntN(len(w.topo.Nodes)))
	}
	if w.rng.IntN(12) == 0 {
		r.PageSize = 2 << 20
	}
	if w.rng.IntN(8) == 0 {
		r.Devices = []alloc.DeviceRequest{{Class: "0200", Count: 1 + w.rng.IntN(2)}}
	}
	if w.rng.IntN(8) == 0 {
		r.CPUs = 0
		for range 1 + w.rng.IntN(3) {
			r.CPUList = append(r.CPUList, w.rng.IntN(len(w.topo.CPUs)+1))
		}
		r.CPUList = alloc.NewCPUSet(r.CPUList...)
	}
	return r
}

func (w *world) apply(owner string) error {
	req := w.request()
	req.ID, req.Offline = "id of "+owner, w.mixed && (owner[len(owner)-1]-'0')%2 == 1
	_, err := apply(w.host, owner, func(others []alloc.Holding, has *alloc.Plan) (*alloc.Plan, error) {
		topo, err := w.topo, error(nil)
		if len(w.gone) > 0 {
			topo, err = alloc.Read(w.kernel)
		}
		if err != nil {
			return nil, err
		}
		req.Keep = has
		p, err := topo.Plan(req, alloc.Held{Instances: others})
		if err == nil && has != nil && has.TakenOffline() { // the back end gives back what it has to
			w.away(others, has.HeldCPUs().And(p.HeldCPUs()))
		}
		return p, err
	})
	return err
}

func (w *world) release(owner string) error {
	held, err := w.host.Held()
	if err != nil {
		return err
	}
	w.away(slices.DeleteFunc(held, func(h alloc.Holding) bool { return h.Owner == owner }), nil)
	return w.host.Release(context.Background(), owner)
}

// away is what the back ends of holdings do.
func (w *world) away(held []alloc.Holding, cpus alloc.CPUSet) {
	for _, h := range held {
		if h.Plan.TakenOffline() {
			cpus = cpus.Union(h.Plan.HeldCPUs())
		}
	}
	if !slices.Equal(cpus, w.gone) {
		w.counts["CPUs away"] += len(cpus)
		w.kernel.Away(cpus)
		w.gone = cpus
	}
}

// sequence is a life of a host: it ends as it began.
func (w *world) sequence() {
	w.log = w.log[:0]
	for range 3 + w.rng.IntN(8) {
		w.step()
		held, err := w.host.Held()
		if err != nil {
			w.fatal("%v", err)
		}
		w.away(held, nil)
		w.completed(held)
		w.check()
	}
	for owner := range w.holdings() {
		if err := w.release(owner); err != nil {
			w.fatal("%v", err)
		}
	}
	w.unchanged(w.before, "all is released")
	w.completed(nil)
	if left, err := os.ReadDir(w.host.State); err != nil || len(left) > 0 {
		w.fatal("the state directory has %v, %v", left, err)
	}
}

func (w *world) step() {
	owner := fmt.Sprintf("app-%d", w.rng.IntN(6))
	do, what := func() error { return w.apply(owner) }, "apply"
	has := slices.Sorted(maps.Keys(w.holdings()))
	if len(has) > 0 && w.rng.IntN(3) == 0 {
		owner = has[w.rng.IntN(len(has))]
		do, what = func() error { return w.release(owner) }, "release"
	}
	was, state := w.holdings(), w.kernel.State()
	if _, has := was[owner]; has && what == "apply" {
		what = "resize"
	}
	switch w.rng.IntN(6) {
	case 0:
		w.crash(owner, what, do, was)
	case 1:
		w.refuse(owner, what, do, was, state)
	default:
		err := do()
		w.note(what, owner, err)
		if kind := new(alloc.PlanError); err != nil && !errors.As(err, &kind) && !strings.Contains(err.Error(), "unable to distribute") {
			w.fatal("%v", err)
		}
		if err != nil {
			w.same(was, state)
		}
	}
}

func (w *world) note(what, owner string, err error) {
	w.counts[what]++
	if err != nil {
		w.counts[what+" refused"]++
	}
	w.log = append(w.log, fmt.Sprintf("%s %s: %v", what, owner, err))
}

// crash stops an operation somewhere, and often the recovery, too. Then there is
// what was before, or what was asked for, and nothing between.
func (w *world) crash(owner, what string, do func() error, was map[string]alloc.Plan) {
	at := 1 + w.rng.IntN(36)
	w.host.Fault = func(n int, name string) error {
		if n == at {
			w.log = append(w.log, "crash "+name)
			return errCrashed
		}
		return nil
	}
	err := do()
	w.note(what, owner, err)
	if errors.Is(err, errCrashed) {
		w.counts[what+" crashed"]++
	}
	at = 1 + w.rng.IntN(60)
	if err := w.host.Recover(context.Background()); err != nil && !errors.Is(err, errCrashed) {
		w.fatal("%v", err)
	}
	w.host.Fault = nil
	if err := w.host.Recover(context.Background()); err != nil {
		w.fatal("%v", err)
	}
	is := w.holdings()
	for other := range was {
		if other != owner && !slices.Equal(is[other].CPUs, was[other].CPUs) {
			w.fatal("%s had %v, has %v", other, was[other], is[other])
		}
	}
}

// refuse lets the kernel refuse a write. Then nothing has changed.
func (w *world) refuse(owner, what string, do func() error, was map[string]alloc.Plan, state map[string]string) {
	at, n := 1+w.rng.IntN(4), 0
	w.kernel.Fail = func(_, name string) error {
		if strings.HasPrefix(name, "proc/irq") {
			return nil // no reason to fail
		}
		if n++; n == at {
			return unix.ENOMEM
		}
		return nil
	}
	err := do()
	w.kernel.Fail = nil
	w.note(what, owner, err)
	if !errors.Is(err, unix.ENOMEM) {
		if err != nil && n >= at {
			w.fatal("the reason is lost: %v", err)
		}
		return
	}
	w.counts[what+" failed"]++
	if err := w.host.Recover(context.Background()); err != nil {
		w.fatal("%v", err)
	}
	if what != "release" {
		w.same(was, state)
	}
}

func (w *world) same(was map[string]alloc.Plan, state map[string]string) {
	if is := w.holdings(); fmt.Sprint(is) != fmt.Sprint(was) {
		w.fatal("held is %v, was %v", is, was)
	}
	w.unchanged(state, "an operation failed")
}

func (w *world) unchanged(want map[string]string, when string) {
	got := w.kernel.State()
	if maps.Equal(got, want) {
		return
	}
	for name := range maps.Keys(want) {
		if got[name] != want[name] {
			w.fatal("%s, and %s is %q, was %q", when, name, got[name], want[name])
		}
	}
	w.fatal("%s, and there are %d files instead of %d", when, len(got), len(want))
}

func (w *world) holdings() map[string]alloc.Plan {
	held, err := w.host.Held()
	if err != nil {
		w.fatal("%v", err)
	}
	out := map[string]alloc.Plan{}
	for _, h := range held {
		out[h.Owner] = h.Plan
	}
	return out
}

// completed says that the topology is the same, whatever was taken offline, but that
// this is not online.
func (w *world) completed(held []alloc.Holding) {
	if !w.mixed {
		return
	}
	topo, err := alloc.Read(w.kernel)
	if err != nil {
		w.fatal("%v", err)
	}
	var away alloc.CPUSet
	for _, h := range held {
		away = append(away, placesOf(h.Plan)...)
	}
	away = alloc.NewCPUSet(away...)
	if missing := len(w.topo.CPUs) - len(topo.CPUs); missing != len(away) {
		w.fatal("%s are away, and %d are missing", away, missing)
	}
	want := *w.topo
	want.CPUs = slices.Clone(want.CPUs)
	for i := range want.CPUs {
		want.CPUs[i].Online = want.CPUs[i].Online && !away.Has(want.CPUs[i].ID)
	}
	if got := topo.With(held); !reflect.DeepEqual(*got, want) || !reflect.DeepEqual(got.With(held), got) {
		w.fatal("with %s away, the topology is\n%+v\ninstead of\n%+v", away, *got, want)
	}
}

// check holds what has to hold between any two operations.
func (w *world) check() {
	cpus, devices := map[int]string{}, map[string]string{}
	memory := map[[2]int64]int64{}
	groups := w.kernel.Groups()
	all := alloc.CPUSet{}
	plans := w.holdings()
	for owner, plan := range plans {
		set := plan.HeldCPUs()
		all = all.Union(set)
		if got, want := groups["mortise-"+owner], set.Minus(placesOf(plan)); !slices.Equal(got, want) {
			w.fatal("%s holds %s, %s in a group, and the kernel gives it %s", owner, set, want, got)
		} else if len(want) == 0 {
			delete(plans, owner) // it has no group
		}
		for _, id := range set {
			if cpus[id] != "" {
				w.fatal("CPU %d is held by %s and %s", id, cpus[id], owner)
			}
			cpus[id] = owner
			cpu := w.topo.CPUs[id]
			if !cpu.Online || len(cpu.Siblings.Minus(set)) > 0 {
				w.fatal("%s has CPU %d of the core %s, online %v", owner, id, cpu.Siblings, cpu.Online)
			}
		}
		for _, d := range slices.Concat(plan.Devices, plan.Companions) {
			if devices[d] != "" {
				w.fatal("%s is held by %s and %s", d, devices[d], owner)
			}
			devices[d] = owner
		}
		for _, m := range plan.Memory {
			memory[[2]int64{int64(m.Node), plan.PageSize}] += m.Bytes
		}
	}
	if len(groups) != len(plans) {
		w.fatal("%d hold CPUs in groups, and there are the groups %v", len(plans), groups)
	}
	for _, n := range w.topo.Nodes {
		huge := int64(0)
		for _, h := range n.HugePages {
			huge += h.Total * h.Size
		}
		if memory[[2]int64{int64(n.ID), 0}] > n.Total-huge || memory[[2]int64{int64(n.ID), 2 << 20}] > huge {
			w.fatal("node %d: %v of %d and %d bytes are held", n.ID, memory, n.Total, huge)
		}
	}
	for i, cpu := range w.topo.CPUs { // the first core is the host's
		if cpu.Online {
			if len(all.And(cpu.Siblings)) > 0 {
				w.fatal("the host has lost CPU %d", i)
			}
			break
		}
	}
	for name, text := range w.kernel.State() {
		if irq := 0; strings.HasSuffix(name, "smp_affinity_list") {
			if _, err := fmt.Sscanf(name, "proc/irq/%d/", &irq); err != nil {
				w.fatal("%s: %v", name, err)
			}
			if set, err := alloc.ParseCPUs(text); err != nil || !w.kernel.Fixed[irq] && len(set.And(all)) > 0 {
				w.fatal("%s is %s, %v; held are %s", name, set, err, all)
			}
		}
	}
}

func placesOf(p alloc.Plan) alloc.CPUSet {
	var out alloc.CPUSet
	for _, place := range p.Offline {
		out = append(out, place.ID)
	}
	return out
}

// TestSequences makes random plans, applies, resizes and releases them, crashes and
// fails meanwhile. In every other sequence, some owners' CPUs are taken offline. With TENON_SOAK=1, it makes 112,000 sequences.
func TestSequences(t *testing.T) {
	t.Parallel()
	rounds := 60
	if os.Getenv("TENON_SOAK") != "" {
		rounds = 7000
	}
	for name, m := range machines {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, name, m.Kernel())
			for seed := range rounds {
				w.rng = rand.New(rand.NewPCG(uint64(seed), uint64(m.CPUs)))
				w.name = fmt.Sprintf("%s, seed %d", name, seed)
				w.mixed = seed%2 == 1
				w.sequence()
			}
			t.Logf("%d sequences: %v", rounds, w.counts)
			for _, what := range []string{"apply crashed", "apply failed", "release crashed", "resize", "CPUs away"} {
				if w.counts[what] == 0 && m.CPUs > 1 {
					t.Errorf("no %s among %d sequences: %v", what, rounds, w.counts)
				}
			}
		})
	}
}
