// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"text/tabwriter"

	"github.com/tenon-build/tenon/loader/alloc"
)

func TestErrors(t *testing.T) {
	missing := t.TempDir() + "/missing"
	for _, test := range []struct {
		name, args string
		code       int
		want       string
	}{
		{"no command", "", 2, "no command given"},
		{"unknown command", "build x", 2, `unknown command "build" for "mortise"`},
		{"nobody trusted", "verify x", 2, "nothing says whom to trust"},
		{"two who are trusted", "verify x --cert a --policy b", 2, "[cert policy] were all set"},
		{"no policy", "verify x --policy " + missing, 1, "reading policy: open " + missing + ": no such file"},
		{"two recordings", "info --record a --replay b", 2, "[record replay] were all set"},
		{"unknown format", "info --format yaml", 2, `--format "yaml" is neither text nor json`},
		{"no recording", "info --replay " + missing, 1, "recording: open " + missing + ": no such file"},
		{"recording that is none", "info --replay main_test.go", 1, `recording "main_test.go": `},
		{"recording over a folder", "info --record .", 1, `writing ".": exists and is not a regular file`},
		{"recording into no folder", "info --record " + missing + "/x", 1, missing + "/"},
		{"policy that is a device", "verify x --policy /dev/null", 1, "/dev/null: not a regular file"},
	} {
		var stdout, stderr bytes.Buffer
		a := newApp(&stdout, &stderr)
		code := a.Run(t.Context(), a.newRootCmd(), strings.Fields(test.args))
		line, _, _ := strings.Cut(stderr.String(), "\n")
		if code != test.code || !strings.HasPrefix(line, "mortise: error: ") || !strings.Contains(line, test.want) {
			t.Errorf("%s: %d, %s", test.name, code, stderr.String())
		}
	}
}

// What is recorded of this host shows the same host again, and nothing held.
func TestInfo(t *testing.T) {
	dir := t.TempDir()
	invoke := func(args ...string) (string, string, int) {
		var stdout, stderr bytes.Buffer
		a := newApp(&stdout, &stderr)
		code := a.Run(t.Context(), a.newRootCmd(), args)
		return stdout.String(), stderr.String(), code
	}
	if _, stderr, code := invoke("info", "--record", dir+"/host.tar"); code != 0 || stderr != "" {
		t.Fatalf("%d, %s", code, stderr)
	}
	var here, again info
	for i, args := range [][]string{{"--root", dir}, {"--replay", dir + "/host.tar"}} {
		into := []*info{&here, &again}[i]
		stdout, stderr, code := invoke(append([]string{"info", "--format", "json"}, args...)...)
		if err := json.Unmarshal([]byte(stdout), into); err != nil || code != 0 || stderr != "" {
			t.Fatalf("%q: %d, %v, %s", args, code, err, stderr)
		}
		for n := range into.Topology.Nodes { // what is free changes all the time
			into.Topology.Nodes[n].Free = 0
		}
	}
	if len(here.Topology.CPUs) == 0 || !reflect.DeepEqual(here.Topology, again.Topology) || len(again.Held) != 0 {
		t.Errorf("%+v, then %+v", here, again)
	}
}

// A host of which much is held, as people see it.
func TestInfoText(t *testing.T) {
	i := info{
		Topology: &alloc.Topology{
			CPUs: []alloc.CPU{
				{ID: 0, Siblings: alloc.NewCPUSet(0, 2), Online: true}, {ID: 1, Core: 1, Siblings: alloc.NewCPUSet(1, 3), Online: true, Isolated: true},
				{ID: 2, Siblings: alloc.NewCPUSet(0, 2), Online: true}, {ID: 3, Core: 1, Siblings: alloc.NewCPUSet(1, 3), Online: true},
				{ID: 4, Node: -1, Package: -1, Core: -1},
			},
			Nodes:   []alloc.Node{{CPUs: alloc.NewCPUSet(0, 1, 2, 3), Total: 4 << 30, Free: 1 << 30, HugePages: []alloc.HugePages{{Size: 2 << 20, Total: 8, Free: 3}}}},
			Devices: []alloc.Device{{Address: "0000:03:00.0", Class: 0x020000, Vendor: 0x8086, Device: 0x1533, Driver: "igb", Group: 7}, {Address: "0000:03:00.1", Class: 0x020000, Node: -1, Group: -1}},
			Cpuset:  alloc.Cpuset{Version: 2, Dir: "sys/fs/cgroup"},
		},
		Held:     []alloc.Holding{{Owner: "web", Plan: alloc.Plan{CPUs: alloc.NewCPUSet(1), Siblings: alloc.NewCPUSet(3), Devices: []string{"0000:03:00.0"}}}},
		Backends: []backend{{Name: "qemu", Reason: "not installed"}},
	}
	var b bytes.Buffer
	w := tabwriter.NewWriter(&b, 0, 8, 1, ' ', 0)
	i.print(w)
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"0 0 0 0,2 online -", "0 0 1 1,3 isolated (isolcpus) web", "- - - 4 offline -", "0 0-3 4GiB 1GiB 3 of 8 of 2MiB",
		"0000:03:00.0 020000 8086:1533 0 7 igb web", "0000:03:00.1 020000 0000:0000 - - -",
		"cpusets of cgroup v2, below /sys/fs/cgroup", "back end qemu: not usable: not installed",
	} {
		if !strings.Contains(strings.Join(strings.Fields(b.String()), " "), want) {
			t.Errorf("no %q in\n%s", want, b.String())
		}
	}
}
