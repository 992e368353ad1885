// SPDX-License-Identifier: Apache-2.0

package alloc_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tenon-build/tenon/loader/alloc"
	"github.com/tenon-build/tenon/loader/alloc/alloctest"
)

func TestParseCPUs(t *testing.T) {
	for _, test := range []struct{ in, want, err string }{
		{"", "", ""},
		{"\n", "", ""},
		{"0-3,8\n", "0-3,8", ""},
		{"8,0,1,2,3,2-3", "0-3,8", ""},
		{"5-5", "5", ""},
		{"8191", "8191", ""},
		{"8192", "", `CPU list "8192": "8192" is beyond 8191`},
		{"99999999999999999999", "", "is beyond 8191"},
		{"3-1", "", `CPU list "3-1": the range 3-1 goes backwards`},
		{"1,,2", "", `"" is not a number`},
		{"1-", "", `"" is not a number`},
		{"-1", "", `"" is not a number`},
		{"+1", "", `"+1" is not a number`},
		{"0-31:2/4", "", `"31:2/4" is not a number`},
		{"0x1", "", `"0x1" is not a number`},
		{"1 ,2", "", `"1 " is not a number`},
		{"all", "", `"all" is not a number`},
	} {
		got, err := alloc.ParseCPUs(test.in)
		if got.String() != test.want || (err == nil) != (test.err == "") || err != nil && !strings.Contains(err.Error(), test.err) {
			t.Errorf("%q: got %s, %v, want %s, %s", test.in, got, err, test.want, test.err)
		}
	}
}

func topology(t testing.TB, m alloctest.Machine) *alloc.Topology {
	t.Helper()
	topo, err := alloc.Read(m.Kernel())
	if err != nil {
		t.Fatal(err)
	}
	return topo
}

// eight has the nodes 0-1,4-5 and 2-3,6-7; 0 and 4 are siblings.
var eight = alloctest.Machine{CPUs: 8, SMT: 2, Nodes: 2, NICs: 4, HugePages: 256, Memory: []int64{8 << 10}}

