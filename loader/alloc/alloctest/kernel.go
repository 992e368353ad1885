// SPDX-License-Identifier: Apache-2.0

// Package alloctest is a host for tests of what allocates: the part of /sys and
// /proc that package alloc reads and writes, with the kernel's rules.
//
// In: a Machine that describes a host, or a recording of one. Out: a Kernel, which
// is an alloc.Root. Refused, with the kernel's error numbers: what Linux refuses,
// such as groups that overlap, interrupts on CPUs that are not online, removing a
// group with processes in it.
package alloctest

import (
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/tenon-build/tenon/loader/alloc"
)

const (
	cgroup2    = "sys/fs/cgroup"
	cgroup1    = "sys/fs/cgroup/cpuset"
	defaultIRQ = "proc/irq/default_smp_affinity"
	partition  = "/cpuset.cpus.partition"
)

// Kernel is a host. Its methods may be called from several goroutines.
type Kernel struct {
	// Fail makes writes fail: op is write, mkdir or remove. It may be nil.
	Fail func(op, name string) error

	Old   bool         // before 6.1: no isolated partitions
	Fixed map[int]bool // IRQs that cannot be moved

	mu       sync.Mutex
	files    map[string]string
	links    map[string]string
	children map[string]map[string]bool // of each directory
	whole    map[string]string          // what files said that depend on which CPUs are there, while some are not
}

// FromRecording returns the host that was recorded, with control groups that can be
// written to. Its IRQs can all be moved.
func FromRecording(r *alloc.Recording) *Kernel {
	k := newKernel()
	for name, data := range r.Files {
		k.put(name, data)
	}
	for name, to := range r.Links {
		k.links[name] = to
		k.enter(name)
	}
	for _, root := range []string{cgroup2, cgroup1} {
		if k.children[root] != nil {
			k.put(root+"/cgroup.procs", "1\n")
		}
	}
	k.put("proc/sys/kernel/random/boot_id", "00000000-0000-4000-8000-000000000001\n")
	return k
}

func newKernel() *Kernel {
	return &Kernel{Fixed: map[int]bool{}, files: map[string]string{}, links: map[string]string{}, children: map[string]map[string]bool{}}
}

// Put sets a file, whatever the kernel would say.
func (k *Kernel) Put(name, data string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.put(name, data)
}

func (k *Kernel) put(name, data string) {
	if _, ok := k.files[name]; !ok {
		k.enter(name)
	}
	k.files[name] = data
}

// enter adds a name to its directory.
func (k *Kernel) enter(name string) {
	for name != "." {
		dir := path.Dir(name)
		if k.children[dir] == nil {
			k.children[dir] = map[string]bool{}
		}
		if k.children[dir][path.Base(name)] {
			return
		}
		k.children[dir][path.Base(name)] = true
		name = dir
	}
}

func (k *Kernel) drop(name string) {
	delete(k.files, name)
	delete(k.children[path.Dir(name)], path.Base(name))
}

// State returns all that can be changed: files by name, and directories with a
// trailing slash. Two states are equal when nothing has changed.
func (k *Kernel) State() map[string]string {
	k.mu.Lock()
	defer k.mu.Unlock()
	out := map[string]string{}
	for _, dir := range []string{"proc/irq", cgroup2} {
		k.collect(dir, out)
	}
	return out
}

func (k *Kernel) collect(dir string, out map[string]string) {
	out[dir+"/"] = ""
	for child := range k.children[dir] {
		name := path.Join(dir, child)
		if data, ok := k.files[name]; ok {
			out[name] = data
		} else {
			k.collect(name, out)
		}
	}
}

// Groups returns the CPUs of the control groups that have them exclusively, by name.
func (k *Kernel) Groups() map[string]alloc.CPUSet {
	k.mu.Lock()
	defer k.mu.Unlock()
	out := map[string]alloc.CPUSet{}
	for _, root := range []string{cgroup2, cgroup1} {
		for child := range k.children[root] {
			dir := path.Join(root, child)
			kind := strings.TrimSpace(k.files[dir+partition])
			if kind == "isolated" || kind == "root" || k.files[dir+"/cpuset.cpu_exclusive"] == "1\n" {
				out[child] = k.cpus(dir + "/cpuset.cpus")
			}
		}
	}
	return out
}

func (k *Kernel) cpus(name string) alloc.CPUSet {
	set, err := alloc.ParseCPUs(k.files[name])
	if err != nil {
		panic(err)
	}
	return set
}

