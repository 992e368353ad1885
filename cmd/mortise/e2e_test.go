// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package main

import (
	"bytes"
	"debug/buildinfo"
	"debug/elf"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/tenon-build/tenon/testdata/e2e"
)

// modules are all that is linked into mortise, which runs as root: of what it needs
// bundles and registries (go-containerregistry, and what that needs), signatures
// (sigstore, pkcs7 and what they need), and a command line.
var modules = strings.Fields(`
	github.com/docker/cli github.com/docker/docker-credential-helpers github.com/docker/go-units
	github.com/google/go-containerregistry github.com/google/renameio/v2 github.com/klauspost/compress github.com/moby/sys/user
	github.com/opencontainers/go-digest github.com/opencontainers/image-spec github.com/pelletier/go-toml/v2
	github.com/secure-systems-lab/go-securesystemslib github.com/sigstore/protobuf-specs github.com/sigstore/sigstore
	github.com/sirupsen/logrus github.com/spf13/cobra github.com/spf13/pflag github.com/youmark/pkcs8 go.mozilla.org/pkcs7
	golang.org/x/crypto golang.org/x/mod golang.org/x/sync golang.org/x/sys golang.org/x/term
	google.golang.org/genproto/googleapis/api google.golang.org/protobuf`)

// The program is static, small, and linked from what is listed here.
func TestE2EBinary(t *testing.T) {
	path := e2e.Program(t, "mortise")
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if info.Size() > 14e6 {
		t.Errorf("it has %d bytes, at most 14 MB are wanted", info.Size())
	}
	built, err := buildinfo.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var linked []string
	for _, m := range built.Deps {
		linked = append(linked, m.Path)
	}
	if !slices.Equal(linked, modules) {
		t.Errorf("linked:\n%s\nlisted:\n%s", strings.Join(linked, "\n"), strings.Join(modules, "\n"))
	}
	program, err := elf.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer program.Close()
	for _, p := range program.Progs {
		if p.Type == elf.PT_INTERP || p.Type == elf.PT_DYNAMIC {
			t.Errorf("it is linked dynamically: %v", p.Type)
		}
	}
	t.Logf("%d bytes, %d modules", info.Size(), len(linked))
}

// systemd takes the unit, with the program where it is.
func TestE2EUnit(t *testing.T) {
	unit, err := os.ReadFile("mortise@.service")
	if err != nil {
		t.Fatal(err)
	}
	program := e2e.Program(t, "mortise")
	path := filepath.Join(t.TempDir(), "mortise@.service")
	if err := os.WriteFile(path, bytes.ReplaceAll(unit, []byte("/usr/bin/mortise"), []byte(program)), 0o644); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("systemd-analyze", "verify", "--man=no", strings.Replace(path, "@", "@cache", 1)).CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("%v: %s", err, out)
	}
	// Every flag that it uses is there.
	for line := range strings.Lines(string(unit)) {
		if _, command, ok := strings.Cut(line, "=/usr/bin/mortise "); ok {
			for _, word := range strings.Fields(command) {
				flag, _, _ := strings.Cut(word, "=")
				verb, _, _ := strings.Cut(command, " ")
				if help, _ := exec.Command(program, strings.TrimSpace(verb), "--help").CombinedOutput(); strings.HasPrefix(flag, "--") && !bytes.Contains(help, []byte(flag+" ")) {
					t.Errorf("'mortise %s' has no flag %s", verb, flag)
				}
			}
		}
	}
}
