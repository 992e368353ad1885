// SPDX-License-Identifier: Apache-2.0

package alloc

import (
	"slices"
	"strings"
)

// Place is where a CPU is in a host, as Read knew it before a back end took the CPU
// offline: sysfs does not say it any more then.
type Place struct {
	CPU
	Cache Cache `json:"cache"` // the last one; of level 0: none
}

// TakenOffline says that the back end takes the plan's CPUs from the host's kernel itself.
func (p *Plan) TakenOffline() bool { return len(p.Offline) > 0 }

// places returns what is known of CPUs, which are online or were taken offline.
func (t *Topology) places(cpus CPUSet) []Place {
	out := make([]Place, len(cpus))
	for i, id := range cpus {
		out[i].CPU = *t.cpu(id)
		out[i].Online = true
		if c := slices.IndexFunc(t.Caches, func(c Cache) bool { return c.CPUs.Has(id) }); c >= 0 {
			out[i].Cache = t.Caches[c]
		}
	}
	return out
}

// With returns the topology completed by the CPUs that holdings have taken offline: each
// is where it was, and not Online. Of what is online, Read knows better. The holdings' own
// control groups are not in it.
func (t *Topology) With(held []Holding) *Topology {
	if len(held) == 0 {
		return t
	}
	out := *t
	out.Groups = slices.DeleteFunc(slices.Clone(t.Groups), func(g Group) bool {
		owner, ours := strings.CutPrefix(g.Name, groupPrefix)
		return ours && slices.ContainsFunc(held, func(h Holding) bool { return h.Owner == owner })
	})
	var away []Place
	for _, h := range held {
		for _, place := range h.Plan.Offline {
			if cpu := t.cpu(place.ID); cpu == nil || !cpu.placed() {
				away = append(away, place)
			}
		}
	}
	if len(away) == 0 {
		return &out
	}
	out.CPUs, out.Nodes, out.Caches = slices.Clone(t.CPUs), slices.Clone(t.Nodes), slices.Clone(t.Caches)
	for _, place := range away {
		out.insert(place.CPU)
	}
	var there CPUSet
	for _, cpu := range out.CPUs {
		if cpu.placed() {
			there = append(there, cpu.ID)
		}
	}
	for _, place := range away {
		out.join(place.Siblings.And(there))
		if i := slices.IndexFunc(out.Nodes, func(n Node) bool { return n.ID == place.Node }); i >= 0 {
			out.Nodes[i].CPUs = out.Nodes[i].CPUs.Union(CPUSet{place.ID})
		}
		out.share(Cache{place.Cache.Level, place.Cache.Size, place.Cache.CPUs.And(there)})
	}
	sortCaches(out.Caches)
	return &out
}

// placed says whether it is known where the CPU is.
func (c *CPU) placed() bool { return len(c.Siblings) > 0 }

// insert adds a CPU that is not online, alone on its core.
func (t *Topology) insert(cpu CPU) {
	cpu.Online, cpu.Siblings = false, CPUSet{cpu.ID}
	i, known := slices.BinarySearchFunc(t.CPUs, cpu.ID, func(c CPU, id int) int { return c.ID - id })
	if known { // present, and offline
		t.CPUs[i] = cpu
		return
	}
	t.CPUs = slices.Insert(t.CPUs, i, cpu)
}

// join makes CPUs threads of one core, with those that are on their cores already: what
// came online meanwhile was on no core of theirs that Read could see.
func (t *Topology) join(core CPUSet) {
	for _, id := range core {
		core = core.Union(t.cpu(id).Siblings)
	}
	for _, id := range core {
		t.cpu(id).Siblings = core
	}
}

// share adds a cache, or its CPUs to what is left of it.
func (t *Topology) share(c Cache) {
	i := slices.IndexFunc(t.Caches, func(other Cache) bool { return len(other.CPUs.And(c.CPUs)) > 0 })
	switch {
	case c.Level == 0:
	case i < 0:
		t.Caches = append(t.Caches, c)
	default:
		t.Caches[i].CPUs = t.Caches[i].CPUs.Union(c.CPUs)
	}
}
