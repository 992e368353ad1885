// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tenon-build/tenon/signer/modsig"
)

// A module is signed in place with its mode kept, or into another file.
func TestSignModule(t *testing.T) {
	keys := filepath.Join(t.TempDir(), "keys")
	if r := invoke(t, "key", "create", keys); r.code != 0 {
		t.Fatal(r)
	}
	module := append([]byte("\x7fELF\x02\x01\x01"), make([]byte, 100)...)
	module[16] = 1
	dir := t.TempDir()
	path, link, other := filepath.Join(dir, "m.ko"), filepath.Join(dir, "link.ko"), filepath.Join(dir, "other.ko")
	if err := os.WriteFile(path, module, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, 0o640); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("m.ko", link); err != nil {
		t.Fatal(err)
	}
	for out, args := range map[string][]string{other: {"--module", path, "-o", other}, link: {"--module", link}} {
		if r := invoke(t, append([]string{"sign", "--key", keys + "/signing.key"}, args...)...); r.code != 0 || strings.TrimSpace(r.stdout) != out {
			t.Fatal(r)
		}
		signed := mustRead(t, out)
		if _, err := modsig.Verify(signed); err != nil || !bytes.HasPrefix(signed, module) {
			t.Errorf("%s: %v", out, err)
		}
		if info, err := os.Stat(out); err != nil || info.Mode() != 0o640 {
			t.Errorf("%s: %v, %v", out, info, err)
		}
	}
	if info, err := os.Lstat(link); err != nil || info.Mode().Type() != os.ModeSymlink {
		t.Errorf("the link became %v, %v", info, err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 3 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}
