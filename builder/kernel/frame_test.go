// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"

	"github.com/tenon-build/tenon/builder/bundle/seal"
)

// fakeMake compresses the file "kernel" of the object tree, if that has changed, as kbuild does.
const fakeMake = `#!/bin/sh -e
for a; do case $a in O=*) cd "${a#O=}";; ZSTD=*) zstd=${a#ZSTD=};; esac; done
echo run >>runs
test -e kernel || { echo 'error: out of paper' >&2; exit 1; }
mkdir -p arch/x86/boot/compressed
test -e arch/x86/boot/compressed/vmlinux.bin.zst || cat kernel | sh -c "$zstd --ultra -22" >arch/x86/boot/compressed/vmlinux.bin.zst
`

func linkWith(t *testing.T, script string, kernel []byte) (dir string, err error) {
	t.Helper()
	bin, dir := t.TempDir(), t.TempDir()
	if err := os.WriteFile(filepath.Join(bin, "make"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	if kernel != nil {
		if err := os.WriteFile(filepath.Join(dir, "kernel"), kernel, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	k := kbuild{source: dir, objects: dir, jobs: 1, log: io.Discard}
	return dir, k.link(t.Context())
}

func TestLink(t *testing.T) {
	slot := append([]byte(seal.Magic), bytes.Repeat([]byte{0xff}, 40)...)
	for name, kernel := range map[string][]byte{
		"sealed":   append(append(make([]byte, 1<<20), slot...), bytes.Repeat([]byte("text "), 1<<18)...),
		"detached": bytes.Repeat([]byte("other text "), 1<<18),
	} {
		dir, err := linkWith(t, fakeMake, kernel)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		frame, err := os.ReadFile(filepath.Join(dir, compressed))
		if err != nil {
			t.Fatal(err)
		}
		z, err := zstd.NewReader(nil)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := z.DecodeAll(frame, nil); err != nil || !bytes.Equal(got, kernel) {
			t.Errorf("%s: %d bytes of %d, %v", name, len(got), len(kernel), err)
		}
		z.Close()
		if bytes.Contains(frame, slot) != bytes.Contains(kernel, slot) {
			t.Errorf("%s: the slot is compressed", name)
		}
		if runs, _ := os.ReadFile(filepath.Join(dir, "runs")); string(runs) != "run\nrun\n" {
			t.Errorf("%s: make ran %q", name, runs)
		}
	}
	if _, err := linkWith(t, "#!/bin/sh\n", nil); err != nil {
		t.Errorf("a kernel that asks for another compressor: %v", err)
	}
	if _, err := linkWith(t, fakeMake, nil); !errors.Is(err, ErrCompile) || !strings.Contains(err.Error(), "out of paper") {
		t.Errorf("got %v", err)
	}
	if _, err := linkWith(t, fakeMake, append(slot, slot...)); err == nil || !strings.Contains(err.Error(), "two slots") {
		t.Errorf("got %v", err)
	}
}
