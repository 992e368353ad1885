// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package builder

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/tenon-build/tenon/testdata/e2e"
)

// TestE2ELarge builds, verifies and boots a large image, half of which can be compressed.
func TestE2ELarge(t *testing.T) {
	e2e.Probe(t) // so that its kernel is there
	mib := 256
	if e2e.Soak() {
		mib = 3 << 10
	}
	root := t.TempDir()
	if err := os.Mkdir(root+"/bin", 0o755); err != nil {
		t.Fatal(err)
	}
	compile := e2e.Command(t, "go", "build", "-trimpath", "-ldflags=-s -w", "-o", root+"/bin/probe", "github.com/tenon-build/tenon/testdata/probe")
	compile.Env = append(os.Environ(), "CGO_ENABLED=0")
	if o := e2e.Execute(compile); o.Code != 0 {
		t.Fatal(o)
	}
	random, page := rand.NewChaCha8([32]byte{}), bytes.Repeat([]byte("text of a page "), 1<<17)[:1<<20]
	for n := range mib / 64 {
		f, err := os.Create(fmt.Sprintf("%s/%d", root, n))
		if err != nil {
			t.Fatal(err)
		}
		for range 32 {
			_, err = io.CopyN(f, random, 1<<20)
			if err == nil {
				_, err = f.Write(page)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
	recipe := strings.Replace(string(e2e.Must(os.ReadFile(e2e.ProbeRecipe()))), "[claims]", "[app]\nentrypoint = [\"/bin/probe\"]\n\n[claims]", 1)
	file := e2e.WriteFile(t, filepath.Join(t.TempDir(), "large.toml"), []byte(recipe))
	path := filepath.Join(t.TempDir(), "large.tenon")

	cmd := exec.CommandContext(t.Context(), e2e.Program(t, "tenon"), "build", "-r", file, "--key", e2e.Keys(t)+"/signing.key", "--name", "large", "-o", path, "dir:"+root)
	o := e2e.Execute(cmd)
	if o.Code != 0 {
		t.Fatal(o)
	}
	peak := cmd.ProcessState.SysUsage().(*syscall.Rusage).Maxrss >> 10
	m := e2e.Inspect(t, path)
	t.Logf("%s\npeak memory %d MiB; initramfs %d MiB, at least %d MiB to boot", o.Stderr, peak, m.Initramfs.Size>>20, m.Claims.Memory.Min>>20)
	if peak > 128 {
		t.Errorf("the build took %d MiB of memory", peak)
	}
	if o := e2e.Tenon(t, "verify", path, "--cert", e2e.Keys(t)+"/ca.crt"); o.Code != 0 {
		t.Error(o)
	}
	run := e2e.Run(t, path)
	if run.Code != 0 {
		t.Fatal(run)
	}
	if r := e2e.ParseReport(t, run.Stdout); !strings.Contains(strings.Join(r.Kmsg, "\n"), fmt.Sprintf("sealed to the initramfs that is here: %d bytes", m.Initramfs.Size)) {
		t.Errorf("the kernel does not say that it has checked the initramfs: %q", r.Kmsg)
	}
}
