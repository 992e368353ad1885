// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package main

import (
	"os"
	"regexp"
	"slices"
	"testing"
	"time"

	"github.com/tenon-build/tenon/testdata/debian"

	"github.com/tenon-build/tenon/testdata/e2e"
)

// TestBenchCokernel compares how long the same app takes to run as a kernel beside a host
// and in QEMU. Each has one emulated CPU of this machine below it: the host with cokernel
// is a guest, the other one is this machine. 'make bench' runs it.
func TestBenchCokernel(t *testing.T) {
	const peerEnv = "TENON_BENCH_QEMU"
	if !debian.Inside() {
		h := newMortiseHost(t, e2e.Probe(t), false)
		t.Setenv(peerEnv, median(h.starts()).String())
	}
	beside(t, debian.Machine{Small: true}, func(h *besideHost) {
		ours, peer := median(h.starts("--memory", "256MiB")), e2e.Must(time.ParseDuration(os.Getenv(peerEnv)))
		t.Logf("bench: from start to the app, beside a host: %v, in QEMU: %v, ratio: %.2f", ours, peer, ours.Seconds()/peer.Seconds())
		var back []time.Duration
		for range benchRounds {
			if o := h.start("x", "wait", "--memory", "256MiB", "--cpus", "2"); o.Code != 0 {
				h.Fatal(o)
			}
			h.await("x", "WAITING")
			began := time.Now()
			h.good("kill", "x")
			back = append(back, time.Since(began))
			h.good("rm", "x")
		}
		t.Logf("bench: 'mortise kill', until 256 MiB and two CPUs are the host's again: %v", median(back))
	})
}

const benchRounds = 5

// starts says how long an app took to run since its machine was started, each time.
func (h *mortiseHost) starts(args ...string) (out []time.Duration) {
	h.Helper()
	for range benchRounds {
		o := h.mortise(append(append([]string{"run", "--rm", "--allow-unsigned", "-e", "PROBE=exit:0"}, args...), h.bundle)...)
		m := regexp.MustCompile(`since start: ([^)]+)\)`).FindStringSubmatch(o.Stderr)
		if o.Code != 0 || m == nil {
			h.Fatal(o)
		}
		out = append(out, e2e.Must(time.ParseDuration(m[1])))
	}
	return out
}

func median(all []time.Duration) time.Duration {
	slices.Sort(all)
	return all[len(all)/2]
}
