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

// Group is a child of the root group that somebody gave CPUs: systemd by AllowedCPUs,
// container engines of cgroup v1, other instances. Our CPUs must not be among them: the
// kernel would refuse our partition, or end that of the other group.
type Group struct {
	Name      string `json:"name"`
	CPUs      CPUSet `json:"cpus"`
	Partition bool   `json:"partition"` // no other group has these CPUs, or is to have them
}

// groups reads cpuset.cpus, and cpuset.cpus.exclusive (since Linux 6.7), of the root
// group's children.
func (c Cpuset) groups(root Root) ([]Group, error) {
	if c.Version == 0 {
		return []Group{}, nil
	}
	names, err := root.ReadDir(c.Dir)
	if err != nil {
		return nil, err
	}
	out := []Group{}
	for _, name := range names {
		g := Group{Name: name}
		texts := map[string]string{}
		for _, file := range []string{"cpuset.cpus", "cpuset.cpus.exclusive", "cpuset.cpus.partition", "cpuset.cpu_exclusive"} {
			text, err := root.ReadFile(path.Join(c.Dir, name, file))
			if err != nil && !isGone(err) {
				return nil, err
			}
			if texts[file] = strings.TrimSpace(string(text)); err != nil && file == "cpuset.cpus" {
				break // no group, or one without the controller
			}
		}
		for _, file := range []string{"cpuset.cpus", "cpuset.cpus.exclusive"} {
			cpus, err := ParseCPUs(texts[file])
			if err != nil {
				return nil, fmt.Errorf("%s/%s/%s: %w", c.Dir, quoted(name), file, err)
			}
			g.CPUs = g.CPUs.Union(cpus)
		}
		kind, _, _ := strings.Cut(texts["cpuset.cpus.partition"], " ")
		g.Partition = kind == "isolated" || kind == "root" || texts["cpuset.cpu_exclusive"] == "1" || texts["cpuset.cpus.exclusive"] != ""
		if len(g.CPUs) > 0 {
			out = append(out, g)
		}
	}
	return out, nil
}

// isGone says that a file is not there, or that its group was removed meanwhile.
func isGone(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ENODEV)
}

// keeps says whether a group keeps its CPUs from a plan. CPUs that a back end takes
// offline are in no group: whoever has them for itself alone would lose them.
func (g *Group) keeps(offline bool) bool { return g.Partition || !offline }

// checkOthers refuses CPUs that the owner has not yet, and another group has: what was planned
// may have changed since, and the kernel would not leave that group as it is.
func (a *action) checkOthers(owner string, p *Plan) error {
	groups, err := a.cpuset.groups(a.Root)
	if err != nil {
		return err
	}
	added := p.HeldCPUs()
	if has := a.plan(owner); has != nil {
		added = added.Minus(has.HeldCPUs())
	}
	for i := range groups {
		g := &groups[i]
		if o, ours := strings.CutPrefix(g.Name, groupPrefix); ours && (o == owner || a.j.Entries[o] != nil) || !g.keeps(p.TakenOffline()) {
			continue
		}
		if cpus := g.CPUs.And(added); len(cpus) > 0 {
			return &PlanError{Kind: ErrTaken, Reason: is(cpus) + " " + g.how(), Groups: []Group{*g}, Cpuset: a.cpuset}
		}
	}
	return nil
}

func (g *Group) how() string { return "in the control group " + quoted(g.Name) }

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

// Group returns the directory of an owner's control group, relative to the Root.
func (h *Host) Group(owner string) (string, error) {
	c, err := findCpuset(h.Root)
	return c.group(owner), err
}

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
