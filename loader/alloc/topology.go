// SPDX-License-Identifier: Apache-2.0

package alloc

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"
)

// Topology is what a host has. Read makes one; it does not change.
type Topology struct {
	CPUs    []CPU    `json:"cpus"`  // those that are present, by number
	Nodes   []Node   `json:"nodes"` // by number; a host without NUMA has node 0
	Caches  []Cache  `json:"caches"`
	Devices []Device `json:"devices"` // PCI functions, by address
	Cpuset  Cpuset   `json:"cpuset"`  // how its CPUs can be made exclusive
	Groups  []Group  `json:"groups"`  // control groups that have CPUs of their own, by name
}

// CPU is what sysfs calls a CPU: one thread of a core. Of an offline one, its place
// is not known: Package, Core and Node are -1, and Siblings is empty. Topology.With
// knows the place of those that were taken offline.
type CPU struct {
	ID       int    `json:"id"`
	Package  int    `json:"package"`
	Core     int    `json:"core"` // unique in its package alone
	Node     int    `json:"node"`
	Siblings CPUSet `json:"siblings"` // the online threads of its core, itself too; also those taken offline, by With
	Online   bool   `json:"online"`
	Isolated bool   `json:"isolated"` // by the boot parameter isolcpus
}

// Node is a NUMA node. Sizes are in bytes.
type Node struct {
	ID        int         `json:"id"`
	CPUs      CPUSet      `json:"cpus"` // the online ones
	Total     int64       `json:"total"`
	Free      int64       `json:"free"` // what it could give now: free, or cached and clean to drop
	HugePages []HugePages `json:"hugePages"`
	Distances []int       `json:"distances"` // to the nodes in their order, 10 is itself
}

// HugePages are a node's huge pages of one size.
type HugePages struct {
	Size  int64 `json:"size"` // of one, in bytes
	Total int64 `json:"total"`
	Free  int64 `json:"free"`
}

// Cache is one cache and who shares it. Only the last level of each CPU is kept.
type Cache struct {
	Level int    `json:"level"`
	Size  int64  `json:"size"` // bytes
	CPUs  CPUSet `json:"cpus"`
}

// Device is a PCI function.
type Device struct {
	Address string `json:"address"` // domain:bus:device.function, such as 0000:03:00.0
	Class   uint32 `json:"class"`   // base class, subclass, interface: 0x020000 is Ethernet
	Vendor  uint16 `json:"vendor"`
	Device  uint16 `json:"device"`
	Driver  string `json:"driver"` // the host's; empty without one
	Node    int    `json:"node"`   // -1 where the firmware does not say
	Group   int    `json:"group"`  // IOMMU group; -1 without an IOMMU
}

const (
	sysCPU   = "sys/devices/system/cpu"
	sysNode  = "sys/devices/system/node"
	sysPCI   = "sys/bus/pci/devices"
	sysHuge  = "sys/kernel/mm/hugepages"
	memInfo  = "proc/meminfo"
	maxNodes = 1024 // NODES_SHIFT is at most 10
)

// Read reads a host's topology. The files are those of
// Documentation/ABI/stable/sysfs-devices-system-cpu (topology, cache),
// Documentation/ABI/stable/sysfs-devices-node and Documentation/ABI/testing/sysfs-bus-pci.
func Read(root Root) (*Topology, error) {
	for tries := 1; ; tries++ {
		before, err := root.ReadFile(sysCPU + "/online")
		if err != nil {
			return nil, fmt.Errorf("reading the topology: %w", err)
		}
		t, err := read(root)
		after, gone := root.ReadFile(sysCPU + "/online")
		if gone != nil || bytes.Equal(before, after) || tries == maxTries {
			return t, err
		}
		// A CPU came or went: what was read of it, or of its siblings, may contradict the rest.
	}
}

// maxTries is how often a host is read whose CPUs come and go: many at once go one by one.
const maxTries = 1000

func read(root Root) (*Topology, error) {
	r := &reader{root: root}
	t := &Topology{}
	r.cpus(t)
	r.nodes(t)
	r.devices(t)
	if r.err == nil {
		t.Cpuset, r.err = findCpuset(root)
	}
	if r.err == nil {
		t.Groups, r.err = t.Cpuset.groups(root)
	}
	if r.err != nil {
		return nil, fmt.Errorf("reading the topology: %w", r.err)
	}
	return t, nil
}

// reader keeps the first error.
type reader struct {
	root Root
	err  error
}

// text returns a file's content without white space around it. A missing file is
// empty where it is optional.
func (r *reader) text(name string, optional bool) string {
	if r.err != nil {
		return ""
	}
	data, err := r.root.ReadFile(name)
	if err != nil && (!optional || !errors.Is(err, fs.ErrNotExist)) {
		r.err = err
	}
	return strings.TrimSpace(string(data))
}

func (r *reader) set(name string, optional bool) CPUSet {
	set, err := ParseCPUs(r.text(name, optional))
	r.fail(name, err)
	return set
}

