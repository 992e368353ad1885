// SPDX-License-Identifier: Apache-2.0

package main

import (
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/tenon-build/tenon/testdata/debian"
	"github.com/tenon-build/tenon/testdata/e2e"
)

// sinceRE is what mortise says when the app runs.
var sinceRE = regexp.MustCompile(`the app runs \(since start: ([^)]+)\)`)

// cokernel compares how long the same app takes to run as a kernel beside a host and in QEMU.
// Each kernel has one emulated CPU below it: the host with mortise.ko is a guest of QEMU, the
// other host is this machine. The guest is booted when it is needed first, and idles while
// this machine has its turn.
//
// What 'mortise kill' takes is timed from here: it has the way to the guest and back in it.
func cokernel(j *job) []series {
	j.step("building mortise.ko")
	module := debian.Module(j)
	j.step("building the probe's bundle for a host beside which it runs")
	beside := e2e.CokernelProbe(j)
	j.step("building the probe's bundle for QEMU")
	alone := e2e.Probe(j)
	mortise := mortiseAt(j)
	var guest *debian.Guest
	inGuest := func(t e2e.T, args ...string) string {
		t.Helper()
		if guest == nil {
			g := (&debian.Machine{Small: true}).Boot(t)
			inside(t, g, "insmod", module, "allow_unsigned=1")
			guest = g
		}
		return inside(t, guest, slices.Concat(mortise, args)...)
	}
	here := func(t e2e.T, args ...string) string {
		t.Helper()
		o := e2e.Execute(e2e.Command(t, mortise[0], slices.Concat(mortise[1:], args)...))
		if o.Code != 0 {
			t.Fatalf("mortise %q: %s", args, o)
		}
		return o.Stderr
	}
	j.Cleanup(func() { // there is something only when a run did not end by itself
		_ = e2e.Execute(e2e.Command(j, mortise[0], slices.Concat(mortise[1:], []string{"gc"})...))
	})

	run := []string{"run", "--allow-unsigned", "--name", "bench"}
	once := append(slices.Clone(run), "--rm", "-e", "PROBE=exit:0")
	const size = "256MiB"
	return []series{{
		unit:   milliseconds,
		rounds: 5,
		what:   "from the start of an app kernel to its app, one emulated CPU each",
		subject: side{"mortise run, beside a host", []string{"qemu-system-x86_64"}, func(t e2e.T) sample {
			return since(t, inGuest(t, slices.Concat(once, []string{"--memory", size, beside})...))
		}},
		peers: []side{{"mortise run, in QEMU", []string{"qemu-system-x86_64"}, func(t e2e.T) sample {
			return since(t, here(t, slices.Concat(once, []string{alone})...))
		}}},
	}, {
		unit:   milliseconds,
		rounds: 5,
		what:   "'mortise kill', until " + size + " and two CPUs are the host's again",
		subject: side{"mortise kill, beside a host", []string{"qemu-system-x86_64"}, func(t e2e.T) sample {
			inGuest(t, slices.Concat(run, []string{"--detach", "-e", "PROBE=wait", "--memory", size, "--cpus", "2", beside})...)
			for deadline := time.Now().Add(time.Minute); !strings.Contains(inGuest(t, "logs", "bench"), "WAITING"); time.Sleep(100 * time.Millisecond) {
				if time.Now().After(deadline) {
					t.Fatalf("the app does not run: %s", inGuest(t, "ps"))
				}
			}
			began := time.Now()
			inGuest(t, "kill", "bench")
			took := sample(time.Since(began))
			inGuest(t, "rm", "bench")
			return took
		}},
	}}
}

// mortiseAt is the command line of mortise with a folder of its own, without a verb. It is
// the same on this machine and in a guest: /run, where mortise keeps instances, is another
// one there.
func mortiseAt(j *job) []string {
	dir := j.TempDir()
	config := e2e.WriteFile(j, filepath.Join(dir, "mortise.toml"), []byte("version = 1\n[qemu]\naccel = \"tcg\"\n"))
	args := []string{e2e.Program(j, "mortise"), "--root", filepath.Join(dir, "mortise"), "--config", config}
	return args
}

// inside runs a command in a guest and returns what it prints.
func inside(t e2e.T, g *debian.Guest, args ...string) string {
	t.Helper()
	r := g.Run(t, 2*time.Minute, debian.Command{Args: args})
	if r.Status != 0 {
		t.Fatalf("in the guest: %q: exit status %d: %s", args, r.Status, r.Output)
	}
	return r.Output
}

// since is what mortise says of an app's start.
func since(t e2e.T, output string) sample {
	t.Helper()
	m := sinceRE.FindStringSubmatch(output)
	if m == nil {
		t.Fatalf("mortise does not say when the app ran: %s", output)
	}
	d, err := time.ParseDuration(m[1])
	if err != nil {
		t.Fatal(err)
	}
	return sample(d)
}
