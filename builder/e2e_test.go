// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package builder

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/tenon-build/tenon/builder/bundle/manifest"
	"github.com/tenon-build/tenon/builder/kernel"
	"github.com/tenon-build/tenon/loader/cokernel/guest"
	"github.com/tenon-build/tenon/recipes"
	"github.com/tenon-build/tenon/testdata/e2e"
)

// TestE2EFragments resolves every recipe for every target, sealed and
// detached, against the real tree: no symbol may be dropped or changed.
func TestE2EFragments(t *testing.T) {
	dir := t.TempDir()
	if err := os.Symlink(filepath.Join(e2e.Cache(), "source"), filepath.Join(dir, "source")); err != nil {
		t.Fatal(err)
	}
	cache, err := kernel.OpenCache(t.Context(), kernel.CacheOptions{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	defer cache.Close()
	source, err := kernel.OpenSource(t.Context(), cache, "debian:6.1")
	if err != nil {
		t.Fatal(err)
	}
	tools, err := kernel.FindToolchain(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	tree, err := withDrivers(t.Context(), cache, source, kernel.Driver{Name: guest.Name, Files: guest.Files()})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range recipes.Names() {
		r, err := recipes.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, target := range manifest.Targets {
			for _, sealed := range []bool{true, false} {
				f := Form{target, sealed, r.Claims.Device("net") != nil}
				parts, err := Tailor(r, f)
				if err != nil {
					t.Errorf("%s for %s: %v", name, target, err)
					continue
				}
				_, err = kernel.Resolve(t.Context(), cache, kernel.Request{
					Source: tree, Toolchain: tools, Fragments: parts, CommandLine: f.commandLine(), Sealed: sealed,
				})
				if err != nil {
					t.Errorf("%s for %s, sealed %v: %v", name, target, sealed, err)
				}
			}
		}
	}
}
