// SPDX-License-Identifier: Apache-2.0

package alloc

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Plan decides what a request gets, and changes nothing. Equal arguments give equal
// plans. CPUs come in whole cores, then from as few nodes as have both them and the
// memory, then from as few caches. The error is a *PlanError.
func (t *Topology) Plan(req Request, held Held) (*Plan, error) {
	if err := req.check(); err != nil {
		return nil, err
	}
	p := newPlanner(t, &req, held)
	if err := p.plan(); err != nil {
		return nil, err
	}
	return &p.out, nil
}

// Reserved returns the CPUs that the host keeps: what r says, or the core of the first CPU.
func (t *Topology) Reserved(r Reserve) CPUSet {
	if len(r.CPUs) == 0 {
		return t.cpu(t.online()[0]).Siblings
	}
	return r.CPUs
}

// Free returns what could be had on each node: whole cores, and ordinary memory.
func (t *Topology) Free(held Held) []NodeFree {
	return newPlanner(t, &Request{}, held).left()
}

// planner is one call of Plan.
type planner struct {
	t    *Topology
	req  *Request
	out  Plan
	cpus map[int]*Holding    // who holds a CPU
	ofs  map[*Holding]*Group // the holdings that stand for control groups
	devs map[string]*Holding // who holds a device
	free []nodeFree          // by index in t.Nodes
	mem  map[string]int64    // what each holds of the memory that is asked for
}

// nodeFree is what a node can give.
type nodeFree struct {
	cores []CPUSet // free cores, whole or (SplitCores) what is free of them
	cpus  int      // in these
	bytes int64
}

// hostHolding stands for what is not an instance's.
var hostHolding = &Holding{}

func newPlanner(t *Topology, req *Request, held Held) *planner {
	t = t.With(held.Instances)
	if req.Keep != nil {
		t = t.With([]Holding{{Plan: *req.Keep}})
	}
	p := &planner{t: t, req: req, cpus: map[int]*Holding{}, ofs: map[*Holding]*Group{}, devs: map[string]*Holding{}, mem: map[string]int64{}}
	for _, cpu := range t.Reserved(held.Host) {
		p.cpus[cpu] = hostHolding
	}
	for _, address := range held.Host.Devices {
		p.devs[address] = hostHolding
	}
	for i := range held.Instances {
		h := &held.Instances[i]
		for _, cpu := range h.Plan.HeldCPUs() {
			p.cpus[cpu] = h
		}
		for _, address := range h.Plan.heldDevices() {
			p.devs[address] = h
		}
	}
	p.otherGroups()
	p.free = make([]nodeFree, len(t.Nodes))
	p.freeCores()
	p.freeMemory(held)
	return p
}

// otherGroups keeps off the CPUs of control groups that no instance has.
func (p *planner) otherGroups() {
	var own CPUSet
	if p.req.Keep != nil {
		own = p.req.Keep.HeldCPUs()
	}
	for i := range p.t.Groups {
		g := &p.t.Groups[i]
		if !g.keeps(p.req.Offline) {
			continue
		}
		h := &Holding{}
		p.ofs[h] = g
		for _, cpu := range g.CPUs.Minus(own) {
			if p.cpus[cpu] == nil {
				p.cpus[cpu] = h
			}
		}
	}
}

func (p *planner) freeCores() {
	for i, n := range p.t.Nodes {
		f := &p.free[i]
		for _, id := range n.CPUs {
			cpu := p.t.cpu(id)
			if id != cpu.Siblings[0] {
				continue
			}
			core := cpu.Siblings.filter(func(id int) bool { return p.cpus[id] == nil })
			if len(core) == len(cpu.Siblings) || p.req.SplitCores && len(core) > 0 {
				f.cores = append(f.cores, core)
				f.cpus += len(core)
			}
		}
	}
}

// freeMemory is what was not promised to anybody, and not more than is free now.
func (p *planner) freeMemory(held Held) {
	reserve := held.Host.Memory
	for i, n := range p.t.Nodes {
		total, free := n.Total, n.Free
		for _, h := range n.HugePages {
			total -= h.Size * h.Total
		}
		if p.req.PageSize == 0 {
			kept := min(reserve, max(total, 0))
			reserve -= kept
			total -= kept
		} else {
			total, free = 0, 0
			for _, h := range n.HugePages {
				if h.Size == p.req.PageSize {
					total, free = h.Size*h.Total, h.Size*h.Free
				}
			}
		}
		for _, h := range held.Instances {
			for _, m := range h.Plan.Memory {
				if m.Node != n.ID || h.Plan.PageSize != p.req.PageSize {
					continue
				}
				if p.req.Node == nil || *p.req.Node == n.ID {
					p.mem[h.Owner] += m.Bytes
				}
				total -= m.Bytes
				if !h.Resident {
					free -= m.Bytes
				}
			}
		}
		p.free[i].bytes = max(0, min(total, free)) / p.req.unit() * p.req.unit()
	}
}

