// SPDX-License-Identifier: Apache-2.0

package alloc_test

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tenon-build/tenon/loader/alloc"
	"github.com/tenon-build/tenon/loader/alloc/alloctest"
)

// group makes a child of the root group, as others do.
func (w *world) group(root, name, cpus, kind string) {
	w.t.Helper()
	dir := root + "/" + name
	if root == "sys/fs/cgroup" {
		w.must(w.kernel.WriteFile(root+"/cgroup.subtree_control", []byte("+cpuset")))
	}
	if _, err := w.kernel.ReadDir(dir); err != nil {
		w.must(w.kernel.Mkdir(dir))
	}
	w.must(w.kernel.WriteFile(dir+"/cpuset.cpus", []byte(cpus)))
	if kind != "" {
		w.must(w.kernel.WriteFile(dir+"/cpuset.cpus.partition", []byte(kind)))
	}
}

// Control groups that others gave CPUs keep these: an instance gets others, or is refused
// with the group's name, and the host stays as it is.
func TestOtherGroups(t *testing.T) {
	const v1, v2 = "sys/fs/cgroup/cpuset", "sys/fs/cgroup"
	for name, test := range map[string]struct {
		cgroup            int
		root, group, cpus string
		kind              string
		offline           bool
		list              alloc.CPUSet
		want              string // CPUs of the plan
		refused           string
	}{
		"an isolated partition":                {2, v2, "db", "1-3", "isolated", false, nil, "4-5", ""},
		"a partition of another kind":          {2, v2, "db", "1-3", "root", false, nil, "4-5", ""},
		"system.slice has AllowedCPUs":         {2, v2, "system.slice", "0-5", "", false, nil, "6-7", ""},
		"system.slice has all":                 {2, v2, "system.slice", "0-7", "", false, nil, "", `2 CPUs in whole cores are needed, 0 of 8 are free: CPU 0 is reserved for the host, CPUs 1-7 are in the control group "system.slice"`},
		"listed ones of a partition":           {2, v2, "db", "1-3", "isolated", false, alloc.CPUSet{3, 4}, "", `CPU 3 is in the control group "db"`},
		"of an instance of another --root":     {2, v2, "mortise-db", "1-3", "isolated", false, nil, "4-5", ""},
		"docker's group with some":             {1, v1, "docker", "0-3", "", false, nil, "4-5", ""},
		"docker's group with all":              {1, v1, "docker", "0-7", "", false, nil, "", `2 CPUs in whole cores are needed, 0 of 8 are free: CPU 0 is reserved for the host, CPUs 1-7 are in the control group "docker"`},
		"offline, AllowedCPUs":                 {2, v2, "system.slice", "0-7", "", true, nil, "1-2", ""},
		"offline, docker's group with all":     {1, v1, "docker", "0-7", "", true, nil, "1-2", ""},
		"offline, CPUs of another's partition": {2, v2, "db", "1-3", "isolated", true, nil, "4-5", ""},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, name, alloctest.Machine{CPUs: 8, Cgroup: test.cgroup}.Kernel())
			w.group(test.root, test.group, test.cpus, test.kind)
			state := w.kernel.State()
			r := alloc.Request{CPUs: 2, CPUList: test.list, Offline: test.offline, Bounds: wide}
			_, err := apply(w.host, "web", func(others []alloc.Holding, _ *alloc.Plan) (*alloc.Plan, error) {
				return w.read().Plan(r, alloc.Held{Instances: others})
			})
			if test.refused != "" {
				e := new(alloc.PlanError)
				if !errors.As(err, &e) || e.Kind != alloc.ErrTaken || e.Reason != test.refused || len(e.Groups) != 1 || e.Groups[0].Name != test.group || len(e.Holders) != 0 {
					t.Errorf("got %+v, want %s", e, test.refused)
				}
				w.unchanged(state, "refused")
				return
			}
			w.must(err)
			if p := w.held()[0].Plan; p.CPUs.String() != test.want {
				t.Errorf("got CPUs %s, want %s", p.CPUs, test.want)
			}
			dir := test.root + "/" + test.group
			for _, file := range []string{"/cpuset.cpus", "/cpuset.cpus.partition"} {
				if now := w.kernel.State()[dir+file]; now != state[dir+file] {
					t.Errorf("%s: got %q, want %q", file, now, state[dir+file])
				}
			}
			w.must(w.host.Release(context.Background(), "web"))
			w.unchanged(state, "released")
		})
	}
}

