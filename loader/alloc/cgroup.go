// SPDX-License-Identifier: Apache-2.0

package alloc

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Cpuset is where control groups have CPUs.
type Cpuset struct {
	Version int    `json:"version"` // of cgroup: 1, 2, or 0: CPUs cannot be made exclusive
	Dir     string `json:"dir"`     // of the root group, relative to the Root
}

var (
	errNoDevice  = unix.ENODEV
	errNoCpusets = errors.New("this host has no cpuset controller, so CPUs cannot be made exclusive")
)

// findCpuset looks where systemd, container engines and init scripts mount cgroups.
// The controller is in one hierarchy at most.
func findCpuset(root Root) (Cpuset, error) {
	for _, dir := range []string{"sys/fs/cgroup", "sys/fs/cgroup/unified"} {
		text, err := root.ReadFile(dir + "/cgroup.controllers")
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return Cpuset{}, err
		}
		if slices.Contains(strings.Fields(string(text)), "cpuset") {
			return Cpuset{2, dir}, nil
		}
	}
	const v1 = "sys/fs/cgroup/cpuset"
	_, err := root.ReadFile(v1 + "/cpuset.cpus")
	if errors.Is(err, fs.ErrNotExist) {
		return Cpuset{}, nil
	}
	return Cpuset{1, v1}, err
}

// peek reads what else a Taking reads of the root group.
func (c Cpuset) peek(root Root) error {
	var err error
	switch c.Version {
	case 1:
		_, err = root.ReadFile(c.Dir + "/cpuset.mems")
	case 2:
		_, err = root.ReadFile(c.Dir + "/cgroup.subtree_control")
	}
	return err
}

func (a *action) group(owner string) string { return a.cpuset.group(owner) }

func (c Cpuset) group(owner string) string { return path.Join(c.Dir, groupPrefix+owner) }

const groupPrefix = "mortise-"

