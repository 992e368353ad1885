// SPDX-License-Identifier: Apache-2.0

package kconfig

import (
	"errors"
	"flag"
	"os"
	"path/filepath"
	"testing"
)

var update = flag.Bool("update", false, "rewrite testdata/*/want.txt")

// Each directory of testdata is a quirk: a tree, a request, and what the
// kernel's own conf (Linux 6.1, --allnoconfig with KCONFIG_ALLCONFIG) made of
// both. want.txt is what Check says of it.
func TestCheck(t *testing.T) {
	dirs, err := filepath.Glob("testdata/*/Kconfig")
	if err != nil || len(dirs) == 0 {
		t.Fatal(dirs, err)
	}
	for _, dir := range dirs {
		dir = filepath.Dir(dir)
		t.Run(filepath.Base(dir), func(t *testing.T) {
			got := ""
			if err := checkDir(t, dir); err != nil {
				if ce := (*CheckError)(nil); !errors.As(err, &ce) {
					t.Fatal(err)
				}
				got = err.Error() + "\n"
			}
			golden := filepath.Join(dir, "want.txt")
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			if want := string(read(t, golden)); got != want {
				t.Errorf("got\n%swant\n%s", got, want)
			}
		})
	}
}

func checkDir(t *testing.T, dir string) error {
	t.Helper()
	tree, err := ParseTree(os.DirFS(dir), "Kconfig", "x86")
	if err != nil {
		t.Fatal(err)
	}
	f, err := ParseFragment("request.config", read(t, filepath.Join(dir, "request.config")))
	if err != nil {
		t.Fatal(err)
	}
	r, err := Merge(f)
	if err != nil {
		t.Fatal(err)
	}
	c, err := ParseConfig("resolved.config", read(t, filepath.Join(dir, "resolved.config")))
	if err != nil {
		t.Fatal(err)
	}
	return Check(r, c, tree)
}

func read(t *testing.T, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return data
}
