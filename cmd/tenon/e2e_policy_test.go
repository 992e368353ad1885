// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tenon-build/tenon/cmd/internal/cli"
	"github.com/tenon-build/tenon/testdata/e2e"
)

// sockets runs a program under strace and counts the sockets that it makes.
func sockets(t *testing.T, program string, args ...string) (int, e2e.Outcome) {
	t.Helper()
	trace := filepath.Join(t.TempDir(), "trace")
	o := e2e.Execute(exec.CommandContext(t.Context(), "strace", append([]string{"-f", "-o", trace, "-e", "trace=socket,openat", program}, args...)...))
	data := string(mustRead(t, trace))
	if !strings.Contains(data, "openat(") {
		t.Fatalf("strace saw nothing: %s\n%s", o, data)
	}
	return strings.Count(data, "socket("), o
}

// TestE2ENoSocket: what is verified on this machine is verified without the
// network, with every part of a policy, whatever the verdict is.
func TestE2ENoSocket(t *testing.T) {
	s := newSite(t)
	policy, state := filepath.Join(s.dir, "policy.toml"), t.TempDir()
	programs := []string{e2e.Program(t, "tenon"), filepath.Join(filepath.Dir(e2e.Program(t, "tenon")), "mortise")}
	for _, test := range []struct {
		code int
		args []string
	}{
		{0, []string{"verify", s.bundle, "--policy", policy, "--state", state}},
		{0, []string{"verify", s.bundle, "--cert", s.dir + "/release/ca.crt"}},
		{0, []string{"verify", s.bundle, "--key", s.dir + "/release/signing.pub"}},
		{cli.ExitRefused, []string{"verify", s.bundle, "--cert", s.dir + "/security/ca.crt"}},
	} {
		for _, program := range programs {
			n, o := sockets(t, program, test.args...)
			if o.Code != test.code || n != 0 {
				t.Errorf("%s %q: %d sockets, %s", program, test.args, n, o)
			}
		}
	}
	// That it could be seen:
	for _, program := range programs {
		if n, o := sockets(t, program, "verify", "127.0.0.1:1/web:1", "--policy", policy); o.Code != cli.ExitFailed || n == 0 {
			t.Errorf("%s, registry: %d sockets, %s", program, n, o)
		}
	}
}

// TestE2ERevocationList: openssl says of a list what we say.
func TestE2ERevocationList(t *testing.T) {
	s := newSite(t)
	s.revoke(t, 0, "release/signing.crt", "--reason", "laptop stolen")
	const check = `sed '/-----BEGIN PKCS7-----/,$d' revoked > list
openssl cms -verify -binary -inform PEM -in revoked -content list -CAfile security/ca.crt -purpose any -out /dev/null`
	if o := e2e.Execute(exec.Command("sh", "-ec", check)); o.Code != 0 {
		t.Error(o)
	}
	s.write(t, "revoked", strings.Replace(string(mustRead(t, "revoked")), "stolen", "stole!", 1))
	if o := e2e.Execute(exec.Command("sh", "-ec", check)); o.Code == 0 {
		t.Error("openssl takes a list that was changed")
	}
}

// TestE2EState: what ran once does not run in an older version.
func TestE2EState(t *testing.T) {
	state := t.TempDir()
	run := func(version string) e2e.Outcome {
		bundle, _ := e2e.Build(t, "-r", e2e.ProbeRecipe(), "--name", "probe", "--bundle-version", version, "--key", e2e.Keys(t)+"/signing.key", e2e.Image(t, nil, e2e.ProbeFiles...))
		return e2e.Tenon(t, "run", "--accel", "tcg", "-e", "PROBE=exit:42", "--cert", e2e.Keys(t)+"/ca.crt", "--state", state, bundle)
	}
	if o := run("1.4.0"); o.Code != 42 {
		t.Fatal(o)
	}
	if data, err := os.ReadFile(state + "/trust.json"); err != nil || !strings.Contains(string(data), `"probe":"1.4.0"`) {
		t.Errorf("%s, %v", data, err)
	}
	if o := run("1.3.9"); o.Code != cli.ExitRun || !strings.Contains(o.Stderr, `version "1.3.9" is older than what this host has seen: "1.4.0"`) || o.Stdout != "" {
		t.Error(o)
	}
}
