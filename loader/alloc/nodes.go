// SPDX-License-Identifier: Apache-2.0

package alloc

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// maxSearch is among how many nodes the fewest ones are searched. Where more have
// something free, only those with the most free CPUs and memory count.
const maxSearch = 16

// nodes chooses where the CPUs and the memory come from, as indexes in t.Nodes: the
// nodes of CPUs that are taken already, and as few others as there is enough on. Of
// these, those come first that are near to the devices, near to each other, and
// then those that leave the fewest CPUs over.
func (p *planner) nodes() ([]int, error) {
	cpus, bytes := p.need(), p.req.bytes()
	if p.memoryKept() {
		bytes = 0
	}
	var must, rest []int
	for i, n := range p.t.Nodes {
		switch {
		case p.req.Node != nil && n.ID != *p.req.Node:
		case len(n.CPUs.And(p.out.CPUs)) > 0:
			must = append(must, i)
			cpus -= p.free[i].cpus
			bytes -= p.free[i].bytes
		case p.need() > 0 && p.free[i].cpus > 0 || bytes > 0 && p.free[i].bytes > 0:
			rest = append(rest, i)
		}
	}
	if p.req.Node != nil && !slices.ContainsFunc(p.t.Nodes, func(n Node) bool { return n.ID == *p.req.Node }) {
		return nil, p.fail(ErrHost, nil, "the host has no node %d", *p.req.Node)
	}
	s := search{p: p, must: must, rest: p.most(rest)}
	for k := 0; k <= len(s.rest) && s.best == nil; k++ {
		s.run(0, k, cpus, bytes)
	}
	if s.best == nil {
		s.best = slices.Concat(must, rest) // all of them
	}
	if err := p.checkNodes(s.best); err != nil {
		return nil, err
	}
	slices.SortStableFunc(s.best, func(a, b int) int { return p.free[b].cpus - p.free[a].cpus })
	slices.SortStableFunc(s.best, func(a, b int) int { // those in use come first
		return cmp.Compare(slices.Index(must, b), slices.Index(must, a))
	})
	return s.best, nil
}

// most returns the nodes to search among, in their order.
func (p *planner) most(nodes []int) []int {
	if len(nodes) <= maxSearch {
		return nodes
	}
	most := slices.Clone(nodes)
	slices.SortStableFunc(most, func(a, b int) int {
		return cmp.Or(p.free[b].cpus-p.free[a].cpus, cmp.Compare(p.free[b].bytes, p.free[a].bytes))
	})
	most = most[:maxSearch]
	slices.Sort(most)
	return most
}

// search tries all sets of k nodes out of rest.
type search struct {
	p          *planner
	must, rest []int
	at         []int // the set that is tried
	best       []int
	cost       [3]int
}

func (s *search) run(from, k, cpus int, bytes int64) {
	if k == 0 {
		if cpus <= 0 && bytes <= 0 {
			s.consider(-cpus)
		}
		return
	}
	for i := from; i+k <= len(s.rest); i++ {
		f := s.p.free[s.rest[i]]
		s.at = append(s.at, s.rest[i])
		s.run(i+1, k-1, cpus-f.cpus, bytes-f.bytes)
		s.at = s.at[:len(s.at)-1]
	}
}

func (s *search) consider(over int) {
	set := slices.Concat(s.must, s.at)
	cost := [3]int{0, 0, over}
	for _, address := range s.p.out.Devices {
		if d := s.p.device(address); d.Node >= 0 && !slices.ContainsFunc(set, func(i int) bool { return s.p.t.Nodes[i].ID == d.Node }) {
			cost[0]++
		}
	}
	for _, a := range set {
		for _, b := range set {
			cost[1] += s.p.t.Nodes[a].Distances[b]
		}
	}
	if s.best == nil || slices.Compare(cost[:], s.cost[:]) < 0 {
		s.best, s.cost = set, cost
	}
}

// checkNodes says what the nodes lack.
func (p *planner) checkNodes(nodes []int) error {
	cpus, bytes := 0, int64(0)
	for _, i := range nodes {
		cpus += p.free[i].cpus
		bytes += p.free[i].bytes
	}
	where := ""
	if p.req.Node != nil {
		where = fmt.Sprintf(" on node %d", *p.req.Node)
	}
	if cpus < p.need() {
		return p.shortCPUs(where, cpus+len(p.out.CPUs))
	}
	if need := p.req.bytes(); bytes < need && !p.memoryKept() {
		return p.shortMemory(where, need, bytes)
	}
	return nil
}

func (p *planner) shortCPUs(where string, free int) error {
	var all CPUSet
	for _, n := range p.t.Nodes {
		if p.req.Node == nil || n.ID == *p.req.Node {
			all = append(all, n.CPUs...)
		}
	}
	all = NewCPUSet(all...)
	text := p.holders(all)
	kind, whole := ErrTaken, " in whole cores"
	if reserved := all.filter(func(id int) bool { return p.cpus[id] == hostHolding }); p.req.count() > len(all)-len(reserved) {
		kind = ErrHost
	}
	if p.req.SplitCores {
		whole = ""
	}
	if text != "" {
		text = ": " + text
	}
	return p.failCPUs(kind, all, "%d CPUs%s are needed%s, %d of %d are free%s", p.req.count(), whole, where, free, len(all), text)
}

func (p *planner) shortMemory(where string, need, free int64) error {
	kind, what := ErrHost, "memory"
	if p.req.PageSize > 0 {
		what = fmt.Sprintf("huge pages of %d KiB", p.req.PageSize>>10)
	}
	text := size(free) + " are free"
	holders := slices.Sorted(maps.Keys(p.mem))
	slices.SortStableFunc(holders, func(a, b string) int { return cmp.Compare(p.mem[b], p.mem[a]) })
	var parts []string
	for i, owner := range holders {
		if free += p.mem[owner]; free >= need {
			kind = ErrTaken
		}
		if i < maxNamed {
			parts = append(parts, fmt.Sprintf("%s are held by %q", size(p.mem[owner]), owner))
		}
	}
	if len(parts) > 0 {
		text += ": " + strings.Join(parts, ", ")
	}
	if more := len(holders) - maxNamed; more > 0 {
		text += fmt.Sprintf(", others by %d more", more)
	}
	slices.Sort(holders)
	return p.fail(kind, holders, "%s of %s are needed%s, %s", size(need), what, where, text)
}
