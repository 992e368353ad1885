// SPDX-License-Identifier: Apache-2.0

package debian

import (
	"os"
	"path/filepath"
	"slices"

	"github.com/tenon-build/tenon/signer/modsig"
	"github.com/tenon-build/tenon/testdata/e2e"
)

// moduleEnv names the module in a guest, which does not build it again.
const moduleEnv = "TENON_MORTISE_KO"

// Module returns the path of mortise.ko, built for the kernel that guests boot, and signed
// by Authority. Outside of a guest it has to be called before In.
func Module(t e2e.T) string {
	t.Helper()
	if Inside() {
		return os.Getenv(moduleEnv)
	}
	headers, err := filepath.Glob("/lib/modules/*-amd64/build")
	if err != nil || len(headers) == 0 {
		t.Fatalf("no headers of Debian's package linux-headers-amd64, run 'make deps': %v", err)
	}
	return ModuleFor(t, slices.Max(headers), "KCFLAGS=-Werror")
}

// ModuleFor is as Module, for a kernel of which this is the prepared tree, with more
// arguments to make.
func ModuleFor(t e2e.T, tree string, args ...string) string {
	t.Helper()
	if Inside() {
		return os.Getenv(moduleEnv)
	}
	dir := t.TempDir()
	for _, args := range [][]string{
		{"-s", "-C", e2e.Path("."), "module", "MODULE=" + dir},
		append([]string{"-s", "-C", dir, "KDIR=" + tree}, args...),
	} {
		if out, err := e2e.Command(t, "make", args...).CombinedOutput(); err != nil {
			t.Fatalf("building mortise.ko: %v\n%s", err, out)
		}
	}
	path := filepath.Join(dir, "mortise.ko")
	built, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	signed, err := modsig.Sign(Authority(t), built)
	if err != nil {
		t.Fatal(err)
	}
	write(t, path, signed)
	t.Setenv(moduleEnv, path)
	return path
}
