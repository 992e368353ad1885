// SPDX-License-Identifier: Apache-2.0

package alloctest

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/tenon-build/tenon/loader/alloc"
)

// Machine describes a host. Its CPUs are spread over the nodes in blocks of cores;
// each node is a package with one last-level cache per CachedCores.
type Machine struct {
	CPUs        int
	SMT         int  // threads of a core, 1 where it is 0
	Adjacent    bool // siblings have numbers next to each other, as on some machines
	Nodes       int  // 1 where it is 0; -1 is a kernel without NUMA
	CachedCores int  // that share a cache; all of a node where it is 0
	Offline     alloc.CPUSet
	Isolated    alloc.CPUSet
	Memory      []int64 // MiB of each node, repeated
	HugePages   int     // of 2 MiB, on each node
	IRQs        int
	Fixed       []int // IRQs that cannot be moved
	Cgroup      int   // version, 2 where it is 0
	Subtree     bool  // the root group has cpuset in its subtree_control
	Old         bool  // before 6.1
	NICs        int   // two functions each, in one IOMMU group; every third is in use
}

// Kernel returns such a host.
func (m Machine) Kernel() *Kernel {
	m.SMT = max(m.SMT, 1)
	k := newKernel()
	k.Old = m.Old
	for _, irq := range m.Fixed {
		k.Fixed[irq] = true
	}
	m.cpus(k)
	m.nodes(k)
	m.nics(k)
	m.irqs(k)
	m.cgroups(k)
	k.put("proc/sys/kernel/random/boot_id", "00000000-0000-4000-8000-000000000001\n")
	return k
}

func numbers(from, to int) alloc.CPUSet {
	var out alloc.CPUSet
	for i := from; i < to; i++ {
		out = append(out, i)
	}
	return out
}

func (m Machine) online() alloc.CPUSet { return numbers(0, m.CPUs).Minus(m.Offline) }

// core returns which core a CPU is a thread of.
func (m Machine) core(cpu int) int {
	if m.Adjacent {
		return cpu / m.SMT
	}
	return cpu % m.cores()
}

func (m Machine) cores() int { return (m.CPUs + m.SMT - 1) / m.SMT }

func (m Machine) node(core int) int { return core * max(m.Nodes, 1) / m.cores() }

// where returns the online CPUs for which a property of their core is this one.
func (m Machine) where(is func(core int) bool) alloc.CPUSet {
	return slices.DeleteFunc(m.online(), func(cpu int) bool { return !is(m.core(cpu)) })
}

func (m Machine) cpus(k *Kernel) {
	const dir = sysCPU
	k.put(dir+"present", numbers(0, m.CPUs).String()+"\n")
	k.put(dir+"online", m.online().String()+"\n")
	k.put(dir+"isolated", m.Isolated.String()+"\n")
	for _, cpu := range m.online() {
		core := m.core(cpu)
		at := fmt.Sprintf("%scpu%d/", dir, cpu)
		k.put(at+"topology/physical_package_id", strconv.Itoa(m.node(core))+"\n")
		k.put(at+"topology/core_id", strconv.Itoa(core)+"\n")
		k.put(at+"topology/thread_siblings_list", m.where(func(other int) bool { return other == core }).String()+"\n")
		k.put(at+"cache/index0/level", "1\n")
		k.put(at+"cache/index3/level", "3\n")
		k.put(at+"cache/index3/size", "32768K\n")
		k.put(at+"cache/index3/shared_cpu_list", m.where(func(other int) bool {
			return m.node(other) == m.node(core) && (m.CachedCores == 0 || other/m.CachedCores == core/m.CachedCores)
		}).String()+"\n")
	}
}

