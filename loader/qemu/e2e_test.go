// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package qemu_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tenon-build/tenon/loader"
	"github.com/tenon-build/tenon/loader/alloc"
	"github.com/tenon-build/tenon/loader/qemu"
	"github.com/tenon-build/tenon/testdata/e2e"
)

func TestMain(m *testing.M) { e2e.Main(m) }

// cpuset makes a control group and returns its path.
func cpuset(t *testing.T, cpus string) string {
	t.Helper()
	root := "/sys/fs/cgroup/cpuset" // version 1
	if _, err := os.Stat(root); errors.Is(err, fs.ErrNotExist) {
		root = "/sys/fs/cgroup"
		write(t, root+"/cgroup.subtree_control", "+cpuset")
	}
	dir, err := os.MkdirTemp(root, "tenon-e2e-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.Remove(dir); err != nil {
			t.Error(err)
		}
	})
	write(t, dir+"/cpuset.mems", "0")
	write(t, dir+"/cpuset.cpus", cpus)
	return dir
}

func write(t *testing.T, file, text string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(text), 0); err != nil {
		t.Fatal(err)
	}
}

// planned loads the probe on CPU 1, of a group of CPUs 0-1.
func planned(t *testing.T, probe string, change func(*loader.Config)) (loader.Instance, *e2e.Running, string) {
	t.Helper()
	v, err := loader.Verify(t.Context(), e2e.Probe(t), loader.Policy{AllowUnsigned: true}, func(loader.Check) {})
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	const mib = 1 << 20
	memory := (v.Manifest().Claims.Memory.Min/mib + 1) / 2 * 2 * mib // whole pages of 2 MiB
	console := &e2e.Running{}
	c := loader.Config{
		Settings: loader.Settings{CPUs: 1, Env: map[string]string{"PROBE": probe}}, MaxCPUs: 2, Console: console, Group: cpuset(t, "0-1"),
		Plan: &alloc.Plan{CPUs: alloc.CPUSet{1}, Siblings: alloc.CPUSet{0}, Memory: []alloc.NodeMemory{{Node: 0, Bytes: 32 * mib}, {Node: 0, Bytes: memory - 32*mib}}},
	}
	if change != nil {
		change(&c)
	}
	i, err := (&qemu.Backend{Accel: qemu.TCG, Log: slog.New(slog.DiscardHandler)}).Load(t.Context(), v, c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := i.Close(); err != nil {
			t.Error(err)
		}
	})
	return i, console, c.Group
}

// affinity returns what the vCPUs of the QEMU in a group may run on, by the names of
// their threads, and what all its other threads may.
func affinity(t *testing.T, group string) map[string]string {
	t.Helper()
	pid := strings.TrimSpace(string(e2e.Must(os.ReadFile(group + "/cgroup.procs"))))
	out := map[string]string{}
	for _, task := range e2e.Must(filepath.Glob("/proc/" + pid + "/task/*/status")) {
		var name, allowed string
		for line := range strings.Lines(string(e2e.Must(os.ReadFile(task)))) {
			key, value, _ := strings.Cut(strings.TrimSpace(line), ":\t")
			switch key {
			case "Name":
				name = value
			case "Cpus_allowed_list":
				allowed = value
			}
		}
		if !strings.HasPrefix(name, "CPU ") {
			name = "others"
		}
		if before, ok := out[name]; ok && before != allowed {
			allowed = before + " and " + allowed
		}
		out[name] = allowed
	}
	return out
}

// TestE2EResize adds a CPU to a running instance and removes it, and types to it.
func TestE2EResize(t *testing.T) {
	i, console, group := planned(t, "cpus", nil)
	if err := i.Resize(t.Context(), &alloc.Plan{CPUs: alloc.CPUSet{1}}); err == nil {
		t.Error("resized before it started")
	}
	if err := i.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	check := func(want map[string]string) {
		t.Helper()
		if got := affinity(t, group); !maps.Equal(got, want) {
			t.Errorf("threads may run on %v, want %v", got, want)
		}
	}
	resize := func(cpus ...int) {
		t.Helper()
		began := time.Now()
		if err := i.Resize(t.Context(), &alloc.Plan{CPUs: cpus}); err != nil {
			t.Fatalf("%v\n%s", err, console)
		}
		t.Logf("resizing to CPUs %v took %s", alloc.CPUSet(cpus), time.Since(began).Round(time.Millisecond))
	}
	check(map[string]string{"CPU 0/TCG": "1", "others": "1"})
	checkRights(t, group)
	parked := map[string]string{"CPU 0/TCG": "1", "CPU 1/TCG": "1", "others": "1"}
	console.Expect(t, "CPUS 1")
	for range 3 {
		console.Forget()
		resize(0, 1)
		check(map[string]string{"CPU 0/TCG": "0", "CPU 1/TCG": "1", "others": "0-1"})
		console.Expect(t, "CPUS 2")
		resize(1)
		check(parked)
		console.Expect(t, "CPUS 1")
	}
	write(t, group+"/cpuset.cpus", "1")
	resize(1)
	check(parked)
	for _, cpus := range []alloc.CPUSet{{}, {0, 1, 2}} {
		if err := i.Resize(t.Context(), &alloc.Plan{CPUs: cpus}); err == nil {
			t.Errorf("resized to CPUs %v", cpus)
		}
	}
	if err := i.Type([]byte("hello\n")); err != nil {
		t.Error(err)
	}
	console.Expect(t, "TYPED hello")
	if err := i.Signal(int(unix.SIGTERM)); err != nil {
		t.Error(err)
	}
	if exit, err := i.Wait(); err != nil || exit.Signal != int(unix.SIGTERM) {
		t.Errorf("%+v, %v", exit, err)
	}
}

