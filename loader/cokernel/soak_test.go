// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package cokernel

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/tenon-build/tenon/builder/kernel"
	"github.com/tenon-build/tenon/kconfig"
	"github.com/tenon-build/tenon/kconfig/fragments"
	"github.com/tenon-build/tenon/testdata/debian"
)

// TestSoakSanitized makes random calls on a host whose kernel has KASAN and lockdep. 'make
// soak' runs it: its kernel takes long to build, and to boot.
func TestSoakSanitized(t *testing.T) {
	tree := ""
	m := debian.Machine{Small: true, Args: []string{"-m", "4096"}}
	if !debian.Inside() {
		cache, err := kernel.OpenCache(t.Context(), kernel.CacheOptions{Dir: os.Getenv("TENON_CACHE")})
		ok(t, "cache", err)
		defer cache.Close()
		source, err := kernel.OpenSource(t.Context(), cache, "debian:6.1")
		ok(t, "source", err)
		tools, err := kernel.FindToolchain(t.Context())
		ok(t, "tools", err)
		var parts []*kconfig.Fragment
		for _, name := range []string{"base", "serial"} {
			f, err := fragments.Open(name)
			ok(t, name, err)
			parts = append(parts, f)
		}
		data, err := os.ReadFile("../../testdata/debian/sanitized.config")
		ok(t, "read", err)
		f, err := kconfig.ParseFragment("testdata/debian/sanitized.config", data)
		ok(t, "parse", err)
		k, err := kernel.Build(t.Context(), cache, kernel.Request{
			Source: source, Toolchain: tools, Fragments: append(parts, f), Jobs: 2, Progress: func(int, int) {},
		})
		ok(t, "build", err)
		m.Kernel = k.Path("bzImage")

		tree = t.TempDir()
		config, err := os.ReadFile(k.Path("config"))
		ok(t, "read", err)
		ok(t, "write", os.WriteFile(filepath.Join(tree, ".config"), config, 0o644))
		if out, err := exec.Command("make", "-C", source.Dir, "O="+tree, "ARCH=x86_64", "-j2", "modules_prepare").CombinedOutput(); err != nil {
			t.Fatalf("preparing the tree: %v\n%s", err, out)
		}
	}
	fuzz(t, m, debian.ModuleFor(t, tree, "KBUILD_MODPOST_WARN=1"))
}