func failed(op, name string, err error) error { return &fs.PathError{Op: op, Path: name, Err: err} }

// ReadFile implements alloc.Root.
func (k *Kernel) ReadFile(name string) ([]byte, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	data, ok := k.files[name]
	if dir, base := path.Split(name); base == "cgroup.events" && k.files[dir+"cgroup.subtree_control"] != "" {
		data, ok = fmt.Sprintf("populated %d\nfrozen 0\n", min(1, len(k.files[dir+"cgroup.procs"]))), true
	}
	if !ok {
		return nil, failed("open", name, unix.ENOENT)
	}
	return []byte(data), nil
}

// ReadDir implements alloc.Root.
func (k *Kernel) ReadDir(name string) ([]string, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if _, ok := k.files[name]; ok {
		return nil, failed("readdir", name, unix.ENOTDIR)
	}
	children, ok := k.children[name]
	if !ok {
		return nil, failed("open", name, unix.ENOENT)
	}
	return slices.Sorted(maps.Keys(children)), nil
}

// ReadLink implements alloc.Root.
func (k *Kernel) ReadLink(name string) (string, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	to, ok := k.links[name]
	if !ok {
		return "", failed("readlink", name, unix.ENOENT)
	}
	return to, nil
}

// WriteFile implements alloc.Root.
func (k *Kernel) WriteFile(name string, data []byte) error {
	if k.Fail != nil {
		if err := k.Fail("write", name); err != nil {
			return failed("write", name, err)
		}
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if _, ok := k.files[name]; !ok {
		return failed("open", name, unix.ENOENT)
	}
	if err := k.write(name, strings.TrimSpace(string(data))); err != nil {
		return failed("write", name, err)
	}
	return nil
}

func (k *Kernel) write(name, value string) error {
	dir, base := path.Split(name)
	dir = strings.TrimSuffix(dir, "/")
	switch base {
	case "smp_affinity_list":
		return k.affinity(name, value)
	case "default_smp_affinity":
		return k.defaultAffinity(value)
	case "cgroup.subtree_control":
		return k.subtree(dir, value)
	case "cpuset.cpus", "cpuset.mems":
		set, err := alloc.ParseCPUs(value)
		if err != nil {
			return unix.EINVAL
		}
		if _, v1 := k.files[dir+"/cpuset.cpu_exclusive"]; v1 && base == "cpuset.cpus" && k.conflict(dir, set, k.files[dir+"/cpuset.cpu_exclusive"] == "1\n") {
			return unix.EINVAL
		}
		k.files[name] = set.String() + "\n"
		k.revise(dir)
		k.invalidate(dir)
		return nil
	case "cpuset.cpu_exclusive":
		if value == "1" && k.conflict(dir, k.cpus(dir+"/cpuset.cpus"), true) {
			return unix.EINVAL
		}
		k.files[name] = value + "\n"
		return nil
	case "cpuset.cpus.partition":
		if value != "member" && value != "root" && (value != "isolated" || k.Old) {
			return unix.EINVAL
		}
		k.files[name] = value + "\n"
		k.revise(dir)
		return nil
	}
	return unix.EACCES
}

func (k *Kernel) affinity(name, value string) error {
	irq, err := strconv.Atoi(path.Base(path.Dir(name)))
	set, bad := alloc.ParseCPUs(value)
	if err != nil || bad != nil || len(set.And(k.cpus(sysCPU+"online"))) == 0 {
		return unix.EINVAL
	}
	if k.Fixed[irq] {
		return unix.EIO
	}
	k.files[name] = set.String() + "\n"
	return nil
}

// defaultAffinity keeps as many words as there are.
func (k *Kernel) defaultAffinity(value string) error {
	words := strings.Split(value, ",")
	have := strings.Split(strings.TrimSpace(k.files[defaultIRQ]), ",")
	if len(words) > len(have) || strings.Trim(value, "0,") == "" {
		return unix.EINVAL
	}
	for len(words) < len(have) {
		words = slices.Insert(words, 0, "0")
	}
	for i, word := range words {
		n, err := strconv.ParseUint(word, 16, 32)
		if err != nil {
			return unix.EINVAL
		}
		digits := strconv.FormatUint(n, 16)
		words[i] = strings.Repeat("0", max(0, len(have[i])-len(digits))) + digits
	}
	k.files[defaultIRQ] = strings.Join(words, ",") + "\n"
	return nil
}

// subtree switches the controller for the children of a group.
func (k *Kernel) subtree(dir, value string) error {
	switch value {
	case "+cpuset":
		k.files[dir+"/cgroup.subtree_control"] = "cpuset\n"
	case "-cpuset":
		k.files[dir+"/cgroup.subtree_control"] = "\n"
	default:
		return unix.EINVAL
	}
	for child := range k.children[dir] {
		if name := path.Join(dir, child); k.children[name] != nil {
			k.populate(name, value == "+cpuset")
		}
	}
	return nil
}

// populate makes or removes the controller's files in a group.
func (k *Kernel) populate(dir string, on bool) {
	for name, data := range map[string]string{"cpuset.cpus": "\n", "cpuset.mems": "\n", "cpuset.cpus.partition": "member\n"} {
		if on {
			k.put(path.Join(dir, name), data)
		} else {
			k.drop(path.Join(dir, name))
		}
	}
}

// conflict says that version 1 refuses a group's CPUs.
func (k *Kernel) conflict(dir string, set alloc.CPUSet, exclusive bool) bool {
	root := path.Dir(dir)
	for child := range k.children[root] {
		other := path.Join(root, child)
		if other == dir || k.children[other] == nil {
			continue
		}
		if (exclusive || k.files[other+"/cpuset.cpu_exclusive"] == "1\n") && len(set.And(k.cpus(other+"/cpuset.cpus"))) > 0 {
			return true
		}
	}
	return false
}

// revise says what has become of a partition.
func (k *Kernel) revise(dir string) {
	kind, _, _ := strings.Cut(strings.TrimSpace(k.files[dir+partition]), " ")
	if kind != "root" && kind != "isolated" {
		return
	}
	why := ""
	set := k.cpus(dir + "/cpuset.cpus")
	left := k.cpus(sysCPU + "online").Minus(set)
	for child := range k.children[cgroup2] {
		other := path.Join(cgroup2, child)
		if other == dir || k.children[other] == nil {
			continue
		}
		cpus := k.cpus(other + "/cpuset.cpus")
		if len(cpus.And(set)) > 0 {
			why = " invalid (Cpu list in cpuset.cpus not exclusive)"
		}
		if state := k.files[other+partition]; state == "root\n" || state == "isolated\n" {
			left = left.Minus(cpus)
		}
	}
	if len(set) == 0 || len(left) == 0 {
		why = " invalid (Parent unable to distribute cpu downstream)"
	}
	k.files[dir+partition] = kind + why + "\n"
}

// invalidate ends the partitions of other groups that a group's CPUs overlap, as version 2
// does: they do not come back by themselves.
func (k *Kernel) invalidate(dir string) {
	for child := range k.children[cgroup2] {
		if other := path.Join(cgroup2, child); other != dir && k.children[other] != nil {
			k.revise(other)
		}
	}
}

// Mkdir implements alloc.Root.
func (k *Kernel) Mkdir(name string) error {
	if k.Fail != nil {
		if err := k.Fail("mkdir", name); err != nil {
			return failed("mkdir", name, err)
		}
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	parent := path.Dir(name)
	_, isGroup := k.files[parent+"/cgroup.procs"]
	if k.children[parent][path.Base(name)] {
		return failed("mkdir", name, unix.EEXIST)
	}
	if !isGroup {
		return failed("mkdir", name, unix.ENOENT)
	}
	k.put(name+"/cgroup.procs", "")
	if control, v2 := k.files[parent+"/cgroup.subtree_control"]; v2 {
		k.put(name+"/cgroup.subtree_control", "\n")
		k.populate(name, strings.Contains(control, "cpuset"))
		return nil
	}
	k.populate(name, true)
	k.drop(name + partition)
	k.put(name+"/cpuset.cpu_exclusive", "0\n")
	return nil
}

// Remove implements alloc.Root.
func (k *Kernel) Remove(name string) error {
	if k.Fail != nil {
		if err := k.Fail("remove", name); err != nil {
			return failed("remove", name, err)
		}
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.children[name] == nil {
		return failed("remove", name, unix.ENOENT)
	}
	if k.files[name+"/cgroup.procs"] != "" {
		return failed("remove", name, unix.EBUSY)
	}
	for child := range k.children[name] {
		if k.children[path.Join(name, child)] != nil {
			return failed("remove", name, unix.EBUSY)
		}
	}
	for child := range k.children[name] {
		k.drop(path.Join(name, child))
	}
	delete(k.children, name)
	k.drop(name)
	return nil
}