// int reads a number, in decimal or with 0x in hexadecimal.
func (r *reader) int(name string, bits int) int64 {
	text := r.text(name, false)
	if r.err != nil {
		return 0
	}
	n, err := strconv.ParseInt(text, 0, bits)
	if err != nil {
		err = fmt.Errorf("%s is not a number of %d bits", quoted(text), bits)
	}
	r.fail(name, err)
	return n
}

func (r *reader) fail(name string, err error) {
	if r.err == nil && err != nil {
		r.err = fmt.Errorf("%s: %w", name, err)
	}
}

// dir lists a directory; a missing one is empty.
func (r *reader) dir(name string) []string {
	if r.err != nil {
		return nil
	}
	names, err := r.root.ReadDir(name)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		r.err = err
	}
	return names
}

// link returns the last element of where a link leads, empty without one.
func (r *reader) link(name string) string {
	if r.err != nil {
		return ""
	}
	to, err := r.root.ReadLink(name)
	if errors.Is(err, fs.ErrNotExist) {
		return ""
	}
	if err != nil {
		r.err = err
	}
	return path.Base(to)
}

func (r *reader) cpus(t *Topology) {
	present := r.set(sysCPU+"/present", false)
	online := r.set(sysCPU+"/online", false)
	isolated := r.set(sysCPU+"/isolated", true)
	caches := map[string]Cache{}
	for _, id := range present {
		cpu := CPU{ID: id, Package: -1, Core: -1, Node: -1, Online: online.Has(id), Isolated: isolated.Has(id)}
		if cpu.Online {
			dir := fmt.Sprintf("%s/cpu%d/", sysCPU, id)
			cpu.Package = int(r.int(dir+"topology/physical_package_id", 32))
			cpu.Core = int(r.int(dir+"topology/core_id", 32))
			cpu.Siblings = r.set(dir+"topology/thread_siblings_list", false).And(online)
			if r.err == nil && !cpu.Siblings.Has(id) {
				r.fail(dir+"topology/thread_siblings_list", fmt.Errorf("CPU %d is not a sibling of itself", id))
			}
			r.lastCache(dir+"cache", caches)
		}
		t.CPUs = append(t.CPUs, cpu)
	}
	if r.err == nil && len(online) == 0 {
		r.fail(sysCPU+"/online", errors.New("no CPU is online"))
	}
	for _, key := range slices.Sorted(maps.Keys(caches)) {
		t.Caches = append(t.Caches, caches[key])
	}
	sortCaches(t.Caches)
	r.siblings(t)
}

func sortCaches(caches []Cache) {
	slices.SortStableFunc(caches, func(a, b Cache) int { return slices.Compare(a.CPUs, b.CPUs) })
}

// siblings refuses cores that overlap: whole cores would mean nothing.
func (r *reader) siblings(t *Topology) {
	of := map[int]CPUSet{}
	for _, cpu := range t.CPUs {
		of[cpu.ID] = cpu.Siblings
	}
	for _, cpu := range t.CPUs {
		for _, sibling := range cpu.Siblings {
			if !slices.Equal(of[sibling], cpu.Siblings) {
				r.fail(sysCPU, fmt.Errorf("CPU %d has the siblings %s, and CPU %d has %s", cpu.ID, cpu.Siblings, sibling, of[sibling]))
				return
			}
		}
	}
}

// lastCache adds a CPU's cache of the highest level.
func (r *reader) lastCache(dir string, caches map[string]Cache) {
	last, from := Cache{}, ""
	for _, name := range r.dir(dir) {
		if !strings.HasPrefix(name, "index") {
			continue
		}
		if level := int(r.int(path.Join(dir, name, "level"), 16)); level > last.Level {
			last.Level, from = level, path.Join(dir, name)
		}
	}
	if from == "" {
		return
	}
	last.CPUs = r.set(from+"/shared_cpu_list", false)
	size := r.text(from+"/size", true) // "32768K"; some virtual machines have none
	if kib, ok := strings.CutSuffix(size, "K"); ok && r.err == nil {
		n, err := strconv.ParseInt(kib, 10, 32)
		r.fail(from+"/size", err)
		last.Size = n << 10
	}
	caches[last.CPUs.String()] = last
}