func (p *planner) plan() error {
	if err := p.devicesByAddress(); err != nil {
		return err
	}
	if err := p.listed(); err != nil {
		return err
	}
	p.kept()
	nodes, err := p.nodes()
	if err != nil {
		return err
	}
	for _, i := range nodes {
		p.takeCPUs(&p.free[i])
	}
	slices.Sort(p.out.CPUs)
	p.siblings()
	p.takeMemory(nodes)
	if err := p.devicesByClass(nodes); err != nil {
		return err
	}
	p.out.ID = p.req.ID
	if p.req.Offline {
		p.out.Offline = p.t.places(p.out.HeldCPUs())
	}
	return p.deviceBounds()
}

// listed takes the CPUs that are asked for by number.
func (p *planner) listed() error {
	list := p.req.CPUList
	if missing := list.filter(func(id int) bool { return p.t.cpu(id) == nil }); len(missing) > 0 {
		return p.fail(ErrHost, nil, "the host has no %s", name(missing))
	}
	if offline := list.filter(func(id int) bool { return !p.t.cpu(id).placed() }); len(offline) > 0 {
		return p.fail(ErrHost, nil, "%s offline", is(offline))
	}
	if node := p.req.Node; node != nil {
		if far := list.filter(func(id int) bool { return p.t.cpu(id).Node != *node }); len(far) > 0 {
			return p.fail(ErrRequest, nil, "%s not on node %d", is(far), *node)
		}
	}
	if taken := list.filter(func(id int) bool { return p.cpus[id] != nil }); len(taken) > 0 {
		return p.failCPUs(ErrTaken, taken, "%s", p.holders(taken))
	}
	for _, id := range list {
		siblings := p.t.cpu(id).Siblings
		if taken := siblings.filter(func(id int) bool { return p.cpus[id] != nil }); len(taken) > 0 && !p.req.SplitCores {
			return p.failCPUs(ErrTaken, taken, "CPU %d shares its core: %s", id, p.holders(taken))
		}
	}
	p.take(list)
	return nil
}

// kept takes the CPUs that an instance has, in whole cores where it has too many,
// and then what was idle of their cores.
func (p *planner) kept() {
	if p.req.Keep == nil || len(p.req.CPUList) > 0 {
		return
	}
	for _, set := range []CPUSet{p.req.Keep.CPUs, p.req.Keep.Siblings} {
		var cores []CPUSet
		for i, f := range p.free {
			for _, core := range f.cores {
				core = core.And(set)
				if len(core) > 0 && (p.req.Node == nil || *p.req.Node == p.t.Nodes[i].ID) {
					cores = append(cores, core)
				}
			}
		}
		p.takeCores(cores)
	}
}

// take gives CPUs, and takes their cores from what is free: the rest of a core that
// is given in part is idle, unless cores may be split.
func (p *planner) take(cpus CPUSet) {
	p.out.CPUs = NewCPUSet(slices.Concat(p.out.CPUs, cpus)...)
	for i := range p.free {
		f := &p.free[i]
		var cores []CPUSet
		f.cpus = 0
		for _, core := range f.cores {
			rest := core.Minus(cpus)
			if len(rest) < len(core) && !p.req.SplitCores && p.need() == 0 {
				rest = nil
			}
			if len(rest) > 0 {
				cores = append(cores, rest)
				f.cpus += len(rest)
			}
		}
		f.cores = cores
	}
}

func (p *planner) need() int { return p.req.count() - len(p.out.CPUs) }

// takeCPUs takes what is still needed from a node: from the smallest cache that has
// all of it, or else from the largest one first.
func (p *planner) takeCPUs(f *nodeFree) {
	for p.need() > 0 && f.cpus > 0 {
		groups := map[int][]CPUSet{}
		counts := map[int]int{}
		for _, core := range f.cores {
			c := p.cache(core[0])
			groups[c] = append(groups[c], core)
			counts[c] += len(core)
		}
		best := slices.MinFunc(slices.Sorted(maps.Keys(groups)), func(a, b int) int {
			fitsA, fitsB := counts[a] >= p.need(), counts[b] >= p.need()
			switch {
			case fitsA && fitsB:
				return cmp.Or(counts[a]-counts[b], a-b)
			case fitsA:
				return -1
			case fitsB:
				return 1
			}
			return cmp.Or(counts[b]-counts[a], a-b)
		})
		p.takeCores(groups[best])
	}
}