// A group that gets CPUs after they were planned keeps them, and its partition.
func TestOtherGroupMeanwhile(t *testing.T) {
	w := newWorld(t, "meanwhile", alloctest.Machine{CPUs: 8}.Kernel())
	var state map[string]string
	_, err := apply(w.host, "web", func(others []alloc.Holding, _ *alloc.Plan) (*alloc.Plan, error) {
		p, err := w.read().Plan(alloc.Request{CPUs: 2, Bounds: wide}, alloc.Held{Instances: others})
		w.group("sys/fs/cgroup", "db", "1-3", "isolated")
		state = w.kernel.State()
		return p, err
	})
	if !errors.Is(err, alloc.ErrTaken) || !strings.HasSuffix(err.Error(), `CPUs 1-2 are in the control group "db"`) {
		t.Errorf("got %v", err)
	}
	w.unchanged(state, "refused")
}

// What cannot be given back of one owner stays held, and keeps nobody else from work.
func TestStuckOwner(t *testing.T) {
	w := newWorld(t, "stuck", alloctest.Machine{CPUs: 8}.Kernel())
	for _, owner := range []string{"sick", "web"} {
		_, err := w.count(owner, 1)
		w.must(err)
	}
	w.kernel.Fail = func(op, name string) error {
		if op == "remove" && strings.HasSuffix(name, "mortise-sick") {
			return unix.EIO
		}
		return nil
	}
	errs := w.host.ReleaseAll(context.Background(), []string{"sick", "web", "nobody"})
	if errs["web"] != nil || errs["nobody"] != nil || !errors.Is(errs["sick"], unix.EIO) {
		t.Errorf("got %v", errs)
	}
	if held := w.held(); len(held) != 1 || held[0].Owner != "sick" {
		t.Errorf("got %+v", held)
	}
	_, err := w.count("cache", 1)
	w.must(err)
	w.kernel.Fail = nil
	w.must(errors.Join(w.host.Release(context.Background(), "sick"), w.host.Release(context.Background(), "cache")))
	w.unchanged(w.before, "released")
}

// With a full disk, what is given back is given back, of everybody; the journal says so when
// there is room.
func TestReleaseFullDisk(t *testing.T) {
	w := newWorld(t, "full", alloctest.Machine{CPUs: 8}.Kernel())
	if err := unix.Mount("tmpfs", w.host.State, "tmpfs", 0, "size=64k"); err != nil {
		t.Skip(err) // that takes root
	}
	defer func() { _ = unix.Unmount(w.host.State, unix.MNT_DETACH) }()
	for _, owner := range []string{"web", "cache"} {
		_, err := w.count(owner, 1)
		w.must(err)
	}
	fill := w.host.State + "/fill"
	if err := os.WriteFile(fill, make([]byte, 128<<10), 0o600); !errors.Is(err, unix.ENOSPC) {
		t.Fatal(err)
	}
	for _, owner := range []string{"web", "cache"} {
		if err := w.host.Release(context.Background(), owner); !errors.Is(err, alloc.ErrUnsaved) || !errors.Is(err, unix.ENOSPC) {
			t.Errorf("%s: got %v", owner, err)
		}
	}
	if groups := w.kernel.Groups(); len(groups) > 0 {
		t.Errorf("left %v", groups)
	}
	w.must(os.Remove(fill))
	for _, owner := range []string{"web", "cache"} {
		w.must(w.host.Release(context.Background(), owner))
	}
	w.unchanged(w.before, "released")
}