func (m Machine) nodes(k *Kernel) {
	memory := func(node int) int64 {
		if len(m.Memory) == 0 {
			return 16 << 10
		}
		return m.Memory[node%len(m.Memory)]
	}
	pages := func(dir string) {
		k.put(dir+"/hugepages-2048kB/nr_hugepages", strconv.Itoa(m.HugePages)+"\n")
		k.put(dir+"/hugepages-2048kB/free_hugepages", strconv.Itoa(m.HugePages)+"\n")
	}
	info := func(name, prefix string, mib int64) {
		free := max(0, mib-2*int64(m.HugePages))
		k.put(name, fmt.Sprintf("%[1]sMemTotal: %[2]d kB\n%[1]sMemFree: %[3]d kB\n", prefix, mib<<10, free<<10))
	}
	if m.Nodes < 0 {
		info("proc/meminfo", "", memory(0))
		pages("sys/kernel/mm/hugepages")
		return
	}
	const dir = sysNode
	n := max(m.Nodes, 1)
	k.put(dir+"online", numbers(0, n).String()+"\n")
	for node := range n {
		at := fmt.Sprintf("%snode%d", dir, node)
		k.put(at+"/cpulist", m.where(func(core int) bool { return m.node(core) == node }).String()+"\n")
		info(at+"/meminfo", fmt.Sprintf("Node %d ", node), memory(node))
		pages(at + "/hugepages")
		var distances []string
		for other := range n {
			distances = append(distances, strconv.Itoa(10+min(other^node, 1)*10+(other^node)/2))
		}
		k.put(at+"/distance", strings.Join(distances, " ")+"\n")
	}
}

func (m Machine) nics(k *Kernel) {
	for i := range m.NICs {
		for function := range 2 {
			at := fmt.Sprintf("sys/bus/pci/devices/0000:%02x:00.%d", i+1, function)
			k.put(at+"/class", "0x020000\n")
			k.put(at+"/vendor", "0x8086\n")
			k.put(at+"/device", "0x1572\n")
			k.put(at+"/numa_node", strconv.Itoa(i%max(m.Nodes, 1))+"\n")
			k.links[at+"/iommu_group"] = fmt.Sprintf("../../../kernel/iommu_groups/%d", i)
			if i%3 == 2 {
				k.links[at+"/driver"] = "../../../bus/pci/drivers/i40e"
			}
		}
	}
}

// irqs has one for all CPUs, one for each of the first CPUs, one for a range, in turn.
func (m Machine) irqs(k *Kernel) {
	online := m.online()
	for i := range m.IRQs {
		set := numbers(0, m.CPUs)
		switch i % 3 {
		case 1:
			set = alloc.CPUSet{online[i%len(online)]}
		case 2:
			set = online[i%len(online):]
		}
		k.put(fmt.Sprintf("proc/irq/%d/smp_affinity_list", 20+i), set.String()+"\n")
	}
	words := make([]string, (m.CPUs+31)/32)
	for i := range words {
		words[i] = "ffffffff"
	}
	if rest := m.CPUs % 32; rest != 0 {
		words[0] = fmt.Sprintf("%0*x", (rest+3)/4, uint32(1)<<rest-1)
	}
	k.put(defaultIRQ, strings.Join(words, ",")+"\n")
}

func (m Machine) cgroups(k *Kernel) {
	if m.Cgroup == 1 {
		k.put(cgroup1+"/cgroup.procs", "1\n")
		k.put(cgroup1+"/cpuset.cpus", m.online().String()+"\n")
		k.put(cgroup1+"/cpuset.mems", numbers(0, max(m.Nodes, 1)).String()+"\n")
		return
	}
	k.put(cgroup2+"/cgroup.controllers", "cpuset cpu io memory pids\n")
	k.put(cgroup2+"/cgroup.procs", "1\n")
	control := "\n"
	if m.Subtree {
		control = "cpuset\n"
	}
	k.put(cgroup2+"/cgroup.subtree_control", control)
	k.put(cgroup2+"/system.slice/cgroup.procs", "2\n")
	k.put(cgroup2+"/system.slice/cgroup.subtree_control", "\n")
	k.populate(cgroup2+"/system.slice", m.Subtree)
}