// takeCores takes the largest cores that are used up, then the smallest one that is
// not, so that few siblings are idle.
func (p *planner) takeCores(cores []CPUSet) {
	slices.SortStableFunc(cores, func(a, b CPUSet) int { return len(b) - len(a) })
	var taken CPUSet
	for need := p.need(); need > 0 && len(cores) > 0; {
		i := slices.IndexFunc(cores, func(core CPUSet) bool { return len(core) <= need })
		if i < 0 {
			least := len(cores[len(cores)-1])
			i = slices.IndexFunc(cores, func(core CPUSet) bool { return len(core) == least })
		}
		core := cores[i][:min(len(cores[i]), need)]
		need -= len(core)
		taken = append(taken, core...)
		cores = slices.Delete(cores, i, i+1)
	}
	p.take(NewCPUSet(taken...))
}

// cache is the index of a CPU's last cache, -1 without one.
func (p *planner) cache(cpu int) int {
	return slices.IndexFunc(p.t.Caches, func(c Cache) bool { return c.CPUs.Has(cpu) })
}

// siblings holds the rest of the cores.
func (p *planner) siblings() {
	if p.req.SplitCores {
		return
	}
	var all CPUSet
	for _, id := range p.out.CPUs {
		all = append(all, p.t.cpu(id).Siblings...)
	}
	p.out.Siblings = NewCPUSet(all...).Minus(p.out.CPUs)
}

// takeMemory takes it from the nodes, in their order.
func (p *planner) takeMemory(nodes []int) {
	p.out.PageSize = p.req.PageSize
	if p.memoryKept() {
		p.out.Memory = slices.Clone(p.req.Keep.Memory)
		return
	}
	need := p.req.bytes()
	for _, i := range nodes {
		if bytes := min(need, p.free[i].bytes); bytes > 0 {
			p.out.Memory = append(p.out.Memory, NodeMemory{p.t.Nodes[i].ID, bytes})
			need -= bytes
		}
	}
	slices.SortFunc(p.out.Memory, func(a, b NodeMemory) int { return a.Node - b.Node })
}

// memoryKept says that an instance has the memory that is asked for.
func (p *planner) memoryKept() bool {
	k := p.req.Keep
	return k != nil && k.PageSize == p.req.PageSize && k.bytes() == p.req.bytes() &&
		(p.req.Node == nil || len(k.Memory) == 0 || len(k.Memory) == 1 && k.Memory[0].Node == *p.req.Node)
}

// fail makes an error that says what is left.
func (p *planner) fail(kind error, holders []string, format string, args ...any) error {
	return &PlanError{Kind: kind, Reason: fmt.Sprintf(format, args...), Holders: holders, Free: p.left()}
}

// failCPUs makes an error that also says who holds CPUs.
func (p *planner) failCPUs(kind error, cpus CPUSet, format string, args ...any) error {
	e := &PlanError{Kind: kind, Reason: fmt.Sprintf(format, args...), Free: p.left(), Cpuset: p.t.Cpuset}
	for _, h := range p.holdersOf(cpus) {
		switch g := p.ofs[h]; {
		case g != nil:
			e.Groups = append(e.Groups, *g)
		case h != hostHolding:
			e.Holders = append(e.Holders, h.Owner)
		}
	}
	slices.Sort(e.Holders)
	return e
}

// left is what is free on each node where something is.
func (p *planner) left() (free []NodeFree) {
	for i, f := range p.free {
		if f.cpus > 0 || f.bytes > 0 {
			free = append(free, NodeFree{p.t.Nodes[i].ID, NewCPUSet(slices.Concat(f.cores...)...), f.bytes})
		}
	}
	return free
}

// holdersOf returns who holds CPUs, in the order of these.
func (p *planner) holdersOf(cpus CPUSet) (out []*Holding) {
	for _, id := range cpus {
		if h := p.cpus[id]; h != nil && !slices.Contains(out, h) {
			out = append(out, h)
		}
	}
	return out
}

// holders says who holds CPUs that are taken, as in `CPUs 4-5 are held by "web",
// CPUs 6-7 are held by "cache"`.
func (p *planner) holders(cpus CPUSet) string {
	var parts []string
	order := p.holdersOf(cpus)
	for _, h := range order[:min(len(order), maxNamed)] {
		how := h.how()
		if g := p.ofs[h]; g != nil {
			how = g.how()
		}
		parts = append(parts, is(cpus.filter(func(id int) bool { return p.cpus[id] == h }))+" "+how)
	}
	if more := len(order) - maxNamed; more > 0 {
		parts = append(parts, fmt.Sprintf("others by %d more", more))
	}
	return strings.Join(parts, ", ")
}

// maxNamed is how many holders one line names.
const maxNamed = 4

func (h *Holding) how() string {
	if h == hostHolding {
		return "reserved for the host"
	}
	return fmt.Sprintf("held by %q", h.Owner)
}

func name(cpus CPUSet) string {
	if len(cpus) == 1 {
		return fmt.Sprintf("CPU %s", cpus)
	}
	return fmt.Sprintf("CPUs %s", cpus)
}

func is(cpus CPUSet) string {
	if len(cpus) == 1 {
		return name(cpus) + " is"
	}
	return name(cpus) + " are"
}