// checkRights says that QEMU is nobody's account, has no capabilities and can get none, is in its
// sandbox, and ends with its parent, whatever it was started as.
func checkRights(t *testing.T, group string) {
	t.Helper()
	pid := strings.TrimSpace(string(e2e.Must(os.ReadFile(group + "/cgroup.procs"))))
	status := string(e2e.Must(os.ReadFile("/proc/" + pid + "/status")))
	var uid int
	_, rest, _ := strings.Cut(status, "\nUid:\t")
	if _, err := fmt.Sscan(rest, &uid); err != nil || uid < 65536 {
		t.Errorf("user %d, %v", uid, err)
	}
	for field, want := range map[string]string{"CapPrm": "0000000000000000", "CapEff": "0000000000000000", "NoNewPrivs": "1", "Seccomp": "2"} {
		if _, rest, _ := strings.Cut(status, "\n"+field+":\t"); !strings.HasPrefix(rest, want+"\n") {
			t.Errorf("%s is not %s:\n%s", field, want, status)
		}
	}
}

// TestE2EResizeRefused has PID 1 not find the new CPU: the instance goes on as before.
func TestE2EResizeRefused(t *testing.T) {
	i, console, group := planned(t, "cpus:hidden", nil)
	if err := i.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	console.Expect(t, "CPUS 1")
	hurried, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	for _, try := range []struct {
		ctx  context.Context
		want string
	}{
		{hurried, "the guest does not answer: context deadline exceeded"},
		{t.Context(), "the guest says: bringing CPU 1 online: no such file or directory"},
	} {
		began := time.Now()
		if err := i.Resize(try.ctx, &alloc.Plan{CPUs: alloc.CPUSet{0, 1}}); err == nil || err.Error() != try.want {
			t.Errorf("%v, want %s", err, try.want)
		}
		t.Logf("back after %s", time.Since(began).Round(time.Millisecond))
		for name, cpus := range affinity(t, group) {
			if cpus != "1" {
				t.Errorf("%s may run on CPUs %s", name, cpus)
			}
		}
	}
	if strings.Contains(console.String(), "CPUS 2") {
		t.Errorf("the guest has the CPU:\n%s", console)
	}
}

// TestE2EStartRefused checks that a plan that does not hold leaves nothing behind.
func TestE2EStartRefused(t *testing.T) {
	for name, test := range map[string]struct {
		change func(*loader.Config)
		want   string
	}{
		"no such node":          {func(c *loader.Config) { c.Plan.Memory[1].Node = 63 }, "cannot bind memory to host NUMA nodes"},
		"no huge pages":         {func(c *loader.Config) { c.Plan.PageSize = 1 << 30 }, "qemu-system-x86_64: "},
		"no such group":         {func(c *loader.Config) { c.Group += "/none" }, "no such file"},
		"a CPU of other groups": {func(c *loader.Config) { c.Plan.CPUs = alloc.CPUSet{8000} }, "pinning vCPU 0 to CPU 8000"},
	} {
		t.Run(name, func(t *testing.T) {
			i, _, group := planned(t, "report", test.change)
			err := i.Start(t.Context())
			if err == nil || !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("%v, want %q", err, test.want)
			}
			t.Log(err)
			if left, err := os.ReadFile(group + "/cgroup.procs"); len(left) > 0 {
				t.Errorf("left %q, %v", left, err)
			}
		})
	}
}

// TestE2EHugePages boots on huge pages of 2 MiB.
func TestE2EHugePages(t *testing.T) {
	const pool = "/sys/kernel/mm/hugepages/hugepages-2048kB/"
	before := strings.TrimSpace(string(e2e.Must(os.ReadFile(pool + "nr_hugepages"))))
	write(t, pool+"nr_hugepages", "512")
	t.Cleanup(func() { write(t, pool+"nr_hugepages", before) })
	i, console, _ := planned(t, "wait", func(c *loader.Config) { c.Plan.PageSize = 2 << 20 })
	if err := i.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	console.Expect(t, "WAITING")
	t.Logf("%s of 512 huge pages are free", strings.TrimSpace(string(e2e.Must(os.ReadFile(pool+"free_hugepages")))))
}