func (r *reader) nodes(t *Topology) {
	online := r.set(sysNode+"/online", true) // node lists have the format of CPU lists
	if len(online) == 0 {
		r.oneNode(t)
		return
	}
	if online[len(online)-1] >= maxNodes {
		r.fail(sysNode+"/online", fmt.Errorf("node %d is beyond %d", online[len(online)-1], maxNodes-1))
	}
	for _, id := range online {
		dir := fmt.Sprintf("%s/node%d", sysNode, id)
		n := Node{ID: id, CPUs: r.set(dir+"/cpulist", false)}
		n.Total, n.Free = r.memory(dir+"/meminfo", fmt.Sprintf("Node %d ", id))
		n.HugePages = r.hugePages(dir + "/hugepages")
		for field := range strings.FieldsSeq(r.text(dir+"/distance", false)) {
			d, err := strconv.Atoi(field)
			r.fail(dir+"/distance", err)
			n.Distances = append(n.Distances, d)
		}
		if r.err == nil && len(n.Distances) != len(online) {
			r.fail(dir+"/distance", fmt.Errorf("%d distances for %d nodes", len(n.Distances), len(online)))
		}
		t.addNode(n)
		if r.err != nil {
			return
		}
	}
	for _, cpu := range t.CPUs {
		if cpu.Online && cpu.Node < 0 {
			r.fail(sysNode, fmt.Errorf("CPU %d is on no node", cpu.ID))
		}
	}
}

// oneNode is a kernel without NUMA.
func (r *reader) oneNode(t *Topology) {
	n := Node{Distances: []int{10}, HugePages: r.hugePages(sysHuge)}
	n.Total, n.Free = r.memory(memInfo, "")
	for _, cpu := range t.CPUs {
		if cpu.Online {
			n.CPUs = append(n.CPUs, cpu.ID)
		}
	}
	t.addNode(n)
}

func (t *Topology) addNode(n Node) {
	var online CPUSet
	for i := range t.CPUs {
		if cpu := &t.CPUs[i]; cpu.Online && cpu.Node < 0 && n.CPUs.Has(cpu.ID) {
			cpu.Node = n.ID
			online = append(online, cpu.ID)
		}
	}
	n.CPUs = online
	t.Nodes = append(t.Nodes, n)
}

// memory reads lines such as "Node 0 MemFree:  9447112 kB". What files occupy is
// counted as free but for what is dirty or being written; shared memory is on other
// lists.
func (r *reader) memory(name, prefix string) (total, free int64) {
	values := map[string]int64{}
	for line := range strings.Lines(r.text(name, false)) {
		key, value, _ := strings.Cut(strings.TrimPrefix(line, prefix), ":")
		fields := strings.Fields(value)
		if len(fields) != 2 || fields[1] != "kB" {
			continue
		}
		n, err := strconv.ParseInt(fields[0], 10, 50)
		r.fail(name, err)
		values[key] = n << 10
	}
	if _, ok := values["MemTotal"]; !ok {
		r.fail(name, errors.New("has no MemTotal"))
	}
	files := values["Active(file)"] + values["Inactive(file)"] - values["Dirty"] - values["Writeback"]
	return values["MemTotal"], min(values["MemTotal"], values["MemFree"]+max(0, files))
}

// hugePages reads directories such as hugepages-2048kB, see
// Documentation/admin-guide/mm/hugetlbpage.rst.
func (r *reader) hugePages(dir string) []HugePages {
	var out []HugePages
	for _, name := range r.dir(dir) {
		kib, ok := strings.CutSuffix(strings.TrimPrefix(name, "hugepages-"), "kB")
		if !ok {
			continue
		}
		size, err := strconv.ParseInt(kib, 10, 32)
		if err != nil || size <= 0 {
			r.fail(path.Join(dir, name), errors.New("has no page size in its name"))
			return nil
		}
		h := HugePages{Size: size << 10}
		h.Total = r.int(path.Join(dir, name, "nr_hugepages"), 32)
		h.Free = r.int(path.Join(dir, name, "free_hugepages"), 32)
		out = append(out, h)
	}
	slices.SortFunc(out, func(a, b HugePages) int { return int(a.Size>>10 - b.Size>>10) })
	return out
}

func (r *reader) devices(t *Topology) {
	for _, address := range r.dir(sysPCI) {
		dir := path.Join(sysPCI, address)
		d := Device{Address: address, Node: -1, Group: -1}
		d.Class = uint32(r.int(dir+"/class", 32))
		d.Vendor = uint16(r.int(dir+"/vendor", 32))
		d.Device = uint16(r.int(dir+"/device", 32))
		d.Driver = r.link(dir + "/driver")
		if node := r.text(dir+"/numa_node", true); node != "" && r.err == nil {
			n, err := strconv.Atoi(node)
			r.fail(dir+"/numa_node", err)
			d.Node = max(n, -1)
		}
		if group := r.link(dir + "/iommu_group"); group != "" && r.err == nil {
			n, err := strconv.Atoi(group)
			r.fail(dir+"/iommu_group", err)
			d.Group = n
		}
		t.Devices = append(t.Devices, d)
	}
}

// cpu returns a CPU by number, or nil.
func (t *Topology) cpu(id int) *CPU {
	i, ok := slices.BinarySearchFunc(t.CPUs, id, func(c CPU, id int) int { return c.ID - id })
	if !ok {
		return nil
	}
	return &t.CPUs[i]
}

func (t *Topology) online() CPUSet {
	var out CPUSet
	for _, cpu := range t.CPUs {
		if cpu.Online {
			out = append(out, cpu.ID)
		}
	}
	return out
}