// checkGroup refuses to take over what somebody else made.
func (a *action) checkGroup(owner string) error {
	if a.cpuset.Version == 0 {
		return errNoCpusets
	}
	_, err := a.Root.ReadDir(a.group(owner))
	if err == nil {
		return fmt.Errorf("the control group %s is there already, and not in the journal", a.group(owner))
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// makeGroup makes the control group, or changes it.
//
// cgroup v2 (Documentation/admin-guide/cgroup-v2.rst, "Cpuset Interface Files"): a
// child of the root group whose cpuset.cpus.partition is "isolated": its CPUs are
// taken from all other groups and are not load balanced. Kernels before 6.1 know
// "root" alone. What the kernel makes of it, it says when the file is read.
//
// cgroup v1 (Documentation/admin-guide/cgroup-v1/cpusets.rst): a child with
// cpuset.cpu_exclusive, which keeps CPUs out of sibling groups and no more.
func (a *action) makeGroup(owner string, p *Plan, report *Report) error {
	if p.TakenOffline() {
		report.Partition = "offline"
		return nil
	}
	dir := a.group(owner)
	report.Group = dir
	if a.cpuset.Version == 2 {
		if err := a.enableSubtree(); err != nil {
			return err
		}
	}
	if _, err := a.Root.ReadDir(dir); errors.Is(err, fs.ErrNotExist) {
		if err := a.do(step{"make " + dir, func() error { return a.Root.Mkdir(dir) }}); err != nil {
			return err
		}
	}
	mems, err := a.mems(p)
	if err != nil {
		return err
	}
	if err := a.write(dir+"/cpuset.mems", mems); err != nil {
		return err
	}
	if err := a.write(dir+"/cpuset.cpus", p.HeldCPUs().String()); err != nil {
		return err
	}
	if a.cpuset.Version == 1 {
		report.Partition = "exclusive"
		return a.write(dir+"/cpuset.cpu_exclusive", "1")
	}
	report.Partition, err = a.partition(dir + "/cpuset.cpus.partition")
	return err
}

// mems are the nodes of the plan's memory. Version 1 has no default for them.
func (a *action) mems(p *Plan) (string, error) {
	var nodes []int
	for _, m := range p.Memory {
		nodes = append(nodes, m.Node)
	}
	if len(nodes) > 0 || a.cpuset.Version == 2 {
		return NewCPUSet(nodes...).String(), nil
	}
	text, err := a.Root.ReadFile(a.cpuset.Dir + "/cpuset.mems")
	return strings.TrimSpace(string(text)), err
}

// partition returns the kind that the kernel made.
func (a *action) partition(file string) (string, error) {
	now, err := a.Root.ReadFile(file)
	if err != nil {
		return "", err
	}
	if kind := strings.TrimSpace(string(now)); kind == "isolated" || kind == "root" {
		return kind, nil // it was so before it was resized
	}
	err = a.write(file, "isolated")
	if errors.Is(err, unix.EINVAL) {
		err = a.write(file, "root")
	}
	if err != nil {
		return "", err
	}
	now, err = a.Root.ReadFile(file)
	if err != nil {
		return "", err
	}
	kind := strings.TrimSpace(string(now))
	if kind != "isolated" && kind != "root" {
		return "", fmt.Errorf("%s: the kernel made it %q", file, kind)
	}
	return kind, nil
}

// write writes only what is not so already. An empty value clears a file, for which
// the kernel wants a newline.
func (a *action) write(file, value string) error {
	now, err := a.Root.ReadFile(file)
	if err != nil || strings.TrimSpace(string(now)) == value {
		return err
	}
	return a.do(step{"write " + value + " to " + file, func() error { return a.Root.WriteFile(file, []byte(value+"\n")) }})
}

// removeGroup ends the partition and removes the control group and those in it. With
// processes in them it does nothing; the error is EBUSY. Names of groups in it must
// have no dot, as those of the kernel's own files have one.
//
// Without a group, its partition would end, too, but some time later.
func (a *action) removeGroup(owner string, p *Plan) error {
	if p.TakenOffline() {
		return nil
	}
	dir := a.group(owner)
	if err := a.checkIdle(dir); err != nil {
		return err
	}
	err := a.write(dir+"/cpuset.cpus.partition", "member")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return a.removeTree(dir)
}

// checkIdle reads cgroup.events, which counts the groups in it, and is in version 2
// alone.
func (a *action) checkIdle(dir string) error {
	events, err := a.Root.ReadFile(dir + "/cgroup.events")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	procs, err := a.Root.ReadFile(dir + "/cgroup.procs")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if len(procs) > 0 || strings.Contains(string(events), "populated 1") {
		return fmt.Errorf("%w: processes are in %s: %s", unix.EBUSY, dir, strings.Join(strings.Fields(string(procs)), " "))
	}
	return nil
}

func (a *action) removeTree(dir string) error {
	names, err := a.Root.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, name := range names {
		if strings.Contains(name, ".") {
			continue
		}
		if err := a.removeTree(path.Join(dir, name)); err != nil {
			return err
		}
	}
	return a.do(step{"remove " + dir, func() error { return a.Root.Remove(dir) }})
}

// noteSubtree remembers that children of the root group have no cpuset yet, before one
// gets it.
func (a *action) noteSubtree(p *Plan) error {
	if a.cpuset.Version != 2 || a.j.Subtree || p.TakenOffline() {
		return nil
	}
	on, err := a.subtree()
	a.j.Subtree = !on
	return err
}

func (a *action) subtreeFile() string { return a.cpuset.Dir + "/cgroup.subtree_control" }

func (a *action) subtree() (bool, error) {
	text, err := a.Root.ReadFile(a.subtreeFile())
	return slices.Contains(strings.Fields(string(text)), "cpuset"), err
}

func (a *action) enableSubtree() error {
	on, err := a.subtree()
	if err != nil || on {
		return err
	}
	return a.do(step{"write +cpuset to " + a.subtreeFile(), func() error { return a.Root.WriteFile(a.subtreeFile(), []byte("+cpuset\n")) }})
}

// restoreSubtree switches the controller off again with the last control group, unless
// another group has begun to use it.
func (a *action) restoreSubtree() error {
	if !a.j.Subtree || a.j.grouped() {
		return nil
	}
	on, err := a.subtree()
	if err != nil {
		return err
	}
	names, err := a.Root.ReadDir(a.cpuset.Dir)
	if err != nil {
		return err
	}
	for _, name := range names {
		cpus, err := a.Root.ReadFile(path.Join(a.cpuset.Dir, name, "cpuset.cpus"))
		if err == nil && len(strings.TrimSpace(string(cpus))) > 0 {
			on = false
		}
	}
	if on {
		err := a.do(step{"write -cpuset to " + a.subtreeFile(), func() error { return a.Root.WriteFile(a.subtreeFile(), []byte("-cpuset\n")) }})
		if err != nil && !errors.Is(err, unix.EBUSY) {
			return err
		}
	}
	a.j.Subtree = false
	return nil
}

// reason takes the names of operation and file off an error that names them itself.
func reason(err error) error {
	var p *fs.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}
