// SPDX-License-Identifier: Apache-2.0

package qemu

import (
	"slices"
	"strings"
	"testing"

	"github.com/tenon-build/tenon/loader"
	"github.com/tenon-build/tenon/loader/alloc"
)

func TestPlanArgs(t *testing.T) {
	const mib = 1 << 20
	for name, test := range map[string]struct {
		plan alloc.Plan
		bind bool
		want string
	}{
		"two nodes": {
			alloc.Plan{Memory: []alloc.NodeMemory{{Node: 0, Bytes: 64 * mib}, {Node: 3, Bytes: 32 * mib}}}, true,
			"-m 96M -object memory-backend-ram,id=node0,size=67108864,prealloc=on,host-nodes=0,policy=bind -numa node,memdev=node0" +
				" -object memory-backend-ram,id=node1,size=33554432,prealloc=on,host-nodes=3,policy=bind -numa node,memdev=node1",
		},
		"huge pages": {
			alloc.Plan{Memory: []alloc.NodeMemory{{Node: 1, Bytes: 64 * mib}}, PageSize: 2 * mib}, true,
			"-m 64M -object memory-backend-memfd,id=node0,size=67108864,prealloc=on,hugetlb=on,hugetlbsize=2097152,host-nodes=1,policy=bind -numa node,memdev=node0",
		},
		"a kernel without NUMA": {
			alloc.Plan{Memory: []alloc.NodeMemory{{Node: 0, Bytes: 64 * mib}}}, false,
			"-m 64M -object memory-backend-ram,id=node0,size=67108864,prealloc=on -numa node,memdev=node0",
		},
	} {
		c := &loader.Config{Settings: loader.Settings{CPUs: 2}, MaxCPUs: 4, Plan: &test.plan}
		got := strings.Join(planArgs(c, test.bind), " ")
		if want := "-S -name debug-threads=on -smp 2,maxcpus=4,sockets=1,cores=4,threads=1 " + test.want; got != want {
			t.Errorf("%s:\n%s, want\n%s", name, got, want)
		}
	}
}

func TestCheckPlan(t *testing.T) {
	good := func() *loader.Config {
		return &loader.Config{
			Settings: loader.Settings{CPUs: 2, Memory: 3 << 20}, Group: "/sys/fs/cgroup/x",
			Plan: &alloc.Plan{CPUs: alloc.CPUSet{4, 5}, Memory: []alloc.NodeMemory{{Node: 0, Bytes: 4 << 20}}},
		}
	}
	if err := checkPlan(good()); err != nil {
		t.Error(err)
	}
	if err := checkPlan(&loader.Config{}); err != nil {
		t.Errorf("without a plan: %v", err)
	}
	for want, change := range map[string]func(c *loader.Config){
		"has CPUs 4-5 for an instance with 1": func(c *loader.Config) { c.CPUs = 1 },
		"has 4194304 bytes of memory":         func(c *loader.Config) { c.Memory = 5 << 20 },
		"has 4194305 bytes of memory":         func(c *loader.Config) { c.Plan.Memory[0].Bytes++ },
		"has devices":                         func(c *loader.Config) { c.Plan.Devices = slices.Insert(c.Plan.Devices, 0, "0000:03:00.0") },
		`no control group: "x" is not`:        func(c *loader.Config) { c.Group = "x" },
	} {
		c := good()
		change(c)
		if err := checkPlan(c); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
}