func TestPlan(t *testing.T) {
	cache := alloc.Holding{Owner: "cache", Plan: alloc.Plan{CPUs: alloc.CPUSet{2, 6}, Memory: []alloc.NodeMemory{{Node: 1, Bytes: 6 << 30}}, Devices: []string{"0000:01:00.0"}, Companions: []string{"0000:01:00.1"}}}
	held := alloc.Held{Instances: []alloc.Holding{cache}}
	reserved := alloc.Held{Host: alloc.Reserve{CPUs: alloc.CPUSet{3, 7}, Memory: 7 << 30, Devices: []string{"0000:02:00.1"}}}
	wideOf := func(r alloc.Request) alloc.Request { r.Bounds = wide; return r }
	offline := eight
	offline.Offline = alloc.CPUSet{5}
	for name, test := range map[string]struct {
		machine alloctest.Machine
		req     alloc.Request
		held    alloc.Held
		want    string // CPUs, idle siblings, memory, devices; or the error
		kind    error
	}{
		"one CPU holds its core":    {req: wideOf(alloc.Request{CPUs: 1}), want: "1 idle 5 [] [] []"},
		"the host keeps CPU 0":      {req: wideOf(alloc.Request{CPUs: 6}), want: "1-3,5-7 idle  [] [] []"},
		"one node where it fits":    {req: wideOf(alloc.Request{CPUs: 4, Memory: 1 << 30}), want: "2-3,6-7 idle  [{1 1073741824}] [] []"},
		"best fit":                  {req: wideOf(alloc.Request{CPUs: 2, Memory: 1 << 30}), want: "1,5 idle  [{0 1073741824}] [] []"},
		"memory decides":            {req: wideOf(alloc.Request{CPUs: 2, Memory: 7 << 30}), held: alloc.Held{Host: alloc.Reserve{Memory: 4 << 30}}, want: "2,6 idle  [{1 7516192768}] [] []"},
		"memory of two nodes":       {req: wideOf(alloc.Request{CPUs: 2, Memory: 9 << 30}), want: "2,6 idle  [{0 1610612736} {1 8053063680}] [] []"},
		"whole MiB":                 {req: wideOf(alloc.Request{CPUs: 2, Memory: 1}), want: "1,5 idle  [{0 1048576}] [] []"},
		"a node":                    {req: wideOf(alloc.Request{CPUs: 2, Node: new(1)}), want: "2,6 idle  [] [] []"},
		"no such node":              {req: wideOf(alloc.Request{CPUs: 2, Node: new(2)}), want: "the host has no node 2", kind: alloc.ErrHost},
		"a list":                    {req: wideOf(alloc.Request{CPUList: alloc.CPUSet{3}}), want: "3 idle 7 [] [] []"},
		"a list that splits":        {req: wideOf(alloc.Request{CPUList: alloc.CPUSet{3}, SplitCores: true}), want: "3 idle  [] [] []"},
		"list held":                 {req: wideOf(alloc.Request{CPUList: alloc.CPUSet{2, 3, 6}}), held: held, want: `CPUs 2,6 are held by "cache"`, kind: alloc.ErrTaken},
		"list of the host":          {req: wideOf(alloc.Request{CPUList: alloc.CPUSet{0}}), want: `CPU 0 is reserved for the host`, kind: alloc.ErrTaken},
		"list beyond":               {req: wideOf(alloc.Request{CPUList: alloc.CPUSet{7, 8, 9}}), want: `the host has no CPUs 8-9`, kind: alloc.ErrHost},
		"list offline":              {machine: offline, req: wideOf(alloc.Request{CPUList: alloc.CPUSet{1, 5}}), want: `CPU 5 is offline`, kind: alloc.ErrHost},
		"offline sibling":           {machine: offline, req: wideOf(alloc.Request{CPUs: 1}), want: "1 idle  [] [] []"},
		"list on another node":      {req: wideOf(alloc.Request{CPUList: alloc.CPUSet{1, 2}, Node: new(1)}), want: `CPU 1 is not on node 1`, kind: alloc.ErrRequest},
		"list and count":            {req: wideOf(alloc.Request{CPUList: alloc.CPUSet{1, 2}, CPUs: 3}), want: `3 CPUs are asked for, and 1-2 are listed`, kind: alloc.ErrRequest},
		"nothing":                   {req: wideOf(alloc.Request{}), want: `no CPU is asked for`, kind: alloc.ErrRequest},
		"sibling held":              {req: wideOf(alloc.Request{CPUList: alloc.CPUSet{3}}), held: alloc.Held{Instances: []alloc.Holding{{Owner: "web", Plan: alloc.Plan{CPUs: alloc.CPUSet{7}}}}}, want: `CPU 3 shares its core: CPU 7 is held by "web"`, kind: alloc.ErrTaken},
		"too many":                  {req: wideOf(alloc.Request{CPUs: 6}), held: held, want: `6 CPUs in whole cores are needed, 4 of 8 are free: CPUs 0,4 are reserved for the host, CPUs 2,6 are held by "cache"`, kind: alloc.ErrTaken},
		"more than the host has":    {req: wideOf(alloc.Request{CPUs: 7}), held: held, want: `7 CPUs in whole cores are needed, 4 of 8 are free: CPUs 0,4 are reserved for the host, CPUs 2,6 are held by "cache"`, kind: alloc.ErrHost},
		"too many on a node":        {req: wideOf(alloc.Request{CPUs: 4, Node: new(1)}), held: held, want: `4 CPUs in whole cores are needed on node 1, 2 of 4 are free: CPUs 2,6 are held by "cache"`, kind: alloc.ErrTaken},
		"memory held":               {req: wideOf(alloc.Request{CPUs: 1, Memory: 2 << 30, Node: new(1)}), held: held, want: `2048 MiB of memory are needed on node 1, 1536 MiB are free: 6144 MiB are held by "cache"`, kind: alloc.ErrTaken},
		"memory beyond":             {req: wideOf(alloc.Request{CPUs: 1, Memory: 32 << 30}), want: `32768 MiB of memory are needed, 15360 MiB are free`, kind: alloc.ErrHost},
		"memory reserved":           {req: wideOf(alloc.Request{CPUs: 1, Memory: 1 << 30, Node: new(0)}), held: reserved, want: `1024 MiB of memory are needed on node 0, 512 MiB are free`, kind: alloc.ErrHost},
		"huge pages":                {req: wideOf(alloc.Request{CPUs: 1, Memory: 3 << 20, PageSize: 2 << 20}), held: reserved, want: `2 idle 6 [{1 4194304}] [] []`},
		"huge pages short":          {req: wideOf(alloc.Request{CPUs: 1, Memory: 2 << 30, PageSize: 2 << 20}), want: `2048 MiB of huge pages of 2048 KiB are needed, 1024 MiB are free`, kind: alloc.ErrHost},
		"reserved by configuration": {req: wideOf(alloc.Request{CPUs: 2, Node: new(0)}), held: reserved, want: `0,4 idle  [] [] []`},
		"bounds of CPUs":            {req: alloc.Request{CPUs: 3, Bounds: alloc.Bounds{CPUs: alloc.Range{Min: 1, Max: 2}}}, want: `the claims are 1 to 2 CPUs, not 3`, kind: alloc.ErrBounds},
		"bounds of memory":          {req: alloc.Request{CPUs: 1, Memory: 1 << 30, Bounds: alloc.Bounds{CPUs: alloc.Range{Min: 1, Max: 2}, Memory: alloc.Range{Min: 2 << 30, Max: 3 << 30}}}, want: `the claims are 2048 MiB to 3072 MiB of memory, not 1024 MiB`, kind: alloc.ErrBounds},
		"no bounds":                 {req: alloc.Request{CPUs: 1}, want: `the claims are 0 to 0 CPUs, not 1`, kind: alloc.ErrBounds},
		"a device and its group":    {req: wideOf(alloc.Request{CPUs: 2, Devices: []alloc.DeviceRequest{{Address: "0000:02:00.0"}}}), want: `2,6 idle  [] [0000:02:00.0] [0000:02:00.1]`},
		"both of a group":           {req: wideOf(alloc.Request{CPUs: 1, Devices: []alloc.DeviceRequest{{Address: "0000:02:00.1"}, {Address: "0000:02:00.0"}}}), want: `2 idle 6 [] [0000:02:00.0 0000:02:00.1] []`},
		"group of the host":         {req: wideOf(alloc.Request{CPUs: 1, Devices: []alloc.DeviceRequest{{Address: "0000:02:00.0"}}}), held: reserved, want: `device 0000:02:00.0 is in IOMMU group 1 with 0000:02:00.1, which is reserved for the host`, kind: alloc.ErrTaken},
		"device held":               {req: wideOf(alloc.Request{CPUs: 1, Devices: []alloc.DeviceRequest{{Address: "0000:01:00.0"}}}), held: held, want: `device 0000:01:00.0 is held by "cache"`, kind: alloc.ErrTaken},
		"group in use":              {req: wideOf(alloc.Request{CPUs: 1, Devices: []alloc.DeviceRequest{{Address: "0000:03:00.0"}}}), want: `device 0000:03:00.0 is in IOMMU group 2 with 0000:03:00.1, which is used by the host's driver i40e`, kind: alloc.ErrTaken},
		"no such device":            {req: wideOf(alloc.Request{CPUs: 1, Devices: []alloc.DeviceRequest{{Address: "0000:09:00.0"}}}), want: `the host has no device "0000:09:00.0"`, kind: alloc.ErrHost},
		"local devices of a class":  {req: wideOf(alloc.Request{CPUs: 4, Devices: []alloc.DeviceRequest{{Class: "0200", Count: 1}}}), want: `2-3,6-7 idle  [] [0000:02:00.0] [0000:02:00.1]`},
		"devices short":             {req: wideOf(alloc.Request{CPUs: 1, Devices: []alloc.DeviceRequest{{Class: "02", Count: 5}}}), held: held, want: `5 devices of class 02 are needed, 4 are free: 0000:01:00.0 0000:01:00.1 held by "cache", 0000:03:00.0 0000:03:00.1 used by the host's driver i40e`, kind: alloc.ErrTaken},
		"devices outside":           {req: alloc.Request{CPUs: 1, Bounds: alloc.Bounds{CPUs: alloc.Range{Max: 1}}, Devices: []alloc.DeviceRequest{{Address: "0000:02:00.0"}}}, want: `no claim has the class of device 0000:02:00.0, 020000`, kind: alloc.ErrBounds},
		"too many devices":          {req: alloc.Request{CPUs: 1, Bounds: alloc.Bounds{CPUs: alloc.Range{Max: 1}, Devices: map[string]alloc.Range{"02": {Max: 1}}}, Devices: []alloc.DeviceRequest{{Class: "02", Count: 2}}}, want: `the claims are 0 to 1 devices of class 02, not 2`, kind: alloc.ErrBounds},
		"a class of letters":        {req: wideOf(alloc.Request{CPUs: 1, Devices: []alloc.DeviceRequest{{Class: "net", Count: 2}}}), want: `2 devices of class "net" are asked for: a class has up to 6 hexadecimal digits`, kind: alloc.ErrRequest},
		"grown":                     {req: wideOf(alloc.Request{CPUs: 4, Memory: 1 << 30, Keep: &alloc.Plan{CPUs: alloc.CPUSet{6}, Siblings: alloc.CPUSet{2}, Memory: []alloc.NodeMemory{{Node: 0, Bytes: 1 << 30}}}}), want: `2-3,6-7 idle  [{0 1073741824}] [] []`},
		"grown by its sibling":      {req: wideOf(alloc.Request{CPUs: 2, Keep: &alloc.Plan{CPUs: alloc.CPUSet{6}, Siblings: alloc.CPUSet{2}}}), want: `2,6 idle  [] [] []`},
		"shrunk to a core":          {req: wideOf(alloc.Request{CPUs: 2, Keep: &alloc.Plan{CPUs: alloc.CPUSet{2, 3, 6, 7}}}), want: `2,6 idle  [] [] []`},
		"shrunk":                    {req: wideOf(alloc.Request{CPUs: 1, Keep: &alloc.Plan{CPUs: alloc.CPUSet{3, 7}}}), want: `3 idle 7 [] [] []`},
	} {
		t.Run(name, func(t *testing.T) {
			if test.machine.CPUs == 0 {
				test.machine = eight
			}
			plan, err := topology(t, test.machine).Plan(test.req, test.held)
			got := ""
			if err != nil {
				got = err.Error()
			} else {
				got = fmt.Sprint(plan.CPUs, " idle ", plan.Siblings, " ", plan.Memory, " ", plan.Devices, " ", plan.Companions)
			}
			if got != test.want || !errors.Is(err, test.kind) {
				t.Errorf("got  %s, %v\nwant %s", got, errors.Unwrap(err), test.want)
			}
		})
	}
}

