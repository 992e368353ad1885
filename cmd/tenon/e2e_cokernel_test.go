// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package main

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/tenon-build/tenon/testdata/debian"
)

// beside does a test on a Debian host that runs kernels beside its own.
func beside(t *testing.T, m debian.Machine, f func(h *mortiseHost)) {
	t.Helper()
	module := debian.Module(t)
	if !debian.Inside() {
		bundle, _ := build(t, "-r", "../../testdata/recipes/cokernel.toml", "--name", "probe", image(t, nil, probeFiles...))
		t.Setenv(bundleEnv, bundle)
	}
	m.In(t, func() {
		if o := execute(exec.Command("insmod", module, "allow_unsigned=1")); o.code != 0 {
			t.Fatal(o)
		}
		f(newMortiseHost(t, os.Getenv(bundleEnv), true))
	})
}

func TestE2ECokernel(t *testing.T) {
	beside(t, debian.Machine{Small: true}, func(h *mortiseHost) {
		o := h.mortise("run", "--allow-unsigned", "--backend", "cokernel", "--name", "one", h.bundle)
		t.Log(o)
		if !strings.Contains(o.stdout, "REPORT") {
			t.Error(execute(exec.Command("dmesg")))
		}
	})
}
