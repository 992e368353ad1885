// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/tenon-build/tenon/builder/bundle"
	"github.com/tenon-build/tenon/builder/bundle/manifest"
	"github.com/tenon-build/tenon/cmd/internal/cli"
	"github.com/tenon-build/tenon/testdata/debian"
	"github.com/tenon-build/tenon/testdata/e2e"
	"github.com/tenon-build/tenon/testdata/testbundle"
)

// Firmware of the other kind lays memory below 1 MiB out otherwise, and leaves CPUs in
// other states.
func TestE2ECokernelUEFI4(t *testing.T) {
	runBeside(t, debian.Machine{Small: true, Firmware: debian.UEFI}, 3)
}

func TestE2ECokernelUEFI8(t *testing.T) { runBeside(t, debian.Machine{Firmware: debian.UEFI}, 4) }

// runBeside runs the probe once, with so many CPUs.
func runBeside(t *testing.T, m debian.Machine, cpus int) {
	beside(t, m, func(h *besideHost) {
		o := h.mortise("run", "--allow-unsigned", "--backend", "cokernel", "--cpus", fmt.Sprint(cpus), "--rm", h.bundle)
		if r := e2e.ParseReport(t, o.Stdout); o.Code != 0 || r.CPUs != cpus {
			t.Errorf("%d CPUs: %s", r.CPUs, o)
		}
	})
}

const lockdownPolicy = `version = 1

[[identity]]
name = "release"
certificates = "ca.crt"
bundles = ["*"]

[[identity]]
name = "whom the kernel does not know"
certificates = "other.crt"
bundles = ["*"]
`

// lockdownSite makes a folder of bundles, and of a policy that takes them all: what is
// refused then, the host's kernel refuses. It returns the path of the signed bundle.
func lockdownSite(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	good := func(args ...string) {
		t.Helper()
		if o := e2e.Tenon(t, args...); o.Code != 0 {
			t.Fatal(o)
		}
	}
	good("key", "create", dir+"/release", "--profile", "release", "--issuer", e2e.Path("testdata/judge"), "--name", "release")
	keys := map[string]string{"signed": dir + "/release/signing.key", "other": e2e.Keys(t) + "/signing.key"}
	for _, name := range []string{"signed", "other", "unsigned"} {
		path := filepath.Join(dir, name+".tenon")
		if err := os.CopyFS(path, os.DirFS(e2e.CokernelProbe(t))); err != nil {
			t.Fatal(err)
		}
		if key := keys[name]; key != "" {
			good("sign", path, "--key", key)
		}
	}
	// It is refused before anybody sees that there is nothing in its initramfs.
	kernel := e2e.Must(os.ReadFile(e2e.LayerFile(t, e2e.CokernelProbe(t), bundle.KernelType)))
	web, _, err := testbundle.Write(t.Context(), t.TempDir(), kernel, "empty", func(m *manifest.Manifest) {
		m.Name, m.Target, m.Claims.Devices = "probe", "cokernel", nil
	})
	if err == nil {
		err = os.Rename(web, dir+"/detached.tenon")
	}
	if err != nil {
		t.Fatal(err)
	}
	good("sign", dir+"/detached.tenon", "--key", keys["signed"])
	e2e.WriteFile(t, dir+"/policy.toml", []byte(lockdownPolicy))
	e2e.WriteFile(t, dir+"/ca.crt", e2e.Must(os.ReadFile(e2e.Path("testdata/judge/ca.crt"))))
	e2e.WriteFile(t, dir+"/other.crt", e2e.Must(os.ReadFile(e2e.Keys(t)+"/ca.crt")))
	return dir + "/signed.tenon"
}

// TestE2ECokernelLockdown: a host with Secure Boot runs what a key in db has signed, and
// nothing else, whatever mortise is told.
func TestE2ECokernelLockdown(t *testing.T) {
	if os.Getenv(bundleEnv) == "" {
		t.Setenv(bundleEnv, lockdownSite(t))
	}
	beside(t, debian.Machine{Small: true, Firmware: debian.UEFISecure}, func(h *besideHost) {
		if text := string(e2e.Must(os.ReadFile("/sys/kernel/security/lockdown"))); !strings.Contains(text, "[integrity]") {
			t.Fatalf("the host is not locked down: %q", text)
		}
		dir := filepath.Dir(h.bundle)
		policy := []string{"--policy", dir + "/policy.toml"}
		for _, test := range []struct {
			bundle string
			args   []string
			code   int
			stderr string
		}{
			{"signed", append(policy, "-e", "PROBE=exit:42"), 42, ""},
			{"unsigned", []string{"--allow-unsigned"}, cli.ExitRun, "refused by the host's kernel: its statement is not signed, and the module takes no such bundle here"},
			{"other", policy, cli.ExitRun, "refused by the host's kernel: no key in the kernel's keyrings made the signature of its statement"},
			{"detached", policy, cli.ExitRun, "refused by the host's kernel: it is detached, and the kernel is locked down"},
		} {
			o := h.mortise(append(append([]string{"run", "--rm", "--backend", "cokernel"}, test.args...), dir+"/"+test.bundle+".tenon")...)
			t.Logf("%s: %s", test.bundle, o)
			errors := regexp.MustCompile("(?m)^mortise: error: .*$").FindAllString(o.Stderr, -1)
			if o.Code != test.code || !strings.Contains(o.Stderr, test.stderr) || (test.stderr == "") != (len(errors) == 0) || len(errors) > 1 {
				t.Errorf("%s: want %d and %q: %s", test.bundle, test.code, test.stderr, o)
			}
			if strings.Contains(o.Stderr, "runs as root") {
				t.Errorf("%s: that is no hint: %s", test.bundle, o)
			}
			h.unchanged(test.bundle)
		}
		h.good("create", "--name", "later", "--backend", "cokernel", "--allow-unsigned", dir+"/unsigned.tenon")
		if o := h.mortise("start", "later"); o.Code != cli.ExitRefused {
			t.Error(o)
		}
		h.good("rm", "later")
	})
}