// Memory that was promised and is not taken yet is still counted as free by the kernel.
func TestResident(t *testing.T) {
	topo := topology(t, alloctest.Machine{CPUs: 4, Memory: []int64{8 << 10}})
	topo.Nodes[0].Free = 2 << 30
	for resident, want := range map[bool]int64{false: 1 << 30, true: 2 << 30} {
		held := alloc.Held{Instances: []alloc.Holding{{Owner: "cache", Resident: resident, Plan: alloc.Plan{Memory: []alloc.NodeMemory{{Node: 0, Bytes: 1 << 30}}}}}}
		if _, err := topo.Plan(alloc.Request{CPUs: 1, Memory: want, Bounds: wide}, held); err != nil {
			t.Errorf("resident %v: %v", resident, err)
		}
		if _, err := topo.Plan(alloc.Request{CPUs: 1, Memory: want + 1, Bounds: wide}, held); !errors.Is(err, alloc.ErrTaken) {
			t.Errorf("resident %v: got %v", resident, err)
		}
	}
}

// A caller writes hints from what is free.
func TestPlanErrorFree(t *testing.T) {
	_, err := topology(t, eight).Plan(alloc.Request{CPUList: alloc.CPUSet{2}, Bounds: wide}, alloc.Held{Instances: []alloc.Holding{{Owner: "cache", Plan: alloc.Plan{CPUs: alloc.CPUSet{2, 6}}}}})
	e := new(alloc.PlanError)
	if !errors.As(err, &e) {
		t.Fatal(err)
	}
	want := []alloc.NodeFree{{Node: 0, CPUs: alloc.CPUSet{1, 5}, Memory: 7680 << 20}, {Node: 1, CPUs: alloc.CPUSet{3, 7}, Memory: 7680 << 20}}
	if !reflect.DeepEqual(e.Free, want) || !slices.Equal(e.Holders, []string{"cache"}) {
		t.Errorf("got %+v", e)
	}
}

