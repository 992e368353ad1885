// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package builder

import (
	"path/filepath"
	"testing"

	"github.com/tenon-build/tenon/builder/bundle/manifest"
	"github.com/tenon-build/tenon/builder/kernel"
	"github.com/tenon-build/tenon/loader/cokernel/guest"
	"github.com/tenon-build/tenon/recipes"
	"github.com/tenon-build/tenon/testdata/debian"
	"github.com/tenon-build/tenon/testdata/e2e"
)

// TestSoakLinux612 compiles a sealed kernel from Linux 6.12's source.
func TestSoakLinux612(t *testing.T) {
	tarball := e2e.Must(filepath.Glob(debian.Package(t, "bookworm-backports", "linux-source-6.12") + "/usr/src/linux-source-6.12.tar.xz"))
	if len(tarball) != 1 {
		t.Fatal("the package has no source")
	}
	cache, err := kernel.OpenCache(t.Context(), e2e.Cache(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer cache.Close()
	source, err := kernel.OpenSource(t.Context(), cache, tarball[0])
	if err != nil {
		t.Fatal(err)
	}
	tree, err := withDrivers(t.Context(), cache, source, kernel.Driver{Name: guest.Name, Files: guest.Files()})
	if err != nil {
		t.Fatal(err)
	}
	tools, err := kernel.FindToolchain(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	r, err := recipes.Open("static")
	if err != nil {
		t.Fatal(err)
	}
	f := Form{Target: manifest.QEMU, Sealed: true}
	parts, err := Tailor(r, f)
	if err != nil {
		t.Fatal(err)
	}
	k, err := kernel.Build(t.Context(), cache, kernel.Request{
		Source: tree, Toolchain: tools, Fragments: parts, CommandLine: f.commandLine(), Sealed: true, Jobs: 2, Progress: func(int, int) {},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("Linux %s in %s", k.Release, k.Dir)
}
