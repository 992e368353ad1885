// SPDX-License-Identifier: Apache-2.0

package alloctest

import (
	"maps"
	"path"
	"strconv"
	"strings"

	"github.com/tenon-build/tenon/loader/alloc"
)

const (
	sysCPU  = "sys/devices/system/cpu/"
	sysNode = "sys/devices/system/node/"
)

// Away takes CPUs offline and makes them not present, as mortise.ko does, and brings all
// others back. What cpu_down() leads to: topology and cache of a CPU vanish, and lists
// lack it; an interrupt that has no other CPU goes to any that is online, and stays.
func (k *Kernel) Away(away alloc.CPUSet) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.whole == nil {
		k.whole = map[string]string{}
		for name, data := range k.files {
			if dependsOnCPUs(name) {
				k.whole[name] = data
			}
		}
	}
	for name, data := range k.whole {
		switch cpu, _ := strings.CutPrefix(strings.Split(strings.TrimPrefix(name, sysCPU), "/")[0], "cpu"); {
		case strings.HasPrefix(name, sysCPU) && away.Has(number(cpu)):
			k.drop(name)
		case isList(name):
			set, err := alloc.ParseCPUs(data)
			if err != nil {
				panic(err)
			}
			k.put(name, set.Minus(away).String()+"\n")
		default:
			k.put(name, data)
		}
	}
	online := k.cpus(sysCPU + "online")
	for name := range maps.Keys(k.files) {
		irq := number(path.Base(path.Dir(name)))
		if path.Base(name) == "smp_affinity_list" && !k.Fixed[irq] && len(k.cpus(name).And(online)) == 0 {
			k.files[name] = online.String() + "\n"
		}
	}
}

// number returns -1 for what is none.
func number(text string) int {
	n, err := strconv.Atoi(text)
	if err != nil {
		return -1
	}
	return n
}

func dependsOnCPUs(name string) bool {
	return isList(name) || strings.HasPrefix(name, sysCPU+"cpu")
}

func isList(name string) bool {
	switch name {
	case sysCPU + "present", sysCPU + "online", cgroup1 + "/cpuset.cpus":
		return true
	}
	switch path.Base(name) {
	case "thread_siblings_list", "shared_cpu_list":
		return strings.HasPrefix(name, sysCPU)
	case "cpulist":
		return strings.HasPrefix(name, sysNode)
	}
	return false
}