// The search finds the fewest nodes, as trying all sets of them does.
func TestFewestNodes(t *testing.T) {
	topo := topology(t, alloctest.Machine{CPUs: 128, SMT: 2, Nodes: 16, Memory: []int64{1 << 10, 9 << 10, 2 << 10, 0, 4 << 10}})
	for cpus := 2; cpus <= 126; cpus += 20 {
		for gib := int64(0); gib < 40; gib += 7 {
			plan, err := topo.Plan(alloc.Request{CPUs: cpus, Memory: gib << 30, Bounds: wide}, alloc.Held{})
			if err != nil {
				t.Fatal(err)
			}
			used := 0
			for _, n := range topo.Nodes {
				if len(n.CPUs.And(plan.CPUs)) > 0 || slices.ContainsFunc(plan.Memory, func(m alloc.NodeMemory) bool { return m.Node == n.ID }) {
					used++
				}
			}
			least := len(topo.Nodes)
			for mask := range 1 << len(topo.Nodes) {
				n, c, m := 0, 0, int64(0)
				for i, node := range topo.Nodes {
					if mask>>i&1 == 1 {
						n, c, m = n+1, c+len(node.CPUs), m+node.Free
					}
				}
				if mask&1 == 1 {
					c -= 2 // the host's core
				}
				if c >= cpus && m >= gib<<30 {
					least = min(least, n)
				}
			}
			if used > least {
				t.Fatalf("%d CPUs and %d GiB are on %d nodes, %d would do: %+v", cpus, gib, used, least, plan)
			}
		}
	}
}

