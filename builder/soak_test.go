// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package builder

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/tenon-build/tenon/builder/bundle/seal"
	"github.com/tenon-build/tenon/builder/kernel"
	"github.com/tenon-build/tenon/kconfig"
	"github.com/tenon-build/tenon/loader/cokernel/guest"
	"github.com/tenon-build/tenon/testdata/debian"
	"github.com/tenon-build/tenon/testdata/e2e"
)

// TestSoakLinux612 compiles the check into a kernel of Linux 6.12's source, and fills in its slot.
func TestSoakLinux612(t *testing.T) {
	tarball := e2e.Must(filepath.Glob(debian.Package(t, "bookworm-backports", "linux-source-6.12") + "/usr/src/linux-source-6.12.tar.xz"))
	if len(tarball) != 1 {
		t.Fatal("the package has no source")
	}
	cache, err := kernel.OpenCache(t.Context(), kernel.CacheOptions{Dir: e2e.Cache()})
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
	parts, err := kconfig.ParseFragment("(test)", []byte("CONFIG_64BIT=y\nCONFIG_SMP=y\nCONFIG_BLK_DEV_INITRD=y\nCONFIG_KERNEL_ZSTD=y\nCONFIG_TENON_SEAL=y\n"))
	if err != nil {
		t.Fatal(err)
	}
	k, err := kernel.Build(t.Context(), cache, kernel.Request{
		Source: tree, Toolchain: tools, Fragments: []*kconfig.Fragment{parts}, Jobs: 2, Progress: func(int, int) {},
	})
	if err != nil {
		t.Fatal(err)
	}
	image := e2e.Must(os.Open(k.Path("bzImage")))
	defer image.Close()
	var sealed bytes.Buffer
	want := seal.Seal{Size: 1, Digest: seal.Digest{1}}
	if err := seal.Write(&sealed, image, e2e.Must(image.Stat()).Size(), want); err != nil {
		t.Fatal(err)
	}
	if got, err := seal.Read(bytes.NewReader(sealed.Bytes())); got != want {
		t.Fatalf("its slot says %v, %v", got, err)
	}
	t.Logf("Linux %s", k.Release)
}
