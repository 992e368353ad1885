// SPDX-License-Identifier: Apache-2.0

package alloc

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// device returns a function by address, or nil.
func (p *planner) device(address string) *Device {
	i, ok := slices.BinarySearchFunc(p.t.Devices, address, func(d Device, a string) int { return strings.Compare(d.Address, a) })
	if !ok {
		return nil
	}
	return &p.t.Devices[i]
}

// bridge says that a function stays with the host, whatever is behind it.
func (d *Device) bridge() bool { return d.Class>>16 == 0x06 }

func (d *Device) is(class string) bool { return strings.HasPrefix(fmt.Sprintf("%06x", d.Class), class) }

// inUse says that the host drives a function: these drivers only hold it for others.
func (d *Device) inUse() bool {
	return d.Driver != "" && d.Driver != "vfio-pci" && d.Driver != "pci-stub"
}

// group returns the functions that nobody can keep apart from d, with d itself.
// Bridges are not among them: they stay where they are.
func (p *planner) group(d *Device) []*Device {
	if d.Group < 0 {
		return []*Device{d}
	}
	var out []*Device
	for i := range p.t.Devices {
		if other := &p.t.Devices[i]; other.Group == d.Group && !other.bridge() {
			out = append(out, other)
		}
	}
	return out
}

// mine says that the instance has a function already, so that the host does not use it.
func (p *planner) mine(d *Device) bool {
	return p.req.Keep != nil && slices.Contains(p.req.Keep.heldDevices(), d.Address)
}

func (p *planner) devicesByAddress() error {
	var asked []string
	for _, r := range p.req.Devices {
		if r.Address != "" {
			asked = append(asked, r.Address)
		}
	}
	slices.Sort(asked)
	for _, address := range slices.Compact(asked) {
		d := p.device(address)
		if d == nil {
			return p.fail(ErrHost, nil, "the host has no device %s", quoted(address))
		}
		if d.bridge() {
			return p.fail(ErrRequest, nil, "device %s is a bridge, which stays with the host", address)
		}
		for _, mate := range p.group(d) {
			if err := p.together(d, mate, asked); err != nil {
				return err
			}
		}
		p.takeDevices(p.group(d), func(d *Device) bool { return slices.Contains(asked, d.Address) })
	}
	return nil
}

// together says why a function of a group cannot be taken.
func (p *planner) together(d, mate *Device, asked []string) error {
	what := "device " + mate.Address
	if d != mate {
		what = fmt.Sprintf("device %s is in IOMMU group %d with %s, which", d.Address, d.Group, mate.Address)
	}
	if h := p.devs[mate.Address]; h != nil {
		var holders []string
		if h != hostHolding {
			holders = []string{h.Owner}
		}
		return p.fail(ErrTaken, holders, "%s is %s", what, h.how())
	}
	if mate.inUse() && !p.mine(mate) && !slices.Contains(asked, mate.Address) {
		return p.fail(ErrTaken, nil, "%s is used by the host's driver %s", what, mate.Driver)
	}
	return nil
}

// takeDevices takes a group: some of it are given, the rest is held.
func (p *planner) takeDevices(group []*Device, given func(*Device) bool) {
	for _, d := range group {
		list := &p.out.Companions
		if given(d) {
			list = &p.out.Devices
		}
		if !slices.Contains(*list, d.Address) {
			*list = append(*list, d.Address)
			slices.Sort(*list)
		}
	}
}

// devicesByClass takes those that the instance has first, then those on the chosen
// nodes, then those that need the fewest others to be held.
func (p *planner) devicesByClass(nodes []int) error {
	local := map[int]bool{}
	for _, i := range nodes {
		local[p.t.Nodes[i].ID] = true
	}
	for _, r := range p.req.Devices {
		if r.Class == "" {
			continue
		}
		var free []*Device
		for i := range p.t.Devices {
			if d := &p.t.Devices[i]; d.is(r.Class) && p.freeGroup(d) {
				free = append(free, d)
			}
		}
		if len(free) < r.Count {
			return p.shortDevices(r, len(free))
		}
		rank := func(d *Device) int {
			rank := len(p.group(d))
			if !local[d.Node] {
				rank += 1 << 20
			}
			if !p.mine(d) {
				rank += 1 << 21
			}
			return rank
		}
		slices.SortStableFunc(free, func(a, b *Device) int { return cmp.Or(rank(a)-rank(b), a.Group-b.Group) })
		given := free[:r.Count]
		for _, d := range given {
			p.takeDevices(p.group(d), func(d *Device) bool { return slices.Contains(given, d) })
		}
	}
	return nil
}

// freeGroup says that a function and all that comes with it can be had, and that
// this plan has none of it yet.
func (p *planner) freeGroup(d *Device) bool {
	return !d.bridge() && !slices.ContainsFunc(p.group(d), func(d *Device) bool {
		return p.devs[d.Address] != nil || d.inUse() && !p.mine(d) || slices.Contains(p.out.heldDevices(), d.Address)
	})
}

func (p *planner) shortDevices(r DeviceRequest, free int) error {
	by := map[string][]string{}
	var holders []string
	for i := range p.t.Devices {
		d := &p.t.Devices[i]
		if !d.is(r.Class) || d.bridge() {
			continue
		}
		if h := p.devs[d.Address]; h != nil {
			by[h.how()] = append(by[h.how()], d.Address)
			if h != hostHolding {
				holders = append(holders, h.Owner)
			}
		} else if d.inUse() && !p.mine(d) {
			how := "used by the host's driver " + d.Driver
			by[how] = append(by[how], d.Address)
		}
	}
	kind, text := ErrHost, ""
	if len(by) > 0 {
		kind = ErrTaken
		var parts []string
		for _, how := range slices.Sorted(maps.Keys(by)) {
			parts = append(parts, strings.Join(by[how], " ")+" "+how)
		}
		text = ": " + strings.Join(parts[:min(len(parts), maxNamed)], ", ")
	}
	slices.Sort(holders)
	return p.fail(kind, slices.Compact(holders), "%d devices of class %s are needed, %d are free%s", r.Count, r.Class, free, text)
}

// deviceBounds counts what is given against the claims.
func (p *planner) deviceBounds() error {
	counts := map[string]int64{}
	for _, address := range p.out.Devices {
		claimed := false
		for class := range p.req.Bounds.Devices {
			if p.device(address).is(class) {
				counts[class]++
				claimed = true
			}
		}
		if !claimed {
			return p.fail(ErrBounds, nil, "no claim has the class of device %s, %06x", address, p.device(address).Class)
		}
	}
	for _, class := range slices.Sorted(maps.Keys(p.req.Bounds.Devices)) {
		if r := p.req.Bounds.Devices[class]; !r.has(counts[class]) {
			return p.fail(ErrBounds, nil, "the claims are %d to %d devices of class %s, not %d", r.Min, r.Max, class, counts[class])
		}
	}
	return nil
}