func TestReadRefuses(t *testing.T) {
	for name, test := range map[string]struct{ file, data, want string }{
		"no CPU is online":      {"sys/devices/system/cpu/online", "\n", "no CPU is online"},
		"cores that overlap":    {"sys/devices/system/cpu/cpu1/topology/thread_siblings_list", "0-1\n", "CPU 0 has the siblings 0,4, and CPU 4 has 0,4"},
		"not its own sibling":   {"sys/devices/system/cpu/cpu1/topology/thread_siblings_list", "5\n", "CPU 1 is not a sibling of itself"},
		"a CPU on no node":      {"sys/devices/system/node/node0/cpulist", "0-1,4\n", "CPU 5 is on no node"},
		"distances of others":   {"sys/devices/system/node/node0/distance", "10\n", "1 distances for 2 nodes"},
		"a node without memory": {"sys/devices/system/node/node0/meminfo", "\n", "has no MemTotal"},
		"a node beyond":         {"sys/devices/system/node/online", "1024\n", "node 1024 is beyond 1023"},
		"a class of letters":    {"sys/bus/pci/devices/0000:01:00.0/class", "net\n", `class: "net" is not a number`},
	} {
		k := eight.Kernel()
		k.Put(test.file, test.data)
		_, err := alloc.Read(k)
		if name == "cores that overlap" {
			test.want = "has the siblings"
		}
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

func recording(t testing.TB, name string) []byte {
	t.Helper()
	f, err := os.Open("testdata/" + name + ".tar.gz")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if _, err := out.ReadFrom(z); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func replay(t testing.TB, data []byte) *alloc.Recording {
	t.Helper()
	rec, err := alloc.Replay(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	return rec
}

// A recording of a recording is the recording.
func TestRecordAgain(t *testing.T) {
	recordings := map[string][]byte{"two-cpus-cgroup-v1": recording(t, "two-cpus-cgroup-v1")}
	for name, m := range machines {
		var out bytes.Buffer
		if err := alloc.Record(m.Kernel(), &out); err != nil {
			t.Fatal(err)
		}
		recordings[name] = out.Bytes()
		want := topology(t, m)
		if got, err := alloc.Read(replay(t, out.Bytes())); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: got %+v, %v\nwant %+v", name, got, err, want)
		}
	}
	for name, data := range recordings {
		var out bytes.Buffer
		if err := alloc.Record(replay(t, data), &out); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(out.Bytes(), data) {
			t.Errorf("%s: is not the same again", name)
		}
	}
}

func TestRecordedMachine(t *testing.T) {
	rec := replay(t, recording(t, "two-cpus-cgroup-v1"))
	topo, err := alloc.Read(rec)
	if err != nil {
		t.Fatal(err)
	}
	if len(topo.CPUs) != 2 || len(topo.Nodes) != 1 || len(topo.Devices) != 6 || topo.Cpuset.Version != 1 || topo.CPUs[1].Core != 1 {
		t.Errorf("got %+v", topo)
	}
	if d := topo.Devices[0]; d.Address != "0000:00:00.0" || d.Class != 0x060000 || d.Vendor == 0 {
		t.Errorf("got %+v", d)
	}
	w := newWorld(t, "recorded", alloctest.FromRecording(rec))
	_, err = apply(w.host, "web", func([]alloc.Holding, *alloc.Plan) (*alloc.Plan, error) {
		return topo.Plan(alloc.Request{CPUs: 1, Memory: 1 << 30, Bounds: wide}, alloc.Held{})
	})
	if err != nil || w.kernel.Groups()["mortise-web"].String() != "1" {
		t.Fatal(w.kernel.Groups(), err)
	}
	w.check()
	if err := w.host.Release(context.Background(), "web"); err != nil {
		t.Fatal(err)
	}
	w.unchanged(w.before, "released")
	if err := rec.Mkdir("sys/fs/cgroup/cpuset/x"); err == nil {
		t.Error("a recording was written to")
	}
}

func TestReplayRefuses(t *testing.T) {
	type entries []tar.Header
	reg := func(name string) tar.Header { return tar.Header{Typeflag: tar.TypeReg, Name: name} }
	for name, test := range map[string]struct {
		in   entries
		want string
	}{
		"up":               {entries{reg("../etc/passwd")}, "not a clean relative name"},
		"absolute":         {entries{reg("/etc/passwd")}, "not a clean relative name"},
		"not clean":        {entries{reg("sys//x")}, "not a clean relative name"},
		"long":             {entries{reg(strings.Repeat("x", 257))}, "not a clean relative name"},
		"long link":        {entries{{Typeflag: tar.TypeSymlink, Name: "x", Linkname: strings.Repeat("x", 257)}}, "not a clean relative name"},
		"twice":            {entries{reg("x"), reg("x")}, "comes twice"},
		"a file, then dir": {entries{reg("x"), {Typeflag: tar.TypeDir, Name: "x/"}}, "comes twice"},
		"a dir, then file": {entries{reg("x/y"), reg("x")}, "comes twice"},
		"below a file":     {entries{reg("x"), reg("x/y")}, `"x" is not a directory`},
		"below a link":     {entries{{Typeflag: tar.TypeSymlink, Name: "x", Linkname: "/etc"}, reg("x/y/z")}, `"x" is not a directory`},
		"a device":         {entries{{Typeflag: tar.TypeChar, Name: "x"}}, "an entry of kind"},
		"a hard link":      {entries{reg("y"), {Typeflag: tar.TypeLink, Name: "x", Linkname: "y"}}, "an entry of kind"},
		"a large file":     {entries{{Typeflag: tar.TypeReg, Name: "x", Size: 1 << 20}}, "beyond the limits"},
	} {
		var in bytes.Buffer
		w := tar.NewWriter(&in)
		for _, h := range test.in {
			if err := w.WriteHeader(&h); err != nil {
				t.Fatal(err)
			}
			if _, err := w.Write(make([]byte, h.Size)); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := alloc.Replay(&in); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

func FuzzReplay(f *testing.F) {
	f.Add(recording(f, "two-cpus-cgroup-v1"))
	f.Fuzz(func(t *testing.T, data []byte) {
		rec, err := alloc.Replay(bytes.NewReader(data))
		if err != nil {
			return
		}
		topo, err := alloc.Read(rec)
		if err != nil {
			return
		}
		plan, err := topo.Plan(alloc.Request{CPUs: 1, Bounds: wide}, alloc.Held{})
		if err == nil && len(plan.CPUs) != 1 {
			t.Errorf("got %+v", plan)
		}
	})
}

func FuzzParseCPUs(f *testing.F) {
	f.Add("0-3,8\n")
	f.Fuzz(func(t *testing.T, s string) {
		got, err := alloc.ParseCPUs(s)
		if err != nil {
			return
		}
		again, err := alloc.ParseCPUs(got.String())
		if err != nil || !slices.Equal(again, got) || again.String() != got.String() || !slices.IsSorted(got) {
			t.Errorf("%q: %v, then %v, %v", s, got, again, err)
		}
	})
}

// full has 512 CPUs and 200 instances of one core each.
func full(t testing.TB) (*alloc.Topology, alloc.Held) {
	topo := topology(t, alloctest.Machine{CPUs: 512, SMT: 2, Nodes: 16, CachedCores: 8, NICs: 64})
	held := alloc.Held{}
	for i := range 200 {
		plan, err := topo.Plan(alloc.Request{CPUs: 2, Memory: 1 << 30, Bounds: wide}, held)
		if err != nil {
			t.Fatal(err)
		}
		held.Instances = append(held.Instances, alloc.Holding{Owner: fmt.Sprintf("app-%d", i), Plan: *plan})
	}
	return topo, held
}

func BenchmarkPlan(b *testing.B) {
	topo, held := full(b)
	for name, req := range map[string]alloc.Request{
		"one core":   {CPUs: 2, Memory: 1 << 30},
		"many nodes": {CPUs: 100, Memory: 40 << 30, Devices: []alloc.DeviceRequest{{Class: "02", Count: 8}}},
	} {
		req.Bounds = wide
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if _, err := topo.Plan(req, held); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// With 512 CPUs and 200 instances, a plan takes 5 ms at most; ten times as long is
// allowed here, for machines that do other things meanwhile.
func TestPlanTime(t *testing.T) {
	topo, held := full(t)
	best := time.Hour
	for range 5 {
		begin := time.Now()
		if _, err := topo.Plan(alloc.Request{CPUs: 100, Memory: 40 << 30, Bounds: wide}, held); err != nil {
			t.Fatal(err)
		}
		best = min(best, time.Since(begin))
	}
	if best > 50*time.Millisecond {
		t.Errorf("a plan takes %v", best)
	}
}
