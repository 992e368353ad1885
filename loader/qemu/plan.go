// SPDX-License-Identifier: Apache-2.0

package qemu

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/tenon-build/tenon/loader"
	"github.com/tenon-build/tenon/loader/alloc"
)

// checkPlan refuses a plan that the configuration does not fit.
func checkPlan(c *loader.Config) error {
	if c.Plan == nil {
		return nil
	}
	switch bytes := planned(c.Plan); {
	case len(c.Plan.CPUs) != c.CPUs:
		return fmt.Errorf("the plan has CPUs %s for an instance with %d", c.Plan.CPUs, c.CPUs)
	case bytes < c.Memory || bytes%(1<<20) != 0:
		return fmt.Errorf("the plan has %d bytes of memory for an instance with %d", bytes, c.Memory)
	case len(c.Plan.Devices) > 0:
		return errors.New("the plan has devices, which QEMU is not given")
	case !filepath.IsAbs(c.Group):
		return fmt.Errorf("the plan has no control group: %q is not an absolute path", c.Group)
	}
	return nil
}

func planned(p *alloc.Plan) (bytes int64) {
	for _, m := range p.Memory {
		bytes += m.Bytes
	}
	return bytes
}

// planArgs are QEMU's options for what a plan has. The machine does not begin by itself.
// It gets one NUMA node for each of the host's, whose memory that is, all of it at once.
// Huge pages come from a memfd. Ordinary memory does not: the kernel makes no transparent
// huge pages of one unless it is told to. bind is false where the host's kernel knows no nodes.
func planArgs(c *loader.Config, bind bool) []string {
	args := []string{
		"-S", "-name", "debug-threads=on", // threads have names that tell vCPUs apart
		"-smp", fmt.Sprintf("%d,maxcpus=%[2]d,sockets=1,cores=%[2]d,threads=1", c.CPUs, c.MaxCPUs),
		"-m", fmt.Sprintf("%dM", planned(c.Plan)>>20),
	}
	for i, m := range c.Plan.Memory {
		object := fmt.Sprintf("memory-backend-ram,id=node%d,size=%d,prealloc=on", i, m.Bytes)
		if c.Plan.PageSize != 0 {
			object = fmt.Sprintf("memory-backend-memfd,id=node%d,size=%d,prealloc=on,hugetlb=on,hugetlbsize=%d", i, m.Bytes, c.Plan.PageSize)
		}
		if bind {
			object += fmt.Sprintf(",host-nodes=%d,policy=bind", m.Node)
		}
		args = append(args, "-object", object, "-numa", fmt.Sprintf("node,memdev=node%d", i))
	}
	return args
}

// hostHasNodes says whether the kernel was built for NUMA: it then has a node, also on a
// machine that is uniform. Without, it refuses to bind.
func hostHasNodes() bool {
	_, err := os.Stat("/sys/devices/system/node/online")
	return err == nil
}

// place confines QEMU to the plan, and lets the guest begin.
func (i *instance) place(ctx context.Context) error {
	if err := i.join(); err != nil {
		return err
	}
	i.resizing.Lock()
	defer i.resizing.Unlock()
	i.monitor, i.cpus = newMonitor(i.qmp), i.config.Plan.CPUs
	if err := i.monitor.greet(ctx); err != nil {
		return err
	}
	if err := i.pin(ctx, i.cpus); err != nil {
		return err
	}
	return i.monitor.execute(ctx, "cont", nil, nil)
}

// join moves QEMU into the control group.
func (i *instance) join() error {
	f, err := os.OpenFile(filepath.Join(i.config.Group, "cgroup.procs"), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(strconv.Itoa(i.process.Load().Pid))
	return errors.Join(err, f.Close())
}

// pin has vCPU n run on cpus[n], and QEMU's other threads, vCPUs beyond cpus among them,
// on any of cpus: the group may have more.
func (i *instance) pin(ctx context.Context, cpus alloc.CPUSet) error {
	var vcpus []struct {
		Index  int `json:"cpu-index"`
		Thread int `json:"thread-id"`
	}
	if err := i.monitor.execute(ctx, "query-cpus-fast", nil, &vcpus); err != nil {
		return err
	}
	own := map[int]bool{}
	for _, v := range vcpus {
		if v.Index < len(cpus) {
			own[v.Thread] = true
			if err := setAffinity(v.Thread, cpus[v.Index]); err != nil {
				return fmt.Errorf("pinning vCPU %d to CPU %d: %w", v.Index, cpus[v.Index], err)
			}
		}
	}
	// First the one that makes the others, which inherit it.
	pid := i.process.Load().Pid
	if err := setAffinity(pid, cpus...); err != nil {
		return fmt.Errorf("pinning QEMU to CPUs %s: %w", cpus, err)
	}
	threads, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil {
		return err
	}
	for _, t := range threads {
		tid, err := strconv.Atoi(t.Name())
		if err != nil || own[tid] {
			continue
		}
		if err := setAffinity(tid, cpus...); err != nil && err != unix.ESRCH {
			return fmt.Errorf("pinning a thread of QEMU to CPUs %s: %w", cpus, err)
		}
	}
	return nil
}

func setAffinity(thread int, cpus ...int) error {
	set := unix.NewCPUSet(alloc.MaxCPUs)
	for _, cpu := range cpus {
		set.Set(cpu)
	}
	return unix.SchedSetaffinityDynamic(thread, set)
}
